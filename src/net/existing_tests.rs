// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

#![allow(clippy::unwrap_used)]

use super::*;

fn wanted(nic: &str, guest: Option<&str>) -> Existing {
    Existing { nic: nic.into(), guest: guest.map(|text| text.parse().unwrap()), host: None }
}

#[test]
fn what_is_missing_is_asked_for_by_its_flag() {
    let text = existing(&wanted("vm0", None), Hypervisor::Bhyve).unwrap_err().to_string();
    assert!(text.contains("--guest-address") && text.contains("vm0"), "{text}");
    let text =
        existing(&wanted("-x", Some("10.0.0.2")), Hypervisor::Bhyve).unwrap_err().to_string();
    assert!(text.contains("no link's name") && text.contains("dladm show-vnic"), "{text}");
    let text = existing(&wanted("nosuchlink0", Some("10.0.0.2")), Hypervisor::Bhyve)
        .unwrap_err()
        .to_string();
    assert!(text.contains("nosuchlink0") && text.contains("dladm create-vnic"), "{text}");
}

#[test]
fn the_host_is_where_the_route_to_the_guest_begins() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    // A packet to oneself comes from oneself: such a guest is none.
    assert_eq!(towards(ip("127.0.0.1")).unwrap(), ip("127.0.0.1"));
    let refused = |guest: &str, host: Option<&str>| {
        host_address(Hypervisor::Bhyve, "vm0", ip(guest), host.map(ip)).unwrap_err().to_string()
    };
    let text = refused("127.0.0.1", None);
    assert!(
        text.contains("cannot reach this host") && text.contains("ipadm create-addr"),
        "{text}"
    );
    let text = refused("10.0.0.2", Some("fe80::1"));
    assert!(text.contains("two kinds"), "{text}");
    // An address of documentation (RFC 5737) is nobody's.
    let text = refused("192.0.2.7", Some("192.0.2.1"));
    assert!(text.contains("does not have that address"), "{text}");
    assert!(text.contains("192.0.2.1") && text.contains("--http-address"), "{text}");
}
