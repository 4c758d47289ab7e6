// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Progress of something that counts bytes: a few events a second, with the rate of late.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::ui::{Event, Events};

/// Shortest time between two events.
const PERIOD: Duration = Duration::from_millis(250);
/// The rate is taken over this time.
const WINDOW: Duration = Duration::from_secs(5);

/// Turns byte counts into [`Event::Progress`], at most four a second.
pub(super) struct Meter {
    events: Events,
    what: String,
    total: Option<u64>,
    said: Option<Instant>,
    samples: VecDeque<(Instant, u64)>,
}

impl Meter {
    /// Starts to measure at `done` bytes of `total`.
    pub(super) fn start(events: &Events, what: String, done: u64, total: Option<u64>) -> Self {
        let samples = VecDeque::from([(Instant::now(), done)]);
        Self { events: events.clone(), what, total, said: None, samples }
    }

    /// Bytes done by now, in all.
    pub(super) fn advance(&mut self, done: u64) {
        let now = Instant::now();
        if self.said.is_none_or(|said| now.duration_since(said) >= PERIOD) {
            self.say(now, done);
        }
    }

    /// The work is over; says the last count whenever it was said before.
    pub(super) fn finish(&mut self, done: u64) {
        self.say(Instant::now(), done);
    }

    fn say(&mut self, now: Instant, done: u64) {
        self.said = Some(now);
        self.samples.push_back((now, done));
        while self.samples.len() > 2
            && self.samples.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW)
        {
            self.samples.pop_front();
        }
        let rate = self.samples.front().map_or(0.0, |(at, before)| {
            let seconds = now.duration_since(*at).as_secs_f64().max(0.001);
            done.saturating_sub(*before) as f64 / seconds
        });
        let (what, total) = (self.what.clone(), self.total);
        self.events.emit(Event::Progress { what, done, total, rate });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn many_counts_make_few_events() {
        let (events, list) = Events::recorded();
        let mut meter = Meter::start(&events, "downloading x".into(), 10, Some(2000));
        for done in 10..2000 {
            meter.advance(done);
        }
        meter.finish(2000);
        let list = list.lock().unwrap();
        assert!(list.len() <= 6, "{list:?}");
        let Some(Event::Progress { done, total, rate, .. }) = list.last() else {
            panic!("{list:?}")
        };
        assert_eq!((*done, *total), (2000, Some(2000)));
        assert!(*rate > 0.0);
    }
}
