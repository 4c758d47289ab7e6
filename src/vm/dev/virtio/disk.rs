// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What is behind a virtual disk.

use std::io;

use vm_memory::{Bytes as _, VolatileSlice};

/// A store of a fixed number of bytes. Ranges are inside it, and multiples of 512 bytes except for
/// reads; a device checks what the guest asks for.
pub trait Disk: Send + Sync {
    /// Bytes.
    fn size(&self) -> u64;

    /// Whether writes fail.
    fn is_read_only(&self) -> bool {
        false
    }

    /// Fills `data`.
    ///
    /// # Errors
    /// What the store says.
    fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data`.
    ///
    /// # Errors
    /// What the store says.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Fills guest memory, of which nobody but the guest reads meanwhile.
    ///
    /// # Errors
    /// What the store says.
    fn read_to(&self, mut offset: u64, guest: &[VolatileSlice<'_>]) -> io::Result<()> {
        for slice in guest {
            let mut bytes = vec![0; slice.len()];
            self.read_at(offset, &mut bytes)?;
            slice.write_slice(&bytes, 0).map_err(io::Error::other)?;
            offset += bytes.len() as u64;
        }
        Ok(())
    }

    /// Writes guest memory, which the guest may change meanwhile.
    ///
    /// # Errors
    /// What the store says.
    fn write_from(&self, offset: u64, guest: &[VolatileSlice<'_>]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for slice in guest {
            let start = bytes.len();
            bytes.resize(start + slice.len(), 0);
            slice.read_slice(&mut bytes[start..], 0).map_err(io::Error::other)?;
        }
        self.write_at(offset, &bytes)
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// What the store says.
    fn flush(&self) -> io::Result<()>;

    /// Forgets a range, which may read as anything from now on.
    ///
    /// # Errors
    /// What the store says.
    fn discard(&self, offset: u64, bytes: u64) -> io::Result<()>;

    /// Makes a range read as zeros; it need not stay allocated when `may_unmap`.
    ///
    /// # Errors
    /// What the store says.
    fn write_zeroes(&self, offset: u64, bytes: u64, may_unmap: bool) -> io::Result<()>;
}
