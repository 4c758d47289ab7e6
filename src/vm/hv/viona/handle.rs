// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The typed layer: each call of viona as a function.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;
use std::os::fd::BorrowedFd;

use nix::fcntl::OFlag;

use super::abi;
use crate::vm::hv::abi::Plain as _;
use crate::vm::hv::node::{Node, calls, is, number_calls};

/// Each opening of it is a network interface of its own.
const DEVICE: &str = "/dev/viona";

calls! {
    CREATE: abi::vioc_create = abi::VNA_IOC_CREATE;
    INIT: abi::vioc_ring_init = abi::VNA_IOC_RING_INIT;
    INIT_MODERN: abi::vioc_ring_init_modern = abi::VNA_IOC_RING_INIT_MODERN;
    MESSAGE: abi::vioc_ring_msi = abi::VNA_IOC_RING_SET_MSI;
    POLL: abi::vioc_intr_poll = abi::VNA_IOC_INTR_POLL;
    SET_FEATURES: u64 = abi::VNA_IOC_SET_FEATURES;
    GET_FEATURES: u64 = abi::VNA_IOC_GET_FEATURES;
    HOOK: abi::vioc_notify_mmio = abi::VNA_IOC_SET_NOTIFY_MMIO;
}

number_calls! {
    VERSION = abi::VNA_IOC_VERSION;
    DELETE = abi::VNA_IOC_DELETE;
    RESET = abi::VNA_IOC_RING_RESET;
    KICK = abi::VNA_IOC_RING_KICK;
    CLEAR = abi::VNA_IOC_RING_INTR_CLR;
    PAUSE = abi::VNA_IOC_RING_PAUSE;
    MTU = abi::VNA_IOC_GET_MTU;
    SET_MTU = abi::VNA_IOC_SET_MTU;
    HOOK_PORT = abi::VNA_IOC_SET_NOTIFY_IOP;
    // A null pointer, no other.
    UNHOOK = abi::VNA_IOC_SET_NOTIFY_MMIO;
}

/// One network interface.
pub(super) struct Nic(Node);

impl Nic {
    pub(super) fn open() -> io::Result<Self> {
        Node::open(DEVICE, OFlag::empty()).map(Self)
    }

    /// The interface's version; 0 for those before there was one.
    pub(super) fn version(&self) -> io::Result<u32> {
        match self.0.number(&VERSION, 0) {
            Err(error) if is(&error, libc::ENXIO) || is(&error, libc::ENOTTY) => Ok(0),
            other => other.map(i32::cast_unsigned),
        }
    }

    /// Takes a link for the machine of a descriptor.
    pub(super) fn attach(&self, link: u32, machine: c_int) -> io::Result<()> {
        self.0.send(&CREATE, abi::vioc_create { c_linkid: link, c_vmfd: machine })
    }

    /// Lets go of link and machine. It may block.
    pub(super) fn delete(&self) -> io::Result<()> {
        self.0.number(&DELETE, 0).map(drop)
    }

    /// Older kernels write 4 of the 8 bytes.
    pub(super) fn features(&self) -> io::Result<u64> {
        let mut features = 0;
        self.0.exchange(&GET_FEATURES, &mut features)?;
        Ok(features)
    }

    pub(super) fn set_features(&self, features: u64) -> io::Result<()> {
        self.0.send(&SET_FEATURES, features)
    }

    pub(super) fn mtu(&self) -> io::Result<u16> {
        let mtu = self.0.number(&MTU, 0)?;
        u16::try_from(mtu).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "no MTU"))
    }

    /// Tells the largest packet; version 4 on.
    pub(super) fn set_mtu(&self, mtu: u16) -> io::Result<()> {
        self.0.number(&SET_MTU, usize::from(mtu)).map(drop)
    }

    /// Sets up a ring of before VIRTIO 1.0, which is unused, by the address of its first page.
    pub(super) fn init_old_ring(&self, queue: u16, size: u16, address: u64) -> io::Result<()> {
        let ring = abi::vioc_ring_init { ri_index: queue, ri_qsize: size, ri_qaddr: address };
        self.0.send(&INIT, ring)
    }

    /// Sets up a ring, which is unused: descriptor table, available ring, used ring; version 6 on.
    pub(super) fn init_ring(&self, queue: u16, size: u16, parts: [u64; 3]) -> io::Result<()> {
        let [desc, avail, used] = parts;
        let ring = abi::vioc_ring_init_modern {
            rim_index: queue,
            rim_qsize: size,
            rim_qaddr_desc: desc,
            rim_qaddr_avail: avail,
            rim_qaddr_used: used,
        };
        self.0.send(&INIT_MODERN, ring)
    }

    /// Stops a ring between two frames; version 1 on.
    pub(super) fn pause_ring(&self, queue: u16) -> io::Result<()> {
        again(|| self.0.number(&PAUSE, usize::from(queue)))
    }

    /// Takes a ring out of use. It waits for frames that are being sent.
    pub(super) fn reset_ring(&self, queue: u16) -> io::Result<()> {
        again(|| self.0.number(&RESET, usize::from(queue)))
    }

    /// Starts a ring the first time, and wakes it later.
    pub(super) fn kick(&self, queue: u16) -> io::Result<()> {
        self.0.number(&KICK, usize::from(queue)).map(drop)
    }

    /// Where a ring's interrupt goes; with `None` it waits to be polled.
    pub(super) fn set_msi(&self, queue: u16, message: Option<(u64, u32)>) -> io::Result<()> {
        let mut msi = abi::vioc_ring_msi::zeroed();
        msi.rm_index = queue;
        if let Some((address, data)) = message {
            (msi.rm_addr, msi.rm_msg) = (address, u64::from(data));
        }
        self.0.send(&MESSAGE, msi)
    }

    /// Whether each of the first two rings has an interrupt that waits.
    pub(super) fn waiting(&self) -> io::Result<[bool; 2]> {
        let mut poll = abi::vioc_intr_poll::zeroed();
        self.0.exchange(&POLL, &mut poll)?;
        Ok(poll.vip_status.map(|status| status != 0))
    }

    /// A ring's interrupt has been delivered.
    pub(super) fn clear(&self, queue: u16) -> io::Result<()> {
        self.0.number(&CLEAR, usize::from(queue)).map(drop)
    }

    /// Has the kernel take the guest's notifications at a port, or nowhere: no device is at port 0.
    pub(super) fn set_port_hook(&self, port: Option<u16>) -> io::Result<()> {
        self.0.number(&HOOK_PORT, usize::from(port.unwrap_or_default())).map(drop)
    }

    /// The same at an address; version 6 on.
    pub(super) fn set_hook(&self, address: Option<u64>, bytes: u32) -> io::Result<()> {
        match address {
            Some(address) => {
                let hook = abi::vioc_notify_mmio { vim_address: address, vim_size: bytes };
                self.0.send(&HOOK, hook)
            }
            None => self.0.number(&UNHOOK, 0).map(drop),
        }
    }

    /// What to wait on: it has data out of band when an interrupt waits.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd as _;
        self.0.file().as_fd()
    }
}

/// Makes a call that a signal may interrupt until it is through.
fn again(call: impl Fn() -> io::Result<c_int>) -> io::Result<()> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(drop),
        }
    }
}
