// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `/dev/vmm/NAME`: illumos `usr/src/uts/intel/io/vmm/vmm_sol_dev.c`.

use crate::abi::{self, put, u32_at, u64_at};
use crate::config::config;
use crate::dispatch::{read_user, write_user};
use crate::vm::{self, Vm};
use crate::{Answer, Errno, hpet, irq, lock, vcpu, zone};

/// Answers a call on a machine.
///
/// # Errors
/// Those of the kernel.
pub(crate) fn call(vm: &Vm, number: u32, scalar: usize, bytes: &mut [u8]) -> Answer {
    match number {
        abi::VMM_INTERFACE_VERSION if config().version >= 6 => {
            return Ok(config().version.cast_signed());
        }
        abi::VM_DESTROY_PENDING => return Ok(i32::from(vm.is_ending())),
        n if n >> 8 == 0x564d => return Err(Errno(libc::ENOTTY)),
        _ if vm.is_ending() => return Err(Errno(libc::ENXIO)),
        _ => {}
    }
    match number >> 8 {
        0x7670 if number == abi::VM_RUN => vcpu::run(vm, bytes),
        0x7670 => vcpu::call(vm, number, bytes),
        0x766c => alone(vm, number, scalar, bytes),
        _ => shared(vm, number, scalar, bytes),
    }
}

/// Calls that take every vCPU and then run alone.
fn alone(vm: &Vm, number: u32, scalar: usize, bytes: &mut [u8]) -> Answer {
    let mut holds = vm.hold_all();
    let _gate = vm.gate.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    match number {
        abi::VM_ALLOC_MEMSEG => lock(&vm.space).allocate(bytes),
        abi::VM_MMAP_MEMSEG => lock(&vm.space).map(bytes),
        abi::VM_MUNMAP_MEMSEG => lock(&vm.space).unmap(bytes),
        abi::VM_PMTMR_LOCATE => vm.board.locate_pm_timer(scalar),
        abi::VM_PAUSE => vm.life.set_paused(true),
        abi::VM_RESUME => vm.life.set_paused(false),
        abi::VM_WRLOCK_CYCLE => Ok(0),
        abi::VM_REINIT => {
            let is_forced = u64_at(bytes, 0) & 1 != 0;
            let may_not = config().version < 16 && !is_forced && !vm.life.is_all_noticed();
            if may_not || vm.board.has_port_hook() {
                return Err(Errno(libc::EBUSY));
            }
            vm.reinit(&mut holds)
        }
        _ => Err(Errno(libc::ENOTTY)),
    }
}

/// Calls that run at any time, beside the vCPUs; some wait for a writer.
fn shared(vm: &Vm, number: u32, scalar: usize, bytes: &mut [u8]) -> Answer {
    match number {
        abi::VM_SET_AUTODESTRUCT => set(vm, zone::AUTODESTRUCT, scalar != 0),
        abi::VM_DESTROY_SELF => {
            let result = set(vm, zone::DESTROYING, true);
            vm.kick_all();
            result
        }
        abi::VM_SUSPEND => suspend(vm, bytes),
        abi::VM_SUSPEND_CPU | abi::VM_RESUME_CPU => {
            let is_on = number == abi::VM_SUSPEND_CPU;
            let result = vm.life.set_debug(u32_at(bytes, 0).cast_signed(), is_on);
            vm.kick_all();
            result
        }
        abi::VM_VCPU_BARRIER => barrier(vm, scalar),
        abi::VM_SET_TOPOLOGY => topology(vm, bytes),
        abi::VM_GET_TOPOLOGY => get_topology(vm, bytes),
        abi::VM_GET_CPUS => cpus(vm, bytes),
        abi::VM_GET_X2APIC_STATE => vcpu::call(vm, number, bytes),
        _ => reader(vm, number, bytes),
    }
}

fn reader(vm: &Vm, number: u32, bytes: &mut [u8]) -> Answer {
    let _gate = vm.gate.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    match number {
        abi::VM_GET_MEMSEG => lock(&vm.space).describe(bytes),
        abi::VM_MMAP_GETNEXT => lock(&vm.space).next(bytes),
        abi::VM_DEVMEM_GETOFFSET => lock(&vm.space).device_offset(bytes),
        abi::VM_RTC_WRITE => lock(&vm.board.rtc).write(bytes),
        abi::VM_RTC_READ => lock(&vm.board.rtc).read(bytes),
        abi::VM_RTC_SETTIME => lock(&vm.board.rtc).set(bytes),
        abi::VM_RTC_GETTIME => lock(&vm.board.rtc).get(bytes),
        abi::VM_GET_HPET_CAPABILITIES => {
            put(bytes, 0, &hpet::CAPABILITIES.to_le_bytes());
            Ok(0)
        }
        _ => irq::call(vm, number, bytes),
    }
}

fn set(vm: &Vm, flag: u8, on: bool) -> Answer {
    let _guard = zone::guard();
    let (set, clear) = if on { (flag, 0) } else { (0, flag) };
    zone::change(&vm.path, set, clear).map(|()| 0)
}

fn suspend(vm: &Vm, bytes: &[u8]) -> Answer {
    let how = u32_at(bytes, 0);
    if !(1..=4).contains(&how) {
        return Err(Errno(libc::EINVAL));
    }
    let source = if bytes.len() < 8 { -1 } else { u32_at(bytes, 4).cast_signed() };
    if source != -1 {
        vm.vcpu(source.cast_unsigned())?;
    }
    let result = vm.life.suspend(how, source);
    vm.kick_all();
    result
}

/// One vCPU, and only when it is active; "all of them" does nothing on the kernels that have it.
fn barrier(vm: &Vm, scalar: usize) -> Answer {
    let id = scalar as u32;
    if id.cast_signed() == -1 {
        return Ok(0);
    }
    let vcpu = vm.vcpu(id)?;
    if vm.life.state().active & crate::life::bit(id) != 0 {
        vcpu.raise_barrier();
    }
    Ok(0)
}

fn topology(vm: &Vm, bytes: &[u8]) -> Answer {
    let field = |at: usize| abi::u32_at(bytes, at) & 0xffff;
    let (sockets, cores) = (field(0), abi::u32_at(bytes, 0) >> 16);
    let (threads, most) = (field(4), abi::u32_at(bytes, 4) >> 16);
    let product = u64::from(sockets) * u64::from(cores) * u64::from(threads);
    if most != 0 || product > u64::from(vm::ceiling()) {
        return Err(Errno(libc::EINVAL));
    }
    put(&mut *lock(&vm.topology), 0, bytes);
    Ok(0)
}

/// The largest number of vCPUs is answered, though it cannot be set.
fn get_topology(vm: &Vm, bytes: &mut [u8]) -> Answer {
    put(bytes, 0, &*lock(&vm.topology));
    put(bytes, 6, &(vm::ceiling() as u16).to_le_bytes());
    Ok(0)
}

/// `VM_GET_CPUS`: a set of as many bytes as the program has room for.
fn cpus(vm: &Vm, bytes: &[u8]) -> Answer {
    let (which, size, to) = (u32_at(bytes, 0), u32_at(bytes, 4), u64_at(bytes, 8));
    if !matches!(size, 4 | 8 | 16 | 32) {
        return Err(Errno(libc::ERANGE));
    }
    let state = vm.life.state();
    let set = match which {
        0 => state.active,
        1 if config().version < 16 => state.noticed,
        2 => state.debug,
        _ => return Err(Errno(libc::EINVAL)),
    };
    drop(state);
    let mut table = vec![0; size as usize];
    read_user(to, &mut table)?;
    table.fill(0);
    put(&mut table, 0, &set.to_le_bytes());
    write_user(to, &table).map(|()| 0)
}
