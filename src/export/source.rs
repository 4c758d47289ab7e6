// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Where bytes to compress come from: ordered chunks, of data or of zeros.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use super::partitions;
use crate::ui::{Failure, Outcome};

/// Bytes per chunk, and so per gzip member: large enough that a member's header and fresh
/// dictionary cost nothing that matters (about 0.1 %), small enough to keep all threads busy.
pub(super) const CHUNK: usize = 1 << 20;

/// A piece of the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Bytes, never empty, at most 1 MiB.
    Data(Vec<u8>),
    /// That many zero bytes, never 0.
    Zeros(u64),
}

/// Bytes in order. A disk is one; so will be the stream of a volume.
pub trait Source: Send {
    /// What it is, for messages: a path or a snapshot's name.
    fn name(&self) -> String;

    /// Bytes in all, when known beforehand.
    fn total(&self) -> Option<u64>;

    /// The next chunk, or `None` at the end. `buffer` is an old one to use again.
    ///
    /// # Errors
    /// When the bytes cannot be read; names the offset.
    fn next(&mut self, buffer: Vec<u8>) -> Outcome<Option<Chunk>>;

    /// Bytes done and bytes in all of what the source itself reads, where those are not its own:
    /// what a user watches is the disk, not the stream that is made of it.
    fn progress(&self) -> Option<(u64, Option<u64>)> {
        None
    }

    /// Bytes done of what a user watches, of which `given` are given.
    fn done(&self, given: u64) -> u64 {
        self.progress().map_or(given, |(done, _)| done)
    }

    /// Bytes in all of what a user watches, when known beforehand.
    fn span(&self) -> Option<u64> {
        self.progress().map_or_else(|| self.total(), |(_, total)| total)
    }
}

/// A raw disk: a sparse file or a block device. Holes are found by `SEEK_DATA` where the file
/// system has it, and are not read; blocks that were written with zeros count as zeros too.
#[derive(Debug)]
pub struct RawDisk {
    path: PathBuf,
    file: File,
    size: u64,
    offset: u64,
    /// The end of the data that starts at or before `offset`.
    data_end: u64,
    finds_holes: bool,
    /// Time of the last change to a file, by which later ones are noticed.
    changed: Option<SystemTime>,
}

impl RawDisk {
    /// Opens a disk.
    ///
    /// # Errors
    /// When it does not exist or cannot be read.
    pub fn open(path: &Path) -> Outcome<Self> {
        let failed = |error: io::Error| {
            Failure::build(format!("cannot open the disk {}", path.display()))
                .because(error)
                .fact("file", path.display())
        };
        let file = File::open(path).map_err(failed)?;
        let end = lseek(file.as_fd(), 0, Whence::SeekEnd).map_err(|e| failed(e.into()))?;
        let size = u64::try_from(end).unwrap_or(0);
        Ok(Self::over(path, file, size))
    }

    fn over(path: &Path, file: File, size: u64) -> Self {
        let changed = changed(&file);
        let path = path.to_owned();
        Self { path, file, size, offset: 0, data_end: 0, finds_holes: true, changed }
    }

    /// Refuses a disk that ends before its partition table says it does: a copy that was cut.
    ///
    /// # Errors
    /// When it is, or its first sectors cannot be read.
    pub fn check_partitions(&self) -> Outcome<()> {
        let read = |offset: u64| {
            let mut sector = [0; 512];
            let result = self.file.read_exact_at(&mut sector, offset);
            result.map(|()| sector).map_err(|error| self.cannot_read(offset, error))
        };
        let Some(needed) = partitions::needed(self.size, read)? else { return Ok(()) };
        Err(Failure::input(format!(
            "the disk {} is shorter than its partition table says",
            self.path.display()
        ))
        .fact("size", format!("{} bytes", self.size))
        .fact("needed", format!("{needed} bytes"))
        .hint("it was cut when it was copied: copy it again"))
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Refuses a file that was written to while it was read: what was read may never have been.
    fn check_unchanged(&self) -> Outcome<()> {
        if changed(&self.file) == self.changed {
            return Ok(());
        }
        Err(Failure::build(format!("the disk {} changed while it was read", self.path.display()))
            .fact("file", self.path.display())
            .hint("stop what writes to it (a machine that still runs?), then try again"))
    }

    /// The length of the hole at `offset` in whole chunks (or to the end of the disk); 0 when
    /// there is data.
    fn hole(&mut self) -> u64 {
        if !self.finds_holes || self.offset < self.data_end {
            return 0;
        }
        let data = match self.seek(Whence::SeekData) {
            Ok(data) => data,
            Err(Errno::ENXIO) => return self.size - self.offset,
            Err(_) => {
                // A device or file system that does not know holes: all is data.
                self.finds_holes = false;
                return 0;
            }
        };
        if data == self.offset {
            self.data_end = self.seek(Whence::SeekHole).unwrap_or(self.size);
        }
        if data >= self.size {
            return self.size - self.offset;
        }
        (data - data % CHUNK as u64).saturating_sub(self.offset)
    }

    fn seek(&self, whence: Whence) -> Result<u64, Errno> {
        let offset = i64::try_from(self.offset).map_err(|_| Errno::EOVERFLOW)?;
        let found = lseek(self.file.as_fd(), offset, whence)?;
        Ok(u64::try_from(found).unwrap_or(self.size).min(self.size))
    }

    fn cannot_read(&self, offset: u64, error: io::Error) -> Failure {
        Failure::build(format!("cannot read the disk {} at offset {offset}", self.path.display()))
            .because(error)
            .fact("file", self.path.display())
            .fact("offset", format!("{offset} (sector {})", offset / 512))
            .hint("look for errors of the storage below it with `dmesg`")
    }
}

/// When a regular file was changed last; devices do not say.
fn changed(file: &File) -> Option<SystemTime> {
    let facts = file.metadata().ok().filter(Metadata::is_file)?;
    facts.modified().ok()
}

impl Source for RawDisk {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn total(&self) -> Option<u64> {
        Some(self.size)
    }

    fn next(&mut self, mut buffer: Vec<u8>) -> Outcome<Option<Chunk>> {
        if self.offset >= self.size {
            return self.check_unchanged().map(|()| None);
        }
        // `offset` is a multiple of the chunk size here, and zeros come in whole chunks: the same
        // disk gives the same chunks, and so the same file and digests, however sparse it is.
        let hole = self.hole();
        if hole > 0 {
            self.offset += hole;
            return Ok(Some(Chunk::Zeros(hole)));
        }
        let length = (CHUNK as u64).min(self.size - self.offset);
        buffer.resize(usize::try_from(length).unwrap_or(CHUNK), 0);
        let mut filled = 0;
        while filled < buffer.len() {
            let at = self.offset + filled as u64;
            match self.file.read_at(&mut buffer[filled..], at) {
                Ok(0) => {
                    let short = io::Error::new(io::ErrorKind::UnexpectedEof, "the disk ends here");
                    return Err(self.cannot_read(at, short));
                }
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.cannot_read(at, error)),
            }
        }
        self.offset += length;
        Ok(Some(if is_zero(&buffer) { Chunk::Zeros(length) } else { Chunk::Data(buffer) }))
    }
}

/// All bytes are zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    let (words, tail) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && tail.iter().all(|b| *b == 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a source to its end; returns the bytes and how many came as zeros.
    pub(in super::super) fn drain(source: &mut dyn Source) -> Outcome<(Vec<u8>, u64)> {
        let (mut bytes, mut zeros) = (Vec::new(), 0);
        while let Some(chunk) = source.next(Vec::new())? {
            match chunk {
                Chunk::Data(data) => bytes.extend(data),
                Chunk::Zeros(count) => {
                    zeros += count;
                    bytes.resize(bytes.len() + usize::try_from(count).unwrap(), 0);
                }
            }
        }
        Ok((bytes, zeros))
    }

    #[test]
    fn holes_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let file = File::create(&path).unwrap();
        // 4 TiB could not be read in the time of a test.
        file.set_len(4 << 40).unwrap();
        file.write_at(b"end", (3 << 40) + 5).unwrap();
        let mut disk = RawDisk::open(&path).unwrap();
        assert_eq!(disk.next(Vec::new()).unwrap(), Some(Chunk::Zeros(3 << 40)));
        let Some(Chunk::Data(data)) = disk.next(Vec::new()).unwrap() else { panic!("no data") };
        assert_eq!(&data[5..8], b"end");
        assert_eq!(disk.next(data).unwrap(), Some(Chunk::Zeros((1 << 40) - CHUNK as u64)));
        assert_eq!(disk.next(Vec::new()).unwrap(), None);
    }

    #[test]
    fn an_unreadable_place_is_named() {
        // Address 0 of this very process is unmapped: a real EIO from the kernel.
        let path = Path::new("/proc/self/mem");
        let mut disk = RawDisk::over(path, File::open(path).unwrap(), 4096);
        let failure = disk.next(Vec::new()).unwrap_err();
        assert!(failure.summary().ends_with("at offset 0"), "{failure}");
        assert!(failure.to_string().contains("dmesg"), "{failure}");
    }

    #[test]
    fn a_disk_that_shrinks_is_an_error_not_a_short_image() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, vec![1u8; 3 << 20]).unwrap();
        let mut disk = RawDisk::open(&path).unwrap();
        disk.next(Vec::new()).unwrap();
        File::options().write(true).open(&path).unwrap().set_len((1 << 20) + 10).unwrap();
        let failure = drain(&mut disk).unwrap_err();
        assert!(failure.summary().contains(&format!("offset {}", (1 << 20) + 10)), "{failure}");
    }

    #[test]
    fn a_disk_that_is_written_to_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, vec![1u8; 3 << 20]).unwrap();
        let old = SystemTime::UNIX_EPOCH;
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(old).unwrap();
        let mut disk = RawDisk::open(&path).unwrap();
        disk.next(Vec::new()).unwrap();
        file.write_at(&[2], 0).unwrap();
        let failure = drain(&mut disk).unwrap_err();
        assert!(failure.summary().contains("changed while it was read"), "{failure}");
    }

    proptest! {
        #[test]
        fn zeros_are_seen_wherever_they_are(length in 0usize..100, at in 0usize..100, value in 0u8..2) {
            let mut bytes = vec![0u8; length];
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            prop_assert_eq!(is_zero(&bytes), bytes.iter().all(|b| *b == 0));
        }
    }
}
