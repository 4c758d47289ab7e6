// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Segment descriptors: base, limit and access, apart from selectors.

use kvm_bindings::kvm_segment;

use super::guest::{Guest, failed};
use super::registers::segment;
use crate::abi::{put, u32_at, u64_at};
use crate::vm::Vm;
use crate::{Answer, Errno};

const IDTR: u32 = 30;
const GDTR: u32 = 31;
const UNUSABLE: u32 = 0x1_0000;

fn refused(error: kvm_ioctls::Error) -> Errno {
    failed("segment", error);
    Errno(libc::EINVAL)
}

fn access(segment: &kvm_segment) -> u32 {
    let bit = |value: u8, shift: u32| u32::from(value) << shift;
    bit(segment.type_, 0)
        | bit(segment.s, 4)
        | bit(segment.dpl, 5)
        | bit(segment.present, 7)
        | bit(segment.l, 13)
        | bit(segment.db, 14)
        | bit(segment.g, 15)
        | if segment.unusable != 0 { UNUSABLE } else { 0 }
}

fn set_access(segment: &mut kvm_segment, access: u32) {
    let field = |shift: u32, mask: u32| (access >> shift & mask) as u8;
    segment.type_ = field(0, 0xf);
    segment.s = field(4, 1);
    segment.dpl = field(5, 3);
    segment.present = field(7, 1);
    segment.l = field(13, 1);
    segment.db = field(14, 1);
    segment.g = field(15, 1);
    segment.unusable = u8::from(access & UNUSABLE != 0);
}

/// `VM_GET_SEGMENT_DESCRIPTOR`.
pub(super) fn get(vm: &Vm, guest: &mut Guest, bytes: &mut [u8]) -> Answer {
    let mut system = guest.settled(vm)?.get_sregs().map_err(refused)?;
    let (base, limit, access) = match u32_at(bytes, 4) {
        IDTR => (system.idt.base, system.idt.limit.into(), 0),
        GDTR => (system.gdt.base, system.gdt.limit.into(), 0),
        number => {
            let segment = segment(&mut system, number).ok_or(Errno(libc::EINVAL))?;
            (segment.base, segment.limit, access(segment))
        }
    };
    put(bytes, 8, &base.to_le_bytes());
    put(bytes, 16, &limit.to_le_bytes());
    put(bytes, 20, &access.to_le_bytes());
    Ok(0)
}

/// `VM_SET_SEGMENT_DESCRIPTOR`.
pub(super) fn set(vm: &Vm, guest: &mut Guest, bytes: &[u8]) -> Answer {
    let fd = guest.settled(vm)?;
    let mut system = fd.get_sregs().map_err(refused)?;
    let (base, limit) = (u64_at(bytes, 8), u32_at(bytes, 16));
    match u32_at(bytes, 4) {
        IDTR => (system.idt.base, system.idt.limit) = (base, limit as u16),
        GDTR => (system.gdt.base, system.gdt.limit) = (base, limit as u16),
        number => {
            let segment = segment(&mut system, number).ok_or(Errno(libc::EINVAL))?;
            (segment.base, segment.limit) = (base, limit);
            set_access(segment, u32_at(bytes, 20));
        }
    }
    fd.set_sregs(&system).map(|()| 0).map_err(refused)
}
