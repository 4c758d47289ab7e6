// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

#![allow(clippy::unwrap_used)]

use super::*;

fn wanted(nic: &str, guest: Option<&str>) -> Existing {
    Existing { nic: nic.into(), guest: guest.map(|text| text.parse().unwrap()), host: None }
}

#[test]
fn addresses_are_read_as_dladm_prints_them() {
    assert_eq!(parse_mac("2:8:20:a:b:c"), Some([2, 8, 0x20, 0xa, 0xb, 0xc]));
    assert_eq!(parse_mac("02:08:20:AC:e9:16"), Some([2, 8, 0x20, 0xac, 0xe9, 0x16]));
    for text in
        ["", "--", "2:8:20:a:b", "2:8:20:a:b:c:d", "2:8:20:a:b:100", "1:0:0:0:0:0", "0:0:0:0:0:0"]
    {
        assert_eq!(parse_mac(text), None, "{text}");
    }
}

#[test]
fn names_of_links_are_told_from_options() {
    for name in ["vm0", "net0", "images_a.b12"] {
        assert!(is_name(name), "{name}");
    }
    for name in ["", "vm", "-p0", "0", "vm 0", "vm/0", "vm0;reboot1", &"v0".repeat(16)] {
        assert!(!is_name(name), "{name}");
    }
}

#[test]
fn what_is_missing_is_asked_for_by_its_flag() {
    let text = existing(&wanted("vm0", None)).unwrap_err().to_string();
    assert!(text.contains("--guest-address") && text.contains("vm0"), "{text}");
    let text = existing(&wanted("-x", Some("10.0.0.2"))).unwrap_err().to_string();
    assert!(text.contains("no link's name") && text.contains("dladm show-vnic"), "{text}");
    let text = existing(&wanted("nosuchlink0", Some("10.0.0.2"))).unwrap_err().to_string();
    assert!(text.contains("nosuchlink0") && text.contains("dladm create-vnic"), "{text}");
}

#[test]
fn the_host_is_where_the_route_to_the_guest_begins() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    // A packet to oneself comes from oneself: such a guest is none.
    assert_eq!(towards(ip("127.0.0.1")).unwrap(), ip("127.0.0.1"));
    let refused = |guest: &str, host: Option<&str>| {
        host_address("vm0", ip(guest), host.map(ip)).unwrap_err().to_string()
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
