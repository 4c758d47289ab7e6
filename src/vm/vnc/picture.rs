// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A picture of the screen, and what differs from the one before.

use super::Screen;
use super::protocol::Area;
use super::tiles::{TILE_HEIGHT, TILE_WIDTH, Tiles};

/// What the screen showed at one moment.
#[derive(Default)]
pub(super) struct Picture {
    width: u16,
    height: u16,
    pixels: Vec<u32>,
}

impl Picture {
    /// Takes a new picture in the memory of an old one. False when the screen has none that fits
    /// into the protocol.
    pub(super) fn sample(&mut self, screen: &dyn Screen) -> bool {
        let (width, height) = screen.copy(&mut self.pixels);
        let (Ok(width), Ok(height)) = (u16::try_from(width), u16::try_from(height)) else {
            return false;
        };
        (self.width, self.height) = (width, height);
        let count = usize::from(width) * usize::from(height);
        count > 0 && count == self.pixels.len()
    }

    /// Width and height in pixels.
    pub(super) fn size(&self) -> (u16, u16) {
        (self.width, self.height)
    }

    /// The part of an area's line that lies in the picture.
    pub(super) fn line(&self, y: u16, area: Area) -> &[u32] {
        let (left, right) = (area.left.min(self.width), area.right.min(self.width));
        let start = usize::from(y) * usize::from(self.width);
        self.pixels
            .get(start + usize::from(left)..start + usize::from(right))
            .filter(|_| y < self.height)
            .unwrap_or_default()
    }

    /// An area's pixels, line after line; black beyond the edges.
    pub(super) fn cut(&self, area: Area, into: &mut Vec<u32>) {
        into.clear();
        for line in area.top..area.bottom {
            let end = into.len() + usize::from(area.width());
            into.extend_from_slice(self.line(line, area));
            into.resize(end, 0);
        }
    }

    /// Which tiles differ from those of an older picture; all when the size does.
    pub(super) fn changes(&self, older: &Self) -> Tiles {
        if self.size() != older.size() {
            return Tiles::all(self.size());
        }
        let mut changes = Tiles::none(self.size());
        let width = usize::from(self.width).max(1);
        let lines = self.pixels.chunks_exact(width).zip(older.pixels.chunks_exact(width));
        for (y, (new, old)) in lines.enumerate() {
            // Most lines are the same, and comparing them whole is fastest.
            if new == old {
                continue;
            }
            let tiles = new.chunks(TILE_WIDTH).zip(old.chunks(TILE_WIDTH));
            for (column, _) in tiles.enumerate().filter(|(_, (new, old))| new != old) {
                changes.mark(column, y / TILE_HEIGHT);
            }
        }
        changes
    }
}
