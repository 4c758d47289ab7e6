// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A disk (VIRTIO 1.2, section 5.2), and what it was asked for.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::{BadBuffer, Buffers, Chain, Disk, Kind, Ring, VirtioDevice};
use crate::vm::dev::lanes;

const SEG_MAX: u64 = 1 << 2;
const RO: u64 = 1 << 5;
const BLK_SIZE: u64 = 1 << 6;
const FLUSH: u64 = 1 << 9;
const TOPOLOGY: u64 = 1 << 10;
const MQ: u64 = 1 << 12;
const DISCARD: u64 = 1 << 13;
const WRITE_ZEROES: u64 = 1 << 14;

/// Whatever the store's own blocks are: where the image goes, disks have 512 bytes.
const SECTOR: u64 = 512;
const QUEUE_SIZE: u16 = 256;
const MAX_SEGMENTS: u32 = 126;
const MAX_DISCARD_SECTORS: u32 = 1 << 22;
const MAX_ZEROES_SECTORS: u32 = 1 << 20;
/// Ranges in one discard or write-zeroes request.
const MAX_RANGES: u32 = 16;
const RANGE_BYTES: usize = 16;
/// What goes between file and guest at a time; a reset of the device waits for it.
const CHUNK: u32 = 4 << 20;

const STATUS_OK: u8 = 0;
const STATUS_ERROR: u8 = 1;
const STATUS_UNSUPPORTED: u8 = 2;

/// What a disk was asked for since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlockStats {
    /// Read requests that succeeded.
    pub reads: u64,
    /// Write requests that succeeded.
    pub writes: u64,
    /// Flush requests that succeeded.
    pub flushes: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Bytes discarded or made zero without writing them.
    pub discarded_bytes: u64,
}

#[derive(Default)]
struct Counters {
    reads: AtomicU64,
    writes: AtomicU64,
    flushes: AtomicU64,
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    discarded_bytes: AtomicU64,
}

/// A virtio disk.
pub struct Block {
    disk: Arc<dyn Disk>,
    id: [u8; 20],
    queues: u16,
    counters: Counters,
    failure: OnceLock<String>,
}

/// A request, parsed.
enum Request {
    Read { sector: u64 },
    Write { sector: u64 },
    Flush,
    Id,
    Discard,
    WriteZeroes,
}

/// How a request ends other than well.
enum Refusal {
    /// The driver asked for what is not there, or the store failed.
    Error,
    Unsupported,
    /// The device is being reset.
    Cancelled,
}

impl From<BadBuffer> for Refusal {
    fn from(_: BadBuffer) -> Self {
        Self::Error
    }
}

impl Block {
    /// A disk with `queues` rings, 1 to 8. `id` is the serial number that the guest sees, cut to
    /// 20 bytes.
    pub fn new(disk: Arc<dyn Disk>, id: &str, queues: u16) -> Arc<Self> {
        let mut bytes = [0; 20];
        for (to, from) in bytes.iter_mut().zip(id.bytes()) {
            *to = from;
        }
        let queues = queues.clamp(1, 8);
        Arc::new(Self {
            disk,
            id: bytes,
            queues,
            counters: Counters::default(),
            failure: OnceLock::new(),
        })
    }

    /// What the disk was asked for.
    pub fn stats(&self) -> BlockStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BlockStats {
            reads: load(&self.counters.reads),
            writes: load(&self.counters.writes),
            flushes: load(&self.counters.flushes),
            read_bytes: load(&self.counters.read_bytes),
            written_bytes: load(&self.counters.written_bytes),
            discarded_bytes: load(&self.counters.discarded_bytes),
        }
    }

    /// What the store said when it failed first; the guest only sees an I/O error.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    fn sectors(&self) -> u64 {
        self.disk.size() / SECTOR
    }

    /// Answers one request. `None` when it is given up for a reset.
    fn answer(&self, chain: &mut Chain, ring: &Ring) -> Option<()> {
        let Ok(mut status) = chain.writable.take_last() else { return Some(()) };
        let code = match self.carry_out(chain, ring) {
            Ok(()) => STATUS_OK,
            Err(Refusal::Error) => STATUS_ERROR,
            Err(Refusal::Unsupported) => STATUS_UNSUPPORTED,
            Err(Refusal::Cancelled) => return None,
        };
        if status.write(&[code]).is_ok() {
            chain.writable.add_written(1);
        }
        Some(())
    }

    fn carry_out(&self, chain: &mut Chain, ring: &Ring) -> Result<(), Refusal> {
        let counters = &self.counters;
        let count = |counter: &AtomicU64, by| {
            counter.fetch_add(by, Ordering::Relaxed);
        };
        let request = Request::parse(&mut chain.readable)?;
        let is_change =
            matches!(request, Request::Write { .. } | Request::Discard | Request::WriteZeroes);
        if is_change && self.disk.is_read_only() {
            return Err(Refusal::Error);
        }
        match request {
            Request::Read { sector } => {
                let bytes = chain.writable.left();
                self.read(sector, &mut chain.writable, ring)?;
                count(&counters.reads, 1);
                count(&counters.read_bytes, bytes);
            }
            Request::Write { sector } => {
                let bytes = chain.readable.left();
                self.write(sector, &mut chain.readable, ring)?;
                count(&counters.writes, 1);
                count(&counters.written_bytes, bytes);
            }
            Request::Flush => {
                self.stored(self.disk.flush())?;
                count(&counters.flushes, 1);
            }
            Request::Id => {
                let length = chain.writable.left().min(self.id.len() as u64) as usize;
                chain.writable.write(self.id.get(..length).unwrap_or_default())?;
            }
            Request::Discard => self.ranges(&mut chain.readable, false)?,
            Request::WriteZeroes => self.ranges(&mut chain.readable, true)?,
        }
        Ok(())
    }

    fn read(&self, sector: u64, to: &mut Buffers, ring: &Ring) -> Result<(), Refusal> {
        let mut offset = self.place(sector, to.left())?;
        while to.left() > 0 {
            let bytes = piece(to.left());
            let guest = to.take_front(bytes)?;
            self.stored(self.disk.read_to(offset, &guest.slices()?))?;
            to.add_written(bytes);
            if ring.is_cancelled() {
                return Err(Refusal::Cancelled);
            }
            offset += u64::from(bytes);
        }
        Ok(())
    }

    fn write(&self, sector: u64, from: &mut Buffers, ring: &Ring) -> Result<(), Refusal> {
        let mut offset = self.place(sector, from.left())?;
        while from.left() > 0 {
            let bytes = piece(from.left());
            let guest = from.take_front(bytes)?;
            self.stored(self.disk.write_from(offset, &guest.slices()?))?;
            if ring.is_cancelled() {
                return Err(Refusal::Cancelled);
            }
            offset += u64::from(bytes);
        }
        Ok(())
    }

    /// Discards ranges, or makes them zero. All are checked before the first is touched.
    fn ranges(&self, from: &mut Buffers, is_zeroing: bool) -> Result<(), Refusal> {
        let count = from.left() / RANGE_BYTES as u64;
        if !from.left().is_multiple_of(RANGE_BYTES as u64) || count > u64::from(MAX_RANGES) {
            return Err(Refusal::Error);
        }
        let most = if is_zeroing { MAX_ZEROES_SECTORS } else { MAX_DISCARD_SECTORS };
        let mut ranges = Vec::new();
        for _ in 0..count {
            let mut range = [0; RANGE_BYTES];
            from.read(&mut range)?;
            let [sector, sectors, flags] =
                [0..8, 8..12, 12..16].map(|field| lanes::number(range.get(field).unwrap_or(&[])));
            // Only zeroing may say "unmap"; other bits are for devices to come.
            if flags > u64::from(is_zeroing) {
                return Err(Refusal::Unsupported);
            }
            if sectors > u64::from(most) {
                return Err(Refusal::Error);
            }
            let bytes = sectors * SECTOR;
            ranges.push((self.place(sector, bytes)?, bytes, flags != 0));
        }
        for (offset, bytes, may_unmap) in ranges.into_iter().filter(|(_, bytes, _)| *bytes > 0) {
            self.stored(match is_zeroing {
                true => self.disk.write_zeroes(offset, bytes, may_unmap),
                false => self.disk.discard(offset, bytes),
            })?;
            self.counters.discarded_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The byte offset of a range of whole sectors on the disk.
    fn place(&self, sector: u64, bytes: u64) -> Result<u64, Refusal> {
        let end = sector.checked_add(bytes / SECTOR).ok_or(Refusal::Error)?;
        if !bytes.is_multiple_of(SECTOR) || end > self.sectors() {
            return Err(Refusal::Error);
        }
        Ok(sector * SECTOR)
    }

    /// Keeps the first thing that the store complains about.
    fn stored(&self, result: io::Result<()>) -> Result<(), Refusal> {
        result.map_err(|error| {
            let text = error.to_string();
            if self.failure.set(text).is_ok() {
                tracing::warn!(%error, "the guest gets an I/O error");
            }
            Refusal::Error
        })
    }
}

/// How many of the bytes that are left are moved at a time.
fn piece(left: u64) -> u32 {
    u32::try_from(left).unwrap_or(u32::MAX).min(CHUNK)
}

impl Request {
    /// Reads the header: type, reserved, sector.
    fn parse(from: &mut Buffers) -> Result<Self, Refusal> {
        let mut header = [0; 16];
        from.read(&mut header)?;
        let [kind, sector] =
            [0..4, 8..16].map(|field| lanes::number(header.get(field).unwrap_or(&[])));
        match kind {
            0 => Ok(Self::Read { sector }),
            1 => Ok(Self::Write { sector }),
            4 => Ok(Self::Flush),
            8 => Ok(Self::Id),
            11 => Ok(Self::Discard),
            13 => Ok(Self::WriteZeroes),
            _ => Err(Refusal::Unsupported),
        }
    }
}

impl VirtioDevice for Block {
    fn kind(&self) -> Kind {
        Kind::Block
    }

    fn features(&self) -> u64 {
        let writable = if self.disk.is_read_only() { RO } else { DISCARD | WRITE_ZEROES };
        let multi = if self.queues > 1 { MQ } else { 0 };
        SEG_MAX | BLK_SIZE | FLUSH | TOPOLOGY | writable | multi
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; usize::from(self.queues)]
    }

    fn config(&self) -> Vec<u8> {
        let mut config = vec![0; 0x3c];
        lanes::put(&mut config, 0x00, self.sectors().to_le_bytes());
        lanes::put(&mut config, 0x0c, MAX_SEGMENTS.to_le_bytes());
        lanes::put(&mut config, 0x14, (SECTOR as u32).to_le_bytes());
        // Physical blocks of 4 KiB, which is also the least worth writing at once.
        lanes::put(&mut config, 0x18, [3, 0, 8, 0]);
        lanes::put(&mut config, 0x22, self.queues.to_le_bytes());
        lanes::put(&mut config, 0x24, MAX_DISCARD_SECTORS.to_le_bytes());
        lanes::put(&mut config, 0x28, MAX_RANGES.to_le_bytes());
        lanes::put(&mut config, 0x2c, 8u32.to_le_bytes());
        lanes::put(&mut config, 0x30, MAX_ZEROES_SECTORS.to_le_bytes());
        lanes::put(&mut config, 0x34, MAX_RANGES.to_le_bytes());
        lanes::put(&mut config, 0x38, [1]);
        config
    }

    fn serve(&self, _queue: usize, ring: &mut Ring) {
        while let Some(mut chain) = ring.take() {
            if self.answer(&mut chain, ring).is_none() {
                return;
            }
            ring.done(&chain);
        }
    }
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
