// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Where the sampler and the clients meet.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Screen;
use super::picture::Picture;
use super::protocol::Message;
use super::viewer::{Update, Viewer};

/// Shortest time from one sample to the next while something goes on.
const BUSY: Duration = Duration::from_millis(33);
/// The same while the screen rests: reading it takes time from the guest.
const RESTING: Duration = Duration::from_millis(100);
/// A sample waits so many times as long as the one before took: the guest needs the processor more.
const IDLE_SHARE: u32 = 9;
/// Longest wait for that reason.
const SLOWEST: Duration = Duration::from_secs(2);
/// After so long without a change and without a key, the screen rests.
const REST: Duration = Duration::from_secs(1);

/// The current picture, and who waits for the next one.
pub(super) struct Hub {
    screen: Arc<dyn Screen>,
    state: Mutex<State>,
    /// For the sampler: a client waits, a key was pressed, or the end.
    wanted: Condvar,
    /// For the clients' writers: an update is due, a client has left, or the end.
    ready: Condvar,
}

struct State {
    picture: Arc<Picture>,
    viewers: BTreeMap<u64, Viewer>,
    joined: u64,
    /// Samples that have begun and that are complete.
    begun: u64,
    done: u64,
    /// When the last sample began, and how long it took.
    last_sample: Option<Instant>,
    last_cost: Duration,
    /// The last change of the picture or key.
    last_event: Instant,
    is_over: bool,
}

impl State {
    fn is_waited_for(&self) -> bool {
        self.viewers.values().any(|viewer| viewer.waits(&self.picture, self.done))
    }

    /// How long the next sample is still to wait.
    fn pause(&self, now: Instant) -> Duration {
        let rests = now.saturating_duration_since(self.last_event) > REST;
        let pause = if rests { RESTING } else { BUSY };
        let pause = pause.max((self.last_cost * IDLE_SHARE).min(SLOWEST));
        self.last_sample
            .map_or(Duration::ZERO, |last| (last + pause).saturating_duration_since(now))
    }
}

impl Hub {
    pub(super) fn new(screen: Arc<dyn Screen>) -> Self {
        let state = Mutex::new(State {
            picture: Arc::default(),
            viewers: BTreeMap::new(),
            joined: 0,
            begun: 0,
            done: 0,
            last_sample: None,
            last_cost: Duration::ZERO,
            last_event: Instant::now(),
            is_over: false,
        });
        Self { screen, state, wanted: Condvar::new(), ready: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sampler: until the end.
    pub(super) fn sample(&self) {
        let mut picture = Picture::default();
        while let Some(current) = self.next_sample() {
            let is_sound = picture.sample(self.screen.as_ref());
            let changes = is_sound.then(|| picture.changes(&current));
            let changes = changes.filter(|changes| !changes.is_empty());
            let is_resized = picture.size() != current.size();
            drop(current);
            let mut state = self.state();
            state.done = state.begun;
            state.last_cost = state.last_sample.map_or(Duration::ZERO, |began| began.elapsed());
            if let Some(changes) = changes {
                let new = Arc::new(std::mem::take(&mut picture));
                let old = std::mem::replace(&mut state.picture, new);
                // Its memory serves again, unless a client is being sent it.
                picture = Arc::try_unwrap(old).unwrap_or_default();
                for viewer in state.viewers.values_mut() {
                    viewer.see(&changes, is_resized);
                }
                state.last_event = Instant::now();
            }
            let State { picture, viewers, done, .. } = &*state;
            if viewers.values().any(|viewer| viewer.is_due(picture, *done)) {
                self.ready.notify_all();
            }
        }
    }

    /// Waits until a sample is wanted and due; the current picture. None at the end.
    fn next_sample(&self) -> Option<Arc<Picture>> {
        let mut state = self.state();
        loop {
            if state.is_over {
                return None;
            }
            if !state.is_waited_for() {
                state = self.wanted.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let now = Instant::now();
            let pause = state.pause(now);
            if pause.is_zero() {
                state.begun += 1;
                state.last_sample = Some(now);
                return Some(Arc::clone(&state.picture));
            }
            let waited = self.wanted.wait_timeout(state, pause);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The screen's size at this moment.
    pub(super) fn size(&self) -> (u16, u16) {
        let mut picture = Picture::default();
        if picture.sample(self.screen.as_ref()) {
            picture.size()
        } else {
            self.state().picture.size()
        }
    }

    /// Takes in a client that was told this size.
    pub(super) fn join(&self, size: (u16, u16)) -> Seat<'_> {
        let mut state = self.state();
        let number = state.joined;
        state.joined += 1;
        state.viewers.insert(number, Viewer::new(size));
        Seat { hub: self, number }
    }

    /// Ends the sampler and all writers.
    pub(super) fn end(&self) {
        self.state().is_over = true;
        self.wanted.notify_all();
        self.ready.notify_all();
    }

    /// Waits so long, or until the end; whether it is the end.
    pub(super) fn ends_within(&self, time: Duration) -> bool {
        let waited = self.ready.wait_timeout_while(self.state(), time, |state| !state.is_over);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_over
    }
}

/// A client's place in the hub.
pub(super) struct Seat<'a> {
    hub: &'a Hub,
    number: u64,
}

impl Seat<'_> {
    /// Takes a message of the client's.
    pub(super) fn hear(&self, message: Message) {
        let mut state = self.hub.state();
        let next = state.begun + 1;
        if let Message::Key { .. } = message {
            state.last_event = Instant::now();
        }
        let State { viewers, picture, done, .. } = &mut *state;
        let Some(viewer) = viewers.get_mut(&self.number) else { return };
        viewer.hear(message, next);
        // An earlier request may be due by what joins it.
        if viewer.is_due(picture, *done) {
            self.hub.ready.notify_all();
        }
        if let Message::Key { .. } | Message::Request { .. } = message {
            self.hub.wanted.notify_all();
        }
    }

    /// Waits for the client's next update. None once it has left, and at the end.
    pub(super) fn next(&self) -> Option<Update> {
        let mut state = self.hub.state();
        loop {
            let State { picture, viewers, done, is_over, .. } = &mut *state;
            let viewer = viewers.get_mut(&self.number).filter(|_| !*is_over)?;
            if let Some(update) = viewer.answer(picture, *done) {
                return Some(update);
            }
            state = self.hub.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The client has left.
    pub(super) fn leave(&self) {
        self.hub.state().viewers.remove(&self.number);
        self.hub.ready.notify_all();
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}
