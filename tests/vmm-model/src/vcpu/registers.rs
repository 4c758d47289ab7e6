// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Registers: `enum vm_reg_name`.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;

use super::guest::{Guest, failed};
use crate::abi::{put, u32_at, u64_at};
use crate::config::config;
use crate::dispatch::{read_user, write_user};
use crate::vm::Vm;
use crate::{Answer, Errno};

const INVALID: Errno = Errno(libc::EINVAL);

/// One past the last register: XCR0 came with version 3.
fn last() -> u32 {
    if config().version >= 3 { 46 } else { 45 }
}

/// `VM_GET_REGISTER`.
pub(super) fn get(vm: &Vm, guest: &mut Guest, bytes: &mut [u8]) -> Answer {
    let value = read(guest.settled(vm)?, u32_at(bytes, 4))?;
    put(bytes, 8, &value.to_le_bytes());
    Ok(0)
}

/// `VM_SET_REGISTER`.
pub(super) fn set(vm: &Vm, guest: &mut Guest, bytes: &[u8]) -> Answer {
    write(guest.settled(vm)?, u32_at(bytes, 4), u64_at(bytes, 8))
}

/// `VM_GET_REGISTER_SET` and `VM_SET_REGISTER_SET`: two arrays of the program's, not at once.
pub(super) fn many(vm: &Vm, guest: &mut Guest, bytes: &[u8], is_set: bool) -> Answer {
    let count = u32_at(bytes, 4);
    if count == 0 || count > last() {
        return Err(INVALID);
    }
    let (numbers, values) = (u64_at(bytes, 8), u64_at(bytes, 16));
    let fd = guest.settled(vm)?;
    for index in 0..u64::from(count) {
        let mut number = [0; 4];
        read_user(numbers + 4 * index, &mut number)?;
        let number = u32::from_le_bytes(number);
        if is_set {
            let mut value = [0; 8];
            read_user(values + 8 * index, &mut value)?;
            write(fd, number, u64::from_le_bytes(value))?;
        } else {
            write_user(values + 8 * index, &read(fd, number)?.to_le_bytes())?;
        }
    }
    Ok(0)
}

fn refused(error: kvm_ioctls::Error) -> Errno {
    failed("registers", error);
    INVALID
}

fn general(registers: &mut kvm_regs, number: u32) -> Option<&mut u64> {
    Some(match number {
        0 => &mut registers.rax,
        1 => &mut registers.rbx,
        2 => &mut registers.rcx,
        3 => &mut registers.rdx,
        4 => &mut registers.rsi,
        5 => &mut registers.rdi,
        6 => &mut registers.rbp,
        7 => &mut registers.r8,
        8 => &mut registers.r9,
        9 => &mut registers.r10,
        10 => &mut registers.r11,
        11 => &mut registers.r12,
        12 => &mut registers.r13,
        13 => &mut registers.r14,
        14 => &mut registers.r15,
        19 => &mut registers.rsp,
        20 => &mut registers.rip,
        21 => &mut registers.rflags,
        _ => return None,
    })
}

fn system(system: &mut kvm_sregs, number: u32) -> Option<&mut u64> {
    Some(match number {
        15 => &mut system.cr0,
        16 => &mut system.cr3,
        17 => &mut system.cr4,
        32 => &mut system.efer,
        33 => &mut system.cr2,
        _ => return None,
    })
}

/// The segment register of a number; its selector is a register too.
pub(super) fn segment(system: &mut kvm_sregs, number: u32) -> Option<&mut kvm_segment> {
    Some(match number {
        22 => &mut system.es,
        23 => &mut system.cs,
        24 => &mut system.ss,
        25 => &mut system.ds,
        26 => &mut system.fs,
        27 => &mut system.gs,
        28 => &mut system.ldt,
        29 => &mut system.tr,
        _ => return None,
    })
}

fn read(fd: &VcpuFd, number: u32) -> Answer<u64> {
    let mut registers = fd.get_regs().map_err(refused)?;
    if let Some(value) = general(&mut registers, number) {
        return Ok(*value);
    }
    let mut sregs = fd.get_sregs().map_err(refused)?;
    if let Some(value) = system(&mut sregs, number) {
        return Ok(*value);
    }
    if let Some(segment) = segment(&mut sregs, number) {
        return Ok(segment.selector.into());
    }
    let debug = fd.get_debug_regs().map_err(refused)?;
    match number {
        18 => Ok(debug.dr7),
        39..=42 => Ok(debug.db[number as usize - 39]),
        43 => Ok(debug.dr6),
        38 => {
            let events = fd.get_vcpu_events().map_err(refused)?;
            Ok(u64::from(events.interrupt.shadow != 0))
        }
        45 if number < last() => {
            let extended = fd.get_xcrs().map_err(refused)?;
            Ok(extended.xcrs[0].value)
        }
        _ => Err(INVALID),
    }
}

fn write(fd: &VcpuFd, number: u32, value: u64) -> Answer {
    let mut registers = fd.get_regs().map_err(refused)?;
    if let Some(place) = general(&mut registers, number) {
        *place = value;
        return fd.set_regs(&registers).map(|()| 0).map_err(refused);
    }
    let mut sregs = fd.get_sregs().map_err(refused)?;
    if let Some(place) = system(&mut sregs, number) {
        *place = value;
        return fd.set_sregs(&sregs).map(|()| 0).map_err(refused);
    }
    if let Some(segment) = segment(&mut sregs, number) {
        segment.selector = value as u16;
        return fd.set_sregs(&sregs).map(|()| 0).map_err(refused);
    }
    write_rare(fd, number, value).map(|()| 0)
}

fn write_rare(fd: &VcpuFd, number: u32, value: u64) -> Answer<()> {
    match number {
        18 | 39..=43 => {
            let mut debug = fd.get_debug_regs().map_err(refused)?;
            match number {
                18 => debug.dr7 = value,
                43 => debug.dr6 = value,
                _ => debug.db[number as usize - 39] = value,
            }
            fd.set_debug_regs(&debug).map_err(refused)
        }
        38 => {
            // The kernel can only end an interrupt shadow.
            if value != 0 {
                return Err(INVALID);
            }
            let mut events = fd.get_vcpu_events().map_err(refused)?;
            events.interrupt.shadow = 0;
            fd.set_vcpu_events(&events).map_err(refused)
        }
        45 if number < last() => {
            let mut extended = fd.get_xcrs().map_err(refused)?;
            extended.xcrs[0].value = value;
            fd.set_xcrs(&extended).map_err(refused)
        }
        _ => Err(INVALID),
    }
}
