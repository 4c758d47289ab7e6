// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Real files, the system's gzip, a real full device.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::export::{Placement, RawDisk, compress_disk, copy_raw};

fn no_cancel() -> CancellationToken {
    CancellationToken::new()
}

/// Reproducible bytes that deflate only a little.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state & 0x3f) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A sparse disk: size and pieces of data in it.
fn disk(path: &Path, size: u64, pieces: &[(u64, usize)]) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    for (at, length) in pieces {
        let length = (*length).min(usize::try_from(size.saturating_sub(*at)).unwrap());
        file.write_all_at(&noise(length, *at + 1), *at).unwrap();
    }
}

/// `gzip -t`, then `gzip -dc | cmp` with the original.
fn assert_restores(packed: &Path, original: &Path) {
    assert!(Command::new("gzip").arg("-t").arg(packed).status().unwrap().success());
    let compare = Command::new("sh")
        .args(["-c", "gzip -dc \"$1\" | cmp - \"$2\"", "sh"])
        .args([packed, original])
        .output()
        .unwrap();
    assert!(compare.status.success(), "{}", String::from_utf8_lossy(&compare.stdout));
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn gzip_restores_it_and_the_digests_are_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let (raw, to) = (dir.path().join("d.raw"), dir.path().join("d.raw.gz"));
    disk(&raw, (64 << 20) + 777, &[(0, 3 << 20), ((20 << 20) + 5, 4 << 20), (64 << 20, 700)]);
    let (events, list) = Events::recorded();
    let options = Options { level: 6, threads: 3 };
    let done =
        compress(&mut RawDisk::open(&raw).unwrap(), &to, options, &events, &no_cancel()).unwrap();
    assert_restores(&to, &raw);
    assert_eq!(done.bytes, fs::metadata(&to).unwrap().len());
    assert_eq!(done.source_bytes, (64 << 20) + 777);
    let sum = |tool: &str| {
        let out = Command::new(tool).arg(&to).output().unwrap().stdout;
        String::from_utf8(out).unwrap().split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!((done.sha1, done.sha256), (sum("sha1sum"), sum("sha256sum")));
    assert_eq!(files(dir.path()), ["d.raw", "d.raw.gz"]);
    assert_eq!(fs::metadata(&to).unwrap().mode() & 0o777, 0o644);
    let said = list.lock().unwrap();
    assert!(matches!(said.last(), Some(Event::Progress { done, total: Some(total), .. })
        if done == total));
}

#[test]
fn the_same_content_gives_the_same_file_however_sparse() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    disk(&path("sparse"), (9 << 20) + 100, &[(4096, 9000), ((6 << 20) + 50, 100)]);
    fs::write(path("dense"), fs::read(path("sparse")).unwrap()).unwrap();
    let pack = |name: &str, threads: usize| {
        let to = path(&format!("{name}.{threads}.gz"));
        let mut source = RawDisk::open(&path(name)).unwrap();
        let options = Options { level: 6, threads };
        compress(&mut source, &to, options, &Events::silent(), &no_cancel()).unwrap().sha256
    };
    let sum = pack("sparse", 1);
    assert_eq!(sum, pack("sparse", 4));
    assert_eq!(sum, pack("dense", 2));
}

#[test]
fn a_huge_hole_is_nearly_free() {
    let dir = tempfile::tempdir().unwrap();
    let (raw, to) = (dir.path().join("d.raw"), dir.path().join("d.raw.gz"));
    disk(&raw, 20 << 30, &[(10 << 30, 5000)]);
    let start = Instant::now();
    let mut source = RawDisk::open(&raw).unwrap();
    let done =
        compress(&mut source, &to, Options::default(), &Events::silent(), &no_cancel()).unwrap();
    // Reading 20 GiB of zeros alone would take longer than this on the fastest of disks.
    assert!(start.elapsed() < Duration::from_secs(5), "took {:?}", start.elapsed());
    assert_eq!(done.source_bytes, 20 << 30);
    assert!(done.bytes < 24 << 20, "{} bytes", done.bytes);
}

#[test]
fn a_full_device_is_named_and_nothing_stays() {
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("d.raw");
    disk(&raw, 8 << 20, &[(0, 8 << 20)]);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let to = Path::new("/out/d.raw.gz");
    let mut source = RawDisk::open(&raw).unwrap();
    let failure = pump(&mut source, full, to, Options::default(), &Events::silent(), &no_cancel())
        .unwrap_err();
    let text = failure.to_string();
    assert!(text.contains("no space left to write /out/d.raw.gz"), "{text}");
    assert!(text.contains("--output"), "{text}");
}

/// Stops in the middle: with an error, or by cancelling.
struct Faulty {
    left: u32,
    cancel: Option<CancellationToken>,
}

impl Source for Faulty {
    fn name(&self) -> String {
        "faulty".into()
    }

    fn total(&self) -> Option<u64> {
        None
    }

    fn next(&mut self, _buffer: Vec<u8>) -> Outcome<Option<Chunk>> {
        self.left = match (self.left, &self.cancel) {
            (0, None) => return Err(Failure::build("sector 7 is bad")),
            (0, Some(cancel)) => {
                cancel.cancel();
                0
            }
            (left, _) => left - 1,
        };
        Ok(Some(Chunk::Data(noise(CHUNK, u64::from(self.left)))))
    }
}

#[test]
fn errors_and_cancelling_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("x.gz");
    let go = |cancel: Option<CancellationToken>| {
        let token = cancel.clone().unwrap_or_default();
        let mut source = Faulty { left: 20, cancel };
        compress(&mut source, &to, Options { level: 1, threads: 2 }, &Events::silent(), &token)
            .unwrap_err()
    };
    assert!(go(None).summary().contains("sector 7"));
    assert_eq!(go(Some(no_cancel())).kind().exit_code(), 130);
    assert_eq!(files(dir.path()), Vec::<String>::new());
    let mut source = Faulty { left: 1, cancel: None };
    let level = Options { level: 0, threads: 1 };
    let refused = compress(&mut source, &to, level, &Events::silent(), &no_cancel()).unwrap_err();
    assert_eq!(refused.kind().exit_code(), 2);
    fs::write(&to, "precious").unwrap();
    let refused = compress(&mut source, &to, Options::default(), &Events::silent(), &no_cancel());
    assert!(refused.unwrap_err().summary().contains("exists already"));
    assert_eq!(fs::read(&to).unwrap(), b"precious");
}

#[tokio::test]
async fn an_empty_disk_is_a_valid_file() {
    let dir = tempfile::tempdir().unwrap();
    let (raw, to) = (dir.path().join("d"), dir.path().join("d.gz"));
    File::create(&raw).unwrap();
    compress_disk(&raw, &to, Options::default(), &Events::silent(), &no_cancel()).await.unwrap();
    assert_restores(&to, &raw);
}

#[test]
fn raw_copies_stay_sparse_and_moves_move() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    disk(&path("d"), (200 << 20) + 3, &[(5 << 20, 1000), (100 << 20, 3 << 20)]);
    let go = |from: &str, to: &str, placement| {
        copy_raw(&path(from), &path(to), placement, &Events::silent(), &no_cancel())
    };
    assert_eq!(go("d", "copy", Placement::Copy).unwrap(), (200 << 20) + 3);
    assert_eq!(fs::read(path("copy")).unwrap(), fs::read(path("d")).unwrap());
    assert!(fs::metadata(path("copy")).unwrap().blocks() * 512 < 6 << 20, "the copy is not sparse");
    assert!(go("d", "copy", Placement::Move).is_err());
    go("d", "moved", Placement::Move).unwrap();
    assert_eq!(files(dir.path()), ["copy", "moved"]);
    let shm = tempfile::tempdir_in("/dev/shm").unwrap();
    let far = shm.path().join("far");
    copy_raw(&path("moved"), &far, Placement::Move, &Events::silent(), &no_cancel()).unwrap();
    assert_eq!(files(dir.path()), ["copy"]);
    assert_eq!(fs::read(far).unwrap(), fs::read(path("copy")).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn any_sparse_file_is_restored(
        size in 0u64..3_500_000,
        pieces in proptest::collection::vec((0u64..3_500_000, 0usize..700_000), 0..5),
        level in 1u32..=9,
        threads in 1usize..5,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (raw, to) = (dir.path().join("d"), dir.path().join("d.gz"));
        let pieces: Vec<_> = pieces.into_iter().filter(|(at, _)| *at < size).collect();
        disk(&raw, size, &pieces);
        let mut source = RawDisk::open(&raw).unwrap();
        let options = Options { level, threads };
        compress(&mut source, &to, options, &Events::silent(), &no_cancel()).unwrap();
        assert_restores(&to, &raw);
    }
}
