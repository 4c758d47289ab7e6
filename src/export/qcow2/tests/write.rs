// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Images that we write.

use super::super::layout::{CLUSTER, Layout};
use super::*;

const COMPRESSED: Qcow2Options = Qcow2Options { compressed: true, level: 6, threads: 3 };
const PLAIN: Qcow2Options = Qcow2Options { compressed: false, level: 6, threads: 0 };

/// Sound, without leaks, and the same disk, says QEMU; and we read it back.
#[track_caller]
fn assert_sound(dir: &Dir, image: &str, raw: &str) {
    let said = dir.run("qemu-img", &["check", "-f", "qcow2", image]);
    assert!(said.contains("No errors were found"), "{said}");
    dir.run("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", raw, image]);
    assert_same(&dir.path(image), &dir.path(raw));
}

#[test]
fn sparse_and_compressed_images_are_sound() {
    let dir = Dir::new();
    let size = (1200 << 20) + 512;
    // Data that deflates well, hardly and not at all, in turn; and across L2 tables.
    let mut pieces = vec![(0, 1 << 20, 1), (1 << 20, 5 << 20, 4), (600 << 20, 3 << 20, 250)];
    pieces
        .extend((0..60).map(|n| ((510 << 20) + n * 70_000, 60_000, [3, 256, 40][n as usize % 3])));
    pieces.push((size - 700, 700, 100));
    raw(&dir.path("raw"), size, &pieces);
    for (name, options) in [("plain", PLAIN), ("packed", COMPRESSED)] {
        let written = write(&dir.path("raw"), &dir.path(name), options).unwrap();
        assert_eq!(written.virtual_size, size);
        assert_eq!(written.bytes, fs::metadata(dir.path(name)).unwrap().len());
        assert_sound(&dir, name, "raw");
    }
    let length = |name| fs::metadata(dir.path(name)).unwrap().len();
    assert!(length("packed") < length("plain") * 3 / 4);
    assert_eq!(dir.names(), ["packed", "plain", "raw"]);
}

#[test]
fn the_smallest_and_the_emptiest_disks_are_sound() {
    let dir = Dir::new();
    for (index, size) in [0, 512, 1024, 65_536, 66_048, 5 << 30].into_iter().enumerate() {
        for (kind, options) in [("plain", PLAIN), ("packed", COMPRESSED)] {
            for piece in [(0, 0, 2), (0, 400, 2)] {
                let name = format!("{kind}{index}{}", piece.1);
                raw(&dir.path("raw"), size, &[piece]);
                let written = write(&dir.path("raw"), &dir.path(&name), options).unwrap();
                assert!(written.bytes <= 8 * CLUSTER, "{written:?}");
                assert_sound(&dir, &name, "raw");
            }
        }
    }
}

#[test]
fn a_disk_that_ends_within_a_sector_is_filled_up() {
    let dir = Dir::new();
    raw(&dir.path("raw"), 100_001, &[(0, 100_001, 9)]);
    let written = write(&dir.path("raw"), &dir.path("image"), COMPRESSED).unwrap();
    assert_eq!(written.virtual_size, 100_352);
    File::options().write(true).open(dir.path("raw")).unwrap().set_len(100_352).unwrap();
    assert_sound(&dir, "image", "raw");
}

#[test]
fn regions_of_the_file_follow_each_other() {
    // 5 GiB of clusters that are counted but never written, some with compressed data between.
    let dir = Dir::new();
    let file = File::create(dir.path("image")).unwrap();
    let path = dir.path("image");
    let mut image = super::super::writer::Image::new(&file, &path);
    for n in 0..80_000u64 {
        image.place_for_test(n % 5 == 0).unwrap();
    }
    let written = image.finish(80_000 * CLUSTER).unwrap();
    assert!(written.bytes > 3 << 30);
    let said = dir.run("qemu-img", &["check", "-f", "qcow2", "image"]);
    assert!(said.contains("No errors were found"), "{said}");
    // A row of clusters that does not fit into what is left of a region begins the next one.
    let file = File::create(dir.path("row")).unwrap();
    let mut layout = Layout::new(&file, &path);
    for _ in 0..32_700 {
        layout.take().unwrap();
    }
    let length = layout.finish(&vec![0; 1 << 20], 512 << 40).unwrap();
    assert_eq!(length, (32_768 + 1 + 128 + 1) * CLUSTER);
    let said = dir.run("qemu-img", &["check", "-r", "leaks", "-f", "qcow2", "row"]);
    assert!(said.contains("No errors were found"), "{said}");
}

#[test]
fn threads_change_nothing_but_the_time() {
    let dir = Dir::new();
    raw(&dir.path("raw"), 20 << 20, &[(0, 9 << 20, 30), (12 << 20, 2 << 20, 256)]);
    for threads in [1, 2, 7] {
        let options = Qcow2Options { threads, ..COMPRESSED };
        write(&dir.path("raw"), &dir.path(&threads.to_string()), options).unwrap();
    }
    let bytes = |name: &str| fs::read(dir.path(name)).unwrap();
    assert!(bytes("1") == bytes("2") && bytes("2") == bytes("7"));
}

#[test]
fn an_image_of_an_image_is_the_same_image() {
    let dir = Dir::new();
    raw(&dir.path("raw"), 30 << 20, &[(0, 9 << 20, 30), (12 << 20, 300_000, 256)]);
    write(&dir.path("raw"), &dir.path("one"), COMPRESSED).unwrap();
    let mut one = Qcow2Disk::open(&dir.path("one")).unwrap();
    let (events, cancel) = (Events::silent(), CancellationToken::new());
    write_qcow2(&mut one, &dir.path("two"), COMPRESSED, &events, &cancel).unwrap();
    assert!(fs::read(dir.path("one")).unwrap() == fs::read(dir.path("two")).unwrap());
}

#[test]
fn failures_leave_nothing() {
    let dir = Dir::new();
    raw(&dir.path("raw"), 8 << 20, &[(0, 8 << 20, 30)]);
    let level = Qcow2Options { level: 10, ..PLAIN };
    assert!(write(&dir.path("raw"), &dir.path("image"), level).is_err());
    let failure = write(&dir.path("raw"), &dir.path("raw"), PLAIN).unwrap_err();
    assert!(failure.summary().contains("exists already"), "{failure}");
    for options in [PLAIN, COMPRESSED] {
        let mut broken = Broken(RawDisk::open(&dir.path("raw")).unwrap(), 4);
        let (events, cancel) = (Events::silent(), CancellationToken::new());
        let result = write_qcow2(&mut broken, &dir.path("image"), options, &events, &cancel);
        assert_eq!(result.unwrap_err().summary(), "broken");
        cancel.cancel();
        let mut disk = RawDisk::open(&dir.path("raw")).unwrap();
        let result = write_qcow2(&mut disk, &dir.path("image"), options, &events, &cancel);
        assert_eq!(result.unwrap_err().kind(), crate::ui::Kind::Interrupted);
        let huge = &mut Broken(RawDisk::open(Path::new("/dev/null")).unwrap(), 1 << 20);
        let cancel = CancellationToken::new();
        let result = write_qcow2(huge, &dir.path("image"), options, &events, &cancel);
        assert!(result.unwrap_err().summary().contains("2 PiB"));
    }
    assert_eq!(dir.names(), ["raw"]);
}

/// A disk that fails after so many chunks; with very many, it is an endless one.
struct Broken(RawDisk, usize);

impl Source for Broken {
    fn name(&self) -> String {
        "broken".into()
    }
    fn total(&self) -> Option<u64> {
        None
    }
    fn next(&mut self, buffer: Vec<u8>) -> Outcome<Option<Chunk>> {
        self.1 -= 1;
        match self.1 {
            0 => Err(crate::ui::Failure::build("broken")),
            n if n > 100 => Ok(Some(Chunk::Zeros(1 << 40))),
            _ => self.0.next(buffer),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sparse_disk_survives(
        size in 1u64..40_000,
        pieces in proptest::collection::vec((0u64..40_000, 0usize..300_000, 1u64..=256), 0..6),
        level in 1u32..=9,
        compressed in any::<bool>(),
    ) {
        let dir = Dir::new();
        let size = size * 512;
        let pieces: Vec<_> = pieces.into_iter().map(|(at, l, v)| (at * 512 % size, l, v)).collect();
        raw(&dir.path("raw"), size, &pieces);
        let options = Qcow2Options { compressed, level, threads: 2 };
        write(&dir.path("raw"), &dir.path("image"), options).unwrap();
        assert_sound(&dir, "image", "raw");
    }
}
