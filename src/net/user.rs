// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! QEMU's user-mode network as the guest sees it (facts: QEMU `docs/system/devices/net.rst`).

use std::net::Ipv4Addr;

/// Where the guest reaches services bound to the host's loopback address; also its gateway.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The name server that QEMU forwards to the host's.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// The address that DHCP gives the guest.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// Length of the network's prefix.
pub const PREFIX: u8 = 24;
