// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Updates as bytes (RFC 6143 §7.6.1, §7.7).

use std::io::{self, Write};

use flate2::{Compress, Compression, FlushCompress};

use super::pixel::{PixelFormat, Translator};
use super::protocol::{Area, DESKTOP_SIZE};
use super::tiles::TILE_HEIGHT;
use super::viewer::Update;
use super::zrle;

/// Lines that are encoded at a time: as high as ZRLE's own tiles.
const LINES: u16 = 64;

/// How a rectangle's pixels are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As they are, §7.7.1.
    Raw,
    /// Raw through zlib (number 6 of the community's list of encodings).
    Zlib,
    /// Tiles with palettes through zlib, §7.7.6.
    Zrle,
}

impl Encoding {
    pub(super) fn from_number(number: i32) -> Option<Self> {
        [Self::Raw, Self::Zlib, Self::Zrle].into_iter().find(|each| each.number() == number)
    }

    /// Highest rectangle in rows of tiles. What is compressed comes in small parts, for its length
    /// is sent first; pixels as they are need no buffer.
    pub(super) fn band(self) -> usize {
        match self {
            Self::Raw => usize::MAX,
            Self::Zlib | Self::Zrle => usize::from(LINES) / TILE_HEIGHT,
        }
    }

    pub(super) fn number(self) -> i32 {
        match self {
            Self::Raw => 0,
            Self::Zlib => 6,
            Self::Zrle => 16,
        }
    }
}

/// One client's encoder. A connection has one zlib stream for each encoding that uses zlib.
pub(super) struct Encoder {
    translator: Translator,
    zlib: Option<Compress>,
    zrle: Option<Compress>,
    /// Some lines: as they are on the screen, as the client wants them, as they are sent.
    pixels: Vec<u32>,
    plain: Vec<u8>,
    out: Vec<u8>,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self {
            translator: Translator::new(PixelFormat::NATIVE),
            zlib: None,
            zrle: None,
            pixels: Vec::new(),
            plain: Vec::new(),
            out: Vec::new(),
        }
    }

    /// Sends an update, some lines at a time.
    pub(super) fn send(&mut self, update: &Update, to: &mut impl Write) -> io::Result<()> {
        if update.format != self.translator.format() {
            self.translator = Translator::new(update.format);
        }
        let count = update.areas.len() + usize::from(update.resize.is_some());
        let count = u16::try_from(count).map_err(io::Error::other)?;
        let [high, low] = count.to_be_bytes();
        self.out.clear();
        self.out.extend([0, 0, high, low]);
        for area in &update.areas {
            self.head(*area, update.encoding.number());
            for top in (area.top..area.bottom).step_by(LINES.into()) {
                let bottom = area.bottom.min(top.saturating_add(LINES));
                self.band(update, Area { top, bottom, ..*area })?;
                to.write_all(&self.out)?;
                self.out.clear();
            }
        }
        if let Some((right, bottom)) = update.resize {
            self.head(Area { left: 0, top: 0, right, bottom }, DESKTOP_SIZE);
        }
        to.write_all(&self.out)?;
        to.flush()
    }

    fn head(&mut self, area: Area, encoding: i32) {
        for number in [area.left, area.top, area.width(), area.height()] {
            self.out.extend(number.to_be_bytes());
        }
        self.out.extend(encoding.to_be_bytes());
    }

    /// The next lines of a rectangle.
    fn band(&mut self, update: &Update, area: Area) -> io::Result<()> {
        update.picture.cut(area, &mut self.pixels);
        self.plain.clear();
        match update.encoding {
            Encoding::Raw => self.translator.append(&self.pixels, &mut self.out),
            Encoding::Zlib => {
                self.translator.append(&self.pixels, &mut self.plain);
                squeeze(&mut self.zlib, &self.plain, &mut self.out)?;
            }
            Encoding::Zrle => {
                let width = area.width().into();
                zrle::append(&self.translator, &self.pixels, width, &mut self.plain);
                squeeze(&mut self.zrle, &self.plain, &mut self.out)?;
            }
        }
        Ok(())
    }
}

/// Appends the length of the compressed bytes and these, so that the other side can decompress
/// all of `plain` from what it has by then.
fn squeeze(stream: &mut Option<Compress>, mut plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    // On this host and over a forwarded connection, time matters more than size.
    let stream = stream.get_or_insert_with(|| Compress::new(Compression::fast(), true));
    let start = out.len();
    out.extend([0; 4]);
    loop {
        out.reserve(plain.len() / 8 + 1024);
        let before = stream.total_in();
        stream.compress_vec(plain, out, FlushCompress::Sync).map_err(io::Error::other)?;
        let used = usize::try_from(stream.total_in() - before).map_err(io::Error::other)?;
        plain = plain.get(used..).unwrap_or_default();
        // Room left over means that all is out.
        if plain.is_empty() && out.len() < out.capacity() {
            break;
        }
    }
    let length = u32::try_from(out.len() - start - 4).map_err(io::Error::other)?;
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}
