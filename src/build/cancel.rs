// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Signals: the first one ends the run in good order, the second one at once.

use std::fmt;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::journal::Journal;
use crate::ui::{Failure, Kind, Outcome};

/// What SIGINT, SIGTERM and SIGHUP do to this process. Cheap to clone.
#[derive(Clone)]
pub struct Cancel {
    token: CancellationToken,
    journals: Arc<Mutex<Vec<Journal>>>,
    received: Arc<AtomicI32>,
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancel").field("signal", &self.signal()).finish_non_exhaustive()
    }
}

impl Cancel {
    /// Takes the signals over. The first cancels [`Cancel::token`]; the second kills every
    /// process in the watched journals and exits with code 130 (what else they hold is undone
    /// by the next run). `say` gets a line for the user at each. SIGHUP stays ignored where the
    /// caller ignored it, as `nohup` does.
    ///
    /// # Errors
    /// When the system does not let the process handle signals.
    pub fn install(say: impl Fn(&str) + Send + 'static) -> Outcome<Self> {
        let cancel = Self {
            token: CancellationToken::new(),
            journals: Arc::default(),
            received: Arc::new(AtomicI32::new(0)),
        };
        let failed = |error: std::io::Error| {
            Failure::build("cannot handle signals").because(error).hint("run `imgforge doctor`")
        };
        // A thread and runtime of its own: a busy build must not delay the second Ctrl-C.
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let mut signals = {
            let _inside = runtime.enter();
            Signals::take().map_err(failed)?
        };
        let ours = cancel.clone();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || runtime.block_on(ours.listen(&mut signals, say)))
            .map_err(failed)?;
        Ok(cancel)
    }

    /// Cancelled by the first signal.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// The first signal's number, once one came.
    pub fn signal(&self) -> Option<i32> {
        Some(self.received.load(Ordering::SeqCst)).filter(|number| *number != 0)
    }

    /// The second signal kills what this journal holds.
    pub fn watch(&self, journal: &Journal) {
        self.locked().push(journal.clone());
    }

    /// Forgets a journal that has been undone.
    pub fn forget(&self, journal: &Journal) {
        self.locked().retain(|watched| watched.id() != journal.id());
    }

    /// `Err` once the run is interrupted: for a check between two steps.
    ///
    /// # Errors
    /// The failure with which an interrupted run ends (exit code 130).
    pub fn check(&self) -> Outcome<()> {
        match self.signal() {
            Some(number) => Err(Failure::interrupted(format!("interrupted by {}", name(number)))),
            None => Ok(()),
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Vec<Journal>> {
        self.journals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn listen(&self, signals: &mut Signals, say: impl Fn(&str)) {
        self.received.store(signals.next().await, Ordering::SeqCst);
        say("interrupted: cleaning up (again to stop at once)");
        self.token.cancel();
        signals.next().await;
        let killed: usize = self.locked().iter().map(Journal::kill_processes).sum();
        say(&format!(
            "stopped at once: {killed} processes killed; `imgforge clean` removes the rest"
        ));
        std::process::exit(Kind::Interrupted.exit_code().into());
    }
}

fn name(number: i32) -> &'static str {
    nix::sys::signal::Signal::try_from(number).map_or("a signal", nix::sys::signal::Signal::as_str)
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    fn take() -> std::io::Result<Self> {
        let hangup = if hangup_is_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup,
        })
    }

    async fn next(&mut self) -> i32 {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = hangup => SignalKind::hangup().as_raw_value(),
        }
    }
}

/// Whether the caller ignores SIGHUP, as the mask in `/proc/self/status` says (Linux); elsewhere
/// it is taken not to.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
#[path = "cancel_tests.rs"]
mod tests;
