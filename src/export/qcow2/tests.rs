// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! QEMU's own programs judge what is written, and make what is read.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::export::{Chunk, RawDisk, Source};
use crate::ui::{Events, Outcome};

mod hostile;
mod read;
mod write;

/// Runs a program in `dir`; it must succeed. Returns what it said.
#[track_caller]
fn run(dir: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(dir).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}{complained}");
    said
}

/// Reproducible bytes; of `values` different ones, so that they deflate more or less.
pub(super) fn noise(length: usize, seed: u64, values: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 32) % values) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A sparse raw disk: size, and pieces of data as offset, length and number of different bytes.
fn raw(path: &Path, size: u64, pieces: &[(u64, usize, u64)]) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    for (at, length, values) in pieces {
        let length = (*length).min(usize::try_from(size.saturating_sub(*at)).unwrap());
        file.write_all_at(&noise(length, *at + 1, *values), *at).unwrap();
    }
}

/// Reads a source to its end: what was read, as `(offset, bytes)` for data, and the size.
/// Data by its offset, and the size of the whole.
type Chunks = (Vec<(u64, Vec<u8>)>, u64);

fn chunks(source: &mut dyn Source) -> Outcome<Chunks> {
    let (mut data, mut at) = (Vec::new(), 0);
    while let Some(chunk) = source.next(Vec::new())? {
        match chunk {
            Chunk::Zeros(count) => at += count,
            Chunk::Data(bytes) => {
                let length = bytes.len() as u64;
                assert!(length <= 1 << 20);
                data.push((at, bytes));
                at += length;
            }
        }
    }
    Ok((data, at))
}

/// An image and a raw disk have the same bytes.
#[track_caller]
fn assert_same(image: &Path, raw: &Path) {
    let of_image = chunks(&mut Qcow2Disk::open(image).unwrap()).unwrap();
    let of_raw = chunks(&mut RawDisk::open(raw).unwrap()).unwrap();
    assert_eq!(of_image.1, of_raw.1, "size");
    assert!(of_image.0 == of_raw.0, "{} differs from {}", image.display(), raw.display());
}

fn write(from: &Path, to: &Path, options: Qcow2Options) -> Outcome<Qcow2Written> {
    let mut disk = RawDisk::open(from)?;
    write_qcow2(&mut disk, to, options, &Events::silent(), &CancellationToken::new())
}

/// Empty directory with names in it.
struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    #[track_caller]
    fn run(&self, program: &str, arguments: &[&str]) -> String {
        run(self.0.path(), program, arguments)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}
