// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A VNIC of illumos, as `dladm` tells it.

use crate::host::command;
use crate::ui::{Failure, Outcome};

/// How a zone gets an address beside its guest's.
pub(super) const ADDRESS: &str = "give this zone an address on the guest's network, on a VNIC of its own: \
     `dladm create-vnic -t -l LINK dhcp0`, `ipadm create-if -t dhcp0`, \
     `ipadm create-addr -t -T static -a local=ADDRESS/24 dhcp0/a`";

/// The link's hardware address, and its MTU where dladm says it.
///
/// # Errors
/// When there is no such link.
pub(super) fn look(link: &str) -> Outcome<([u8; 6], Option<u16>)> {
    if !is_name(link) {
        return Err(Failure::input("this is no link's name")
            .fact("link", link)
            .because(
                "a link's name has at most 31 letters, digits, `_` or `.`, and ends in a digit",
            )
            .hint("`dladm show-vnic` lists the links of this zone"));
    }
    Ok((hardware_address(link)?, mtu(link)))
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_dladm_prints_them() {
        assert_eq!(parse_mac("2:8:20:a:b:c"), Some([2, 8, 0x20, 0xa, 0xb, 0xc]));
        assert_eq!(parse_mac("02:08:20:AC:e9:16"), Some([2, 8, 0x20, 0xac, 0xe9, 0x16]));
        for text in [
            "",
            "--",
            "2:8:20:a:b",
            "2:8:20:a:b:c:d",
            "2:8:20:a:b:100",
            "1:0:0:0:0:0",
            "0:0:0:0:0:0",
        ] {
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
}
