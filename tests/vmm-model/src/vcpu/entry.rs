// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `VM_RUN`.

use super::exit::Exit;
use super::guest::{Guest, Left};
use super::{Hold, Seat, Vcpu};
use crate::abi::{u32_at, u64_at};
use crate::config::config;
use crate::life::{self, bit};
use crate::vm::Vm;
use crate::{Answer, Errno, dispatch, signal, ticker};
use std::sync::atomic::Ordering;

const DEFAULT: u32 = 0;
const DISCARD: u32 = 1;
/// `VEC_FULFILL_MMIO`.
pub(super) const FULFILL_MMIO: u32 = 2;
/// `VEC_FULFILL_INOUT`.
pub(super) const FULFILL_INOUT: u32 = 3;
const CONSISTENT: u32 = 0x8000_0000;

/// Answers the call. Its structure is `struct vm_entry`.
///
/// # Errors
/// Those of the kernel.
pub(crate) fn run(vm: &Vm, bytes: &[u8]) -> Answer {
    let id = u32_at(bytes, 0);
    let vcpu = vm.vcpu(id)?;
    ticker::start();
    let mut hold = vcpu.hold();
    {
        let state = vm.life.state();
        if state.active & bit(id) == 0 {
            return Err(Errno(libc::EINVAL));
        }
        if state.is_paused {
            return Err(Errno(libc::EBUSY));
        }
    }
    let seat = vcpu.sit();
    vm.life.set_running(id, true);
    let stay = Stay { vm, vcpu, seat: &seat };
    let exit = stay.enter(&mut hold, bytes);
    vm.life.set_running(id, false);
    let record = exit?.record(hold.rip, hold.length);
    dispatch::write_user(u64_at(bytes, 8), &record).map(|()| 0)
}

/// A thread's stay in the call.
struct Stay<'a> {
    vm: &'a Vm,
    vcpu: &'a Vcpu,
    seat: &'a Seat<'a>,
}

impl Stay<'_> {
    fn enter(&self, guest: &mut Hold<'_>, bytes: &[u8]) -> Answer<Exit> {
        let command = u32_at(bytes, 4);
        let is_consistent = command & CONSISTENT != 0;
        if is_consistent && config().version < 15 {
            return Err(Errno(libc::EINVAL));
        }
        let payload = bytes.get(16..40).unwrap_or_default();
        if let Some(exit) = self.obey(guest, command & !CONSISTENT, payload)? {
            return Ok(exit);
        }
        self.prepare(guest)?;
        loop {
            if let Some(exit) = self.must_leave(guest)? {
                return Ok(exit);
            }
            if is_consistent {
                guest.finish(self.vm)?;
                if guest.pending.is_none() && guest.queued.is_none() {
                    return Ok(Exit::Nothing);
                }
                continue;
            }
            if let Some(exit) = self.go(guest)? {
                return Ok(exit);
            }
        }
    }

    /// Does what the program says about the last exit.
    fn obey(&self, guest: &mut Guest, command: u32, payload: &[u8]) -> Answer<Option<Exit>> {
        let invalid = Errno(libc::EINVAL);
        match command {
            DEFAULT => {}
            DISCARD => guest.discard(self.vm)?,
            FULFILL_MMIO | FULFILL_INOUT => {
                let pending = guest.pending.ok_or(invalid)?;
                let value = pending.access.answered_by(command, payload).ok_or(invalid)?;
                if let Left::For(exit) = guest.answer(self.vm, value) {
                    return Ok(Some(exit));
                }
            }
            _ => return Err(invalid),
        }
        // What nobody has answered comes again.
        Ok(guest.pending.map(|pending| Exit::Access(pending.access)))
    }

    /// Has KVM let in the signals that the program lets in.
    fn prepare(&self, guest: &mut Guest) -> Answer<()> {
        // SAFETY: C's set begins with the 64 bits that the kernel has.
        let bits =
            unsafe { std::ptr::read_unaligned((&raw const self.seat.blocked).cast::<u64>()) };
        if guest.blocked != Some(bits) {
            let fd = std::os::fd::AsRawFd::as_raw_fd(guest.fd(self.vm)?);
            signal::set_for_kvm(fd, &self.seat.blocked)?;
            guest.blocked = Some(bits);
        }
        Ok(())
    }

    /// Why the vCPU may not enter the guest.
    fn must_leave(&self, guest: &mut Guest) -> Answer<Option<Exit>> {
        if let Some(pending) = guest.pending {
            return Ok(Some(Exit::Access(pending.access)));
        }
        if self.vm.is_ending() {
            return Err(Errno(libc::ENXIO));
        }
        let exit = self.reason();
        if exit.is_some() {
            guest.finish(self.vm)?;
            if let Some(pending) = guest.pending {
                return Ok(Some(Exit::Access(pending.access)));
            }
            guest.rip = guest.fd(self.vm)?.get_regs().map_or(0, |registers| registers.rip);
        }
        Ok(exit.or_else(|| guest.queued.take()).or(guest.stuck))
    }

    fn reason(&self) -> Option<Exit> {
        let id = self.vcpu.id;
        let suspension = self.vm.life.state().suspension;
        if let Some(why) = suspension {
            if self.vm.life.was_caught(id) {
                return Some(Exit::Nothing);
            }
            self.vm.life.notice(id, || self.vcpu.is_wanted() || self.vm.is_ending());
            if self.vcpu.is_wanted() {
                return Some(Exit::Wanted);
            }
            return Some(Exit::Suspended(why));
        }
        let (is_debug, is_paused) = {
            let state = self.vm.life.state();
            (state.debug & bit(id) != 0, state.is_paused)
        };
        if self.vcpu.is_wanted() {
            return Some(Exit::Wanted);
        }
        if is_paused || self.vcpu.barrier.swap(false, Ordering::SeqCst) {
            return Some(Exit::Nothing);
        }
        is_debug.then_some(Exit::Debug)
    }

    /// Enters the guest once.
    fn go(&self, guest: &mut Guest) -> Answer<Option<Exit>> {
        guest.has_exception = false;
        match guest.enter(self.vm)? {
            Left::For(exit) => Ok(Some(exit)),
            Left::Served => Ok(None),
            Left::TripleFault => {
                let _ = self.vm.life.suspend(life::TRIPLE_FAULT, self.vcpu.id.cast_signed());
                self.vm.kick_all();
                Ok(None)
            }
            Left::Early => Ok(self.interrupted(guest)),
        }
    }

    /// A signal came, or KVM has started a vCPU.
    fn interrupted(&self, guest: &mut Guest) -> Option<Exit> {
        let is_programs = signal::is_pending(&self.seat.blocked);
        signal::consume();
        if is_programs {
            return Some(Exit::Nothing);
        }
        if guest.is_dead(self.vm) {
            if self.vm.life.halts(self.vcpu.id) {
                let _ = self.vm.life.suspend(life::HALT, self.vcpu.id.cast_signed());
                self.vm.kick_all();
            }
        } else {
            self.vm.life.state().halted &= !bit(self.vcpu.id);
        }
        None
    }
}
