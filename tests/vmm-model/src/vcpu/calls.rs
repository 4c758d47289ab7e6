// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The calls on a vCPU that is held, but for `VM_RUN`.

use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_SW_BP,
    KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_SIPI_RECEIVED,
    KVM_MP_STATE_UNINITIALIZED, KVM_VCPUEVENT_VALID_SIPI_VECTOR, kvm_guest_debug, kvm_mp_state,
};

use super::guest::{Guest, failed};
use super::{cpuid, registers, segments};
use crate::abi::{self, put, u32_at, u64_at};
use crate::vm::Vm;
use crate::{Answer, Errno};

const STEP: u32 = 1;
const PAUSE: u32 = 2;
const INVPCID: u32 = 3;
const BREAKPOINT: u32 = 4;
const INVALID: Errno = Errno(libc::EINVAL);

/// Answers a call whose structure begins with the number of a vCPU.
///
/// # Errors
/// Those of the kernel.
pub(crate) fn call(vm: &Vm, number: u32, bytes: &mut [u8]) -> Answer {
    let id = u32_at(bytes, 0);
    let vcpu = vm.vcpu(id)?;
    let mut hold = vcpu.hold();
    let guest: &mut Guest = &mut hold;
    match number {
        abi::VM_GET_REGISTER => registers::get(vm, guest, bytes),
        abi::VM_SET_REGISTER => registers::set(vm, guest, bytes),
        abi::VM_GET_REGISTER_SET => registers::many(vm, guest, bytes, false),
        abi::VM_SET_REGISTER_SET => registers::many(vm, guest, bytes, true),
        abi::VM_GET_SEGMENT_DESCRIPTOR => segments::get(vm, guest, bytes),
        abi::VM_SET_SEGMENT_DESCRIPTOR => segments::set(vm, guest, bytes),
        abi::VM_INJECT_EXCEPTION => inject(vm, guest, bytes),
        abi::VM_SET_CAPABILITY => set_capability(vm, guest, bytes),
        abi::VM_GET_CAPABILITY => get_capability(guest, bytes),
        abi::VM_SET_X2APIC_STATE => set_x2apic(guest, u32_at(bytes, 4)),
        abi::VM_GET_X2APIC_STATE => {
            put(bytes, 4, &u32::from(guest.has_x2apic).to_le_bytes());
            Ok(0)
        }
        abi::VM_GLA2GPA_NOFAULT => translate(vm, guest, bytes),
        abi::VM_ACTIVATE_CPU => vm.life.activate(id),
        abi::VM_RESET_CPU => match u32_at(bytes, 4) {
            kind @ 0..=1 => guest.reset(vm, kind == 1),
            _ => Err(INVALID),
        },
        abi::VM_GET_RUN_STATE => {
            put(bytes, 4, &guest.run_state(vm)?.to_le_bytes());
            put(bytes, 8, &[0; 4]);
            Ok(0)
        }
        abi::VM_SET_RUN_STATE => set_run_state(vm, guest, u32_at(bytes, 4), bytes[8]),
        abi::VM_SET_CPUID => cpuid::set(guest, bytes),
        abi::VM_GET_CPUID => cpuid::get(guest, bytes),
        abi::VM_LEGACY_CPUID => cpuid::ask(vm, id, guest.has_x2apic, bytes),
        _ => Err(Errno(libc::ENOTTY)),
    }
}

fn set_x2apic(guest: &mut Guest, state: u32) -> Answer {
    if state > 1 {
        return Err(INVALID);
    }
    guest.has_x2apic = state == 1;
    Ok(0)
}

/// Which capabilities this processor has; `PAUSE_EXIT` alone changes nothing here.
fn capability(kind: u32) -> Answer<u32> {
    match kind {
        0 | PAUSE => Ok(1 << kind),
        STEP | INVPCID | BREAKPOINT if cpuid::is_intel() => Ok(1 << kind),
        _ => Err(Errno(libc::ENOENT)),
    }
}

/// The field `allcpus` is ignored.
fn set_capability(vm: &Vm, guest: &mut Guest, bytes: &[u8]) -> Answer {
    let bit = capability(u32_at(bytes, 4))?;
    let is_on = u32_at(bytes, 8) != 0;
    guest.capabilities = if is_on { guest.capabilities | bit } else { guest.capabilities & !bit };
    if bit & (1 << STEP | 1 << BREAKPOINT) == 0 {
        return Ok(0);
    }
    let mut control = 0;
    for (kind, flag) in [(STEP, KVM_GUESTDBG_SINGLESTEP), (BREAKPOINT, KVM_GUESTDBG_USE_SW_BP)] {
        if guest.capabilities & 1 << kind != 0 {
            control |= KVM_GUESTDBG_ENABLE | flag;
        }
    }
    let debug = kvm_guest_debug { control, ..kvm_guest_debug::default() };
    let result = guest.settled(vm)?.set_guest_debug(&debug);
    result.map(|()| 0).map_err(|error| failed("debug", error))
}

fn get_capability(guest: &Guest, bytes: &mut [u8]) -> Answer {
    let bit = capability(u32_at(bytes, 4))?;
    put(bytes, 8, &u32::from(guest.capabilities & bit != 0).to_le_bytes());
    Ok(0)
}

/// `enum vcpu_run_state`.
fn set_run_state(vm: &Vm, guest: &mut Guest, state: u32, vector: u8) -> Answer {
    const RUN: u32 = 2;
    const INIT: u32 = 1;
    const PENDING_INIT: u32 = 0x4000;
    const PENDING_SIPI: u32 = 0x8000;
    if state & !(INIT | RUN | PENDING_INIT | PENDING_SIPI) != 0 {
        return Err(INVALID);
    }
    let fd = guest.settled(vm)?;
    let mp_state = if state & PENDING_SIPI != 0 {
        let mut events = fd.get_vcpu_events().map_err(|error| failed("SIPI", error))?;
        events.sipi_vector = vector.into();
        events.flags |= KVM_VCPUEVENT_VALID_SIPI_VECTOR;
        fd.set_vcpu_events(&events).map_err(|error| failed("SIPI", error))?;
        KVM_MP_STATE_SIPI_RECEIVED
    } else if state & (INIT | PENDING_INIT) != 0 {
        KVM_MP_STATE_INIT_RECEIVED
    } else if state & RUN != 0 {
        KVM_MP_STATE_RUNNABLE
    } else {
        KVM_MP_STATE_UNINITIALIZED
    };
    let result = fd.set_mp_state(kvm_mp_state { mp_state });
    result.map(|()| 0).map_err(|error| failed("run state", error))
}

/// `VM_INJECT_EXCEPTION`.
fn inject(vm: &Vm, guest: &mut Guest, bytes: &[u8]) -> Answer {
    let (vector, code) = (u32_at(bytes, 4), u32_at(bytes, 8));
    let (has_code, restarts) = (u32_at(bytes, 12) != 0, u32_at(bytes, 16) != 0);
    if vector >= 32 || vector == 2 || vector == 8 {
        return Err(INVALID);
    }
    if guest.has_exception {
        return Err(Errno(libc::EBUSY));
    }
    let rip = guest.rip;
    let fd = guest.settled(vm)?;
    let refused = |error| failed("exception", error);
    if restarts {
        let mut registers = fd.get_regs().map_err(refused)?;
        registers.rip = rip;
        fd.set_regs(&registers).map_err(refused)?;
    }
    let mut events = fd.get_vcpu_events().map_err(refused)?;
    events.exception.injected = 1;
    events.exception.nr = vector as u8;
    events.exception.has_error_code = u8::from(has_code);
    events.exception.error_code = code;
    fd.set_vcpu_events(&events).map_err(refused)?;
    guest.has_exception = true;
    Ok(0)
}

/// `VM_GLA2GPA_NOFAULT`: by the paging of the vCPU as it is.
fn translate(vm: &Vm, guest: &mut Guest, bytes: &mut [u8]) -> Answer {
    let place = guest.settled(vm)?.translate_gva(u64_at(bytes, 8));
    let place = place.map_err(|error| failed("translation", error))?;
    put(bytes, 40, &u32::from(place.valid == 0).to_le_bytes());
    put(bytes, 48, &place.physical_address.to_le_bytes());
    Ok(0)
}
