// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.
//! A guest's screen and keyboard over RFB (RFC 6143).
//!
//! [`Screen`] is a cheap handle on one connection. A task keeps the picture current: it asks for
//! the next incremental update a moment after one has come, so a busy guest costs at most
//! twenty updates a second and an idle one costs next to nothing.
//!
//! Pixels are asked for raw: the server is on this host, and compressing for a socket in memory
//! would only take processor time from the guest.

mod connect;
mod link;
mod tap;
#[cfg(test)]
mod tests;
mod waits;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::frame::{Area, Frame};
use super::typist::Keyboard;
use crate::ui::{Failure, Outcome};

/// Longest time until the server has read what was sent to it.
const SEND_DEADLINE: Duration = Duration::from_secs(10);

/// A connection to a guest's screen and keyboard. Clones share the connection; it ends when the
/// last one is dropped or the token given to [`Screen::connect`] is cancelled, and any key still
/// held is let go then.
#[derive(Debug, Clone)]
pub struct Screen {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
    tap: Arc<tap::Record>,
}

/// What the connection's task and the handles share.
#[derive(Debug)]
struct Shared {
    place: String,
    frame: Mutex<Frame>,
    status: watch::Sender<Status>,
}

/// What is known of the screen besides its picture.
#[derive(Debug, Clone)]
struct Status {
    /// The server has sent a picture.
    seen: bool,
    /// Changes so far.
    changes: u64,
    /// The last change of any kind.
    last_change: Instant,
    /// The last change that was no cursor blinking in its place.
    last_move: Instant,
    /// Where a cursor may be blinking.
    cursor: Option<Area>,
    /// Why the connection ended.
    ended: Option<Ended>,
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ended {
    /// The token was cancelled.
    Cancelled,
    /// The other side is at fault; the reason.
    Lost(String),
}

/// What handles ask of the connection's task.
#[derive(Debug)]
enum Command {
    /// A key goes down or up.
    Key { keysym: u32, down: bool, done: oneshot::Sender<()> },
    /// Answers with the number of bytes that must have left.
    Flush { target: oneshot::Sender<u64> },
}

impl Shared {
    fn frame(&self) -> MutexGuard<'_, Frame> {
        self.frame.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a part of the screen changed.
    fn changed(&self, area: Area) {
        self.status.send_modify(|status| {
            let now = Instant::now();
            status.changes += 1;
            status.last_change = now;
            let blinks = status.cursor.is_some_and(|cursor| cursor.holds(area));
            if !blinks {
                status.last_move = now;
                status.cursor = area.is_cursor_sized().then_some(area);
            }
        });
    }

    fn failure(&self, ended: &Ended) -> Failure {
        match ended {
            Ended::Cancelled => Failure::interrupted("interrupted while watching the screen"),
            Ended::Lost(why) => Failure::build(format!("lost the guest's screen: {why}"))
                .fact("vnc", &self.place)
                .hint("the virtual machine may have ended; look at its serial log"),
        }
    }
}

impl Screen {
    /// Width and height in pixels.
    pub fn size(&self) -> (u16, u16) {
        self.shared.frame().size()
    }

    /// A number that differs whenever the picture does (but for a chance of one in 2³²).
    pub fn fingerprint(&self) -> u64 {
        self.shared.frame().fingerprint()
    }

    /// When the picture last changed in any way, a blinking cursor included; at first, when the
    /// connection was made. QEMU notices a change up to three seconds late after a long rest.
    pub fn last_change(&self) -> Instant {
        self.status.borrow().last_change
    }

    /// When the picture last changed other than by a cursor blinking in its place.
    pub fn last_move(&self) -> Instant {
        self.status.borrow().last_move
    }

    /// Shows nothing of the guest's: all of one colour, a cursor aside, or QEMU's notice that the
    /// guest does not use the display yet; also before the first picture.
    pub fn is_blank(&self) -> bool {
        self.shared.frame().is_blank()
    }

    /// The current picture as PNG. After the connection has ended, the last one.
    pub fn screenshot(&self) -> Outcome<Vec<u8>> {
        let frame = self.shared.frame().clone();
        frame
            .to_png()
            .map_err(|error| Failure::build("cannot encode the screenshot").because(error))
    }

    /// Writes the current picture to `path`, whole or not at all.
    pub async fn save_png(&self, path: &Path) -> Outcome<()> {
        let (screen, to) = (self.clone(), path.to_owned());
        let written = tokio::task::spawn_blocking(move || {
            let bytes = screen.screenshot()?;
            super::screenshot::write(&to, &bytes)
                .map_err(|error| Failure::build("cannot write the screenshot").because(error))
        });
        match written.await {
            Ok(result) => result,
            Err(error) => Err(Failure::build("cannot write the screenshot").because(error)),
        }
        .map_err(|failure| failure.fact("file", path.display()))
    }

    /// Presses or lets go of a key.
    pub async fn send_key(&self, keysym: u32, down: bool) -> Outcome<()> {
        let (done, sent) = oneshot::channel();
        self.ask(Command::Key { keysym, down, done }, sent).await
    }

    /// Returns once the server's socket has taken every key sent so far.
    pub async fn flush(&self) -> Outcome<()> {
        let (target, answer) = oneshot::channel();
        let target = self.ask(Command::Flush { target }, answer).await?;
        tokio::select! {
            () = self.tap.wait_written(target) => Ok(()),
            why = self.lost() => Err(why),
            () = tokio::time::sleep(SEND_DEADLINE) => Err(self.shared.failure(&Ended::Lost(
                format!("the VNC server has read nothing for {} s", SEND_DEADLINE.as_secs()),
            ))),
        }
    }

    /// Returns the reason once the connection has ended.
    pub async fn lost(&self) -> Failure {
        let mut status = self.status.clone();
        let ended = status.wait_for(|status| status.ended.is_some()).await;
        let ended = ended.ok().and_then(|status| status.ended.clone());
        self.shared.failure(&ended.unwrap_or_else(|| Ended::Lost("its task has ended".into())))
    }

    async fn ask<T>(&self, command: Command, answer: oneshot::Receiver<T>) -> Outcome<T> {
        if self.commands.send(command).await.is_ok()
            && let Ok(value) = answer.await
        {
            return Ok(value);
        }
        Err(self.lost().await)
    }
}

#[async_trait]
impl Keyboard for Screen {
    async fn key(&self, keysym: u32, down: bool) -> Outcome<()> {
        self.send_key(keysym, down).await
    }

    async fn flush(&self) -> Outcome<()> {
        Self::flush(self).await
    }

    async fn lost(&self) -> Failure {
        Self::lost(self).await
    }
}
