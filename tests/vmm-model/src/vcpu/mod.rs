// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A vCPU: who holds it, and what its calls do. Illumos `usr/src/uts/intel/io/vmm/vmm.c`.

mod calls;
mod cpuid;
mod entry;
mod exit;
mod guest;
mod registers;
mod reset;
mod segments;

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

pub(crate) use calls::call;
pub(crate) use entry::run;

use crate::{lock, signal};
use guest::Guest;

/// A vCPU.
pub(crate) struct Vcpu {
    id: u32,
    guest: Mutex<Guest>,
    /// How many wait to hold it.
    waiting: AtomicU32,
    /// The thread that is in `VM_RUN`.
    seat: Mutex<Option<libc::pid_t>>,
    /// That thread has been sent a signal.
    was_kicked: AtomicBool,
    /// `VM_VCPU_BARRIER` was called.
    barrier: AtomicBool,
}

/// A held vCPU: nobody else does anything with it.
pub(crate) struct Hold<'a> {
    vcpu: &'a Vcpu,
    guest: MutexGuard<'a, Guest>,
}

impl Deref for Hold<'_> {
    type Target = Guest;

    fn deref(&self) -> &Guest {
        &self.guest
    }
}

impl DerefMut for Hold<'_> {
    fn deref_mut(&mut self) -> &mut Guest {
        &mut self.guest
    }
}

impl Hold<'_> {
    /// Makes it as new.
    pub(crate) fn forget(&mut self) {
        let cpuid = std::mem::take(&mut self.guest.cpuid);
        *self.guest = Guest::new(self.vcpu.id);
        self.guest.cpuid = cpuid;
        self.vcpu.barrier.store(false, Ordering::SeqCst);
    }
}

impl Vcpu {
    pub(crate) fn new(id: u32) -> Self {
        Self {
            id,
            guest: Mutex::new(Guest::new(id)),
            waiting: AtomicU32::new(0),
            seat: Mutex::default(),
            was_kicked: AtomicBool::new(false),
            barrier: AtomicBool::new(false),
        }
    }

    /// Holds the vCPU, after having kicked it out of `VM_RUN`.
    pub(crate) fn hold(&self) -> Hold<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.kick();
        let guest = lock(&self.guest);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        Hold { vcpu: self, guest }
    }

    fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Makes a thread that is in `VM_RUN` look at what there is to do.
    pub(crate) fn kick(&self) {
        let seat = lock(&self.seat);
        if let Some(thread) = *seat {
            self.was_kicked.store(true, Ordering::SeqCst);
            signal::send(thread);
        }
    }

    /// `VM_VCPU_BARRIER`: a kick that is not lost.
    pub(crate) fn raise_barrier(&self) {
        self.barrier.store(true, Ordering::SeqCst);
        self.kick();
    }

    /// Says that this thread is in `VM_RUN` until the result is dropped.
    fn sit(&self) -> Seat<'_> {
        thread_local! {
            // SAFETY: asks for this thread's number, which cannot fail.
            static THREAD: libc::pid_t = unsafe { libc::gettid() };
        }
        let blocked = signal::block_all();
        *lock(&self.seat) = Some(THREAD.with(|thread| *thread));
        Seat { vcpu: self, blocked }
    }
}

/// The stay of a thread in `VM_RUN`.
struct Seat<'a> {
    vcpu: &'a Vcpu,
    /// Signals that the program blocks.
    blocked: libc::sigset_t,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        *lock(&self.vcpu.seat) = None;
        if self.vcpu.was_kicked.swap(false, Ordering::SeqCst) {
            signal::consume();
        }
        signal::restore(&self.blocked);
    }
}
