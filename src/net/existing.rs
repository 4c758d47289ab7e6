// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A network that exists already, used as it is: an operator's link for the guest, an address of
//! this host beside it. Nothing is made, so nothing is undone.
//!
//! Whoever makes an etherstub and VNICs of its own, or a bridge and a tap, describes them in the same
//! way, as a [`LinkNetwork`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};

use super::{tap, vnic};
use crate::ui::{Failure, Outcome};
use crate::vm::hv::Link;
use crate::vm::monitor::{Hypervisor, LinkNetwork};

/// What the user says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    /// The guest's link.
    pub nic: String,
    /// The address that the guest will have.
    pub guest: Option<IpAddr>,
    /// This host's address on the guest's network; found out when it is not said.
    pub host: Option<IpAddr>,
}

/// Looks the network up: a VNIC of illumos for bhyve, a tap of Linux for KVM.
///
/// # Errors
/// When there is no such link, or no address of this host beside it.
pub fn existing(wanted: &Existing, hypervisor: Hypervisor) -> Outcome<LinkNetwork> {
    let link = &wanted.nic;
    let Some(guest) = wanted.guest else {
        return Err(Failure::input("the guest's address on its link is not known")
            .fact("link", link)
            .because(
                "the build reaches the guest there by SSH; whoever gives it must give it \
                      always the same one",
            )
            .hint(
                "say it with `--guest-address ADDRESS`: what the network's DHCP server gives \
                   to the link's hardware address, or what the answer file sets",
            ));
    };
    let (mac, mtu) = match hypervisor {
        Hypervisor::Bhyve => vnic::look(link)?,
        Hypervisor::Kvm => tap::look(link)?,
    };
    let host = host_address(hypervisor, link, guest, wanted.host)?;
    Ok(LinkNetwork { link: Link { name: link.clone(), mtu }, mac, guest, host })
}

/// This host's address on the guest's network, at which the answer files are served.
fn host_address(
    hypervisor: Hypervisor,
    link: &str,
    guest: IpAddr,
    said: Option<IpAddr>,
) -> Outcome<IpAddr> {
    let remedy = match hypervisor {
        Hypervisor::Bhyve => vnic::ADDRESS.to_owned(),
        Hypervisor::Kvm => tap::address(link),
    };
    let help = |failure: Failure| {
        failure
            .fact("guest", guest)
            .hint(&remedy)
            .hint("or say which one it is with `--http-address ADDRESS`")
    };
    let host = match said {
        Some(host) => host,
        None => towards(guest).map_err(|error| {
            help(Failure::build("this host has no way to the guest's address").because(error))
        })?,
    };
    if host == guest || host.is_loopback() || host.is_unspecified() {
        return Err(help(Failure::input("the guest cannot reach this host at that address"))
            .fact("host", host)
            .fact("link", link));
    }
    if host.is_ipv4() != guest.is_ipv4() {
        return Err(
            help(Failure::input("guest and host have addresses of two kinds")).fact("host", host)
        );
    }
    // Whoever serves there binds it in the same way.
    TcpListener::bind((host, 0)).map_err(|error| {
        help(Failure::build("this host does not have that address").because(error))
            .fact("host", host)
    })?;
    Ok(host)
}

/// The address that this host would speak to another one from. Nothing is sent.
fn towards(other: IpAddr) -> io::Result<IpAddr> {
    /// Any; the discard service's.
    const PORT: u16 = 9;
    let any: IpAddr = match other {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((other, PORT))?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
#[path = "existing_tests.rs"]
mod tests;
