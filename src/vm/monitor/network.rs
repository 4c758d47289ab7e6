// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What a machine's network interface is plugged into, and who is where on that network.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use super::passt;
use crate::ui::Outcome;
use crate::vm::child::Process;
use crate::vm::hv::Link;

/// Locally administered; there is one machine on each network in user mode.
const MAC: [u8; 6] = [0x02, 0x49, 0x4d, 0x47, 0x00, 0x01];

/// A link of the host, whose frames the kernel carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkNetwork {
    /// The guest's link.
    pub link: Link,
    /// The link's hardware address, which the guest must have.
    pub mac: [u8; 6],
    /// The guest's address.
    pub guest: IpAddr,
    /// This host's address beside it.
    pub host: IpAddr,
}

/// The network of a driver's machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Network {
    /// In user mode by passt, one for each machine.
    User,
    /// A link.
    Link(LinkNetwork),
}

/// What one machine is plugged into.
pub(super) enum Plugged {
    /// A running passt.
    User(passt::Network),
    /// A link, and how its ports are reached.
    Link(LinkNetwork, Vec<(u16, SocketAddr)>),
}

impl Network {
    /// Makes what one machine needs, with these ports of the guest to be reached.
    pub(super) async fn plug(
        &self,
        run_dir: &Path,
        guest_ports: &[u16],
        leash: Option<&Path>,
    ) -> Outcome<Plugged> {
        match self {
            Self::User => passt::start(run_dir, guest_ports, leash).await.map(Plugged::User),
            Self::Link(link) => {
                let reach = |port: &u16| (*port, SocketAddr::new(link.guest, *port));
                let ports = guest_ports.iter().map(reach).collect();
                Ok(Plugged::Link(link.clone(), ports))
            }
        }
    }

    /// Programs that serve the monitor.
    pub(super) fn programs(&self) -> &[&'static str] {
        match self {
            Self::User => passt::NAMES,
            Self::Link(_) => &[],
        }
    }

    /// Where services for the guest bind.
    pub(super) fn host(&self) -> IpAddr {
        match self {
            Self::User => Ipv4Addr::LOCALHOST.into(),
            Self::Link(link) => link.host,
        }
    }

    /// The same as the guest sees it.
    pub(super) fn host_for_guest(&self) -> IpAddr {
        match self {
            Self::User => passt::HOST.into(),
            Self::Link(link) => link.host,
        }
    }
}

impl Plugged {
    /// The interface's address.
    pub(super) fn mac(&self) -> [u8; 6] {
        match self {
            Self::User(_) => MAC,
            Self::Link(link, _) => link.mac,
        }
    }

    /// Where the guest's ports are reached; and the process that carries the frames, if one does.
    pub(super) fn into_parts(self) -> (Vec<(u16, SocketAddr)>, Option<Process>) {
        match self {
            Self::User(network) => (network.ports, Some(network.process)),
            Self::Link(_, ports) => (ports, None),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn on_a_link_the_guest_is_reached_where_it_is() {
        let [guest, host] = [[10, 0, 0, 7], [10, 0, 0, 1]].map(IpAddr::from);
        let link = Link { name: "vm0".into(), mtu: Some(1500) };
        let network = Network::Link(LinkNetwork { link, mac: [2, 8, 0x20, 1, 2, 3], guest, host });
        assert_eq!((network.host(), network.host_for_guest()), (host, host));
        assert!(network.programs().is_empty(), "nothing is started");
        let dir = tempfile::tempdir().unwrap();
        let plugged = network.plug(dir.path(), &[22, 80], None).await.unwrap();
        assert_eq!(plugged.mac(), [2, 8, 0x20, 1, 2, 3]);
        let (ports, process) = plugged.into_parts();
        assert_eq!(ports, [22, 80].map(|port| (port, SocketAddr::new(guest, port))));
        assert!(process.is_none());
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "nothing is made");
    }

    #[test]
    fn in_user_mode_services_are_on_loopback() {
        assert!(Network::User.host().is_loopback());
        assert_eq!(Network::User.host_for_guest(), IpAddr::from([10, 0, 2, 2]));
        assert!(Network::User.programs().contains(&"passt"));
    }
}
