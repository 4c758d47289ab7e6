// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A disk in a sparse file, or an ISO image.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use vm_memory::VolatileSlice;

use super::Disk;
use crate::ui::{Failure, Outcome};
use crate::vm::hv::scatter;

#[cfg(target_os = "linux")]
#[path = "holes_linux.rs"]
mod holes;
#[cfg(not(target_os = "linux"))]
#[path = "holes_none.rs"]
mod holes;

static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// A file as a disk. What is discarded becomes a hole where the file system can have one.
pub struct RawFile {
    file: File,
    size: u64,
    is_read_only: bool,
    is_scratch: bool,
}

impl RawFile {
    /// Opens an existing file, whose size is the disk's.
    ///
    /// # Errors
    /// When it cannot be opened or is empty.
    pub fn open(path: &Path, is_read_only: bool) -> Outcome<Self> {
        let failure = |error: io::Error| {
            Failure::build("a disk's file cannot be used")
                .fact("file", path.display())
                .fact("error", error)
        };
        let mut options = File::options();
        let file = options.read(true).write(!is_read_only).open(path).map_err(failure)?;
        Self::from_file(file, is_read_only).map_err(failure)
    }

    /// Takes an open file.
    ///
    /// # Errors
    /// When its size cannot be found, or is zero.
    pub fn from_file(mut file: File, is_read_only: bool) -> io::Result<Self> {
        // Block devices have a length of zero for stat; their end is found by seeking.
        let size = io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
        if size == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty"));
        }
        Ok(Self { file, size, is_read_only, is_scratch: false })
    }

    /// A disk whose content is worth nothing if the host crashes: flushing completes at once.
    #[must_use]
    pub fn scratch(self) -> Self {
        Self { is_scratch: true, ..self }
    }

    /// Makes what was written durable, even of a scratch disk.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn fill(&self, mut offset: u64, mut bytes: u64) -> io::Result<()> {
        while bytes > 0 {
            let length = bytes.min(ZEROS.len() as u64);
            self.file.write_all_at(ZEROS.get(..length as usize).unwrap_or(&ZEROS), offset)?;
            offset += length;
            bytes -= length;
        }
        Ok(())
    }
}

impl Disk for RawFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(data, offset)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn read_to(&self, offset: u64, guest: &[VolatileSlice<'_>]) -> io::Result<()> {
        scatter::read_exact_at(&self.file, guest, offset)
    }

    fn write_from(&self, offset: u64, guest: &[VolatileSlice<'_>]) -> io::Result<()> {
        scatter::write_all_at(&self.file, guest, offset)
    }

    fn flush(&self) -> io::Result<()> {
        if self.is_scratch { Ok(()) } else { self.sync() }
    }

    fn discard(&self, offset: u64, bytes: u64) -> io::Result<()> {
        holes::punch(&self.file, offset, bytes).map(|_| ())
    }

    fn write_zeroes(&self, offset: u64, bytes: u64, may_unmap: bool) -> io::Result<()> {
        if may_unmap && holes::punch(&self.file, offset, bytes)? {
            return Ok(());
        }
        self.fill(offset, bytes)
    }
}
