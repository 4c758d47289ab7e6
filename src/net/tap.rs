// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A tap of Linux, as `/sys/class/net` tells it.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::ui::{Failure, Outcome};

const NETWORK: &str = "/sys/class/net";
/// Of an interface's flags: its wire is a file with Ethernet frames (`linux/if_tun.h`).
const IFF_TAP: u32 = 2;

/// How a host gets an address beside its guest's.
pub(super) fn address(link: &str) -> String {
    format!(
        "give the tap, or the bridge that it is a port of, an address on the guest's network: as \
         root, `ip address add ADDRESS/24 dev {link} && ip link set {link} up`"
    )
}

/// The hardware address of the guest on this tap, and the MTU.
///
/// # Errors
/// When there is no such tap.
pub(super) fn look(link: &str) -> Outcome<([u8; 6], Option<u16>)> {
    look_below(Path::new(NETWORK), link)
}

fn look_below(network: &Path, link: &str) -> Outcome<([u8; 6], Option<u16>)> {
    let failed = |why: String| {
        Failure::input("the machine cannot be plugged into this link")
            .fact("link", format!("{link:?}"))
            .because(why)
            .hint("`ip -d link show type tun` lists this host's taps")
            .hint(format!("make one: as root, `ip tuntap add dev {link} mode tap user $USER`"))
    };
    if link.is_empty() || link.starts_with('.') || link.contains('/') {
        return Err(failed("no interface can have this name".into()));
    }
    let place = network.join(link);
    if !place.exists() {
        return Err(failed("there is no interface of this name".into()));
    }
    let flags = fs::read_to_string(place.join("tun_flags")).unwrap_or_default();
    let flags = flags.trim().trim_start_matches("0x");
    if !u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & IFF_TAP != 0) {
        return Err(failed("it is no tap".into()));
    }
    let mtu = fs::read_to_string(place.join("mtu")).ok();
    let mtu = mtu.and_then(|text| text.trim().parse().ok()).filter(|mtu| *mtu >= 68);
    Ok((guest_mac(link), mtu))
}

/// A tap's own address is the host's; the guest's is made from the link's name, so that a DHCP
/// server can know it. Locally administered.
fn guest_mac(link: &str) -> [u8; 6] {
    let digest = Sha256::digest(link.as_bytes());
    let byte = |at: usize| digest.get(at).copied().unwrap_or_default();
    [0x02, 0x49, 0x4d, byte(0), byte(1), byte(2)]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn taps_are_told_from_other_interfaces() {
        let dir = tempfile::tempdir().unwrap();
        for (name, flags) in
            [("tap0", Some("0x1002\n")), ("tun0", Some("0x1001\n")), ("eth0", None)]
        {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("mtu"), "1400\n").unwrap();
            if let Some(flags) = flags {
                fs::write(dir.path().join(name).join("tun_flags"), flags).unwrap();
            }
        }
        let (mac, mtu) = look_below(dir.path(), "tap0").unwrap();
        assert_eq!(mtu, Some(1400));
        assert_eq!((mac[0] & 3, mac), (2, guest_mac("tap0")), "one host's own, always the same");
        assert_ne!(mac, guest_mac("tap1"));
        for (name, why) in [
            ("tun0", "no tap"),
            ("eth0", "no tap"),
            ("tap1", "no interface of this name"),
            ("../tap0", "can have this name"),
            ("", "can have this name"),
        ] {
            let text = look_below(dir.path(), name).unwrap_err().to_string();
            assert!(text.contains(why) && text.contains("ip tuntap add"), "{text}");
        }
    }
}
