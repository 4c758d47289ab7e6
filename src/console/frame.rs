// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.
//! The picture of the guest's screen, and what changed in it.

use crate::ui;

/// Most pixels that a server may announce: 3840 × 2160, also the RFB decoder's own limit.
const MAX_PIXELS: usize = 3840 * 2160;

/// Bytes per pixel: blue, green, red, nothing.
const BYTES: usize = 4;

/// A change no larger than this (a double-width character cell) may be a cursor.
const CURSOR: (u16, u16) = (16, 32);

/// QEMU's notice that the guest has not set up its display: the screen's size, and the rows of
/// pixels within which its one line of text stands.
const NOTICE: ((u16, u16), (u16, u16)) = ((640, 480), (224, 240));

/// A part of the screen in pixels. The right and lower edges are not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) left: u16,
    pub(super) top: u16,
    pub(super) right: u16,
    pub(super) bottom: u16,
}

impl Area {
    fn join(self, other: Self) -> Self {
        Self {
            left: self.left.min(other.left),
            top: self.top.min(other.top),
            right: self.right.max(other.right),
            bottom: self.bottom.max(other.bottom),
        }
    }

    pub(super) fn holds(self, other: Self) -> bool {
        self.join(other) == self
    }

    /// Small enough to be a text cursor.
    pub(super) fn is_cursor_sized(self) -> bool {
        self.right.saturating_sub(self.left) <= CURSOR.0
            && self.bottom.saturating_sub(self.top) <= CURSOR.1
    }
}

/// A frame buffer. Starts with no size; pixels are black until drawn.
#[derive(Debug, Clone, Default)]
pub(super) struct Frame {
    width: u16,
    height: u16,
    pixels: Vec<u8>,
}

impl Frame {
    pub(super) fn size(&self) -> (u16, u16) {
        (self.width, self.height)
    }

    pub(super) fn whole(&self) -> Area {
        Area { left: 0, top: 0, right: self.width, bottom: self.height }
    }

    /// Takes a new size and turns black. Fails on sizes that no installer has.
    pub(super) fn resize(&mut self, width: u16, height: u16) -> Result<(), String> {
        let count = usize::from(width) * usize::from(height);
        if count == 0 || count > MAX_PIXELS {
            return Err(format!("a screen of {width}x{height} pixels is not credible"));
        }
        self.pixels.clear();
        self.pixels.resize(count * BYTES, 0);
        (self.width, self.height) = (width, height);
        Ok(())
    }

    /// Draws rows of pixels; returns the part that really changed.
    pub(super) fn draw(&mut self, area: Area, mut data: Vec<u8>) -> Result<Option<Area>, String> {
        let (width, height) = self.check(area)?;
        if data.len() != width * height * BYTES {
            return Err(format!("{} bytes for {width}x{height} pixels", data.len()));
        }
        if width == 0 {
            return Ok(None);
        }
        for pixel in data.chunks_exact_mut(BYTES) {
            pixel[BYTES - 1] = 0;
        }
        let mut changed: Option<Area> = None;
        for (y, row) in (area.top..area.bottom).zip(data.chunks_exact(width * BYTES)) {
            let Some(old) = self.row_mut(y, area.left, width) else { continue };
            if let Some((first, last)) = difference(old, row) {
                old.copy_from_slice(row);
                let span = Area {
                    left: area.left.saturating_add(first),
                    top: y,
                    right: area.left.saturating_add(last).saturating_add(1),
                    bottom: y.saturating_add(1),
                };
                changed = Some(changed.map_or(span, |sum| sum.join(span)));
            }
        }
        Ok(changed)
    }

    /// Copies a part of the screen to another place; the two may overlap.
    pub(super) fn copy(&mut self, to: Area, left: u16, top: u16) -> Result<Option<Area>, String> {
        let (width, height) = self.check(to)?;
        let from = Area {
            left,
            top,
            right: left.saturating_add(to.right - to.left),
            bottom: top.saturating_add(to.bottom - to.top),
        };
        self.check(from)?;
        let mut data = Vec::with_capacity(width * height * BYTES);
        for y in from.top..from.bottom {
            data.extend_from_slice(self.row_mut(y, left, width).unwrap_or_default());
        }
        self.draw(to, data)
    }

    /// A number that differs whenever the picture does, but for a chance of one in 2³².
    pub(super) fn fingerprint(&self) -> u64 {
        let size = (u64::from(self.width) << 16) | u64::from(self.height);
        (u64::from(crc32fast::hash(&self.pixels)) << 32) | size
    }

    /// Shows nothing of the guest's: all of one colour, a cursor aside, or QEMU's notice that the
    /// display is not in use yet.
    pub(super) fn is_blank(&self) -> bool {
        let Some(background) = self.pixels.last_chunk::<BYTES>() else { return true };
        let width = usize::from(self.width);
        let (notice_size, (notice_top, notice_bottom)) = NOTICE;
        let may_be_notice = self.size() == notice_size && background == &[0; BYTES];
        let mut odd: Option<Area> = None;
        for (y, row) in (0_u16..).zip(self.pixels.chunks_exact(width * BYTES)) {
            let Some((first, last)) = unlike(row, background) else { continue };
            let here = Area { left: first, top: y, right: last + 1, bottom: y + 1 };
            let sum = odd.map_or(here, |sum| sum.join(here));
            let in_notice = sum.top >= notice_top && sum.bottom <= notice_bottom;
            if !(sum.is_cursor_sized() || may_be_notice && in_notice) {
                return false;
            }
            odd = Some(sum);
        }
        true
    }

    /// Whether a pixel is other than black.
    #[cfg(test)]
    pub(super) fn is_lit(&self, x: usize, y: usize) -> bool {
        let start = (y * usize::from(self.width) + x) * BYTES;
        self.pixels.get(start..start + BYTES).is_some_and(|pixel| pixel != [0; BYTES])
    }

    /// The picture as PNG.
    pub(super) fn to_png(&self) -> Result<Vec<u8>, png::EncodingError> {
        let size = (self.width.into(), self.height.into());
        ui::png(size, self.pixels.as_chunks::<BYTES>().0.iter().copied())
    }

    /// Width and height of an area that must lie on the screen.
    fn check(&self, area: Area) -> Result<(usize, usize), String> {
        if area.left > area.right || area.top > area.bottom || !self.whole().holds(area) {
            let (width, height) = self.size();
            return Err(format!(
                "an update from {},{} to {},{} on a screen of {width}x{height}",
                area.left, area.top, area.right, area.bottom
            ));
        }
        Ok((usize::from(area.right - area.left), usize::from(area.bottom - area.top)))
    }

    fn row_mut(&mut self, y: u16, left: u16, width: usize) -> Option<&mut [u8]> {
        let start = (usize::from(y) * usize::from(self.width) + usize::from(left)) * BYTES;
        self.pixels.get_mut(start..start + width * BYTES)
    }
}

/// First and last pixel in which two rows of equal length differ.
fn difference(old: &[u8], new: &[u8]) -> Option<(u16, u16)> {
    if old == new {
        return None;
    }
    let mut pairs = old.chunks_exact(BYTES).zip(new.chunks_exact(BYTES));
    ends(pairs.clone().position(|(a, b)| a != b), pairs.rposition(|(a, b)| a != b))
}

/// First and last pixel of a row that has another colour than the background.
fn unlike(row: &[u8], background: &[u8; BYTES]) -> Option<(u16, u16)> {
    let mut pixels = row.chunks_exact(BYTES);
    ends(pixels.clone().position(|p| p != background), pixels.rposition(|p| p != background))
}

fn ends(first: Option<usize>, last: Option<usize>) -> Option<(u16, u16)> {
    Some((u16::try_from(first?).ok()?, u16::try_from(last?).ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn area(left: u16, top: u16, right: u16, bottom: u16) -> Area {
        Area { left, top, right, bottom }
    }

    fn painted(width: u16, height: u16) -> Frame {
        let mut frame = Frame::default();
        frame.resize(width, height).unwrap();
        frame
    }

    #[test]
    fn refuses_sizes_and_updates_that_cannot_be() {
        let mut frame = Frame::default();
        for (width, height) in [(0, 0), (0, 600), (u16::MAX, u16::MAX), (4096, 2160)] {
            assert!(frame.resize(width, height).unwrap_err().contains("not credible"));
        }
        assert_eq!(frame.size(), (0, 0));
        frame.resize(3840, 2160).unwrap();
        frame.resize(10, 10).unwrap();
        assert!(frame.draw(area(5, 5, 11, 6), vec![0; 24]).is_err());
        assert!(frame.draw(area(5, 5, 6, 6), vec![0; 3]).is_err());
        assert!(frame.draw(area(6, 5, 5, 6), vec![]).is_err());
        assert!(frame.copy(area(0, 0, 5, 5), 6, 0).is_err());
        assert!(frame.copy(area(0, 0, 5, 5), u16::MAX, 0).is_err());
    }

    #[test]
    fn reports_only_what_really_changed() {
        let mut frame = painted(10, 10);
        let mut data = vec![0; 10 * 10 * 4];
        data[4 * (10 * 3 + 2)] = 9;
        data[4 * (10 * 5 + 7) + 1] = 9;
        data[3] = 255; // padding is not part of the picture
        assert_eq!(frame.draw(area(0, 0, 10, 10), data.clone()).unwrap(), Some(area(2, 3, 8, 6)));
        let before = frame.fingerprint();
        assert_eq!(frame.draw(area(0, 0, 10, 10), data).unwrap(), None);
        assert_eq!(frame.fingerprint(), before);
        assert_eq!(frame.copy(area(0, 0, 1, 1), 2, 3).unwrap(), Some(area(0, 0, 1, 1)));
        assert_ne!(frame.fingerprint(), before);
    }

    #[test]
    fn a_blank_screen_may_have_a_cursor() {
        let mut frame = painted(100, 100);
        assert!(Frame::default().is_blank() && frame.is_blank());
        frame.draw(area(0, 84, 9, 100), vec![7; 9 * 16 * 4]).unwrap();
        assert!(frame.is_blank());
        frame.draw(area(50, 0, 59, 16), vec![7; 9 * 16 * 4]).unwrap();
        assert!(!frame.is_blank());
    }

    #[test]
    fn qemus_notice_is_blank_but_other_lines_of_text_are_not() {
        let mut frame = painted(640, 480);
        frame.draw(area(144, 224, 496, 240), vec![7; 352 * 16 * 4]).unwrap();
        assert!(frame.is_blank());
        frame.draw(area(0, 0, 9, 16), vec![7; 9 * 16 * 4]).unwrap();
        assert!(!frame.is_blank());
        let mut higher = painted(640, 480);
        higher.draw(area(144, 223, 496, 239), vec![7; 352 * 16 * 4]).unwrap();
        assert!(!higher.is_blank());
    }

    #[test]
    fn the_png_has_the_colours_in_order() {
        let mut frame = painted(2, 1);
        frame.draw(area(0, 0, 2, 1), vec![1, 2, 3, 0, 10, 20, 30, 0]).unwrap();
        let bytes = frame.to_png().unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, [3, 2, 1, 30, 20, 10]);
    }

    proptest! {
        #[test]
        fn overlapping_copies_equal_a_copy_by_way_of_a_second_screen(
            pixels in proptest::collection::vec(any::<u8>(), 8 * 8 * 4),
            (left, top, to_left, to_top) in (0_u16..4, 0_u16..4, 0_u16..4, 0_u16..4),
        ) {
            let mut frame = painted(8, 8);
            frame.draw(frame.whole(), pixels).unwrap();
            let source = frame.clone();
            frame.copy(area(to_left, to_top, to_left + 4, to_top + 4), left, top).unwrap();
            for y in 0..4 {
                for x in 0..4 {
                    let at = |f: &Frame, x: u16, y: u16| {
                        let start = (usize::from(y) * 8 + usize::from(x)) * BYTES;
                        f.pixels[start..start + BYTES].to_vec()
                    };
                    prop_assert_eq!(
                        at(&frame, to_left + x, to_top + y), at(&source, left + x, top + y)
                    );
                }
            }
        }

        #[test]
        fn hostile_updates_are_refused_or_drawn(
            (left, top, right, bottom) in any::<(u16, u16, u16, u16)>(), length in 0_usize..500,
        ) {
            let mut frame = painted(10, 10);
            let _ = frame.draw(area(left, top, right, bottom), vec![1; length]);
            let _ = frame.copy(area(0, 0, 3, 3), left, top);
            prop_assert_eq!(frame.pixels.len(), 400);
        }
    }
}
