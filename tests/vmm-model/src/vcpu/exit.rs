// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Exit records: `struct vm_exit`.

use crate::abi::put;
use crate::config::config;
use crate::life::Suspension;

/// A port or memory access of the guest that the program must answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Port { port: u16, bytes: u8, is_read: bool, value: u32 },
    Mmio { gpa: u64, bytes: u8, is_read: bool, value: u64 },
}

/// Why `VM_RUN` returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Access(Access),
    /// Nothing: the vCPU was asked to come out.
    Nothing,
    /// Another call needs the vCPU.
    Wanted,
    ReadMsr(u32),
    WriteMsr(u32, u64),
    /// A single step is done.
    Step,
    Paging {
        gpa: u64,
        fault: u32,
    },
    Instruction {
        bytes: [u8; 15],
        count: u8,
    },
    Suspended(Suspension),
    Debug,
    Breakpoint,
    /// The processor refuses the guest.
    Refused {
        reason: u64,
    },
}

/// `PROT_WRITE`, as the kind of a fault.
pub(super) const WRITE: u32 = 2;

impl Exit {
    fn code(&self) -> u32 {
        match self {
            Self::Access(Access::Port { .. }) => 0,
            Self::Refused { .. } if super::cpuid::is_intel() => 1,
            Self::Nothing => 2,
            Self::ReadMsr(_) => 3,
            Self::WriteMsr(..) => 4,
            Self::Step => 6,
            Self::Paging { .. } => 8,
            Self::Instruction { .. } => 9,
            Self::Suspended(_) => 14,
            Self::Access(Access::Mmio { .. }) => 15,
            Self::Refused { .. } => 19,
            Self::Wanted if config().version < 16 => 20,
            Self::Wanted => 2,
            Self::Debug => 21,
            Self::Breakpoint => 23,
        }
    }

    /// The 64 bytes, with what means nothing filled in so that nobody relies on it.
    pub(super) fn record(&self, rip: u64, length: u32) -> [u8; 64] {
        let mut bytes = [0xa5; 64];
        put(&mut bytes, 0, &self.code().to_le_bytes());
        put(&mut bytes, 4, &length.to_le_bytes());
        put(&mut bytes, 8, &rip.to_le_bytes());
        self.payload(&mut bytes);
        bytes
    }

    fn payload(&self, bytes: &mut [u8]) {
        match *self {
            Self::Access(access) => access.payload(bytes),
            Self::ReadMsr(code) => put(bytes, 16, &code.to_le_bytes()),
            Self::WriteMsr(code, value) => {
                put(bytes, 16, &code.to_le_bytes());
                put(bytes, 24, &value.to_le_bytes());
            }
            Self::Paging { gpa, fault } => {
                put(bytes, 16, &gpa.to_le_bytes());
                put(bytes, 24, &fault.to_le_bytes());
            }
            Self::Instruction { bytes: code, count } => {
                put(bytes, 16, &code);
                put(bytes, 31, &[count]);
            }
            Self::Suspended(why) => {
                put(bytes, 16, &why.how.to_le_bytes());
                if config().version >= 16 {
                    put(bytes, 20, &why.source.to_le_bytes());
                    put(bytes, 24, &why.when.to_le_bytes());
                }
            }
            Self::Breakpoint => put(bytes, 16, &1u32.to_le_bytes()),
            Self::Refused { reason } if super::cpuid::is_intel() => {
                put(bytes, 16, &[0; 24]);
                put(bytes, 20, &(reason as u32).to_le_bytes());
            }
            Self::Refused { reason } => {
                put(bytes, 16, &reason.to_le_bytes());
                put(bytes, 24, &[0; 16]);
            }
            Self::Nothing | Self::Wanted | Self::Step | Self::Debug => {}
        }
    }
}

impl Access {
    fn payload(&self, to: &mut [u8]) {
        match *self {
            Self::Port { port, bytes, is_read, value } => {
                put(to, 16, &if is_read { 0 } else { value }.to_le_bytes());
                put(to, 20, &port.to_le_bytes());
                put(to, 22, &[bytes, u8::from(is_read)]);
            }
            Self::Mmio { gpa, bytes, is_read, value } => {
                put(to, 16, &[bytes, u8::from(is_read), 0, 0, 0, 0, 0, 0]);
                put(to, 24, &gpa.to_le_bytes());
                put(to, 32, &if is_read { 0 } else { value }.to_le_bytes());
            }
        }
    }

    /// Whether an answer with this payload of `struct vm_entry` is for this access; its value.
    pub(super) fn answered_by(&self, command: u32, payload: &[u8]) -> Option<u64> {
        use crate::abi::{u32_at, u64_at};
        let [first, second] = [payload.first().copied()?, payload.get(1).copied()?];
        match *self {
            Self::Port { port, bytes, is_read, .. } => {
                let [width, flags] = [payload.get(6).copied()?, payload.get(7).copied()?];
                let same_port = u32_at(payload, 4) as u16 == port;
                let is_same = same_port && width == bytes && (flags & 1 != 0) == is_read;
                (command == super::entry::FULFILL_INOUT && is_same)
                    .then(|| u32_at(payload, 0).into())
            }
            Self::Mmio { gpa, bytes, is_read, .. } => {
                let is_same =
                    first == bytes && (second != 0) == is_read && u64_at(payload, 8) == gpa;
                (command == super::entry::FULFILL_MMIO && is_same).then(|| u64_at(payload, 16))
            }
        }
    }
}
