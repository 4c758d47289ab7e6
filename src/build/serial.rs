// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The guest's serial log as the build reads it: its size, its tail, and a kernel's last words.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// What a Linux kernel prints when it gives up.
const PANIC_MARKS: [&str; 2] = ["Kernel panic - not syncing", "---[ end Kernel panic"];
/// How much of the end of the log is read at once.
const TAIL_BYTES: u64 = 64 * 1024;

/// The serial log of a running guest.
pub(crate) struct SerialLog {
    path: PathBuf,
    /// Where this run's output starts.
    start: u64,
    scanned: u64,
}

impl SerialLog {
    /// The log at `path`, which need not exist yet. Only what is appended from now on is searched
    /// for a panic.
    pub(crate) fn follow(path: &Path) -> Self {
        let start = size(path);
        Self { path: path.to_owned(), start, scanned: start }
    }

    /// Bytes so far.
    pub(crate) fn size(&self) -> u64 {
        size(&self.path)
    }

    /// The line of a kernel panic that appeared since the last call.
    pub(crate) fn new_panic(&mut self) -> Option<String> {
        let end = self.size();
        if end <= self.scanned {
            return None;
        }
        // Overlap, so that a mark cut in two by the last look is seen whole now.
        let from =
            self.scanned.saturating_sub(256).max(self.start).max(end.saturating_sub(TAIL_BYTES));
        let text = read_from(&self.path, from);
        self.scanned = end;
        text.lines()
            .find(|line| PANIC_MARKS.iter().any(|mark| line.contains(mark)))
            .map(|line| line.trim().to_owned())
    }
}

/// The last `lines` lines of the log at `path`, terminal control sequences taken out.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = plain(&read_from(path, size(path).saturating_sub(TAIL_BYTES)));
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

fn read_from(path: &Path, from: u64) -> String {
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(path)
        && file.seek(SeekFrom::Start(from)).is_ok()
    {
        // An unreadable log is an empty one: it only serves explanations.
        let _ = file.take(TAIL_BYTES + 256).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Takes out ANSI control sequences and other control characters; keeps newlines.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_sequence(&mut chars),
            '\n' => out.push('\n'),
            '\t' => out.push(' '),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

fn skip_sequence(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next() {
        // CSI: parameters and intermediates up to one final byte (ECMA-48 §5.4).
        Some('[') => {
            for c in chars.by_ref() {
                if ('\u{40}'..='\u{7e}').contains(&c) || c == '\n' {
                    break;
                }
            }
        }
        // A character-set designation has one more byte.
        Some('(' | ')') => {
            chars.next();
        }
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_panic_is_seen_once_even_when_cut_in_two() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("serial.log");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"[ 1.0] booting\n[ 2.0] Kernel pan").unwrap();
        let mut log = SerialLog { path: path.clone(), start: 0, scanned: 0 };
        assert_eq!(log.new_panic(), None);
        file.write_all(b"ic - not syncing: sysrq triggered crash\n").unwrap();
        assert!(log.new_panic().unwrap().starts_with("[ 2.0] Kernel panic"));
        assert_eq!(log.new_panic(), None);
    }

    #[test]
    fn what_was_there_before_is_not_searched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("serial.log");
        std::fs::write(&path, b"[ 1.0] Kernel panic - not syncing: old\n").unwrap();
        assert_eq!(SerialLog::follow(&path).new_panic(), None);
    }

    #[test]
    fn the_tail_is_readable_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("serial.log");
        std::fs::write(&path, b"one\r\n\x1b[0;32m OK \x1b[0m two\r\n\n\x1b(Bthree\x07").unwrap();
        assert_eq!(tail(&path, 2), " OK  two\nthree");
        assert_eq!(tail(&dir.path().join("absent"), 5), "");
    }
}
