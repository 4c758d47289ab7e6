// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A file's bytes to and from guest memory without a copy between: preadv(2) and pwritev(2).
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use vm_memory::VolatileSlice;

/// What systems take at once (`IOV_MAX`).
const MOST: usize = 1024;

/// preadv or pwritev, with the library's names for its types.
type Move = unsafe extern "C" fn(c_int, *const libc::iovec, c_int, libc::off_t) -> libc::ssize_t;

/// Fills guest memory with what the file has at `offset`.
///
/// # Errors
/// What the system says, or that the file ends before.
pub fn read_exact_at(file: &File, into: &[VolatileSlice<'_>], offset: u64) -> io::Result<()> {
    move_all(libc::preadv, io::ErrorKind::UnexpectedEof, file, into, offset)
}

/// Writes guest memory to the file at `offset`.
///
/// # Errors
/// What the system says, or that it takes no more.
pub fn write_all_at(file: &File, from: &[VolatileSlice<'_>], offset: u64) -> io::Result<()> {
    move_all(libc::pwritev, io::ErrorKind::WriteZero, file, from, offset)
}

fn move_all(
    call: Move,
    end: io::ErrorKind,
    file: &File,
    slices: &[VolatileSlice<'_>],
    mut offset: u64,
) -> io::Result<()> {
    let mut rest = slices;
    // Bytes of the first slice that were moved already.
    let mut done = 0;
    while let Some(first) = rest.first() {
        if done == first.len() {
            (rest, done) = (rest.get(1..).unwrap_or_default(), 0);
            continue;
        }
        let mut moved = match once(call, file, rest, done, offset) {
            Ok(0) => return Err(end.into()),
            Ok(moved) => moved,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        offset += moved as u64;
        while let Some(first) = rest.first().filter(|_| moved > 0) {
            let step = moved.min(first.len() - done);
            moved -= step;
            done += step;
            if done == first.len() {
                (rest, done) = (rest.get(1..).unwrap_or_default(), 0);
            }
        }
    }
    Ok(())
}

/// One call, from the byte `skip` of the first slice on.
fn once(
    call: Move,
    file: &File,
    slices: &[VolatileSlice<'_>],
    skip: usize,
    offset: u64,
) -> io::Result<usize> {
    let place = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let guards: Vec<_> = slices.iter().take(MOST).map(VolatileSlice::ptr_guard_mut).collect();
    let skips = std::iter::once(skip).chain(std::iter::repeat(0));
    let vectors: Vec<libc::iovec> = guards
        .iter()
        .zip(skips)
        .map(|(guard, skip)| libc::iovec {
            iov_base: guard.as_ptr().wrapping_add(skip).cast(),
            iov_len: guard.len().saturating_sub(skip),
        })
        .collect();
    let count = c_int::try_from(vectors.len()).unwrap_or(c_int::MAX);
    // SAFETY: each vector is the rest of a slice of guest memory, which its guard keeps mapped and
    // writable during the call; the guest may change the bytes meanwhile, which nobody here reads.
    let moved = unsafe { call(file.as_raw_fd(), vectors.as_ptr(), count, place) };
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::FileExt;

    use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap};

    use super::*;

    #[test]
    fn scattered_bytes_come_back_in_their_order() {
        const PIECES: u64 = 3 * MOST as u64 / 2;
        let memory: GuestMemoryMmap =
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4 << 20)]).unwrap();
        // More pieces than one call takes, backwards, of different sizes, one of them empty.
        let place = |index: u64| ((PIECES - index) * 1024, (index % 700) as usize);
        let slices: Vec<_> = (0..PIECES)
            .map(place)
            .map(|(at, length)| memory.get_slice(GuestAddress(at), length).unwrap())
            .collect();
        let total: usize = slices.iter().map(VolatileSlice::len).sum();
        let content: Vec<u8> = (0..total).map(|at| (at % 251) as u8).collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&content, 5).unwrap();
        read_exact_at(&file, &slices, 5).unwrap();
        let mut at = 0;
        for (address, length) in (0..PIECES).map(place) {
            let mut piece = vec![0; length];
            memory.read_slice(&mut piece, GuestAddress(address)).unwrap();
            assert_eq!(piece, content[at..at + length]);
            at += length;
        }
        // What lies between the pieces is as it was.
        assert_eq!(memory.read_obj::<u8>(GuestAddress(place(3).0 + 3)).unwrap(), 0);
        let other = tempfile::tempfile().unwrap();
        write_all_at(&other, &slices, 7).unwrap();
        let mut copy = vec![0; total];
        other.read_exact_at(&mut copy, 7).unwrap();
        assert!(copy == content);
    }

    #[test]
    fn a_file_that_ends_is_an_error_and_so_is_one_that_is_not_writable() {
        let memory: GuestMemoryMmap =
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 16)]).unwrap();
        let slices = [memory.get_slice(GuestAddress(0), 1000).unwrap()];
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 999], 0).unwrap();
        let error = read_exact_at(&file, &slices, 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        read_exact_at(&file, &[], 0).unwrap();
        let unwritable = File::open("/dev/null").unwrap();
        let error = write_all_at(&unwritable, &slices, 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        let error = write_all_at(&file, &slices, u64::MAX).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
