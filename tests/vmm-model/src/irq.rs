// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Interrupt lines: illumos `usr/src/uts/intel/io/vmm/io/vioapic.c`, `vatpic.c`.

use std::sync::Arc;

use crate::abi::{self, put, u32_at, u64_at};
use crate::kvm::Kvm;
use crate::vm::Vm;
use crate::{Answer, Errno, lock};

const PINS: usize = 32;
const ISA: usize = 16;
/// Lines that cannot be level triggered.
const EDGE_ONLY: [u32; 5] = [0, 1, 2, 8, 13];
/// Most that a counter of the kernel counts.
const MOST: u32 = 0x7fff_ffff;

/// How often each line was asserted and not deasserted.
#[derive(Default)]
pub(crate) struct Lines {
    ioapic: [u32; PINS],
    pic: [u32; ISA],
    levels: [bool; ISA],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Assert,
    Deassert,
    Pulse,
}

impl How {
    /// What happens to a counter, and whether the line changes.
    fn count(self, count: &mut u32) -> Answer<bool> {
        match self {
            Self::Assert if *count == MOST => Err(Errno(libc::E2BIG)),
            Self::Assert => {
                *count += 1;
                Ok(*count == 1)
            }
            Self::Deassert if *count == 0 => Err(Errno(libc::ERANGE)),
            Self::Deassert => {
                *count -= 1;
                Ok(*count == 0)
            }
            Self::Pulse => Ok(*count == 0),
        }
    }

    fn drive(self, mut set: impl FnMut(bool)) {
        if self != Self::Deassert {
            set(true);
        }
        if self != Self::Assert {
            set(false);
        }
    }
}

impl Lines {
    /// Gives KVM's machine, which is new, what came before it.
    pub(crate) fn replay(&self, kvm: &Kvm) {
        for (pin, count) in (0..).zip(self.ioapic) {
            if count > 0 {
                kvm.set_pin(pin, true);
            }
        }
        for (line, is_level) in (0..).zip(self.levels) {
            if is_level {
                kvm.set_trigger(line, true);
            }
        }
    }

    fn ioapic(&mut self, kvm: Option<&Kvm>, pin: u32, how: How) -> Answer {
        let count = self.ioapic.get_mut(pin as usize).ok_or(Errno(libc::EINVAL))?;
        if how.count(count)?
            && let Some(kvm) = kvm
        {
            how.drive(|high| kvm.set_pin(pin, high));
        }
        Ok(0)
    }

    /// Before the guest has initialised the PIC nothing happens, and nothing is counted.
    fn pic(&mut self, kvm: Option<&Kvm>, line: u32, how: How) -> Answer {
        let count = self.pic.get_mut(line as usize).ok_or(Errno(libc::EINVAL))?;
        let Some(kvm) = kvm.filter(|kvm| kvm.is_pic_ready(line)) else { return Ok(0) };
        if how.count(count)? {
            how.drive(|high| kvm.set_pic(line, high));
        }
        Ok(0)
    }
}

/// Answers a call about interrupts.
///
/// # Errors
/// Those of the kernel.
pub(crate) fn call(vm: &Vm, number: u32, bytes: &mut [u8]) -> Answer {
    match number {
        abi::VM_LAPIC_MSI => message(vm, bytes),
        abi::VM_IOAPIC_ASSERT_IRQ => ioapic(vm, bytes, How::Assert),
        abi::VM_IOAPIC_DEASSERT_IRQ => ioapic(vm, bytes, How::Deassert),
        abi::VM_IOAPIC_PULSE_IRQ => ioapic(vm, bytes, How::Pulse),
        abi::VM_ISA_ASSERT_IRQ => isa(vm, bytes, How::Assert),
        abi::VM_ISA_DEASSERT_IRQ => isa(vm, bytes, How::Deassert),
        abi::VM_ISA_PULSE_IRQ => isa(vm, bytes, How::Pulse),
        abi::VM_ISA_SET_IRQ_TRIGGER => trigger(vm, bytes),
        abi::VM_IOAPIC_PINCOUNT => {
            put(bytes, 0, &(PINS as u32).to_le_bytes());
            Ok(0)
        }
        abi::VM_INJECT_NMI => nmi(vm, bytes),
        _ => Err(Errno(libc::ENOTTY)),
    }
}

fn message(vm: &Vm, bytes: &[u8]) -> Answer {
    let (message, address) = (u64_at(bytes, 0), u64_at(bytes, 8));
    if address & !0xf_ffff != 0xfee0_0000 {
        // The kernel returns -1 here, which is no errno at all.
        return Err(Errno(-1));
    }
    if let Some(kvm) = vm.made_kvm() {
        kvm.message(address, message as u32);
    }
    Ok(0)
}

fn nmi(vm: &Vm, bytes: &[u8]) -> Answer {
    let id = u32_at(bytes, 0);
    vm.vcpu(id)?;
    if let Some(kvm) = vm.made_kvm() {
        kvm.message(0xfee0_0000 | u64::from(id) << 12, 0x400);
    }
    Ok(0)
}

fn ioapic(vm: &Vm, bytes: &[u8], how: How) -> Answer {
    let kvm = vm.made_kvm();
    lock(&vm.lines).ioapic(kvm.as_ref().map(Arc::as_ref), u32_at(bytes, 0), how)
}

/// The PIC first; the IOAPIC only if that went well.
fn isa(vm: &Vm, bytes: &[u8], how: How) -> Answer {
    let (line, pin) = (u32_at(bytes, 0), u32_at(bytes, 4));
    let kvm = vm.made_kvm();
    let kvm = kvm.as_ref().map(Arc::as_ref);
    let mut lines = lock(&vm.lines);
    lines.pic(kvm, line, how)?;
    if pin.cast_signed() == -1 { Ok(0) } else { lines.ioapic(kvm, pin, how) }
}

fn trigger(vm: &Vm, bytes: &[u8]) -> Answer {
    let (line, how) = (u32_at(bytes, 0), u32_at(bytes, 4));
    let mut lines = lock(&vm.lines);
    let level = lines.levels.get_mut(line as usize).ok_or(Errno(libc::EINVAL))?;
    if how > 1 || (how == 1 && EDGE_ONLY.contains(&line)) {
        return Err(Errno(libc::EINVAL));
    }
    *level = how == 1;
    drop(lines);
    if let Some(kvm) = vm.made_kvm() {
        kvm.set_trigger(line, how == 1);
    }
    Ok(0)
}
