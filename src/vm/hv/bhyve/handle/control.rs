// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The control node, `/dev/vmmctl`: versions, and the life of instances.
#![allow(unsafe_code)]

use std::io;

use nix::fcntl::OFlag;

use super::super::abi;
use super::name_bytes;
use crate::vm::hv::abi::Plain as _;
use crate::vm::hv::node::{Node, calls, number_calls};

/// The control node's path.
const CONTROL: &str = "/dev/vmmctl";

calls! {
    CREATE: abi::vm_create_req = abi::VMM_CREATE_VM;
    DESTROY: abi::vm_destroy_req = abi::VMM_DESTROY_VM;
    RESERVOIR: abi::vmm_resv_query = abi::VMM_RESV_QUERY;
    SUPPORTED: [u8; 256] = abi::VMM_VM_SUPPORTED;
}

number_calls! {
    VERSION = abi::VMM_INTERFACE_VERSION;
}

/// Where an instance appears.
pub(super) fn node_path(name: &str) -> String {
    format!("/dev/vmm/{name}")
}

/// Whether there is an instance of that name. It is not opened: whoever holds one keeps it.
pub(in crate::vm::hv) fn exists(name: &str) -> bool {
    std::fs::symlink_metadata(node_path(name)).is_ok()
}

/// The open control node.
pub(in crate::vm::hv) struct Control(Node);

/// The memory that the kernel has for virtual machines, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vm::hv) struct Reservoir {
    /// Set aside and not in use.
    pub(in crate::vm::hv) free: u64,
    /// Set aside and in use.
    pub(in crate::vm::hv) reserved: u64,
    /// In use without having been set aside.
    pub(in crate::vm::hv) transient: u64,
    /// The most that the kernel gives; 0 when it does not say.
    pub(in crate::vm::hv) limit: u64,
}

impl Control {
    /// Opens the node. It needs `O_EXCL`, which excludes nobody.
    pub(in crate::vm::hv) fn open() -> io::Result<Self> {
        Node::open(CONTROL, OFlag::O_EXCL).map(Self)
    }

    /// The interface's version; kernels before version 1 do not know the call.
    pub(in crate::vm::hv) fn version(&self) -> io::Result<u32> {
        self.0.number(&VERSION, 0).map(i32::cast_unsigned)
    }

    /// Whether the processor can be used; else the kernel's words with the error.
    pub(in crate::vm::hv) fn supported(&self) -> Result<(), (io::Error, String)> {
        let mut words = <[u8; 256]>::zeroed();
        self.0.exchange(&SUPPORTED, &mut words).map(drop).map_err(|error| {
            let text = words.split(|byte| *byte == 0).next().unwrap_or_default();
            (error, String::from_utf8_lossy(text).trim().to_owned())
        })
    }

    /// Makes an instance. Its memory comes from what is free, not from the reservoir.
    pub(in crate::vm::hv) fn create(&self, name: &str) -> io::Result<()> {
        self.0.send(&CREATE, abi::vm_create_req { name: name_bytes(name), flags: 0 })
    }

    /// Destroys an instance. It waits until nobody holds the instance, so never call it while
    /// this process does.
    pub(in crate::vm::hv) fn destroy(&self, name: &str) -> io::Result<()> {
        loop {
            let request = abi::vm_destroy_req { name: name_bytes(name) };
            match self.0.send(&DESTROY, request) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// What memory there is; before version 9 only the global zone may ask.
    pub(in crate::vm::hv) fn reservoir(&self) -> io::Result<Reservoir> {
        let mut query = abi::vmm_resv_query::zeroed();
        self.0.exchange(&RESERVOIR, &mut query)?;
        Ok(Reservoir {
            free: query.vrq_free_sz,
            reserved: query.vrq_alloc_sz,
            transient: query.vrq_alloc_transient_sz,
            limit: query.vrq_limit,
        })
    }
}
