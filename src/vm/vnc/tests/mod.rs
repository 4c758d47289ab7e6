// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

#![allow(clippy::unwrap_used)]

mod console;
mod handshake;
mod hostile;
mod mini;
mod server;
mod tiles;
mod updates;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Input, Place, Screen, VncServer};
use crate::ui::Secret;

/// Longest wait for anything that must happen.
const SOON: Duration = Duration::from_secs(20);

/// A screen in memory.
pub(super) struct Board {
    picture: Mutex<(u32, u32, Vec<u32>)>,
    copies: AtomicUsize,
}

impl Board {
    /// Of this size, with many colours at the top and few below.
    pub(super) fn new(width: u32, height: u32) -> Self {
        let pixel = |at: u32| match (at % width, at / width) {
            (x, y) if y < height / 3 => 0xff00_0000 | (x * 0x01_0305) ^ (y * 0x03_0107),
            (x, y) if y < height / 2 => (x / 7 + y / 5) % 5 * 0x21_3040,
            (x, _) if x < width / 2 => (x % 2) * 0xff_ffff,
            _ => 0x12_3456,
        };
        let pixels = (0..width * height).map(pixel).collect();
        Self { picture: Mutex::new((width, height, pixels)), copies: AtomicUsize::new(0) }
    }

    fn pixels(&self) -> Vec<u32> {
        self.picture.lock().unwrap().2.iter().map(|pixel| pixel & 0xff_ffff).collect()
    }

    fn set(&self, x: u32, y: u32, colour: u32) {
        let mut picture = self.picture.lock().unwrap();
        let at = (y * picture.0 + x) as usize;
        picture.2[at] = colour;
    }

    fn become_another(&self, width: u32, height: u32) {
        *self.picture.lock().unwrap() = Self::new(width, height).picture.into_inner().unwrap();
    }

    fn copies(&self) -> usize {
        self.copies.load(Ordering::SeqCst)
    }
}

impl Screen for Board {
    fn copy(&self, into: &mut Vec<u32>) -> (u32, u32) {
        self.copies.fetch_add(1, Ordering::SeqCst);
        let picture = self.picture.lock().unwrap();
        into.clone_from(&picture.2);
        (picture.0, picture.1)
    }
}

/// What was typed, and what was noted.
#[derive(Default)]
pub(super) struct Paper {
    keys: Mutex<Vec<(u32, bool)>>,
    notes: Mutex<Vec<String>>,
}

impl Input for Paper {
    fn key(&self, keysym: u32, down: bool) {
        self.keys.lock().unwrap().push((keysym, down));
    }

    fn note(&self, what: &str) {
        self.notes.lock().unwrap().push(what.to_owned());
    }
}

impl Paper {
    fn keys(&self) -> Vec<(u32, bool)> {
        self.keys.lock().unwrap().clone()
    }

    /// Waits for a note with these words.
    fn wait_note(&self, words: &str) {
        eventually(words, || self.notes.lock().unwrap().iter().any(|note| note.contains(words)));
    }
}

/// Waits until it is so.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

struct World {
    server: VncServer,
    board: Arc<Board>,
    paper: Arc<Paper>,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

fn world(width: u32, height: u32, password: Option<&str>) -> World {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vnc.sock");
    let (board, paper) = (Arc::new(Board::new(width, height)), Arc::new(Paper::default()));
    let password = password.map(Secret::new);
    let server = VncServer::listen(
        &Place::Unix(path.clone()),
        password,
        board.clone(),
        paper.clone(),
        "a machine",
    );
    World { server: server.unwrap(), board, paper, path, _dir: dir }
}
