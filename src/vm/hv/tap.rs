// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A tap of Linux: a network interface of the host whose wire is a file (`linux/if_tun.h`).
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::sync::Arc;

use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::abi::Plain;
use super::node::{Node, calls, is, number_calls};
use crate::ui::{Failure, Outcome};

const NODE: &str = "/dev/net/tun";
const IFF_UP: u16 = 1;
const IFF_TAP: u16 = 2;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
/// Bytes of a name with its NUL.
const NAME: usize = 16;

/// An interface's name and flags (`struct ifreq`).
#[repr(C)]
#[derive(Clone, Copy)]
struct Interface {
    name: [u8; NAME],
    flags: u16,
    rest: [u8; 22],
}

// SAFETY: arrays of integers, and an integer.
unsafe impl Plain for Interface {}

calls! {
    TUNSETIFF: Interface = 0x4004_54ca;
    TUNSETVNETHDRSZ: c_int = 0x4004_54d8;
    SIOCGIFFLAGS: Interface = 0x8913;
    SIOCSIFFLAGS: Interface = 0x8914;
}

number_calls! {
    TUNSETOFFLOAD = SET_OFFLOAD;
}

/// `TUNSETOFFLOAD`, which a running monitor must be allowed to make.
pub const SET_OFFLOAD: u32 = 0x4004_54d0;

/// What may be left to do with a frame that comes out of a tap: `TUN_F_*`.
pub mod leave {
    /// Its checksum.
    pub const CHECKSUM: usize = 1;
    /// Cutting a packet of TCP over IPv4.
    pub const TCP4: usize = 2;
    /// Cutting a packet of TCP over IPv6.
    pub const TCP6: usize = 4;
}

/// An open tap. Each read and write is one frame after its header of 12 bytes.
pub struct TapNode(Node);

impl TapNode {
    /// Opens the tap of that name, or makes it for as long as it is open. It is up, and leaves
    /// nothing to do with frames.
    ///
    /// # Errors
    /// When there is none and this user may not make it, it is another's or in use, or there are
    /// no taps here.
    pub fn open(name: &str) -> Outcome<Self> {
        let mut interface = Interface::zeroed();
        let is_fit = !name.is_empty() && !name.contains([' ', '/', '%', ':', '\0']);
        match interface.name.get_mut(..name.len()) {
            Some(room) if is_fit && name.len() < NAME => room.copy_from_slice(name.as_bytes()),
            _ => {
                return Err(Failure::input("no network interface can have this name")
                    .fact("link", format!("{name:?}"))
                    .hint("a name has up to 15 characters and none of ` /%:`"));
            }
        }
        let node = Node::open(NODE, OFlag::O_NONBLOCK).map_err(|error| no_node(name, error))?;
        // Kernels give the flags back, in another field's place: a copy is theirs.
        interface.flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
        node.send(&TUNSETIFF, interface).map_err(|error| not_taken(name, error))?;
        let failed = |error| {
            Failure::build("the tap does not do what a machine needs")
                .because(error)
                .fact("link", name)
        };
        node.send(&TUNSETVNETHDRSZ, 12).map_err(failed)?;
        node.number(&TUNSETOFFLOAD, 0).map_err(failed)?;
        bring_up(interface).map_err(|error| {
            Failure::build("the tap is down, and cannot be brought up")
                .because(error)
                .fact("link", name)
                .hint(format!("as root: `ip link set {name} up`"))
        })?;
        Ok(Self(node))
    }

    /// The file whose reads and writes are frames.
    pub fn file(&self) -> &Arc<File> {
        self.0.file()
    }

    /// What frames may leave to do from now on, of [`leave`].
    ///
    /// # Errors
    /// When this kernel cannot leave that.
    pub fn set_offload(&self, leave: usize) -> io::Result<()> {
        self.0.number(&TUNSETOFFLOAD, leave).map(drop)
    }
}

/// Sets an interface up unless it is.
fn bring_up(mut interface: Interface) -> io::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    let node = Node::of(File::from(socket));
    node.exchange(&SIOCGIFFLAGS, &mut interface)?;
    if interface.flags & IFF_UP != 0 {
        return Ok(());
    }
    interface.flags |= IFF_UP;
    node.send(&SIOCSIFFLAGS, interface)
}

fn no_node(name: &str, error: io::Error) -> Failure {
    let hint = if is(&error, libc::EACCES) || is(&error, libc::EPERM) {
        "let this user read and write it: as root, `chmod 666 /dev/net/tun`"
    } else {
        "taps exist on Linux: as root, `modprobe tun`; in a container, pass the device in"
    };
    Failure::build("there is no tap for the machine")
        .because(error)
        .fact("device", NODE)
        .fact("link", name)
        .hint(hint)
}

fn not_taken(name: &str, error: io::Error) -> Failure {
    let failure = Failure::build("the machine cannot have this tap").fact("link", name);
    let hint = match error.raw_os_error() {
        Some(libc::EBUSY) => {
            "another process has it open, such as a virtual machine: stop that, or name another tap"
                .to_owned()
        }
        Some(libc::EPERM) => format!(
            "there is none of this name, or it is another user's: as root, `ip tuntap add dev \
             {name} mode tap user $USER && ip link set {name} up`"
        ),
        Some(libc::EINVAL) => format!(
            "there is an interface of this name that is no plain tap, or one with several queues: \
             see `ip -d link show {name}`"
        ),
        _ => format!("see `ip -d link show {name}`"),
    };
    failure.because(error).hint(hint)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_interface_has_are_refused() {
        for name in ["", "sixteen-letters-", "a/b", "a b", "tap%d", "a\0b", "eth0:1"] {
            let failure = TapNode::open(name).err().unwrap();
            assert!(failure.summary().contains("can have this name"), "{failure}");
        }
    }

    #[test]
    fn failures_say_what_to_do() {
        let of = |errno| io::Error::from_raw_os_error(errno);
        for (failure, words) in [
            (not_taken("tap7", of(libc::EPERM)), "ip tuntap add dev tap7 mode tap"),
            (not_taken("tap7", of(libc::EBUSY)), "another process has it open"),
            (not_taken("eth0", of(libc::EINVAL)), "no plain tap"),
            (no_node("tap7", of(libc::ENOENT)), "modprobe tun"),
            (no_node("tap7", of(libc::EACCES)), "chmod 666"),
        ] {
            assert!(failure.to_string().contains(words), "{failure}");
        }
    }
}
