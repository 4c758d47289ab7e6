// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Tiles of a screen: which ones a client has not seen as they are.

use std::ops::Range;

use super::protocol::Area;

/// A tile in pixels: a line of text and some characters.
pub(super) const TILE_WIDTH: usize = 64;
pub(super) const TILE_HEIGHT: usize = 16;
/// Most rectangles in an update. A picture with more is sent whole; their number has 16 bits.
const RECTANGLES: usize = 4096;

/// A set of tiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tiles {
    width: u16,
    height: u16,
    columns: usize,
    /// Row after row.
    marked: Vec<bool>,
}

impl Tiles {
    /// None of a screen's tiles.
    pub(super) fn none((width, height): (u16, u16)) -> Self {
        let columns = usize::from(width).div_ceil(TILE_WIDTH);
        let rows = usize::from(height).div_ceil(TILE_HEIGHT);
        Self { width, height, columns, marked: vec![false; columns * rows] }
    }

    /// All of a screen's tiles.
    pub(super) fn all(size: (u16, u16)) -> Self {
        let mut tiles = Self::none(size);
        tiles.marked.fill(true);
        tiles
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.marked.contains(&true)
    }

    pub(super) fn mark(&mut self, column: usize, row: usize) {
        if column < self.columns
            && let Some(tile) = self.marked.get_mut(row * self.columns + column)
        {
            *tile = true;
        }
    }

    /// Adds tiles of a screen that may have another size.
    pub(super) fn join(&mut self, other: &Self) {
        let lines = self.marked.chunks_mut(self.columns.max(1));
        for (to, from) in lines.zip(other.marked.chunks(other.columns.max(1))) {
            for (to, from) in to.iter_mut().zip(from) {
                *to |= from;
            }
        }
    }

    /// Adds every tile that an area touches.
    pub(super) fn join_area(&mut self, area: Area) {
        let (columns, rows) = self.span(area);
        for row in rows {
            self.row(row, &columns).fill(true);
        }
    }

    /// Whether a tile of the set touches the area.
    pub(super) fn touch(&self, area: Area) -> bool {
        let (columns, mut rows) = self.span(area);
        rows.any(|row| {
            let start = row * self.columns;
            let tiles = self.marked.get(start + columns.start..start + columns.end);
            tiles.is_some_and(|tiles| tiles.contains(&true))
        })
    }

    /// Takes the tiles that touch the area out of the set, as few rectangles of at most `band`
    /// rows: whole tiles, cut at the edges of the screen.
    pub(super) fn take(&mut self, area: Area, band: usize) -> Vec<Area> {
        let (columns, rows) = self.span(area);
        let mut done = Vec::new();
        // Those that end at the row before.
        let mut open: Vec<(Range<usize>, Range<usize>)> = Vec::new();
        for row in rows.clone() {
            let mut runs = Vec::new();
            for run in self.row(row, &columns).take_runs() {
                let above = open.iter().position(|(columns, rows)| {
                    *columns == run && rows.end == row && rows.len() < band
                });
                let start = above.map_or(row, |at| open.swap_remove(at).1.start);
                runs.push((run, start..row + 1));
            }
            done.append(&mut open);
            open = runs;
        }
        done.append(&mut open);
        if done.len() > RECTANGLES {
            let bands = rows.clone().step_by(band);
            done = bands
                .map(|row| (columns.clone(), row..rows.end.min(row.saturating_add(band))))
                .collect();
        }
        done.iter().map(|(columns, rows)| self.area(columns, rows)).collect()
    }

    fn row(&mut self, row: usize, columns: &Range<usize>) -> Row<'_> {
        let start = row * self.columns;
        let tiles = self.marked.get_mut(start + columns.start..start + columns.end);
        Row { first: columns.start, tiles: tiles.unwrap_or_default() }
    }

    /// Columns and rows of the tiles that an area touches.
    fn span(&self, area: Area) -> (Range<usize>, Range<usize>) {
        let (right, bottom) = (area.right.min(self.width), area.bottom.min(self.height));
        let columns = usize::from(area.left) / TILE_WIDTH..usize::from(right).div_ceil(TILE_WIDTH);
        let rows = usize::from(area.top) / TILE_HEIGHT..usize::from(bottom).div_ceil(TILE_HEIGHT);
        if area.left >= right || area.top >= bottom { (0..0, 0..0) } else { (columns, rows) }
    }

    fn area(&self, columns: &Range<usize>, rows: &Range<usize>) -> Area {
        let pixels = |tiles: usize, size: usize, edge: u16| {
            u16::try_from(tiles * size).unwrap_or(u16::MAX).min(edge)
        };
        Area {
            left: pixels(columns.start, TILE_WIDTH, self.width),
            top: pixels(rows.start, TILE_HEIGHT, self.height),
            right: pixels(columns.end, TILE_WIDTH, self.width),
            bottom: pixels(rows.end, TILE_HEIGHT, self.height),
        }
    }
}

/// A part of a row of tiles.
struct Row<'a> {
    first: usize,
    tiles: &'a mut [bool],
}

impl Row<'_> {
    fn fill(self, value: bool) {
        self.tiles.fill(value);
    }

    /// Clears the tiles; the columns of those that were set, neighbours together.
    fn take_runs(self) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for (column, tile) in (self.first..).zip(self.tiles) {
            if !std::mem::take(tile) {
                continue;
            }
            match runs.last_mut() {
                Some(run) if run.end == column => run.end += 1,
                _ => runs.push(column..column + 1),
            }
        }
        runs
    }
}
