// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What a machine's vCPUs have in common: which are active, and why they may not run.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::config;
use crate::{Answer, Errno, lock};

/// `VM_SUSPEND_HALT`.
pub(crate) const HALT: u32 = 3;
/// `VM_SUSPEND_TRIPLEFAULT`.
pub(crate) const TRIPLE_FAULT: u32 = 4;

/// Why and by whom the machine was suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Suspension {
    pub(crate) how: u32,
    pub(crate) source: i32,
    pub(crate) when: u64,
}

/// The state, one bit for each vCPU in the sets.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) active: u64,
    pub(crate) suspension: Option<Suspension>,
    /// Up to version 15: those that have noticed the suspension.
    pub(crate) noticed: u64,
    /// Up to version 15: those that the suspension has caught in `VM_RUN`, which come back with
    /// nothing before they notice.
    caught: u64,
    /// Those in debug suspension.
    pub(crate) debug: u64,
    /// Those that halt with interrupts off.
    pub(crate) halted: u64,
    /// Those inside `VM_RUN`.
    pub(crate) running: u64,
    pub(crate) is_paused: bool,
}

/// The state, and the event of its change.
pub(crate) struct Life {
    state: Mutex<State>,
    changed: Condvar,
    booted: Mutex<Instant>,
}

impl Default for Life {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            booted: Mutex::new(Instant::now()),
        }
    }
}

/// The bit of a vCPU.
pub(crate) fn bit(id: u32) -> u64 {
    1u64.checked_shl(id).unwrap_or(0)
}

impl Life {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Suspends the machine; who comes second gets `EALREADY`.
    pub(crate) fn suspend(&self, how: u32, source: i32) -> Answer {
        let when = u64::try_from(lock(&self.booted).elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut state = self.state();
        if state.suspension.is_some() {
            return Err(Errno(libc::EALREADY));
        }
        state.suspension = Some(Suspension { how, source, when });
        // Who is in the kernel notices when its thread comes back to `VM_RUN`.
        state.noticed = state.active & !state.running;
        let own = u32::try_from(source).map_or(0, bit);
        state.caught = if config().version < 16 { state.active & state.running & !own } else { 0 };
        drop(state);
        self.changed.notify_all();
        Ok(0)
    }

    /// Up to version 15 a suspended vCPU waits in the kernel until all active ones have noticed.
    /// Every once in a while it looks whether `is_wanted` elsewhere.
    pub(crate) fn notice(&self, id: u32, is_wanted: impl Fn() -> bool) {
        if config().version >= 16 {
            return;
        }
        let mut state = self.state();
        state.noticed |= bit(id);
        self.changed.notify_all();
        while state.suspension.is_some() && state.noticed & state.active != state.active {
            if is_wanted() {
                return;
            }
            let waited = self.changed.wait_timeout(state, Duration::from_millis(20));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether the suspension has caught this vCPU, which is said once.
    pub(crate) fn was_caught(&self, id: u32) -> bool {
        let mut state = self.state();
        let was = state.caught & bit(id) != 0;
        state.caught &= !bit(id);
        was
    }

    /// Whether all active vCPUs halt with interrupts off, now that this one does.
    pub(crate) fn halts(&self, id: u32) -> bool {
        let mut state = self.state();
        state.halted |= bit(id);
        state.halted & state.active == state.active
    }

    /// Begins or ends a stay in `VM_RUN`.
    pub(crate) fn set_running(&self, id: u32, is_running: bool) {
        let mut state = self.state();
        if is_running {
            state.running |= bit(id);
            state.halted &= !bit(id);
        } else {
            state.running &= !bit(id);
        }
    }

    /// `VM_PAUSE` and `VM_RESUME`.
    pub(crate) fn set_paused(&self, is_paused: bool) -> Answer {
        let mut state = self.state();
        if state.is_paused == is_paused {
            return Err(Errno(libc::EALREADY));
        }
        state.is_paused = is_paused;
        Ok(0)
    }

    /// `VM_ACTIVATE_CPU`.
    pub(crate) fn activate(&self, id: u32) -> Answer {
        let mut state = self.state();
        if state.active & bit(id) != 0 || state.suspension.is_some() {
            return Err(Errno(libc::EBUSY));
        }
        state.active |= bit(id);
        Ok(0)
    }

    /// `VM_SUSPEND_CPU` and `VM_RESUME_CPU`; -1 is all of them.
    pub(crate) fn set_debug(&self, id: i32, is_on: bool) -> Answer {
        let mut state = self.state();
        let set = match u32::try_from(id) {
            Err(_) if id == -1 => state.active,
            Ok(id) if state.active & bit(id) != 0 => bit(id),
            _ => return Err(Errno(libc::EINVAL)),
        };
        if is_on {
            state.debug |= set;
        } else if id != -1 && state.debug & set == 0 {
            return Err(Errno(libc::EINVAL));
        } else {
            state.debug &= !set;
        }
        Ok(0)
    }

    /// What `VM_REINIT` refuses up to version 15, unless it is forced.
    pub(crate) fn is_all_noticed(&self) -> bool {
        let state = self.state();
        state.suspension.is_some() && state.noticed & state.active == state.active
    }

    /// `VM_REINIT`.
    pub(crate) fn reinit(&self) {
        *self.state() = State::default();
        *lock(&self.booted) = Instant::now();
        self.changed.notify_all();
    }
}
