// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Pixels as a client wants them (RFC 6143 §7.4).

use std::ops::Range;

use super::protocol::Gone;

/// How a client's pixels look. All formats with colours in bit fields are possible; colour maps
/// are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PixelFormat {
    /// Bits that a pixel takes: 8, 16 or 32.
    bits: u8,
    /// Bits that count.
    depth: u8,
    big_endian: bool,
    /// Largest values of red, green and blue, each one less than a power of two.
    max: [u16; 3],
    /// By how many bits red, green and blue are shifted.
    shift: [u8; 3],
}

impl PixelFormat {
    /// The frame buffer's own.
    pub(super) const NATIVE: Self =
        Self { bits: 32, depth: 24, big_endian: false, max: [255; 3], shift: [16, 8, 0] };

    /// Takes the client's description.
    pub(super) fn parse(bytes: [u8; 16]) -> Result<Self, Gone> {
        let [bits, depth, big_endian, true_colour, max @ .., r, g, b, _, _, _] = bytes;
        let [r1, r0, g1, g0, b1, b0] = max;
        let max = [[r1, r0], [g1, g0], [b1, b0]].map(u16::from_be_bytes);
        let shift = [r, g, b];
        let format = Self { bits, depth, big_endian: big_endian != 0, max, shift };
        if true_colour == 0 {
            return Err(Gone::Wrong("a pixel format with a colour map".into()));
        }
        let fits = max.iter().zip(shift).all(|(max, shift)| {
            let width = max.trailing_ones();
            *max > 0 && max.count_ones() == width && u32::from(shift) + width <= u32::from(bits)
        });
        if !matches!(bits, 8 | 16 | 32) || !fits {
            return Err(Gone::Wrong(format!("an impossible pixel format: {format:?}")));
        }
        Ok(format)
    }

    /// As the client describes it, or the server in ServerInit.
    pub(super) fn to_bytes(self) -> [u8; 16] {
        let [[r1, r0], [g1, g0], [b1, b0]] = self.max.map(u16::to_be_bytes);
        let [r, g, b] = self.shift;
        let order = self.big_endian.into();
        [self.bits, self.depth, order, 1, r1, r0, g1, g0, b1, b0, r, g, b, 0, 0, 0]
    }

    /// Which of a pixel's bytes, lowest first, ZRLE sends (CPIXEL, §7.7.5).
    fn compact(self) -> Range<usize> {
        let mask = self.max.iter().zip(self.shift).fold(0, |sum, (max, shift)| {
            sum | u32::from(*max).checked_shl(shift.into()).unwrap_or_default()
        });
        match self.bits {
            32 if self.depth <= 24 && mask >> 24 == 0 => 0..3,
            32 if self.depth <= 24 && mask & 0xff == 0 => 1..4,
            bits => 0..usize::from(bits / 8),
        }
    }
}

/// Turns the screen's pixels into a client's.
pub(super) struct Translator {
    format: PixelFormat,
    /// For each value of red, green and blue, its bits in the pixel.
    tables: [[u32; 256]; 3],
    compact: Range<usize>,
}

impl Translator {
    pub(super) fn new(format: PixelFormat) -> Self {
        let mut tables = [[0; 256]; 3];
        for ((table, max), shift) in tables.iter_mut().zip(format.max).zip(format.shift) {
            for (value, entry) in (0..).zip(table.iter_mut()) {
                let scaled: u32 = (value * u32::from(max) + 127) / 255;
                *entry = scaled.checked_shl(shift.into()).unwrap_or_default();
            }
        }
        Self { format, tables, compact: format.compact() }
    }

    pub(super) fn format(&self) -> PixelFormat {
        self.format
    }

    fn value(&self, pixel: u32) -> u32 {
        let [blue, green, red, _] = pixel.to_le_bytes();
        let [reds, greens, blues] = &self.tables;
        reds[usize::from(red)] | greens[usize::from(green)] | blues[usize::from(blue)]
    }

    /// Appends pixels as Raw and Zlib send them.
    pub(super) fn append(&self, pixels: &[u32], to: &mut Vec<u8>) {
        let big = self.format.big_endian;
        if self.format == PixelFormat::NATIVE {
            fill(pixels, to, |pixel| (pixel & 0xff_ffff).to_le_bytes());
            return;
        }
        match self.format.bits {
            8 => fill(pixels, to, |pixel| (self.value(pixel) as u8).to_le_bytes()),
            16 if big => fill(pixels, to, |pixel| (self.value(pixel) as u16).to_be_bytes()),
            16 => fill(pixels, to, |pixel| (self.value(pixel) as u16).to_le_bytes()),
            _ if big => fill(pixels, to, |pixel| self.value(pixel).to_be_bytes()),
            _ => fill(pixels, to, |pixel| self.value(pixel).to_le_bytes()),
        }
    }

    /// Appends pixels as ZRLE sends them.
    pub(super) fn append_compact(&self, pixels: &[u32], to: &mut Vec<u8>) {
        if self.compact.len() != 3 {
            return self.append(pixels, to);
        }
        let (low, big) = (self.compact.start == 0, self.format.big_endian);
        fill(pixels, to, |pixel| {
            let [a, b, c, d] = self.value(pixel).to_le_bytes();
            let [x, y, z] = if low { [a, b, c] } else { [b, c, d] };
            if big { [z, y, x] } else { [x, y, z] }
        });
    }
}

fn fill<const N: usize>(pixels: &[u32], to: &mut Vec<u8>, bytes: impl Fn(u32) -> [u8; N]) {
    let start = to.len();
    to.resize(start + pixels.len() * N, 0);
    for (to, pixel) in to[start..].chunks_exact_mut(N).zip(pixels) {
        to.copy_from_slice(&bytes(*pixel));
    }
}
