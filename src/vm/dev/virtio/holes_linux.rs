// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Holes in files, by `fallocate`.

use std::fs::File;
use std::io;

use nix::fcntl::{FallocateFlags, fallocate};

/// Gives a range of a file back to the file system; it reads as zeros then. `false` when the file
/// system cannot.
///
/// # Errors
/// What the system says, other than that it cannot do it.
pub(super) fn punch(file: &File, offset: u64, bytes: u64) -> io::Result<bool> {
    let (Ok(start), Ok(length)) = (i64::try_from(offset), i64::try_from(bytes)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    match fallocate(file, mode, start, length) {
        Ok(()) => Ok(true),
        Err(nix::errno::Errno::EINTR) => punch(file, offset, bytes),
        Err(nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::ENOSYS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
