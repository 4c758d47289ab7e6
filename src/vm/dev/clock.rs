// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Time as devices see it, and how devices with timers get their turn.
//!
//! No device sleeps. The board has one thread that waits for the earliest deadline of all devices
//! and then calls the device that asked for it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The machine's clocks.
pub trait Clock: Send + Sync {
    /// Time since the machine was made. It never goes back and never stands still.
    fn now(&self) -> Duration;

    /// Time of day: since 1970-01-01 00:00 UTC, without leap seconds. It may jump.
    fn wall(&self) -> Duration;
}

/// The host's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock that starts now.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall(&self) -> Duration {
        // A host that believes in a time before 1970 gets 1970.
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

/// A device with something to do at a certain time.
pub trait Timed: Send {
    /// When [`Timed::tick`] is due, on the scale of [`Clock::now`]. None while nothing is.
    fn next_deadline(&self) -> Option<Duration>;

    /// Does what is due. Called too early, it does nothing.
    fn tick(&mut self);
}

/// What a device calls when it has to be called earlier than it said before.
///
/// It is called with the device locked, from whatever thread used the device: it must neither wait
/// nor touch the device.
pub type OnWake = Box<dyn Fn() + Send>;

/// Remembers which deadline is known, and tells of an earlier one.
#[derive(Default)]
pub(super) struct Waker {
    wake: Option<OnWake>,
    known: Option<Duration>,
}

impl Waker {
    /// Sets whom to tell.
    pub(super) fn set(&mut self, wake: OnWake) {
        self.wake = Some(wake);
    }

    /// Says what the next deadline is now.
    pub(super) fn update(&mut self, next: Option<Duration>) {
        let is_earlier = next.is_some_and(|next| self.known.is_none_or(|known| next < known));
        self.known = next;
        if is_earlier && let Some(wake) = &self.wake {
            wake();
        }
    }
}

/// `time` in units of 1/`frequency` seconds, rounded down.
pub(super) fn ticks(time: Duration, frequency: u32) -> u64 {
    let ticks = time.as_nanos() * u128::from(frequency) / NANOS;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

/// The first moment at which [`ticks`] gives this count.
pub(super) fn time_of(ticks: u64, frequency: u32) -> Duration {
    let nanos = (u128::from(ticks) * NANOS).div_ceil(u128::from(frequency.max(1)));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

const NANOS: u128 = 1_000_000_000;

/// A clock that stands still until a test moves it.
#[cfg(test)]
pub(in crate::vm) struct FakeClock(std::sync::Mutex<(Duration, Duration)>);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
impl FakeClock {
    /// A clock that shows so many seconds since 1970.
    pub(in crate::vm) fn at(wall: u64) -> std::sync::Arc<Self> {
        let clocks = (Duration::ZERO, Duration::from_secs(wall));
        std::sync::Arc::new(Self(std::sync::Mutex::new(clocks)))
    }

    /// Lets time pass.
    pub(in crate::vm) fn advance(&self, by: Duration) {
        let mut clocks = self.0.lock().unwrap();
        clocks.0 += by;
        clocks.1 += by;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
impl Clock for FakeClock {
    fn now(&self) -> Duration {
        self.0.lock().unwrap().0
    }

    fn wall(&self) -> Duration {
        self.0.lock().unwrap().1
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn the_hosts_clocks_run() {
        let clock = SystemClock::new();
        let first = clock.now();
        assert!(clock.now() >= first);
        // The year 2020.
        assert!(clock.wall() > Duration::from_secs(1_577_836_800));
    }

    #[test]
    fn counts_and_times_agree() {
        for frequency in [1, 32_768, 3_579_545, 16_777_216] {
            for count in [0, 1, 2, 3, 1000, 3_579_545, u64::from(u32::MAX)] {
                let time = time_of(count, frequency);
                assert_eq!(ticks(time, frequency), count);
                if count > 0 {
                    assert_eq!(ticks(time - Duration::from_nanos(1), frequency), count - 1);
                }
            }
        }
        assert_eq!(ticks(Duration::MAX, u32::MAX), u64::MAX);
        time_of(u64::MAX, 1);
    }

    #[test]
    fn only_an_earlier_deadline_wakes() {
        let count = Arc::new(AtomicU32::new(0));
        let mut waker = Waker::default();
        let counter = Arc::clone(&count);
        waker.set(Box::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        }));
        let steps = [(None, 0), (Some(5), 1), (Some(5), 1), (Some(9), 1), (Some(8), 2), (None, 2)];
        for (seconds, woken) in steps {
            waker.update(seconds.map(Duration::from_secs));
            assert_eq!(count.load(Ordering::Relaxed), woken);
        }
    }
}
