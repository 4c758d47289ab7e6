// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The monitor's log: what its devices noticed. It has a limit, for a guest can cause lines.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;

use tracing::level_filters::LevelFilter;

use crate::ui::{Failure, Outcome};

/// Bytes at most.
const LIMIT: u64 = 1 << 20;

/// Sends every event from here on to the end of a file.
///
/// # Errors
/// When it cannot be opened.
pub(super) fn begin(path: &Path) -> Outcome<()> {
    let file = File::options().append(true).create(true).open(path).map_err(|error| {
        Failure::build("cannot log what the monitor notices")
            .because(error)
            .fact("file", path.display())
    })?;
    let done = tracing_subscriber::fmt()
        .with_writer(Mutex::new(Limited { to: file, left: LIMIT }))
        .with_max_level(LevelFilter::DEBUG)
        .with_ansi(false)
        .with_thread_names(true)
        .try_init();
    // Only a test begins twice, and its lines may go anywhere.
    drop(done);
    Ok(())
}

/// Passes on so many bytes, then says so, then nothing.
struct Limited<W> {
    to: W,
    left: u64,
}

impl<W: Write> Write for Limited<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len() as u64;
        if self.left >= length {
            self.to.write_all(bytes)?;
            self.left -= length;
        } else if self.left > 0 {
            self.left = 0;
            self.to.write_all(b"the log is full\n")?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_log_has_an_end() {
        let mut log = Limited { to: Vec::new(), left: 10 };
        for _ in 0..5 {
            log.write_all(b"line\n").unwrap();
        }
        assert_eq!(log.to, b"line\nline\n");
        let mut log = Limited { to: Vec::new(), left: 9 };
        for _ in 0..5 {
            log.write_all(b"line\n").unwrap();
        }
        assert_eq!(log.to, b"line\nthe log is full\n");
    }
}
