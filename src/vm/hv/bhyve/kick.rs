// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! How a vCPU is made to leave the guest before version 16: by a signal, which interrupts
//! `VM_RUN`. One that comes a moment too early is lost, so whoever kicks does it again until the
//! vCPU has left.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};

/// The way to the thread that runs a vCPU.
#[derive(Default)]
pub(super) struct Kick {
    is_wanted: AtomicBool,
    thread: Mutex<Option<libc::pthread_t>>,
}

impl Kick {
    /// Interrupts the vCPU, or keeps it from entering the guest the next time.
    pub(super) fn kick(&self) {
        self.is_wanted.store(true, Ordering::SeqCst);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = *thread {
            // SAFETY: the vCPU clears this entry, under the lock held here, before its thread
            // ends.
            unsafe { libc::pthread_kill(thread, signal()) };
        }
    }

    /// Whether the vCPU has been kicked since it was last asked.
    pub(super) fn take(&self) -> bool {
        self.is_wanted.swap(false, Ordering::SeqCst)
    }

    /// Says that the calling thread runs the vCPU from now on.
    pub(super) fn enter(&self) {
        signal();
        // SAFETY: asks for the calling thread's id, which cannot fail.
        let thread = unsafe { libc::pthread_self() };
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
    }

    /// Says that nobody runs it any more.
    pub(super) fn leave(&self) {
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// A signal whose handler does nothing.
fn signal() -> libc::c_int {
    extern "C" fn ignore(_: libc::c_int) {}
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: the handler is async-signal-safe (it does nothing); sigaction gets a zeroed,
        // then initialized, structure and no old one to fill.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = ignore as extern "C" fn(libc::c_int) as libc::sighandler_t;
            libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut());
        }
    });
    libc::SIGUSR2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kick_is_taken_once_and_needs_no_thread() {
        let kick = Kick::default();
        kick.kick();
        assert!(kick.take() && !kick.take());
        kick.enter();
        kick.kick();
        kick.leave();
        kick.kick();
        assert!(kick.take() && !kick.take());
    }
}
