// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What clients say (RFC 6143 §7.5), read once into a typed message. Nothing here allocates.

use std::io::{self, ErrorKind, Read};

use super::encode::Encoding;
use super::pixel::PixelFormat;

/// Longest clipboard that is skipped, in bytes. Who sends more has lost step.
const LONGEST_TEXT: u32 = 64 << 20;
/// The DesktopSize pseudo-encoding (RFC 6143 §7.8.2).
pub(super) const DESKTOP_SIZE: i32 = -223;

/// Why a client is let go.
#[derive(Debug, thiserror::Error)]
pub enum Gone {
    /// It closed the connection.
    #[error("it hung up")]
    HungUp,
    /// It took longer than it may.
    #[error("it did not answer in time")]
    Slow,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Failed(io::Error),
    /// It was turned away.
    #[error("it was refused: {0}")]
    Refused(&'static str),
    /// It does not speak the protocol.
    #[error("it sent something wrong: {0}")]
    Wrong(String),
}

impl From<io::Error> for Gone {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                Self::HungUp
            }
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Slow,
            _ => Self::Failed(error),
        }
    }
}

/// A part of the screen in pixels. The right and lower edges are not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) left: u16,
    pub(super) top: u16,
    pub(super) right: u16,
    pub(super) bottom: u16,
}

impl Area {
    pub(super) fn width(self) -> u16 {
        self.right.saturating_sub(self.left)
    }

    pub(super) fn height(self) -> u16 {
        self.bottom.saturating_sub(self.top)
    }

    pub(super) fn is_empty(self) -> bool {
        self.width() == 0 || self.height() == 0
    }

    /// The smallest area with both in it.
    pub(super) fn join(self, other: Self) -> Self {
        Self {
            left: self.left.min(other.left),
            top: self.top.min(other.top),
            right: self.right.max(other.right),
            bottom: self.bottom.max(other.bottom),
        }
    }
}

/// What a client accepts of the encodings that this server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wishes {
    /// The first one on its list; raw is for everybody.
    pub(super) encoding: Encoding,
    /// It can follow a change of the screen's size.
    pub(super) resizable: bool,
}

/// A message from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    /// SetPixelFormat, §7.5.1.
    Format(PixelFormat),
    /// SetEncodings, §7.5.2.
    Encodings(Wishes),
    /// FramebufferUpdateRequest, §7.5.3.
    Request { incremental: bool, area: Area },
    /// KeyEvent, §7.5.4.
    Key { keysym: u32, down: bool },
    /// PointerEvent and ClientCutText, §7.5.5 and §7.5.6: the machine has neither.
    Ignored,
}

impl Message {
    /// Waits for the next message.
    pub(super) fn read(from: &mut impl Read) -> Result<Self, Gone> {
        let [kind] = take(from)?;
        match kind {
            0 => {
                let [_, _, _] = take(from)?;
                PixelFormat::parse(take(from)?).map(Self::Format)
            }
            2 => {
                let [_, high, low] = take(from)?;
                encodings(from, u16::from_be_bytes([high, low])).map(Self::Encodings)
            }
            3 => request(from),
            4 => {
                let [down, _, _, a, b, c, d] = take(from)?;
                Ok(Self::Key { keysym: u32::from_be_bytes([a, b, c, d]), down: down != 0 })
            }
            5 => take::<5>(from).map(|_| Self::Ignored),
            6 => {
                let [_, _, _, a, b, c, d] = take(from)?;
                skip(from, u32::from_be_bytes([a, b, c, d])).map(|()| Self::Ignored)
            }
            kind => Err(Gone::Wrong(format!("a message of the unknown type {kind}"))),
        }
    }
}

fn request(from: &mut impl Read) -> Result<Message, Gone> {
    let [incremental, x1, x0, y1, y0, w1, w0, h1, h0] = take(from)?;
    let [left, top] = [u16::from_be_bytes([x1, x0]), u16::from_be_bytes([y1, y0])];
    let [width, height] = [u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0])];
    let (right, bottom) = (left.saturating_add(width), top.saturating_add(height));
    Ok(Message::Request { incremental: incremental != 0, area: Area { left, top, right, bottom } })
}

fn encodings(from: &mut impl Read, count: u16) -> Result<Wishes, Gone> {
    let (mut first, mut resizable) = (None, false);
    for _ in 0..count {
        let number = i32::from_be_bytes(take(from)?);
        first = first.or(Encoding::from_number(number));
        resizable |= number == DESKTOP_SIZE;
    }
    Ok(Wishes { encoding: first.unwrap_or(Encoding::Raw), resizable })
}

fn skip(from: &mut impl Read, length: u32) -> Result<(), Gone> {
    if length > LONGEST_TEXT {
        return Err(Gone::Wrong(format!("a clipboard of {length} bytes")));
    }
    let skipped = io::copy(&mut from.take(length.into()), &mut io::sink())?;
    if skipped < u64::from(length) { Err(Gone::HungUp) } else { Ok(()) }
}

/// Reads exactly so many bytes.
pub(super) fn take<const N: usize>(from: &mut impl Read) -> Result<[u8; N], Gone> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}
