// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Where the wall time of a build went: every second is booked to exactly one account.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::ui::Split;

/// An account that wall time is booked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Account {
    /// Downloading, checksumming and copying.
    Transfer,
    /// The boot wait that the target asks for.
    BootWait,
    /// Typing the boot command, its own waits included.
    Typing,
    /// The guest works and we wait for its next event.
    Guest,
    /// Compressing and digesting the disk.
    Compress,
    /// Everything else: our own work and our own waits.
    Own,
}

fn of(split: &mut Split, account: Account) -> &mut f64 {
    match account {
        Account::Transfer => &mut split.transfer,
        Account::BootWait => &mut split.boot_wait,
        Account::Typing => &mut split.typing,
        Account::Guest => &mut split.guest,
        Account::Compress => &mut split.compress,
        Account::Own => &mut split.own,
    }
}

struct State {
    split: Split,
    current: Account,
    since: Instant,
}

/// Books wall time; one account is open at any time, [`Account::Own`] at first.
pub(crate) struct Ledger(Mutex<State>);

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl Ledger {
    /// Opens the ledger now.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State {
            split: Split::default(),
            current: Account::Own,
            since: Instant::now(),
        }))
    }

    /// From now on, time belongs to `account`.
    pub(crate) fn switch(&self, account: Account) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.close();
        state.current = account;
    }

    /// The split up to now.
    pub(crate) fn split(&self) -> Split {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.close();
        state.split
    }
}

impl State {
    fn close(&mut self) {
        let now = Instant::now();
        *of(&mut self.split, self.current) += now.duration_since(self.since).as_secs_f64();
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_second_is_booked_once() {
        let start = Instant::now();
        let ledger = Ledger::new();
        ledger.switch(Account::Guest);
        while start.elapsed() < Duration::from_millis(30) {
            std::hint::spin_loop();
        }
        ledger.switch(Account::Compress);
        let split = ledger.split();
        let whole = start.elapsed().as_secs_f64();
        let sum = split.transfer
            + split.boot_wait
            + split.typing
            + split.guest
            + split.compress
            + split.own;
        assert!((whole - sum).abs() < 0.02, "{split:?} does not add up to {whole}");
        assert!(split.guest >= 0.025, "{split:?}");
    }
}
