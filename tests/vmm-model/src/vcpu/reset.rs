// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A vCPU's power-on state.

use kvm_bindings::{
    kvm_debugregs, kvm_fpu, kvm_lapic_state, kvm_regs, kvm_segment, kvm_sregs, kvm_vcpu_events,
    kvm_xcrs,
};
use kvm_ioctls::VcpuFd;

use super::guest::failed;
use crate::Answer;

/// What KVM had when the vCPU was new, with bhyve's values in their place.
pub(super) struct PowerOn {
    registers: kvm_regs,
    system: kvm_sregs,
    fpu: kvm_fpu,
    debug: kvm_debugregs,
    events: kvm_vcpu_events,
    lapic: kvm_lapic_state,
    extended: Option<kvm_xcrs>,
}

impl PowerOn {
    /// Takes the state of a vCPU that is new.
    pub(super) fn of(fd: &VcpuFd) -> Answer<Self> {
        Self::read(fd).map_err(|error| failed("power-on state", error))
    }

    fn read(fd: &VcpuFd) -> Result<Self, kvm_ioctls::Error> {
        let mut system = fd.get_sregs()?;
        set_system(&mut system);
        let mut debug = fd.get_debug_regs()?;
        debug.db = [0; 4];
        (debug.dr6, debug.dr7) = (0xffff_0ff0, 0x400);
        Ok(Self {
            registers: kvm_regs { rip: 0xfff0, rflags: 2, rdx: 0x600, ..kvm_regs::default() },
            system,
            fpu: fd.get_fpu()?,
            debug,
            events: fd.get_vcpu_events()?,
            lapic: fd.get_lapic()?,
            extended: fd.get_xcrs().ok(),
        })
    }

    /// Gives the vCPU this state. `INIT` keeps the FPU and the extended control register.
    pub(super) fn apply(&self, fd: &VcpuFd, is_init: bool) -> Answer<()> {
        self.write(fd, is_init).map_err(|error| failed("reset", error))
    }

    fn write(&self, fd: &VcpuFd, is_init: bool) -> Result<(), kvm_ioctls::Error> {
        fd.set_sregs(&self.system)?;
        fd.set_regs(&self.registers)?;
        fd.set_debug_regs(&self.debug)?;
        fd.set_vcpu_events(&self.events)?;
        fd.set_lapic(&self.lapic)?;
        if is_init {
            return Ok(());
        }
        fd.set_fpu(&self.fpu)?;
        self.extended.map_or(Ok(()), |extended| fd.set_xcrs(&extended))
    }
}

fn set_system(system: &mut kvm_sregs) {
    let segment = |selector: u16, base: u64, access: u8| kvm_segment {
        base,
        limit: 0xffff,
        selector,
        type_: access & 0xf,
        present: access >> 7,
        s: access >> 4 & 1,
        ..kvm_segment::default()
    };
    let data = segment(0, 0, 0x93);
    (system.ds, system.es, system.fs) = (data, data, data);
    (system.gs, system.ss) = (data, data);
    system.cs = segment(0xf000, 0xffff_0000, 0x93);
    system.ldt = segment(0, 0, 0x82);
    system.tr = segment(0, 0, 0x8b);
    (system.gdt.base, system.gdt.limit) = (0, 0xffff);
    (system.idt.base, system.idt.limit) = (0, 0xffff);
    system.cr0 = 0x6000_0010;
    (system.cr2, system.cr3, system.cr4, system.efer) = (0, 0, 0, 0);
}
