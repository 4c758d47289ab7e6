// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The thread that gives devices with timers their turn.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::ui::{Failure, Outcome};
use crate::vm::dev::clock::{Clock, OnWake, Timed};

/// A device with deadlines.
pub(super) type TimedDevice = Arc<Mutex<dyn Timed>>;

/// Longest wait; deadlines lie closer, or are announced by a wake.
const IDLE: Duration = Duration::from_secs(3600);

/// What wakes the thread.
#[derive(Default)]
pub(super) struct Alarm {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_nearer: bool,
    is_over: bool,
}

impl Alarm {
    /// What a device calls when its deadline moves nearer.
    pub(super) fn wake(self: &Arc<Self>) -> OnWake {
        let alarm = Arc::clone(self);
        Box::new(move || alarm.change(|state| state.is_nearer = true))
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }

    /// Waits until a deadline has moved, or for `time`; false when all is over.
    fn sleep(&self, time: Duration) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_quiet = |state: &mut State| !state.is_nearer && !state.is_over;
        let waited = self.changed.wait_timeout_while(state, time, is_quiet);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.is_nearer = false;
        !state.is_over
    }
}

/// The running thread. Dropping it ends the thread.
pub(super) struct Timers {
    alarm: Arc<Alarm>,
    thread: Option<JoinHandle<()>>,
}

impl Timers {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has none.
    pub(super) fn start(
        alarm: &Arc<Alarm>,
        clock: Arc<dyn Clock>,
        devices: Vec<TimedDevice>,
    ) -> Outcome<Self> {
        let sleeping = Arc::clone(alarm);
        let thread = std::thread::Builder::new()
            .name("timers".into())
            .spawn(move || while sleeping.sleep(serve(&*clock, &devices)) {})
            .map_err(|error| Failure::build("no thread for the timers").because(error))?;
        Ok(Self { alarm: Arc::clone(alarm), thread: Some(thread) })
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        self.alarm.change(|state| state.is_over = true);
        if let Some(thread) = self.thread.take() {
            // A panic was reported by its hook already.
            let _ = thread.join();
        }
    }
}

/// Serves what is due; returns how long nothing else is.
fn serve(clock: &dyn Clock, devices: &[TimedDevice]) -> Duration {
    let mut next = IDLE;
    for device in devices {
        let mut device = device.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock.now();
        if device.next_deadline().is_some_and(|deadline| deadline <= now) {
            device.tick();
        }
        if let Some(deadline) = device.next_deadline() {
            next = next.min(deadline.saturating_sub(now));
        }
    }
    next
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;
    use crate::vm::dev::clock::SystemClock;

    struct Bell {
        at: Option<Duration>,
        rung: Sender<()>,
    }

    impl Timed for Bell {
        fn next_deadline(&self) -> Option<Duration> {
            self.at
        }

        fn tick(&mut self) {
            self.at = None;
            self.rung.send(()).unwrap();
        }
    }

    #[test]
    fn deadlines_are_met_also_new_ones_and_the_thread_ends() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let (rung, bells) = channel();
        let bell = Arc::new(Mutex::new(Bell { at: Some(Duration::ZERO), rung }));
        let alarm = Arc::new(Alarm::default());
        let wake = alarm.wake();
        let timers =
            Timers::start(&alarm, Arc::clone(&clock), vec![Arc::clone(&bell) as TimedDevice])
                .unwrap();
        bells.recv_timeout(Duration::from_secs(20)).unwrap();
        bell.lock().unwrap().at = Some(clock.now() + Duration::from_millis(5));
        wake();
        bells.recv_timeout(Duration::from_secs(20)).unwrap();
        drop(timers);
        assert!(bells.try_recv().is_err());
    }
}
