// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A small client, written after the RFC and not after the server.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use flate2::{Decompress, FlushDecompress};

use super::{SOON, World};
use crate::ui::Secret;

/// A pixel format: bits, depth, big endian, largest values, shifts.
#[derive(Clone, Copy)]
pub(super) struct Format(
    pub(super) u8,
    pub(super) u8,
    pub(super) bool,
    pub(super) [u16; 3],
    pub(super) [u8; 3],
);

pub(super) const NATIVE: Format = Format(32, 24, false, [255; 3], [16, 8, 0]);

impl Format {
    /// What a pixel of the screen must become.
    pub(super) fn of(self, pixel: u32) -> u32 {
        let colours = [pixel >> 16 & 255, pixel >> 8 & 255, pixel & 255];
        let parts = colours.iter().zip(self.3).zip(self.4);
        parts.map(|((c, max), shift)| ((c * u32::from(max) + 127) / 255) << shift).sum()
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![self.0, self.1, u8::from(self.2), 1];
        bytes.extend(self.3.iter().flat_map(|max| max.to_be_bytes()));
        bytes.extend(self.4);
        bytes.extend([0; 3]);
        bytes
    }

    fn pixel(self, bytes: &[u8]) -> u32 {
        let add = |sum: u32, byte: &u8| sum << 8 | u32::from(*byte);
        if self.2 { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
    }

    /// The bytes of a CPIXEL, and by how many bits it is to be shifted.
    fn compact(self) -> (usize, u32) {
        let all = self.of(0xff_ffff);
        match self {
            Self(32, ..=24, ..) if all < 1 << 24 => (3, 0),
            Self(32, ..=24, ..) if all & 255 == 0 => (3, 8),
            Self(bits, ..) => (usize::from(bits / 8), 0),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rectangle {
    pub(super) x: usize,
    pub(super) y: usize,
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) encoding: i32,
}

pub(super) struct Mini {
    pub(super) stream: UnixStream,
    pub(super) size: (usize, usize),
    pub(super) format: Format,
    /// Pixels as the client's format has them.
    pub(super) canvas: Vec<u32>,
    streams: [Decompress; 2],
}

impl Mini {
    /// A connection on which nothing was said yet.
    pub(super) fn dial(world: &World) -> Self {
        let stream = UnixStream::connect(&world.path).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let streams = [Decompress::new(true), Decompress::new(true)];
        Self { stream, size: (0, 0), format: NATIVE, canvas: Vec::new(), streams }
    }

    /// A connection of version 3.8 without a password.
    pub(super) fn connect(world: &World) -> Self {
        let mut client = Self::dial(world);
        assert_eq!(client.take(12), b"RFB 003.008\n");
        client.say(b"RFB 003.008\n");
        assert_eq!(client.take(2), [1, 1]);
        client.say(&[1]);
        assert_eq!(client.take(4), [0; 4]);
        client.say(&[1]);
        client.init();
        client
    }

    pub(super) fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(super) fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// All that comes until the server hangs up.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // What the server did not read may reset the connection.
        let _ = self.stream.read_to_end(&mut bytes);
        bytes
    }

    /// The server's version, unless it hung up.
    pub(super) fn greeting(&mut self) -> Option<[u8; 12]> {
        let mut bytes = [0; 12];
        self.stream.read_exact(&mut bytes).ok().map(|()| bytes)
    }

    fn number(&mut self, bytes: usize) -> usize {
        self.take(bytes).iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    }

    /// Answers a challenge.
    pub(super) fn authenticate(&mut self, password: &str) {
        let challenge = self.take(16).try_into().unwrap();
        let response = super::super::auth::encrypt(&Secret::new(password), challenge);
        self.say(&response);
    }

    /// Reads ServerInit.
    pub(super) fn init(&mut self) {
        self.size = (self.number(2), self.number(2));
        self.canvas = vec![0xdead_beef; self.size.0 * self.size.1];
        assert_eq!(self.take(16), NATIVE.bytes());
        let length = self.number(4);
        assert_eq!(self.take(length), b"a machine");
    }

    pub(super) fn set_format(&mut self, format: Format) {
        self.format = format;
        let bytes = [vec![0; 4], format.bytes()].concat();
        self.say(&bytes);
    }

    pub(super) fn set_encodings(&mut self, encodings: &[i32]) {
        let mut bytes = vec![2, 0, 0, encodings.len() as u8];
        bytes.extend(encodings.iter().flat_map(|encoding| encoding.to_be_bytes()));
        self.say(&bytes);
    }

    pub(super) fn request(&mut self, incremental: bool) {
        let (width, height) = (self.size.0 as u16, self.size.1 as u16);
        self.request_area(incremental, [0, 0, width, height]);
    }

    pub(super) fn request_area(&mut self, incremental: bool, area: [u16; 4]) {
        let mut bytes = vec![3, u8::from(incremental)];
        bytes.extend(area.iter().flat_map(|number| number.to_be_bytes()));
        self.say(&bytes);
    }

    pub(super) fn key(&mut self, keysym: u32, down: bool) {
        let bytes = [vec![4, u8::from(down), 0, 0], keysym.to_be_bytes().to_vec()].concat();
        self.say(&bytes);
    }

    /// Reads an update and draws it.
    pub(super) fn update(&mut self) -> Vec<Rectangle> {
        assert_eq!(self.take(2), [0, 0], "an update");
        let count = self.number(2);
        (0..count).map(|_| self.rectangle()).collect()
    }

    fn rectangle(&mut self) -> Rectangle {
        let [x, y, width, height] = [(); 4].map(|()| self.number(2));
        let encoding = self.number(4) as u32 as i32;
        let rectangle = Rectangle { x, y, width, height, encoding };
        let pixel = usize::from(self.format.0 / 8);
        let pixels = match encoding {
            -223 => {
                self.size = (width, height);
                self.canvas = vec![0xdead_beef; width * height];
                return rectangle;
            }
            0 => self.take(width * height * pixel),
            6 => self.inflate(0),
            16 => {
                let tiles = self.inflate(1);
                self.zrle(rectangle, &tiles);
                return rectangle;
            }
            other => panic!("encoding {other}"),
        };
        assert_eq!(pixels.len(), width * height * pixel);
        for (at, pixel) in pixels.chunks(pixel).enumerate() {
            self.draw(x + at % width, y + at / width, self.format.pixel(pixel));
        }
        rectangle
    }

    fn draw(&mut self, x: usize, y: usize, pixel: u32) {
        assert!(x < self.size.0 && y < self.size.1);
        self.canvas[y * self.size.0 + x] = pixel;
    }

    fn inflate(&mut self, stream: usize) -> Vec<u8> {
        let length = self.number(4);
        let packed = self.take(length);
        let mut plain = Vec::with_capacity(16 << 20);
        let stream = &mut self.streams[stream];
        let before = stream.total_in();
        stream.decompress_vec(&packed, &mut plain, FlushDecompress::Sync).unwrap();
        assert_eq!(stream.total_in() - before, length as u64);
        plain
    }

    fn zrle(&mut self, rectangle: Rectangle, mut bytes: &[u8]) {
        let Rectangle { x, y, width, height, .. } = rectangle;
        for top in (y..y + height).step_by(64) {
            for left in (x..x + width).step_by(64) {
                let right = (left + 64).min(x + width);
                let bottom = (top + 64).min(y + height);
                self.tile((left, top), (right - left, bottom - top), &mut bytes);
            }
        }
        assert!(bytes.is_empty(), "{} bytes too many", bytes.len());
    }

    fn tile(&mut self, (left, top): (usize, usize), size: (usize, usize), bytes: &mut &[u8]) {
        let (length, shift) = self.format.compact();
        let format = self.format;
        let colour = |bytes: &mut &[u8]| format.pixel(bytes.split_off(..length).unwrap()) << shift;
        let kind = *bytes.split_off_first().unwrap();
        let palette: Vec<u32> = (0..kind).map(|_| colour(bytes)).collect();
        let bits = [0, 0, 1, 2, 2].get(usize::from(kind)).copied().unwrap_or(4);
        for y in 0..size.1 {
            let line = (kind > 1).then(|| bytes.split_off(..(size.0 * bits).div_ceil(8)).unwrap());
            for x in 0..size.0 {
                let pixel = match line {
                    Some(line) => {
                        let place = x * bits;
                        let index = line[place / 8] >> (8 - bits - place % 8) & ((1 << bits) - 1);
                        palette[usize::from(index)]
                    }
                    None if kind == 1 => palette[0],
                    None => colour(bytes),
                };
                self.draw(left + x, top + y, pixel);
            }
        }
    }
}
