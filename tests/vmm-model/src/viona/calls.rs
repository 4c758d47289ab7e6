// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The calls.

use std::sync::Arc;

use super::link::Link;
use super::ring::{Layout, RINGS};
use super::{Doorbell, Viona};
use crate::abi::{self, put, u32_at, u64_at};
use crate::config::config;
use crate::zone::Node;
use crate::{Answer, Errno, lock, vm, zone};

const INVALID: Errno = Errno(libc::EINVAL);
const VERSION_1: u64 = 1 << 32;
const GUEST_CSUM: u64 = 1 << 1;
const GUEST_TSO4: u64 = 1 << 7;
const MRG_RXBUF: u64 = 1 << 15;
const NOTIFY_ON_EMPTY: u64 = 1 << 24;
const INDIRECT: u64 = 1 << 28;
/// MAC and STATUS, which old kernels offer although the program has to provide them.
const PROGRAMS: u64 = 1 << 5 | 1 << 16;

/// What the kernel offers. The links here do not compute checksums.
fn offered() -> u64 {
    let always = GUEST_CSUM | GUEST_TSO4 | MRG_RXBUF | NOTIFY_ON_EMPTY | INDIRECT;
    if config().viona >= 6 { always } else { always | PROGRAMS }
}

/// Answers a call.
///
/// # Errors
/// Those of the kernel.
pub(crate) fn call(viona: &Viona, number: u32, scalar: usize, bytes: &mut [u8]) -> Answer {
    match number {
        abi::VNA_IOC_VERSION => return Ok(config().viona.cast_signed()),
        abi::VNA_IOC_CREATE => return create(viona, bytes),
        abi::VNA_IOC_DELETE => {
            viona.delete();
            return Ok(0);
        }
        _ => {}
    }
    let link = viona.link()?;
    if link.vm.is_ending() {
        return Err(Errno(libc::ENXIO));
    }
    match number {
        abi::VNA_IOC_RING_INIT
        | abi::VNA_IOC_RING_INIT_MODERN
        | abi::VNA_IOC_RING_RESET
        | abi::VNA_IOC_RING_KICK
        | abi::VNA_IOC_RING_PAUSE
        | abi::VNA_IOC_RING_SET_MSI
        | abi::VNA_IOC_RING_INTR_CLR => rings(&link, number, scalar, bytes),
        abi::VNA_IOC_INTR_POLL | abi::VNA_IOC_INTR_POLL_MQ => poll(&link, number, bytes),
        abi::VNA_IOC_GET_FEATURES => {
            put(bytes, 0, &offered().to_le_bytes());
            Ok(0)
        }
        abi::VNA_IOC_SET_FEATURES => set_features(&link, bytes),
        abi::VNA_IOC_SET_NOTIFY_IOP => {
            let port = u16::try_from(scalar).map_err(|_| INVALID)?;
            link.vm.board.hook_port(port, &link.bell)
        }
        abi::VNA_IOC_SET_NOTIFY_MMIO => {
            let window =
                (!bytes.is_empty()).then(|| (u64_at(bytes, 0), u64::from(u32_at(bytes, 8))));
            link.vm.board.hook_mmio(window, &link.bell)
        }
        abi::VNA_IOC_SET_PROMISC => set_promiscuity(&link, scalar),
        abi::VNA_IOC_GET_MTU => Ok(lock(&link.settings).mtu.into()),
        abi::VNA_IOC_SET_MTU => {
            let mtu = u16::try_from(scalar).ok().filter(|mtu| *mtu >= 68).ok_or(INVALID)?;
            lock(&link.settings).mtu = mtu;
            Ok(0)
        }
        _ => Err(Errno(libc::ENOTTY)),
    }
}

fn create(viona: &Viona, bytes: &[u8]) -> Answer {
    let mut place = lock(&viona.link);
    if place.is_some() {
        return Err(Errno(libc::EEXIST));
    }
    let (link, fd) = (u32_at(bytes, 0), u32_at(bytes, 4).cast_signed());
    // SAFETY: asks for the flags of a descriptor by number.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(Errno(libc::EBADF));
    }
    let Some(Node::Vm(number)) = zone::node(fd) else { return Err(Errno(libc::ENXIO)) };
    let vm = vm::of(fd, number)?;
    if vm.is_ending() {
        return Err(Errno(libc::EBUSY));
    }
    let config = super::wire::find(link).ok_or(Errno(libc::ENOENT))?;
    *place = Some(Link::attach(vm, &config)?);
    Ok(0)
}

fn rings(link: &Link, number: u32, scalar: usize, bytes: &[u8]) -> Answer {
    let is_structure = !bytes.is_empty();
    let index = if is_structure { u32_at(bytes, 0) as usize & 0xffff } else { scalar };
    if index >= RINGS {
        return Err(INVALID);
    }
    match number {
        abi::VNA_IOC_RING_INIT => link.init(index, &Layout::legacy(bytes)),
        abi::VNA_IOC_RING_INIT_MODERN => link.init(index, &Layout::modern(bytes)),
        abi::VNA_IOC_RING_RESET => link.reset(index),
        abi::VNA_IOC_RING_KICK => link.kick(index),
        abi::VNA_IOC_RING_PAUSE => link.pause(index),
        abi::VNA_IOC_RING_SET_MSI => {
            lock(&link.rings[index]).message = (u64_at(bytes, 8), u64_at(bytes, 16));
            Ok(0)
        }
        _ => {
            link.acknowledge(index);
            Ok(0)
        }
    }
}

/// What waits: two words, or a bit for each ring of as many as the program has.
fn poll(link: &Link, number: u32, bytes: &mut [u8]) -> Answer {
    let waits = *lock(&link.waits);
    let mut count = 0;
    for (ring, is_waiting) in waits.into_iter().enumerate() {
        if number == abi::VNA_IOC_INTR_POLL {
            put(bytes, 4 * ring, &u32::from(is_waiting).to_le_bytes());
        } else if ring >= u32_at(bytes, 0) as usize & 0xffff {
            continue;
        } else if is_waiting {
            bytes[4] |= 1 << ring;
        }
        count += i32::from(is_waiting);
    }
    Ok(count)
}

/// Drops what the kernel does not know, and what needs what was not chosen.
fn set_features(link: &Link, bytes: &[u8]) -> Answer {
    let modern = if config().viona >= 6 { VERSION_1 } else { 0 };
    let mut chosen = u64_at(bytes, 0) & (offered() | modern);
    if chosen & GUEST_CSUM == 0 {
        chosen &= !GUEST_TSO4;
    }
    lock(&link.settings).features = chosen;
    Ok(0)
}

fn set_promiscuity(link: &Arc<Link>, scalar: usize) -> Answer {
    let level = u8::try_from(scalar).ok().filter(|level| *level < 3).ok_or(INVALID)?;
    lock(&link.settings).promiscuity = level;
    Ok(0)
}

impl Doorbell {
    /// The bell of a link that is being made.
    pub(super) fn new(link: &std::sync::Weak<Link>) -> Arc<Self> {
        Arc::new(Self(link.clone()))
    }
}
