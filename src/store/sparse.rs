// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Copies of files with holes: only what was written is read and written again.
//!
//! Between holes the copy is the kernel's own file-to-file copy, which shares blocks where the
//! file system can (XFS, Btrfs) and never passes through this process on Linux.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// What a copy found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// Length of the file, holes included.
    pub length: u64,
    /// Bytes copied.
    pub data: u64,
}

/// Copies all of `from` into `to`, leaving holes as holes. `to` must be empty and writable.
/// The positions of both files are unspecified afterwards; nothing is synced.
///
/// # Errors
/// Whatever reading, seeking or writing answers; `to` then holds a part.
pub fn copy_sparse(from: &File, to: &File) -> io::Result<Copied> {
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let (mut at, mut data) = (0u64, 0u64);
    while let Some((start, end)) = next_extent(from, at, length)? {
        let (mut reader, mut writer) = (from, to);
        reader.seek(SeekFrom::Start(start))?;
        writer.seek(SeekFrom::Start(start))?;
        let copied = io::copy(&mut reader.take(end - start), &mut writer)?;
        if copied != end - start {
            let text = format!("the file shrank while it was copied, at byte {}", start + copied);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        data += copied;
        at = end;
    }
    Ok(Copied { length, data })
}

/// The first range at or after `at` that holds data, cut at `length`. A file system that knows no
/// holes reports one range up to the end.
fn next_extent(file: &File, at: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= length {
        return Ok(None);
    }
    let start = match seek(file, at, Whence::SeekData) {
        Ok(start) => start,
        Err(Errno::ENXIO) => return Ok(None),
        Err(Errno::EINVAL | Errno::ENOTSUP) => at,
        Err(error) => return Err(error.into()),
    };
    if start >= length {
        return Ok(None);
    }
    let end = match seek(file, start, Whence::SeekHole) {
        Ok(end) if end > start => end.min(length),
        Ok(_) | Err(Errno::ENXIO | Errno::EINVAL | Errno::ENOTSUP) => length,
        Err(error) => return Err(error.into()),
    };
    Ok(Some((start, end)))
}

fn seek(file: &File, at: u64, whence: Whence) -> Result<u64, Errno> {
    let at = i64::try_from(at).map_err(|_| Errno::EOVERFLOW)?;
    let found = lseek(file, at, whence)?;
    u64::try_from(found).map_err(|_| Errno::EOVERFLOW)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use proptest::prelude::*;

    use super::*;

    fn holey(length: u64, pieces: &[(u64, Vec<u8>)]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(length).unwrap();
        for (at, bytes) in pieces {
            file.write_all_at(bytes, *at).unwrap();
        }
        file
    }

    fn content(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]
        #[test]
        fn copies_equal_their_source_and_are_no_bigger(
            length in 0u64..3_000_000,
            pieces in prop::collection::vec(
                (0u64..2_900_000, prop::collection::vec(any::<u8>(), 1..20_000)), 0..8),
        ) {
            let from = holey(length, &pieces);
            let to = tempfile::tempfile().unwrap();
            let copied = copy_sparse(&from, &to).unwrap();
            prop_assert!(content(&from) == content(&to));
            prop_assert_eq!(copied.length, from.metadata().unwrap().len());
            prop_assert!(to.metadata().unwrap().blocks() <= from.metadata().unwrap().blocks() + 8);
        }
    }

    #[test]
    fn huge_empty_disks_cost_nothing() {
        let from = holey(40 << 30, &[(0, vec![1; 512]), ((40 << 30) - 512, vec![2; 512])]);
        let to = tempfile::tempfile().unwrap();
        let copied = copy_sparse(&from, &to).unwrap();
        assert_eq!(copied.length, 40 << 30);
        assert!(copied.data <= 1 << 20, "{copied:?}");
        assert!(to.metadata().unwrap().blocks() * 512 <= 1 << 20);
        let mut last = [0; 512];
        to.read_exact_at(&mut last, (40 << 30) - 512).unwrap();
        assert_eq!(last, [2; 512]);
    }
}
