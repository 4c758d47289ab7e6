// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A CD-ROM drive with an ISO image in it (SPC-3, MMC-3).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::scsi_pages as pages;
use super::{Buffers, Disk};

/// Bytes of a block.
pub(super) const BLOCK: u64 = 2048;
const CHUNK: usize = 1 << 17;

/// Why a command was refused: sense key, additional code and qualifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sense(u8, u8, u8);

impl Sense {
    const NONE: Self = Self(0, 0, 0);
    const NO_MEDIUM: Self = Self(2, 0x3a, 0x01);
    const TRAY_OPEN: Self = Self(2, 0x3a, 0x02);
    const READ_ERROR: Self = Self(3, 0x11, 0x00);
    const BAD_OPCODE: Self = Self(5, 0x20, 0x00);
    const OUT_OF_RANGE: Self = Self(5, 0x21, 0x00);
    pub(super) const BAD_FIELD: Self = Self(5, 0x24, 0x00);
    const BAD_LUN: Self = Self(5, 0x25, 0x00);
    pub(super) const NO_SAVING: Self = Self(5, 0x39, 0x00);
    const MEDIUM_CHANGED: Self = Self(6, 0x28, 0x00);
    /// No answer to the guest: the device is being reset.
    pub(super) const CANCELLED: Self = Self(0xb, 0, 0);

    /// As fixed-format sense data.
    pub(super) fn bytes(self) -> [u8; 18] {
        let Self(key, code, qualifier) = self;
        [0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, code, qualifier, 0, 0, 0, 0]
    }
}

/// Where a command's answer goes.
pub(super) struct Data<'a> {
    buffers: &'a mut Buffers,
    is_overrun: bool,
}

impl<'a> Data<'a> {
    pub(super) fn new(buffers: &'a mut Buffers) -> Self {
        Self { buffers, is_overrun: false }
    }

    /// Whether the command had more to say than the driver has room for.
    pub(super) fn is_overrun(&self) -> bool {
        self.is_overrun
    }

    /// Gives at most `allocation` bytes of an answer, and no more than fits.
    fn give(&mut self, answer: &[u8], allocation: usize) -> Result<(), Sense> {
        let length = (answer.len().min(allocation) as u64).min(self.buffers.left()) as usize;
        let answer = answer.get(..length).unwrap_or_default();
        self.buffers.write(answer).map_err(|_| Sense::BAD_FIELD)
    }
}

/// The drive. The guest can open and close its tray; only the host takes the medium out.
pub struct ScsiCd {
    tray: Mutex<Tray>,
    chunk: Mutex<Vec<u8>>,
    read_bytes: AtomicU64,
}

struct Tray {
    medium: Option<Arc<dyn Disk>>,
    is_open: bool,
    /// The guest has not been told yet that the medium is a new one.
    is_changed: bool,
    /// A media event that the guest has not asked for yet.
    event: u8,
}

const EVENT_NEW: u8 = 2;
const EVENT_REMOVED: u8 = 3;

impl ScsiCd {
    /// A drive with a medium.
    pub fn new(medium: Arc<dyn Disk>) -> Arc<Self> {
        let tray = Tray { medium: Some(medium), is_open: false, is_changed: false, event: 0 };
        Arc::new(Self {
            tray: Mutex::new(tray),
            chunk: Mutex::new(Vec::new()),
            read_bytes: AtomicU64::new(0),
        })
    }

    /// Takes the medium out, whether or not the guest has locked the tray. The image's file is
    /// closed when a read that is under way has ended.
    pub fn eject(&self) {
        let mut tray = self.tray();
        if tray.medium.take().is_some() {
            tray.is_open = true;
            tray.event = EVENT_REMOVED;
        }
    }

    /// Whether a medium is in the drive and the tray closed.
    pub fn is_loaded(&self) -> bool {
        let tray = self.tray();
        tray.medium.is_some() && !tray.is_open
    }

    /// Bytes of media that the guest has read.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    fn tray(&self) -> MutexGuard<'_, Tray> {
        self.tray.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out a command.
    pub(super) fn execute(
        &self,
        cdb: &[u8; 32],
        lun: u16,
        data: &mut Data<'_>,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<(), Sense> {
        match cdb[0] {
            0x12 => {
                let answer = pages::inquiry(cdb[1] & 1 != 0, cdb[2], lun == 0)?;
                return data.give(&answer, be(&cdb[3..5]));
            }
            // Report LUNs: one, number 0.
            0xa0 => {
                return data
                    .give(&[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], be(&cdb[6..10]));
            }
            0x03 => {
                let sense = if lun == 0 { Sense::NONE } else { Sense::BAD_LUN };
                return data.give(&sense.bytes(), cdb[4].into());
            }
            _ if lun != 0 => return Err(Sense::BAD_LUN),
            0x4a => return data.give(&self.events(cdb)?, be(&cdb[7..9])),
            _ => {}
        }
        if std::mem::take(&mut self.tray().is_changed) {
            return Err(Sense::MEDIUM_CHANGED);
        }
        match blocks(cdb) {
            Some((block, blocks)) => self.read(block, blocks, data, is_cancelled),
            None => self.tell(cdb, data),
        }
    }

    /// The commands that ask about the drive and its medium, or move the tray.
    fn tell(&self, cdb: &[u8; 32], data: &mut Data<'_>) -> Result<(), Sense> {
        match cdb[0] {
            // Test unit ready; verify.
            0x00 | 0x2f => self.medium().map(|_| ()),
            0x1a => data.give(&pages::mode(cdb[2], self.medium_type(), true)?, cdb[4].into()),
            0x5a => data.give(&pages::mode(cdb[2], self.medium_type(), false)?, be(&cdb[7..9])),
            0x1b => {
                self.start_stop(cdb[4]);
                Ok(())
            }
            // Prevent and allow removal; synchronize cache; set speed.
            0x1e | 0x35 | 0xbb => Ok(()),
            0x25 => {
                let (_, blocks) = self.medium()?;
                let last = u32::try_from(blocks.saturating_sub(1)).unwrap_or(u32::MAX);
                data.give(&[last.to_be_bytes(), (BLOCK as u32).to_be_bytes()].concat(), 8)
            }
            0x9e if cdb[1] & 0x1f == 0x10 => {
                let (_, blocks) = self.medium()?;
                let mut answer = [0; 32];
                answer[..8].copy_from_slice(&blocks.saturating_sub(1).to_be_bytes());
                answer[8..12].copy_from_slice(&(BLOCK as u32).to_be_bytes());
                data.give(&answer, be(&cdb[10..14]))
            }
            0x43 => {
                let (_, blocks) = self.medium()?;
                data.give(&pages::toc(cdb, blocks)?, be(&cdb[7..9]))
            }
            0x46 => {
                let blocks = self.medium().map_or(0, |(_, blocks)| blocks);
                let answer = pages::configuration(be(&cdb[2..4]), cdb[1] & 3, blocks);
                data.give(&answer, be(&cdb[7..9]))
            }
            0x51 => self.medium().and_then(|_| data.give(&pages::disc(), be(&cdb[7..9]))),
            // Mechanism status: nothing moves, no changer.
            0xbd => data.give(&[0; 8], be(&cdb[8..10])),
            _ => Err(Sense::BAD_OPCODE),
        }
    }

    /// The medium and its blocks.
    fn medium(&self) -> Result<(Arc<dyn Disk>, u64), Sense> {
        let tray = self.tray();
        match &tray.medium {
            _ if tray.is_open => Err(Sense::TRAY_OPEN),
            Some(medium) => Ok((Arc::clone(medium), medium.size().div_ceil(BLOCK))),
            None => Err(Sense::NO_MEDIUM),
        }
    }

    /// For mode sense: data on a disc of 120 mm, or why there is none.
    fn medium_type(&self) -> u8 {
        match self.medium() {
            Ok(_) => 0x01,
            Err(Sense::TRAY_OPEN) => 0x71,
            Err(_) => 0x70,
        }
    }

    /// The tray opens and closes when the guest says so; the motor needs no telling.
    fn start_stop(&self, bits: u8) {
        let mut tray = self.tray();
        let opens = match bits & 3 {
            2 => true,
            3 => false,
            _ => return,
        };
        if tray.is_open != opens {
            tray.is_open = opens;
            if tray.medium.is_some() {
                tray.is_changed = !opens;
                tray.event = if opens { EVENT_REMOVED } else { EVENT_NEW };
            }
        }
    }

    /// Get event status notification, polled, media events only.
    fn events(&self, cdb: &[u8; 32]) -> Result<Vec<u8>, Sense> {
        const MEDIA: u8 = 0x10;
        if cdb[1] & 1 == 0 {
            return Err(Sense::BAD_FIELD);
        }
        if cdb[4] & MEDIA == 0 {
            return Ok(vec![0, 2, 0x80, MEDIA]);
        }
        let mut tray = self.tray();
        let state = u8::from(tray.is_open) | u8::from(tray.medium.is_some() && !tray.is_open) << 1;
        Ok(vec![0, 6, 4, MEDIA, std::mem::take(&mut tray.event), state, 0, 0])
    }

    fn read(
        &self,
        block: u64,
        blocks: u64,
        data: &mut Data<'_>,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<(), Sense> {
        let (medium, all) = self.medium()?;
        if block.checked_add(blocks).is_none_or(|end| end > all) {
            return Err(Sense::OUT_OF_RANGE);
        }
        let mut left = blocks * BLOCK;
        if left > data.buffers.left() {
            data.is_overrun = true;
            left = data.buffers.left();
        }
        let mut offset = block * BLOCK;
        let mut chunk = self.chunk.lock().unwrap_or_else(PoisonError::into_inner);
        chunk.resize(CHUNK, 0);
        while left > 0 {
            let length = left.min(CHUNK as u64) as usize;
            let piece = chunk.get_mut(..length).unwrap_or_default();
            // The image may end within its last block; zeros follow it.
            let there = medium.size().saturating_sub(offset).min(length as u64) as usize;
            let (content, rest) = piece.split_at_mut(there);
            medium.read_at(offset, content).map_err(|error| {
                tracing::warn!(%error, "the installation medium cannot be read");
                Sense::READ_ERROR
            })?;
            rest.fill(0);
            self.read_bytes.fetch_add(there as u64, Ordering::Relaxed);
            if is_cancelled() {
                return Err(Sense::CANCELLED);
            }
            data.buffers.write(piece).map_err(|_| Sense::BAD_FIELD)?;
            offset += length as u64;
            left -= length as u64;
        }
        Ok(())
    }
}

/// The first block and the number of blocks of a read command, in its four lengths.
fn blocks(cdb: &[u8; 32]) -> Option<(u64, u64)> {
    match cdb[0] {
        0x08 => {
            let count = if cdb[4] == 0 { 256 } else { u64::from(cdb[4]) };
            Some((wide(&[cdb[1] & 0x1f, cdb[2], cdb[3]]), count))
        }
        0x28 => Some((wide(&cdb[2..6]), wide(&cdb[7..9]))),
        0xa8 => Some((wide(&cdb[2..6]), wide(&cdb[6..10]))),
        0x88 => Some((wide(&cdb[2..10]), wide(&cdb[10..14]))),
        _ => None,
    }
}

/// Big-endian bytes of a command as a number.
pub(super) fn wide(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The same for lengths of at most four bytes.
pub(super) fn be(bytes: &[u8]) -> usize {
    wide(bytes) as usize
}
