// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! An image as a disk: the active layer, chunk by chunk.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Whence, lseek};

use super::super::source::{CHUNK, Chunk, Source, is_zero};
use super::deflate::Unpacker;
use super::header::{Header, cannot_read};
use super::{COMPRESSED, OFFSET_MASK, SECTOR, ZERO};
use crate::ui::{Failure, Outcome};

/// Entries of the L1 table that are held at a time.
const L1_WINDOW: u64 = 4096;

/// L2 tables that one call looks through for data, so that no image keeps it long.
const TABLES_PER_CALL: u64 = 1024;

/// A disk in a qcow2 image, version 2 or 3. Memory: two clusters and two chunks, whatever the
/// disk's size. It gives the same chunks as a raw disk with the same content.
#[derive(Debug)]
pub struct Qcow2Disk {
    path: PathBuf,
    file: File,
    /// Bytes of the file.
    length: u64,
    header: Header,
    /// Where in the disk the next chunk starts.
    offset: u64,
    /// Some L1 entries, and the index of the first.
    l1: (u64, Vec<u8>),
    /// The L2 table held, and where it is in the file.
    l2: (u64, Vec<u8>),
    tables_read: u64,
    unpacker: Unpacker,
    /// The compressed cluster expanded last, and where it is in the file.
    expanded: (Option<(u64, u64)>, Vec<u8>),
}

/// Where a cluster's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere,
    At(u64),
    Packed { at: u64, length: u64 },
}

impl Qcow2Disk {
    /// Opens an image.
    ///
    /// # Errors
    /// When it cannot be read, is no qcow2 image, is damaged, or uses what is not supported: a
    /// backing file, an external data file, encryption, extended L2 entries, zstd.
    pub fn open(path: &Path) -> Outcome<Self> {
        let failed = |error: io::Error| {
            Failure::build(cannot_read(path)).because(error).fact("file", path.display())
        };
        let file = File::open(path).map_err(failed)?;
        let end = lseek(file.as_fd(), 0, Whence::SeekEnd).map_err(|e| failed(e.into()))?;
        let length = u64::try_from(end).unwrap_or(0);
        let header = Header::read(path, &file, length)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            length,
            header,
            offset: 0,
            l1: (0, Vec::new()),
            l2: (0, Vec::new()),
            tables_read: 0,
            unpacker: Unpacker::new(),
            expanded: (None, Vec::new()),
        })
    }

    /// Size of the disk in bytes.
    pub fn size(&self) -> u64 {
        self.header.size
    }

    /// The zeros from here on that need no look at data: whole chunks, or all the rest.
    fn zeros(&mut self) -> Outcome<u64> {
        let mut end = self.offset;
        let tables = self.tables_read + TABLES_PER_CALL;
        while end < self.header.size && self.tables_read < tables {
            match self.place(end)? {
                (Place::Nowhere, length) => end = end.saturating_add(length),
                _ => break,
            }
        }
        if end >= self.header.size {
            return Ok(self.header.size - self.offset);
        }
        Ok((end - end % CHUNK as u64).saturating_sub(self.offset))
    }

    /// Fills the buffer, which is all zeros, with the disk's bytes from here on.
    fn fill(&mut self, buffer: &mut [u8]) -> Outcome<()> {
        let mut filled = 0;
        // Neighbours on the disk are often neighbours in the file, and read at once.
        let mut run: Option<(u64, usize)> = None;
        while filled < buffer.len() {
            let at = self.offset + filled as u64;
            let (place, length) = self.place(at)?;
            let rest = buffer.len() - filled;
            let length = usize::try_from(length).map_or(rest, |length| length.min(rest));
            match (place, run) {
                (Place::At(host), Some((start, from)))
                    if start + (filled - from) as u64 == host => {}
                _ => {
                    self.read_run(run.take(), filled, buffer)?;
                    match place {
                        Place::Nowhere => {}
                        Place::At(host) => run = Some((host, filled)),
                        Place::Packed { at: host, length: packed } => {
                            self.expand(at, host, packed)?;
                            let within = self.within(at);
                            let bytes = self.expanded.1.get(within..within + length);
                            let room = buffer.get_mut(filled..filled + length);
                            if let (Some(room), Some(bytes)) = (room, bytes) {
                                room.copy_from_slice(bytes);
                            }
                        }
                    }
                }
            }
            filled += length;
        }
        self.read_run(run, filled, buffer)
    }

    /// Reads the ordinary clusters from `run` (offset in the file, index in the buffer) to `end`.
    fn read_run(&self, run: Option<(u64, usize)>, end: usize, buffer: &mut [u8]) -> Outcome<()> {
        let Some((host, from)) = run else { return Ok(()) };
        let at = self.offset + from as u64;
        self.read(host, &mut buffer[from..end], at)
    }

    /// Offset within its cluster.
    fn within(&self, at: u64) -> usize {
        usize::try_from(at % self.header.cluster_size()).unwrap_or(0)
    }

    /// Where the disk's byte `at` is, and how many bytes from there on are in the same place.
    fn place(&mut self, at: u64) -> Outcome<(Place, u64)> {
        let (span, cluster) = (self.header.l2_span(), self.header.cluster_size());
        let table = self.l1_entry(at / span)? & OFFSET_MASK;
        if table == 0 {
            return Ok((Place::Nowhere, span - at % span));
        }
        self.load_l2(table, at)?;
        let index = usize::try_from(at % span / cluster).unwrap_or(0);
        let entry = entry(&self.l2.1, index);
        let place = self.place_of(entry, at)?;
        Ok((place, cluster - at % cluster))
    }

    fn place_of(&self, entry: u64, at: u64) -> Outcome<Place> {
        if entry & COMPRESSED != 0 {
            // Offset, then length less one in sectors, counted from the offset's sector.
            let bits = 62 - (self.header.cluster_bits - 8);
            let host = entry & ((1 << bits) - 1);
            let sectors = ((entry & (COMPRESSED - 1)) >> bits) + 1;
            let length = sectors * SECTOR - host % SECTOR;
            if host >= self.length {
                return Err(self.cut(at));
            }
            // The last sector need not be whole at the end of the file.
            return Ok(Place::Packed { at: host, length: length.min(self.length - host) });
        }
        if entry & ZERO != 0 {
            if self.header.version < 3 {
                return Err(self.damaged(at, "a zero cluster in an image of version 2"));
            }
            return Ok(Place::Nowhere);
        }
        match entry & OFFSET_MASK {
            0 => Ok(Place::Nowhere),
            host if !host.is_multiple_of(self.header.cluster_size()) => {
                Err(self.damaged(at, &format!("a cluster at offset {host}")))
            }
            host => Ok(Place::At(host + self.within(at) as u64)),
        }
    }

    fn l1_entry(&mut self, index: u64) -> Outcome<u64> {
        let (first, held) = (self.l1.0, (self.l1.1.len() / 8) as u64);
        if index < first || index >= first + held {
            let first = index - index % L1_WINDOW;
            let entries = self.header.l1_entries();
            let count = L1_WINDOW.min(entries.saturating_sub(first));
            let mut bytes = std::mem::take(&mut self.l1.1);
            bytes.resize(usize::try_from(count * 8).unwrap_or(0), 0);
            let at = first * self.header.l2_span();
            self.read(self.header.l1_offset + first * 8, &mut bytes, at)?;
            self.l1 = (first, bytes);
        }
        Ok(entry(&self.l1.1, usize::try_from(index - self.l1.0).unwrap_or(0)))
    }

    /// Makes the L2 table at `host` the one held. `at` is the place in the disk that needs it.
    fn load_l2(&mut self, host: u64, at: u64) -> Outcome<()> {
        if self.l2.0 == host && !self.l2.1.is_empty() {
            return Ok(());
        }
        let cluster = self.header.cluster_size();
        if !host.is_multiple_of(cluster) {
            return Err(self.damaged(at, &format!("an L2 table at offset {host}")));
        }
        let mut bytes = std::mem::take(&mut self.l2.1);
        bytes.resize(usize::try_from(cluster).unwrap_or(0), 0);
        self.read(host, &mut bytes, at)?;
        self.l2 = (host, bytes);
        self.tables_read += 1;
        Ok(())
    }

    /// Expands a compressed cluster, unless it is the one expanded last.
    fn expand(&mut self, at: u64, host: u64, length: u64) -> Outcome<()> {
        if self.expanded.0 == Some((host, length)) {
            return Ok(());
        }
        let mut packed = vec![0; usize::try_from(length).unwrap_or(0)];
        self.read(host, &mut packed, at)?;
        self.expanded.0 = None;
        let size = usize::try_from(self.header.cluster_size()).unwrap_or(0);
        self.expanded.1.resize(size, 0);
        self.unpacker.unpack(&packed, &mut self.expanded.1).map_err(|why| {
            self.damaged(at, &format!("the compressed cluster at offset {host} cannot be expanded"))
                .because(why)
        })?;
        self.expanded.0 = Some((host, length));
        Ok(())
    }

    /// Reads from the file, for the place `at` in the disk.
    fn read(&self, host: u64, buffer: &mut [u8], at: u64) -> Outcome<()> {
        let end = host.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.length) {
            return Err(self.cut(at));
        }
        self.file.read_exact_at(buffer, host).map_err(|error| {
            Failure::build(format!("{} at offset {host}", cannot_read(&self.path)))
                .because(error)
                .fact("file", self.path.display())
                .fact("offset", host)
        })
    }

    fn damaged(&self, at: u64, what: &str) -> Failure {
        let shown = self.path.display();
        Failure::input(format!("the qcow2 image {shown} is damaged: {what}"))
            .fact("file", &shown)
            .fact("disk", format!("offset {at}"))
            .hint(format!("look at it with `qemu-img check {shown}`"))
    }

    fn cut(&self, at: u64) -> Failure {
        let shown = self.path.display();
        Failure::input(format!("the qcow2 image {shown} is cut short or damaged"))
            .fact("file", &shown)
            .fact("disk", format!("what offset {at} needs lies beyond the end of the file"))
            .hint(format!("copy it again, or look at it with `qemu-img check {shown}`"))
    }
}

impl Source for Qcow2Disk {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn total(&self) -> Option<u64> {
        Some(self.header.size)
    }

    fn next(&mut self, mut buffer: Vec<u8>) -> Outcome<Option<Chunk>> {
        if self.offset >= self.header.size {
            return Ok(None);
        }
        let zeros = self.zeros()?;
        if zeros > 0 {
            self.offset += zeros;
            return Ok(Some(Chunk::Zeros(zeros)));
        }
        let length = (CHUNK as u64).min(self.header.size - self.offset);
        buffer.clear();
        buffer.resize(usize::try_from(length).unwrap_or(CHUNK), 0);
        self.fill(&mut buffer)?;
        self.offset += length;
        Ok(Some(if is_zero(&buffer) { Chunk::Zeros(length) } else { Chunk::Data(buffer) }))
    }
}

/// An entry of a table; 0 beyond its end.
fn entry(table: &[u8], index: usize) -> u64 {
    let bytes = table.get(index * 8..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
