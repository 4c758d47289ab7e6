// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Numbers and sizes of the interface: illumos `usr/src/uts/intel/sys/vmm_dev.h` and `vmm.h`,
//! LP64.

/// What the third argument of an ioctl is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arg {
    /// Ignored.
    None,
    /// A number.
    Scalar,
    /// A structure of so many bytes that is read.
    In(usize),
    /// One that is read and written.
    InOut(usize),
    /// One that is written.
    Out(usize),
}

/// An ioctl.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) number: u32,
    pub(crate) name: &'static str,
    pub(crate) arg: Arg,
    /// The first version of the interface that has it.
    pub(crate) since: u32,
}

macro_rules! calls {
    ($($name:ident $number:literal $arg:expr, $since:literal;)*) => {
        $(pub(crate) const $name: u32 = $number;)*
        /// Every call that is played.
        pub(crate) static CALLS: &[Call] = &[
            $(Call { number: $number, name: stringify!($name), arg: $arg, since: $since },)*
        ];
    };
}

use Arg::{In, InOut, None as Nothing, Out, Scalar};

calls! {
    VMM_CREATE_VM 0x564d01 In(136), 0;
    VMM_DESTROY_VM 0x564d02 In(128), 0;
    VMM_VM_SUPPORTED 0x564d03 Nothing, 0;
    VMM_INTERFACE_VERSION 0x564d04 Nothing, 1;
    VMM_RESV_QUERY 0x564d10 Out(32), 0;
    VM_REINIT 0x766c01 In(8), 0;
    VM_ALLOC_MEMSEG 0x766c05 In(144), 0;
    VM_MMAP_MEMSEG 0x766c06 In(40), 0;
    VM_MUNMAP_MEMSEG 0x766c08 In(16), 0;
    VM_WRLOCK_CYCLE 0x766cff Nothing, 0;
    VM_GET_MEMSEG 0x766d02 InOut(144), 0;
    VM_MMAP_GETNEXT 0x766d03 InOut(40), 0;
    VM_SET_TOPOLOGY 0x766d1a In(8), 0;
    VM_GET_TOPOLOGY 0x766d1b Out(8), 0;
    VM_SET_AUTODESTRUCT 0x766d24 Scalar, 4;
    VM_DESTROY_SELF 0x766d25 Nothing, 5;
    VM_DESTROY_PENDING 0x766d26 Nothing, 5;
    VM_DEVMEM_GETOFFSET 0x766dff InOut(16), 0;
}

/// The call of that number on a kernel of that version.
pub(crate) fn find(number: u32, version: u32) -> Option<&'static Call> {
    CALLS.iter().find(|call| call.number == number && call.since <= version)
}

/// Whether the number belongs to the interface at all: everything else passes at once.
pub(crate) fn is_ours(request: u64) -> bool {
    matches!(request >> 8, 0x564d | 0x7670 | 0x766c | 0x766d)
}

/// A 32-bit field.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    if let Some(from) = bytes.get(at..at + 4) {
        field.copy_from_slice(from);
    }
    u32::from_le_bytes(field)
}

/// A 64-bit field.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Writes a field, or as much of it as there is room for.
pub(crate) fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(field) {
        *to = *from;
    }
}

/// Offset of `vm_devmem_offset`s: `VM_DEVMEM_START`.
pub(crate) const DEVMEM: u64 = 0x4000_0000_0000;
