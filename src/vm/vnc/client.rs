// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! One client: its keys, and its messages until it leaves.

use std::io::{self, BufReader, Read, Write};
use std::sync::Arc;

use super::encode::Encoder;
use super::handshake::{Door, admit, introduce};
use super::hub::{Hub, Seat};
use super::picture::Picture;
use super::protocol::{Gone, Message};
use super::viewer::Viewer;
use super::{Input, Screen};
use crate::ui::Secret;
use crate::vm::stream::{Stream, Timely};

/// Most keys that a client may hold down; people have ten fingers.
const HELD: usize = 64;

/// A client's keyboard. The keys that it holds come up when it leaves.
struct Keys<'a> {
    input: &'a dyn Input,
    /// In the order in which they went down.
    held: Vec<u32>,
}

impl<'a> Keys<'a> {
    fn new(input: &'a dyn Input) -> Self {
        Self { input, held: Vec::new() }
    }

    fn key(&mut self, keysym: u32, down: bool) {
        let held = self.held.iter().position(|held| *held == keysym);
        match (held, down) {
            (None, true) if self.held.len() == HELD => return,
            (None, true) => self.held.push(keysym),
            (Some(at), false) => _ = self.held.remove(at),
            // A key that repeats, or one that another client holds.
            (Some(_), true) | (None, false) => {}
        }
        self.input.key(keysym, down);
    }
}

impl Drop for Keys<'_> {
    fn drop(&mut self) {
        while let Some(keysym) = self.held.pop() {
            self.input.key(keysym, false);
        }
    }
}

/// Serves a client until it leaves; tells why it did.
pub(super) fn serve(
    hub: &Hub,
    stream: &Stream,
    door: Door<'_>,
    name: &str,
    input: &dyn Input,
) -> Gone {
    match shake_hands(hub, stream, door, name) {
        Ok(size) => {
            input.note("a VNC client has come");
            let seat = hub.join(size);
            attend(&seat, stream, input)
        }
        Err(gone) => gone,
    }
}

fn shake_hands(hub: &Hub, stream: &Stream, door: Door<'_>, name: &str) -> Result<(u16, u16), Gone> {
    let mut timely = Timely::new(stream);
    admit(&mut timely, door)?;
    let size = hub.size();
    introduce(&mut timely, size, name)?;
    Ok(size)
}

/// Listens in this thread and sends in another one.
fn attend(seat: &Seat<'_>, stream: &Stream, input: &dyn Input) -> Gone {
    std::thread::scope(|scope| {
        let writer = std::thread::Builder::new()
            .name("vnc-writer".into())
            .spawn_scoped(scope, || send(seat, stream));
        let writer = match writer {
            Ok(writer) => writer,
            Err(error) => return error.into(),
        };
        let leaving = Leaving { seat, stream };
        let heard = listen(seat, stream, input);
        drop(leaving);
        // A writer that failed has closed the connection, which is all that the reader knows.
        match writer.join() {
            Ok(Ok(())) => heard,
            Ok(Err(gone)) => gone,
            Err(_) => io::Error::other("its thread has failed").into(),
        }
    })
}

/// Ends the writer, however the reader ends.
struct Leaving<'a> {
    seat: &'a Seat<'a>,
    stream: &'a Stream,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.seat.leave();
        self.stream.close();
    }
}

fn send(seat: &Seat<'_>, mut stream: &Stream) -> Result<(), Gone> {
    let mut encoder = Encoder::new();
    let sent = std::iter::from_fn(|| seat.next())
        .try_for_each(|update| encoder.send(&update, &mut stream));
    stream.close();
    Ok(sent?)
}

fn listen(seat: &Seat<'_>, stream: &Stream, input: &dyn Input) -> Gone {
    let mut reader = BufReader::new(stream);
    let mut keys = Keys::new(input);
    loop {
        match Message::read(&mut reader) {
            Ok(message) => {
                if let Message::Key { keysym, down } = message {
                    keys.key(keysym, down);
                }
                seat.hear(message);
            }
            Err(gone) => return gone,
        }
    }
}

/// Serves one client in the caller's thread, one message after the other, and tells why it left:
/// the server without sockets and threads. A request is answered with what has changed by then,
/// or not at all.
pub fn converse(
    stream: impl Read + Write,
    password: Option<&Secret>,
    screen: &dyn Screen,
    input: &dyn Input,
) -> Gone {
    talk(stream, password, screen, input).err().unwrap_or(Gone::HungUp)
}

fn talk(
    mut stream: impl Read + Write,
    password: Option<&Secret>,
    screen: &dyn Screen,
    input: &dyn Input,
) -> Result<(), Gone> {
    admit(&mut stream, password.map_or(Door::Open, Door::Locked))?;
    let mut picture = Arc::new(Picture::default());
    let mut next = Picture::default();
    if next.sample(screen) {
        picture = Arc::new(std::mem::take(&mut next));
    }
    introduce(&mut stream, picture.size(), "")?;
    let mut viewer = Viewer::new(picture.size());
    let mut encoder = Encoder::new();
    let mut keys = Keys::new(input);
    let mut samples = 0;
    loop {
        let message = Message::read(&mut stream)?;
        if let Message::Key { keysym, down } = message {
            keys.key(keysym, down);
        }
        viewer.hear(message, samples + 1);
        if viewer.waits(&picture, samples) {
            samples += 1;
            if next.sample(screen) {
                viewer.see(&next.changes(&picture), next.size() != picture.size());
                picture = Arc::new(std::mem::take(&mut next));
            }
        }
        if let Some(update) = viewer.answer(&picture, samples) {
            encoder.send(&update, &mut stream)?;
        }
    }
}
