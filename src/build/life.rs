// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Signs of life: is the guest still doing something, or does it wait for an answer that will
//! never come?

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How many screens are remembered: a blinking cursor or a spinner shows only old ones again.
const REMEMBERED_SCREENS: usize = 32;

/// What was seen of a guest at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Signs {
    /// Bytes read from and written to disk and CD so far.
    pub(crate) disk_bytes: u64,
    /// Bytes of serial output so far.
    pub(crate) serial_bytes: u64,
    /// Requests to the answer-file server so far.
    pub(crate) http_requests: u64,
    /// Fingerprint of the screen, when there is one.
    pub(crate) screen: Option<u64>,
}

/// Tells how long a guest has shown no sign of life.
pub(crate) struct Pulse {
    last: Signs,
    screens: VecDeque<u64>,
    alive_at: Instant,
}

impl Pulse {
    /// A guest that is alive at `now`.
    pub(crate) fn new(now: Instant) -> Self {
        Self { last: Signs::default(), screens: VecDeque::new(), alive_at: now }
    }

    /// Takes one observation; returns how long nothing new has been seen.
    pub(crate) fn observe(&mut self, signs: Signs, now: Instant) -> Duration {
        let counters = signs.disk_bytes != self.last.disk_bytes
            || signs.serial_bytes != self.last.serial_bytes
            || signs.http_requests != self.last.http_requests;
        let fresh_screen = signs.screen.is_some_and(|screen| self.remember(screen));
        if counters || fresh_screen {
            self.alive_at = now;
        }
        self.last = signs;
        now.saturating_duration_since(self.alive_at)
    }

    fn remember(&mut self, screen: u64) -> bool {
        if self.screens.contains(&screen) {
            return false;
        }
        if self.screens.len() == REMEMBERED_SCREENS {
            self.screens.pop_front();
        }
        self.screens.push_back(screen);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blinking_cursor_is_no_sign_of_life() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        let at = |seconds| start + Duration::from_secs(seconds);
        let screen = |id| Signs { screen: Some(id), ..Signs::default() };
        assert_eq!(pulse.observe(screen(1), at(1)), Duration::ZERO);
        assert_eq!(pulse.observe(screen(2), at(2)), Duration::ZERO);
        assert_eq!(pulse.observe(screen(1), at(3)), Duration::from_secs(1));
        assert_eq!(pulse.observe(screen(2), at(9)), Duration::from_secs(7));
        assert_eq!(pulse.observe(screen(3), at(10)), Duration::ZERO);
    }

    #[test]
    fn disk_serial_and_http_are_signs_of_life() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut signs = Signs::default();
        assert_eq!(pulse.observe(signs, at(5)), Duration::from_secs(5));
        signs.disk_bytes = 1;
        assert_eq!(pulse.observe(signs, at(6)), Duration::ZERO);
        signs.serial_bytes = 1;
        assert_eq!(pulse.observe(signs, at(7)), Duration::ZERO);
        signs.http_requests = 1;
        assert_eq!(pulse.observe(signs, at(8)), Duration::ZERO);
        assert_eq!(pulse.observe(signs, at(18)), Duration::from_secs(10));
    }
}
