// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! ZRLE's tiles before compression (RFC 6143 §7.7.6): one colour, a palette, or plain pixels.
//! Runs are left to zlib.

use super::pixel::Translator;

/// Width and height of a tile in pixels.
const SIDE: usize = 64;
/// Most colours in a palette whose indices are packed.
const COLOURS: usize = 16;
/// Bits of a pixel that count.
const MASK: u32 = 0xff_ffff;

/// Appends a rectangle, tile after tile.
pub(super) fn append(translator: &Translator, pixels: &[u32], width: usize, to: &mut Vec<u8>) {
    let width = width.max(1);
    let mut tile = Vec::with_capacity(SIDE * SIDE);
    for band in pixels.chunks(width * SIDE) {
        for left in (0..width).step_by(SIDE) {
            let right = width.min(left + SIDE);
            tile.clear();
            for line in band.chunks_exact(width) {
                tile.extend(line[left..right].iter().map(|pixel| pixel & MASK));
            }
            append_tile(translator, &tile, right - left, to);
        }
    }
}

fn append_tile(translator: &Translator, tile: &[u32], width: usize, to: &mut Vec<u8>) {
    let Some(palette) = palette(tile) else {
        to.push(0);
        translator.append_compact(tile, to);
        return;
    };
    to.push(palette.len() as u8);
    translator.append_compact(&palette, to);
    let bits = match palette.len() {
        0 | 1 => return,
        2 => 1,
        3 | 4 => 2,
        _ => 4,
    };
    for line in tile.chunks(width) {
        // Indices fill bytes from the top; each line begins with a new byte.
        for pixels in line.chunks(8 / bits) {
            let packed = pixels.iter().fold(0, |packed, pixel| {
                packed << bits | palette.iter().position(|each| each == pixel).unwrap_or_default()
            });
            to.push((packed << (8 - bits * pixels.len())) as u8);
        }
    }
}

/// The tile's colours, if there are few.
fn palette(tile: &[u32]) -> Option<Vec<u32>> {
    let mut palette = Vec::with_capacity(COLOURS);
    for pixel in tile {
        if palette.contains(pixel) {
            continue;
        }
        if palette.len() == COLOURS {
            return None;
        }
        palette.push(*pixel);
    }
    Some(palette)
}
