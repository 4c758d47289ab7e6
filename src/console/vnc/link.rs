// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.
//! The task that owns a connection: draws updates, asks for the next, sends keys.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vnc::{Rect, VncClient, VncError, VncEvent, X11Event};

use super::tap::Record;
use super::{Command, Ended, SEND_DEADLINE, Shared};
use crate::console::frame::Area;

/// Shortest time between two requests for an update.
const UPDATE_INTERVAL: Duration = Duration::from_millis(50);

/// Time after which an unanswered request is repeated, in case an empty answer used it up.
const IDLE_INTERVAL: Duration = Duration::from_secs(2);

/// Longest time for letting go of held keys when the connection ends.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(1);

/// Sizes of messages on the wire (RFC 6143 §7.5.3, §7.5.4).
const REQUEST_BYTES: u64 = 10;
const KEY_BYTES: u64 = 8;

/// A connection with everything that its task needs.
pub(super) struct Link {
    client: VncClient,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    tap: Arc<Record>,
    /// Bytes that the socket must have taken once all that was queued so far has left.
    queued: u64,
    held: Vec<u32>,
    last_request: Instant,
    next_request: Instant,
    whole: bool,
}

/// Why the task stops serving.
enum Stop {
    /// No handle is left.
    Unused,
    /// For the handles to report.
    Ended(Ended),
}

impl Link {
    pub(super) fn new(
        client: VncClient,
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
        tap: Arc<Record>,
    ) -> Self {
        let now = Instant::now();
        // The decoder has queued a first request by itself. If it has left already, this counts
        // it twice, which `flush` makes up for.
        let queued = tap.written() + REQUEST_BYTES;
        Self {
            client,
            shared,
            commands,
            tap,
            queued,
            held: Vec::new(),
            last_request: now,
            next_request: now + IDLE_INTERVAL,
            whole: false,
        }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let ended = loop {
            match self.step(&stop).await {
                Ok(()) => {}
                Err(Stop::Unused) => break Ended::Cancelled,
                Err(Stop::Ended(ended)) => break ended,
            }
        };
        if ended == Ended::Cancelled {
            self.farewell().await;
        }
        // A close that fails has nothing left to close.
        let _ = self.client.close().await;
        self.shared.status.send_modify(|status| status.ended = Some(ended));
    }

    async fn step(&mut self, stop: &CancellationToken) -> Result<(), Stop> {
        tokio::select! {
            () = stop.cancelled() => Err(Stop::Ended(Ended::Cancelled)),
            command = self.commands.recv() => match command {
                None => Err(Stop::Unused),
                Some(command) => self.obey(command).await,
            },
            event = self.client.recv_event() => self.take(event),
            () = tokio::time::sleep_until(self.next_request) => self.request().await,
        }
    }

    async fn obey(&mut self, command: Command) -> Result<(), Stop> {
        match command {
            Command::Key { keysym, down, done } => {
                self.key(keysym, down).await?;
                // Nobody waits any more: the key is sent all the same.
                let _ = done.send(());
            }
            Command::Flush { target } => {
                let _ = target.send(self.flush().await?);
            }
        }
        Ok(())
    }

    async fn key(&mut self, keysym: u32, down: bool) -> Result<(), Stop> {
        self.held.retain(|held| *held != keysym);
        if down {
            self.held.push(keysym);
        }
        self.send(X11Event::KeyEvent((keysym, down).into()), KEY_BYTES).await
    }

    /// Returns the byte count at which all keys so far have left. One more request follows them:
    /// should the first one have been counted twice, its bytes make the count come true.
    async fn flush(&mut self) -> Result<u64, Stop> {
        let target = self.queued;
        self.request().await?;
        Ok(target)
    }

    async fn request(&mut self) -> Result<(), Stop> {
        let request = if self.whole { X11Event::FullRefresh } else { X11Event::Refresh };
        self.whole = false;
        self.last_request = Instant::now();
        self.next_request = self.last_request + IDLE_INTERVAL;
        self.send(request, REQUEST_BYTES).await
    }

    async fn send(&mut self, message: X11Event, bytes: u64) -> Result<(), Stop> {
        match tokio::time::timeout(SEND_DEADLINE, self.client.input(message)).await {
            Ok(Ok(())) => {
                self.queued += bytes;
                Ok(())
            }
            Ok(Err(error)) => Err(self.lost(&error)),
            Err(_) => Err(Stop::Ended(Ended::Lost(format!(
                "the VNC server has read nothing for {} s",
                SEND_DEADLINE.as_secs()
            )))),
        }
    }

    fn take(&mut self, event: Result<VncEvent, VncError>) -> Result<(), Stop> {
        let drawn = match event {
            Ok(VncEvent::RawImage(rect, data)) => self.shared.frame().draw(area(rect)?, data),
            Ok(VncEvent::Copy(to, from)) => self.shared.frame().copy(area(to)?, from.x, from.y),
            Ok(VncEvent::SetResolution(size)) => return self.resize(size.width, size.height),
            Ok(VncEvent::Error(why)) => {
                return Err(wrong(&printable(&why)));
            }
            // Bells, clipboards and layouts do not concern the picture.
            Ok(_) => return Ok(()),
            Err(error) => return Err(self.lost(&error)),
        };
        if let Some(area) = drawn.map_err(|why| wrong(&why))? {
            self.shared.changed(area);
        }
        if !self.shared.status.borrow().seen {
            self.shared.status.send_modify(|status| status.seen = true);
        }
        self.next_request = self.next_request.min(self.last_request + UPDATE_INTERVAL);
        Ok(())
    }

    fn resize(&mut self, width: u16, height: u16) -> Result<(), Stop> {
        let (is_first, whole) = {
            let mut frame = self.shared.frame();
            let is_first = frame.size() == (0, 0);
            frame.resize(width, height).map_err(|why| wrong(&why))?;
            (is_first, frame.whole())
        };
        if !is_first {
            self.shared.changed(whole);
            self.whole = true;
            self.next_request = Instant::now();
        }
        Ok(())
    }

    /// Lets go of held keys before the connection closes.
    async fn farewell(&mut self) {
        let letting_go = async {
            for keysym in std::mem::take(&mut self.held) {
                self.key(keysym, false).await?;
            }
            let target = self.flush().await?;
            self.tap.wait_written(target).await;
            Ok::<(), Stop>(())
        };
        // A server that does not take it in time has no use for it.
        let _ = tokio::time::timeout(FAREWELL_DEADLINE, letting_go).await;
    }

    fn lost(&self, error: &VncError) -> Stop {
        let why = self.tap.end().unwrap_or_else(|| match error {
            VncError::ClientNotRunning => "the connection ended".to_owned(),
            error => printable(&error.to_string()),
        });
        Stop::Ended(Ended::Lost(why))
    }
}

fn wrong(why: &str) -> Stop {
    Stop::Ended(Ended::Lost(format!("the VNC server sent something wrong: {why}")))
}

fn area(rect: Rect) -> Result<Area, Stop> {
    let right = rect.x.checked_add(rect.width);
    let bottom = rect.y.checked_add(rect.height);
    match (right, bottom) {
        (Some(right), Some(bottom)) => Ok(Area { left: rect.x, top: rect.y, right, bottom }),
        _ => Err(wrong("an update beyond the largest screen")),
    }
}

/// A server's words, safe for a terminal and short.
pub(super) fn printable(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_debug).collect()
}
