// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! One client's state: what it has seen, what it asks for, and how it wants it.

use std::sync::Arc;

use super::encode::Encoding;
use super::picture::Picture;
use super::pixel::PixelFormat;
use super::protocol::{Area, Message, Wishes};
use super::tiles::Tiles;

/// What a client is to be sent.
pub(super) struct Update {
    pub(super) picture: Arc<Picture>,
    pub(super) areas: Vec<Area>,
    /// The new size; what it shows comes with the next update.
    pub(super) resize: Option<(u16, u16)>,
    pub(super) format: PixelFormat,
    pub(super) encoding: Encoding,
}

/// A client as the sampler sees it.
pub(super) struct Viewer {
    /// The screen's size as the client knows it.
    size: (u16, u16),
    format: PixelFormat,
    wishes: Wishes,
    /// Requests that were not answered yet, together.
    wanted: Option<Area>,
    /// The first sample that may answer them: a picture from before would be stale.
    since: u64,
    /// Where the client's picture is not the current one.
    dirty: Tiles,
}

impl Viewer {
    /// A client that was told this size.
    pub(super) fn new(size: (u16, u16)) -> Self {
        Self {
            size,
            format: PixelFormat::NATIVE,
            wishes: Wishes { encoding: Encoding::Raw, resizable: false },
            wanted: None,
            since: 0,
            dirty: Tiles::all(size),
        }
    }

    /// Takes a message. `next` is the number of the sample that will begin next.
    pub(super) fn hear(&mut self, message: Message, next: u64) {
        match message {
            Message::Format(format) => self.format = format,
            Message::Encodings(wishes) => self.wishes = wishes,
            Message::Request { area, .. } if area.is_empty() => {}
            Message::Request { incremental, area } => {
                if !incremental {
                    self.dirty.join_area(area);
                }
                // Asking again must not put off the answer.
                if self.wanted.is_none() {
                    self.since = next;
                }
                self.wanted = Some(self.wanted.map_or(area, |wanted| wanted.join(area)));
            }
            Message::Key { .. } | Message::Ignored => {}
        }
    }

    /// Notes what a new picture has changed.
    pub(super) fn see(&mut self, changes: &Tiles, is_resized: bool) {
        if is_resized {
            self.dirty = Tiles::all(self.size);
        } else {
            self.dirty.join(changes);
        }
    }

    /// Waits for a sample, the last complete one being number `done`.
    pub(super) fn waits(&self, picture: &Picture, done: u64) -> bool {
        self.wanted.is_some() && !self.is_due(picture, done)
    }

    /// Can be answered from this picture.
    pub(super) fn is_due(&self, picture: &Picture, done: u64) -> bool {
        self.wanted.is_some_and(|wanted| {
            done >= self.since && (self.must_resize(picture) || self.dirty.touch(wanted))
        })
    }

    /// The answer to what the client has asked for, if it is due.
    pub(super) fn answer(&mut self, picture: &Arc<Picture>, done: u64) -> Option<Update> {
        if !self.is_due(picture, done) {
            return None;
        }
        let wanted = self.wanted.take()?;
        let mut update = Update {
            picture: Arc::clone(picture),
            areas: Vec::new(),
            resize: None,
            format: self.format,
            encoding: self.wishes.encoding,
        };
        if self.must_resize(picture) {
            self.size = picture.size();
            self.dirty = Tiles::all(self.size);
            update.resize = Some(self.size);
        } else {
            update.areas = self.dirty.take(wanted, update.encoding.band());
        }
        Some(update)
    }

    fn must_resize(&self, picture: &Picture) -> bool {
        self.wishes.resizable && self.size != picture.size()
    }
}
