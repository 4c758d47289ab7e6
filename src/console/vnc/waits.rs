// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.
//! Waits for what the screen does.

use std::time::Duration;

use tokio::time::Instant;

use super::Screen;
use crate::ui::{Failure, Outcome};

impl Screen {
    /// Waits until the screen shows something and has not moved for `quiet`, and returns how long
    /// that took. What changes in place within one character cell does not count as movement: a
    /// blinking cursor, the digit of a menu's countdown, and also a spinner. A blank screen and
    /// QEMU's notice that the guest has no display yet are not something.
    ///
    /// Time before the call counts: a screen at rest returns at once. QEMU lengthens the time
    /// between its looks at an idle guest's screen to as much as three seconds, so a `quiet`
    /// shorter than that may end early there after a long rest.
    /// Fails when that has not come within `within`, and when the connection ends.
    pub async fn wait_still(&self, quiet: Duration, within: Duration) -> Outcome<Duration> {
        let start = Instant::now();
        let deadline = start + within;
        let mut status = self.status.clone();
        loop {
            let (last_move, seen, ended) = {
                let status = status.borrow_and_update();
                (status.last_move, status.seen, status.ended.clone())
            };
            if let Some(ended) = ended {
                return Err(self.shared.failure(&ended));
            }
            let rests = last_move.elapsed() >= quiet;
            let blank = rests && (!seen || self.is_blank());
            if rests && !blank {
                return Ok(start.elapsed());
            }
            if Instant::now() >= deadline {
                let state = if blank { "blank" } else { "still moving" };
                return Err(Failure::build("the screen did not come to rest")
                    .fact("waited", format!("{:.1} s", within.as_secs_f64()))
                    .fact("screen", state));
            }
            let next_look = if rests { deadline } else { deadline.min(last_move + quiet) };
            tokio::select! {
                changed = status.changed() => if changed.is_err() { return Err(self.lost().await) },
                () = tokio::time::sleep_until(next_look) => {}
            }
        }
    }

    /// Waits until the picture differs from the one with this [`Screen::fingerprint`], and returns
    /// how long that took. Fails when it does not within `within`, and when the connection ends.
    pub async fn wait_change(&self, fingerprint: u64, within: Duration) -> Outcome<Duration> {
        let start = Instant::now();
        let mut status = self.status.clone();
        loop {
            let ended = status.borrow_and_update().ended.clone();
            if self.fingerprint() != fingerprint {
                return Ok(start.elapsed());
            }
            if let Some(ended) = ended {
                return Err(self.shared.failure(&ended));
            }
            tokio::select! {
                changed = status.changed() => if changed.is_err() { return Err(self.lost().await) },
                () = tokio::time::sleep_until(start + within) => {
                    return Err(Failure::build("the screen did not change")
                        .fact("waited", format!("{:.1} s", within.as_secs_f64())));
                }
            }
        }
    }
}
