// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The guest side of a vCPU: KVM's vCPU, and what it left to be done.

use std::sync::Arc;

use kvm_bindings::{
    KVM_EXIT_DEBUG, KVM_EXIT_FAIL_ENTRY, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_IO, KVM_EXIT_IO_IN,
    KVM_EXIT_MMIO, KVM_EXIT_SHUTDOWN, KVM_EXIT_X86_RDMSR, KVM_EXIT_X86_WRMSR, KVM_MP_STATE_HALTED,
    KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_UNINITIALIZED, kvm_mp_state, kvm_run,
};
use kvm_ioctls::{SyncReg, VcpuFd};

use super::cpuid::Cpuid;
use super::exit::{Access, Exit, WRITE};
use super::reset::PowerOn;
use crate::board::Served;
use crate::config::config;
use crate::kvm::Kvm;
use crate::vm::Vm;
use crate::{Answer, Errno, lock, log};

/// An access that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pending {
    pub(super) access: Access,
    /// Where in the shared page the value goes, and how many elements of a string come after it.
    offset: usize,
    left: u32,
}

/// What came out of an entry.
pub(super) enum Left {
    /// A signal, or nothing.
    Early,
    /// The kernel has dealt with it.
    Served,
    TripleFault,
    For(Exit),
}

/// KVM's vCPU. The order is the order of dropping.
struct Under {
    fd: VcpuFd,
    fresh: PowerOn,
    kvm: Arc<Kvm>,
}

/// The state.
pub(crate) struct Guest {
    id: u32,
    under: Option<Under>,
    pub(super) pending: Option<Pending>,
    /// KVM has something to finish before its registers are right.
    is_unfinished: bool,
    /// The same exit comes for ever.
    pub(super) stuck: Option<Exit>,
    /// An exit that came while the program's registers were made right.
    pub(super) queued: Option<Exit>,
    /// Where the instruction of the last exit is.
    pub(super) rip: u64,
    /// Its length, where it is known.
    pub(super) length: u32,
    /// Capabilities that are on, one bit each.
    pub(super) capabilities: u32,
    pub(super) has_x2apic: bool,
    pub(super) cpuid: Cpuid,
    /// An exception was injected and not delivered yet.
    pub(super) has_exception: bool,
    /// The vCPU was in the guest: `CPUID` cannot change any more.
    has_run: bool,
    /// The signals that KVM blocks in the guest.
    pub(super) blocked: Option<u64>,
}

/// `VM_CAP_HALT_EXIT`, as a bit.
pub(super) const HALT_EXIT: u32 = 1;

impl Guest {
    pub(super) fn new(id: u32) -> Self {
        Self {
            id,
            under: None,
            pending: None,
            is_unfinished: false,
            stuck: None,
            queued: None,
            rip: 0,
            length: 0,
            capabilities: if config().version >= 6 { HALT_EXIT } else { 0 },
            has_x2apic: false,
            cpuid: Cpuid::default(),
            has_exception: false,
            has_run: false,
            blocked: None,
        }
    }

    /// KVM's vCPU, which is made when it is first needed: halted, as all are.
    pub(super) fn fd(&mut self, vm: &Vm) -> Answer<&mut VcpuFd> {
        if self.under.is_none() {
            let kvm = vm.kvm()?;
            let mut fd =
                kvm.vm.create_vcpu(self.id.into()).map_err(|error| failed("vCPU", error))?;
            let halted = kvm_mp_state { mp_state: KVM_MP_STATE_UNINITIALIZED };
            fd.set_mp_state(halted).map_err(|error| failed("run state", error))?;
            let fresh = PowerOn::of(&fd)?;
            if kvm.shares_registers {
                fd.set_sync_valid_reg(SyncReg::Register);
            }
            self.under = Some(Under { fd, fresh, kvm });
        }
        self.under.as_mut().map(|under| &mut under.fd).ok_or(Errno(libc::ENXIO))
    }

    /// The same for calls about registers: KVM finishes first what it has begun.
    pub(super) fn settled(&mut self, vm: &Vm) -> Answer<&mut VcpuFd> {
        self.fd(vm)?;
        self.finish(vm)?;
        self.fd(vm)
    }

    /// `VM_RESET_CPU`.
    pub(super) fn reset(&mut self, vm: &Vm, is_init: bool) -> Answer {
        self.settled(vm)?;
        let under = self.under.as_ref().ok_or(Errno(libc::ENXIO))?;
        under.fresh.apply(&under.fd, is_init)?;
        (self.pending, self.stuck, self.queued) = (None, None, None);
        self.has_exception = false;
        Ok(0)
    }

    /// Has KVM finish an access that was answered, without going on.
    pub(super) fn finish(&mut self, vm: &Vm) -> Answer<()> {
        if self.is_unfinished && self.pending.is_none() {
            self.fd(vm)?.set_kvm_immediate_exit(1);
            let left = self.enter(vm);
            self.fd(vm)?.set_kvm_immediate_exit(0);
            match left? {
                Left::For(exit) if self.pending.is_none() => self.queued = Some(exit),
                Left::TripleFault => {
                    let _ = vm.life.suspend(crate::life::TRIPLE_FAULT, self.id.cast_signed());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Enters the guest until something happens.
    pub(super) fn enter(&mut self, vm: &Vm) -> Answer<Left> {
        if !self.has_run {
            let cpuid = self.cpuid.leaves(vm, self.id, self.has_x2apic)?;
            self.fd(vm)?.set_cpuid2(&cpuid).map_err(|error| failed("CPUID", error))?;
            self.has_run = true;
        }
        self.is_unfinished = false;
        let fd = self.fd(vm)?;
        let result = fd.run().map(drop);
        match result {
            Ok(()) => self.left(vm),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => Ok(Left::Early),
            Err(error) => Err(failed("KVM_RUN", error)),
        }
    }

    /// Where the vCPU has come out.
    fn instruction(&self) -> u64 {
        self.under.as_ref().map_or(0, |under| match under.kvm.shares_registers {
            true => under.fd.sync_regs().regs.rip,
            false => under.fd.get_regs().map_or(0, |registers| registers.rip),
        })
    }

    /// Interprets KVM's exit.
    fn left(&mut self, vm: &Vm) -> Answer<Left> {
        let rip = self.instruction();
        let run = *self.fd(vm)?.get_kvm_run();
        (self.rip, self.length) = (rip, 0);
        match run.exit_reason {
            KVM_EXIT_IO => Ok(self.port(vm, &run)),
            KVM_EXIT_MMIO => Ok(self.mmio(vm, &run)),
            KVM_EXIT_X86_RDMSR | KVM_EXIT_X86_WRMSR => self.msr(vm, &run),
            KVM_EXIT_SHUTDOWN => Ok(Left::TripleFault),
            KVM_EXIT_DEBUG => Ok(Left::For(self.debug(vm, &run))),
            KVM_EXIT_FAIL_ENTRY => {
                // SAFETY: the exit reason says that this member of the union is filled.
                let reason =
                    unsafe { run.__bindgen_anon_1.fail_entry.hardware_entry_failure_reason };
                Ok(Left::For(self.stick(Exit::Refused { reason })))
            }
            KVM_EXIT_INTERNAL_ERROR => Ok(Left::For(self.undecoded(vm))),
            _ => Ok(Left::Early),
        }
    }

    fn stick(&mut self, exit: Exit) -> Exit {
        self.stuck = Some(exit);
        exit
    }

    /// An instruction that cannot be emulated.
    fn undecoded(&mut self, vm: &Vm) -> Exit {
        let mut bytes = [0; 15];
        let rip = self.rip;
        let at = self.fd(vm).ok().and_then(|fd| {
            let base = fd.get_sregs().ok()?.cs.base;
            let place = fd.translate_gva(base.wrapping_add(rip)).ok()?;
            (place.valid != 0).then_some(place.physical_address)
        });
        let space = lock(&vm.space);
        let is_read = |gpa: u64| (gpa % 4096 <= 4081) && space.read(gpa, &mut bytes);
        let count = if at.is_some_and(is_read) { 15 } else { 0 };
        self.stick(Exit::Instruction { bytes, count })
    }

    fn port(&mut self, vm: &Vm, run: &kvm_run) -> Left {
        // SAFETY: the exit reason says that this member of the union is filled.
        let io = unsafe { run.__bindgen_anon_1.io };
        self.is_unfinished = true;
        let is_read = u32::from(io.direction) == KVM_EXIT_IO_IN;
        let access = Access::Port { port: io.port, bytes: io.size, is_read, value: 0 };
        let left = io.count.saturating_sub(1);
        self.offer(vm, Pending { access, offset: io.data_offset as usize, left })
    }

    /// Serves an access, or has it wait for the program.
    fn offer(&mut self, vm: &Vm, mut pending: Pending) -> Left {
        let Access::Port { port, bytes, is_read, .. } = pending.access else {
            return Left::Served;
        };
        loop {
            let value = self.element(vm, pending.offset, bytes);
            let written = (!is_read).then_some(value);
            match vm.board.port(port, bytes, written) {
                Served::Done(value) => self.set_element(vm, pending.offset, bytes, value),
                Served::Refused => return Left::For(self.undecoded(vm)),
                Served::Nobody => {
                    pending.access = Access::Port { port, bytes, is_read, value };
                    self.pending = Some(pending);
                    return Left::For(Exit::Access(pending.access));
                }
            }
            if pending.left == 0 {
                return Left::Served;
            }
            pending.left -= 1;
            pending.offset += usize::from(bytes);
        }
    }

    /// An element of a port access, in the page that KVM shares.
    fn place(&mut self, vm: &Vm, offset: usize, bytes: u8) -> Option<*mut u8> {
        let run = std::ptr::from_mut(self.fd(vm).ok()?.get_kvm_run()).cast::<u8>();
        // The data is in the second page.
        (offset + usize::from(bytes) <= 2 * 4096).then(|| run.wrapping_add(offset))
    }

    fn element(&mut self, vm: &Vm, offset: usize, bytes: u8) -> u32 {
        let mut value = [0; 4];
        let len = usize::from(bytes.min(4));
        if let Some(from) = self.place(vm, offset, bytes) {
            // SAFETY: the place is inside of KVM's shared pages, which are not being written
            // while the vCPU is held and does not run; `len` is at most that of `value`.
            unsafe { std::ptr::copy_nonoverlapping(from, value.as_mut_ptr(), len) };
        }
        u32::from_le_bytes(value)
    }

    fn set_element(&mut self, vm: &Vm, offset: usize, bytes: u8, value: u32) {
        if let Some(to) = self.place(vm, offset, bytes) {
            let value = value.to_le_bytes();
            // SAFETY: as for `element`, the other way round.
            unsafe { std::ptr::copy_nonoverlapping(value.as_ptr(), to, usize::from(bytes.min(4))) };
        }
    }

    fn mmio(&mut self, vm: &Vm, run: &kvm_run) -> Left {
        // SAFETY: the exit reason says that this member of the union is filled.
        let mmio = unsafe { run.__bindgen_anon_1.mmio };
        self.is_unfinished = true;
        let (gpa, bytes, is_read) = (mmio.phys_addr, mmio.len.min(8) as u8, mmio.is_write == 0);
        let written = (!is_read).then(|| u64::from_le_bytes(mmio.data));
        if lock(&vm.space).is_mapped(gpa) {
            let fault = if is_read { 1 } else { WRITE };
            return Left::For(self.stick(Exit::Paging { gpa, fault }));
        }
        if let Some(value) = vm.board.mmio(vm, gpa, bytes, written) {
            self.set_mmio(vm, value);
            return Left::Served;
        }
        let access = Access::Mmio { gpa, bytes, is_read, value: written.unwrap_or(0) };
        self.pending = Some(Pending { access, offset: 0, left: 0 });
        Left::For(Exit::Access(access))
    }

    fn set_mmio(&mut self, vm: &Vm, value: u64) {
        if let Ok(fd) = self.fd(vm) {
            fd.get_kvm_run().__bindgen_anon_1.mmio.data = value.to_le_bytes();
        }
    }

    /// Answers what is pending; another exit when a string goes on.
    pub(super) fn answer(&mut self, vm: &Vm, value: u64) -> Left {
        let Some(mut pending) = self.pending.take() else { return Left::Served };
        let Access::Port { bytes, is_read, .. } = pending.access else {
            self.set_mmio(vm, value);
            return Left::Served;
        };
        if is_read {
            self.set_element(vm, pending.offset, bytes, value as u32);
        }
        if pending.left == 0 {
            return Left::Served;
        }
        pending.left -= 1;
        pending.offset += usize::from(bytes);
        self.offer(vm, pending)
    }

    /// `VEC_DISCARD_INSTR`: KVM finishes the instruction with nothing, and then it is taken back.
    /// What KVM has done already for a write of a register to a device stays done.
    pub(super) fn discard(&mut self, vm: &Vm) -> Answer<()> {
        if self.pending.take().is_none() {
            return Ok(());
        }
        let before = self.fd(vm)?.get_regs().map_err(|error| failed("registers", error))?;
        self.finish(vm)?;
        self.pending = None;
        self.fd(vm)?.set_regs(&before).map_err(|error| failed("registers", error))
    }

    /// The next instruction is selected at once; the registers are the program's to set.
    fn msr(&mut self, vm: &Vm, run: &kvm_run) -> Answer<Left> {
        // SAFETY: the exit reason says that this member of the union is filled.
        let msr = unsafe { run.__bindgen_anon_1.msr };
        self.is_unfinished = true;
        let fd = self.fd(vm)?;
        let registers = fd.get_regs().map_err(|error| failed("registers", error))?;
        // SAFETY: as above; the vCPU has not run since.
        let place = unsafe { &mut fd.get_kvm_run().__bindgen_anon_1.msr };
        place.error = 0;
        place.data = registers.rax & 0xffff_ffff | registers.rdx << 32;
        self.finish(vm)?;
        (self.rip, self.length) = (registers.rip, 2);
        let is_read = run.exit_reason == KVM_EXIT_X86_RDMSR;
        if is_read {
            let fd = self.fd(vm)?;
            let mut after = fd.get_regs().map_err(|error| failed("registers", error))?;
            (after.rax, after.rdx) = (registers.rax, registers.rdx);
            fd.set_regs(&after).map_err(|error| failed("registers", error))?;
            return Ok(Left::For(Exit::ReadMsr(msr.index)));
        }
        Ok(Left::For(Exit::WriteMsr(msr.index, msr.data)))
    }

    fn debug(&mut self, vm: &Vm, run: &kvm_run) -> Exit {
        // SAFETY: the exit reason says that this member of the union is filled.
        let debug = unsafe { run.__bindgen_anon_1.debug.arch };
        if debug.exception == 3 {
            self.length = 1;
            return Exit::Breakpoint;
        }
        vm.life.state().debug |= crate::life::bit(self.id);
        Exit::Step
    }

    /// Whether the guest has halted with interrupts off.
    pub(super) fn is_dead(&mut self, vm: &Vm) -> bool {
        if self.capabilities & HALT_EXIT == 0 {
            return false;
        }
        let Ok(fd) = self.fd(vm) else { return false };
        let is_halted = fd.get_mp_state().is_ok_and(|state| state.mp_state == KVM_MP_STATE_HALTED);
        is_halted && fd.get_regs().is_ok_and(|registers| registers.rflags & 0x200 == 0)
    }

    /// Whether it runs, and does not wait for SIPI.
    pub(super) fn run_state(&mut self, vm: &Vm) -> Answer<u32> {
        let state = self.fd(vm)?.get_mp_state().map_err(|error| failed("run state", error))?;
        Ok(match state.mp_state {
            KVM_MP_STATE_UNINITIALIZED => 0,
            KVM_MP_STATE_RUNNABLE | KVM_MP_STATE_HALTED => 2,
            _ => 1,
        })
    }
}

/// Logs what KVM refuses. The program cannot know.
pub(super) fn failed(what: &str, error: kvm_ioctls::Error) -> Errno {
    log::line(&format!("KVM refuses: {what}: {error}"));
    Errno(libc::EIO)
}
