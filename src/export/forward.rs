// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What can only be read forward: a pipe.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio_util::sync::CancellationToken;

use super::source::{CHUNK, Chunk, Source, is_zero};
use crate::ui::{Failure, Outcome};

/// How long a read waits before it looks whether the run is interrupted, in milliseconds.
const PATIENCE: u8 = 200;

/// A file or pipe whose reads end when the run is interrupted, even if nobody ever writes to it.
pub(super) struct Interruptible {
    file: File,
    cancel: CancellationToken,
}

impl Interruptible {
    pub(super) fn new(file: File, cancel: &CancellationToken) -> Self {
        Self { file, cancel: cancel.clone() }
    }
}

impl Read for Interruptible {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.cancel.is_cancelled() {
                return Err(io::Error::other("the run was interrupted"));
            }
            let mut waits = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            match poll(&mut waits, PollTimeout::from(PATIENCE)) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return self.file.read(buffer),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A raw disk that comes through a pipe.
pub struct RawStream {
    name: String,
    input: Box<dyn Read + Send>,
    /// Its size in bytes, when known: it must be neither shorter nor longer.
    size: Option<u64>,
    at: u64,
}

impl RawStream {
    /// A disk read from `input`, which `name` calls in messages. With `size`, it must have
    /// exactly so many bytes.
    pub fn new(input: Box<dyn Read + Send>, name: &str, size: Option<u64>) -> Self {
        Self { name: name.to_owned(), input, size, at: 0 }
    }

    fn cannot_read(&self, offset: u64, error: io::Error) -> Failure {
        Failure::build(format!("cannot read {} at offset {offset}", self.name)).because(error)
    }

    /// Says so when the input is not as long as it was said to be.
    fn check_end(&mut self) -> Outcome<()> {
        let Some(size) = self.size else { return Ok(()) };
        let mut more = [0];
        let count = fill(&mut self.input, &mut more).map_err(|e| self.cannot_read(self.at, e))?;
        if self.at == size && count == 0 {
            return Ok(());
        }
        let summary = if count > 0 {
            format!("{} goes on after the {size} bytes that it should have", self.name)
        } else {
            format!("{} ended after {} of {size} bytes", self.name, self.at)
        };
        Err(Failure::input(summary).hint(
            "say the size of the whole disk with `--size`, and see whether the sender failed",
        ))
    }
}

impl Source for RawStream {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn total(&self) -> Option<u64> {
        self.size
    }

    fn next(&mut self, mut buffer: Vec<u8>) -> Outcome<Option<Chunk>> {
        let rest = self.size.map_or(u64::MAX, |size| size - self.at);
        buffer.resize(usize::try_from(rest).map_or(CHUNK, |rest| rest.min(CHUNK)), 0);
        let count = fill(&mut self.input, &mut buffer).map_err(|e| self.cannot_read(self.at, e))?;
        self.at += count as u64;
        if count < buffer.len() || count == 0 {
            self.check_end()?;
        }
        Ok(chunk(buffer, count))
    }
}

/// The first bytes of a buffer as a chunk; none when there are none.
pub(super) fn chunk(mut buffer: Vec<u8>, count: usize) -> Option<Chunk> {
    buffer.truncate(count);
    match count {
        0 => None,
        _ if is_zero(&buffer) => Some(Chunk::Zeros(count as u64)),
        _ => Some(Chunk::Data(buffer)),
    }
}

/// Reads until the buffer is full or the input ends.
pub(super) fn fill(input: &mut (impl Read + ?Sized), buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(length: usize, size: Option<u64>) -> Outcome<u64> {
        let mut stream = RawStream::new(Box::new(io::repeat(3).take(length as u64)), "it", size);
        let mut at = 0;
        while let Some(chunk) = stream.next(Vec::new())? {
            let Chunk::Data(data) = chunk else { panic!("no zeros were sent") };
            at += data.len() as u64;
            let is_last = at == length as u64 || Some(at) == size;
            assert!(data.len() == CHUNK || is_last, "{} bytes at {at}", data.len());
        }
        assert_eq!(stream.next(Vec::new()).unwrap(), None);
        Ok(at)
    }

    #[test]
    fn a_size_that_is_said_is_kept() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let size = length as u64;
            assert_eq!(read(length, None).unwrap(), size);
            assert_eq!(read(length, Some(size)).unwrap(), size);
            let short = read(length, Some(size + 1)).unwrap_err();
            assert!(short.summary().contains(&format!("ended after {size} of")), "{short}");
            if let Some(less) = size.checked_sub(1) {
                let long = read(length, Some(less)).unwrap_err();
                assert!(long.summary().contains("goes on after"), "{long}");
            }
        }
    }

    #[test]
    fn a_pipe_that_stays_silent_does_not_keep_an_interrupted_run() {
        let (reader, _writer) = io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(reader));
        let cancel = CancellationToken::new();
        let mut input = Interruptible::new(file, &cancel);
        cancel.cancel();
        assert!(input.read(&mut [0]).is_err());
    }
}
