// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A network that exists already, used as it is: an operator's VNIC for the guest, an address of
//! this host beside it. Nothing is made, so nothing is undone.
//!
//! Whoever makes an etherstub and VNICs of its own describes them in the same way, as a
//! [`LinkNetwork`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};

use crate::host::command;
use crate::ui::{Failure, Outcome};
use crate::vm::hv::Link;
use crate::vm::monitor::LinkNetwork;

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

/// Looks the network up.
///
/// # Errors
/// When there is no such link, or no address of this host beside it.
pub fn existing(wanted: &Existing) -> Outcome<LinkNetwork> {
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
    if !is_name(link) {
        return Err(Failure::input("this is no link's name")
            .fact("link", link)
            .because(
                "a link's name has at most 31 letters, digits, `_` or `.`, and ends in a digit",
            )
            .hint("`dladm show-vnic` lists the links of this zone"));
    }
    let mac = hardware_address(link)?;
    let host = host_address(link, guest, wanted.host)?;
    Ok(LinkNetwork { link: Link { name: link.clone(), mtu: mtu(link) }, mac, guest, host })
}

/// A name that the kernel has for a link (dladm(8)): in particular, no option of a command.
fn is_name(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    (1..=31).contains(&name.len())
        && name.chars().all(is_part)
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.ends_with(|c: char| c.is_ascii_digit())
}

/// The link's own hardware address: the kernel gives the guest no other link's frames.
fn hardware_address(link: &str) -> Outcome<[u8; 6]> {
    let failed = |failure: Failure| {
        failure
            .fact("link", link)
            .hint("`dladm show-vnic` lists the VNICs of this zone")
            .hint(format!("make one: `dladm create-vnic -t -l LINK {link}`"))
    };
    let text = command::run("dladm", &["show-vnic", "-p", "-o", "macaddress", link])
        .map_err(|failure| failed(failure.within("the link's hardware address is not known")))?;
    parse_mac(text.trim()).ok_or_else(|| {
        failed(Failure::build("the link has no Ethernet address"))
            .fact("dladm", format!("{:?}", text.trim()))
    })
}

/// Six groups of hexadecimal digits; dladm leaves leading zeros out.
fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let groups: Vec<u8> = text
        .split(':')
        .map(|group| match group.len() {
            1 | 2 => u8::from_str_radix(group, 16).ok(),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let mac: [u8; 6] = groups.try_into().ok()?;
    // A group address is nobody's own, nor is none at all.
    (mac != [0; 6] && mac[0] & 1 == 0).then_some(mac)
}

/// The largest packet of the link, where dladm says so.
fn mtu(link: &str) -> Option<u16> {
    let answer = command::run("dladm", &["show-linkprop", "-c", "-o", "value", "-p", "mtu", link]);
    match answer {
        Ok(text) => text.trim().parse().ok().filter(|mtu| *mtu >= 68),
        Err(failure) => {
            tracing::debug!("the MTU of {link} is not known: {failure}");
            None
        }
    }
}

/// This host's address on the guest's network, at which the answer files are served.
fn host_address(link: &str, guest: IpAddr, said: Option<IpAddr>) -> Outcome<IpAddr> {
    let help = |failure: Failure| {
        failure
            .fact("guest", guest)
            .hint(
                "give this zone an address on the guest's network, on a VNIC of its own: \
                 `dladm create-vnic -t -l LINK dhcp0`, `ipadm create-if -t dhcp0`, \
                 `ipadm create-addr -t -T static -a local=ADDRESS/24 dhcp0/a`",
            )
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
