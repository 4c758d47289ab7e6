// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! How a vCPU is made to leave the guest: a signal interrupts `KVM_RUN`.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, Once, PoisonError};

/// How another thread gets a vCPU out of the guest.
#[derive(Default)]
pub(super) struct Kick(Mutex<Option<Running>>);

/// The thread that runs a vCPU, and KVM's flag that it shall not enter.
pub(super) struct Running {
    pub(super) thread: libc::pthread_t,
    pub(super) stop: *const AtomicU8,
}

// SAFETY: the pointer is to shared memory that both sides reach by atomic access only.
unsafe impl Send for Running {}

impl Kick {
    /// Makes the vCPU leave the guest, or not enter it the next time.
    pub(super) fn kick(&self) {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = running.as_ref() {
            // SAFETY: the vCPU clears this entry, under the lock held here, before its shared
            // memory is unmapped and before its thread ends.
            unsafe {
                (*running.stop).store(1, Ordering::SeqCst);
                libc::pthread_kill(running.thread, signal());
            }
        }
    }

    pub(super) fn set(&self, running: Option<Running>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = running;
    }
}

/// A real-time signal whose handler does nothing: it only interrupts `KVM_RUN`.
pub(super) fn signal() -> libc::c_int {
    extern "C" fn ignore(_: libc::c_int) {}
    static INSTALLED: Once = Once::new();
    let signal = libc::SIGRTMIN() + 1;
    INSTALLED.call_once(|| {
        // SAFETY: the handler is async-signal-safe (it does nothing); sigaction gets a zeroed,
        // then initialized, structure and no old one to fill.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = ignore as extern "C" fn(libc::c_int) as libc::sighandler_t;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    });
    signal
}
