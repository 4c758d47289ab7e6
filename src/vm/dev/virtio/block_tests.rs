// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use proptest::prelude::*;

use super::super::mock::{Driver, EVENT_IDX, Part, VERSION_1};
use super::super::{RawFile, VirtioDevice};
use super::*;

const SIZE: u64 = 4 << 20;
const IN: u32 = 0;
const OUT: u32 = 1;

fn file() -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(SIZE).unwrap();
    file
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    let mut header = kind.to_le_bytes().to_vec();
    header.extend([0; 4]);
    header.extend(sector.to_le_bytes());
    header
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut range = sector.to_le_bytes().to_vec();
    range.extend(sectors.to_le_bytes());
    range.extend(flags.to_le_bytes());
    range
}

fn driver(queues: u16) -> (Driver, File, Arc<Block>) {
    let file = file();
    let disk = RawFile::from_file(file.try_clone().unwrap(), false).unwrap();
    let block = Block::new(Arc::new(disk), "imgforge-target-disk-0", queues);
    let mut driver = Driver::new(Arc::clone(&block) as Arc<dyn VirtioDevice>);
    driver.start(driver.offered() & !EVENT_IDX);
    (driver, file, block)
}

/// A request without data; gives its status.
fn simple(driver: &mut Driver, kind: u32, data: &[u8]) -> u8 {
    let head = header(kind, 0);
    driver.request(0, &[Part::Out(&head), Part::Out(data), Part::In(1)]).1[0]
}

#[test]
fn configuration_is_what_edk2_and_linux_want() {
    let (driver, _, _) = driver(1);
    let features = driver.offered();
    assert_eq!(
        features & 0xff_ffff,
        SEG_MAX | BLK_SIZE | FLUSH | TOPOLOGY | DISCARD | WRITE_ZEROES
    );
    assert_eq!(driver.get::<8>(0x2000), (SIZE / 512).to_le_bytes());
    assert_eq!(driver.get::<4>(0x2014), 512u32.to_le_bytes());
    assert_eq!(driver.get::<4>(0x200c), 126u32.to_le_bytes());
    assert_eq!(driver.get::<1>(0x2018), [3]);
    assert_eq!(driver.get::<4>(0x2028), 16u32.to_le_bytes());
    assert_eq!(driver.get::<4>(0x2040), [0; 4]);
}

#[test]
fn what_is_written_is_read_back_and_in_the_file() {
    let (mut driver, file, block) = driver(1);
    let content: Vec<u8> = (0..600 * 1024u32).map(|byte| (byte * 7 / 5) as u8).collect();
    let (head, at) = (header(OUT, 3), 3 * 512);
    let answer = driver.request(0, &[Part::Out(&head), Part::Out(&content), Part::In(1)]);
    assert_eq!(answer, (1, vec![0]));
    let mut stored = vec![0; content.len()];
    file.read_exact_at(&mut stored, at).unwrap();
    assert!(stored == content);
    let (written, read) = driver.request(
        0,
        &[
            Part::Out(&header(IN, 3)),
            Part::In(512),
            Part::In(content.len() as u32 - 512),
            Part::In(1),
        ],
    );
    assert_eq!(written as usize, content.len() + 1);
    assert!(read[..content.len()] == content && read[content.len()] == 0);
    let stats = block.stats();
    assert_eq!((stats.reads, stats.writes), (1, 1));
    assert_eq!((stats.read_bytes, stats.written_bytes), (614_400, 614_400));
}

#[test]
fn header_data_and_status_may_share_buffers() {
    let (mut driver, _, _) = driver(1);
    let mut all = header(OUT, 1);
    all.extend([0xab; 512]);
    let writable =
        driver.offer(0, &[Part::Out(&all[..5]), Part::Out(&all[5..]), Part::In(1)], true);
    driver.notify(0);
    driver.interrupt(0);
    assert_eq!(driver.poll(0), 1);
    assert_eq!(driver.collect(&writable), [0]);
    let head = header(IN, 1);
    let (written, read) =
        driver.request(0, &[Part::Out(&head[..7]), Part::Out(&head[7..]), Part::In(513)]);
    assert_eq!(written, 513);
    assert!(read[..512].iter().all(|byte| *byte == 0xab) && read[512] == 0);
}

#[test]
fn an_id_a_flush_and_an_unknown_type() {
    let (mut driver, _, block) = driver(1);
    let (written, id) = driver.request(0, &[Part::Out(&header(8, 0)), Part::In(20), Part::In(1)]);
    assert_eq!((written, id.as_slice()), (21, b"imgforge-target-disk\0".as_slice()));
    assert_eq!(simple(&mut driver, 4, &[]), STATUS_OK);
    assert_eq!(block.stats().flushes, 1);
    assert_eq!(simple(&mut driver, 5, &[]), STATUS_UNSUPPORTED);
    assert_eq!(simple(&mut driver, u32::MAX, &[]), STATUS_UNSUPPORTED);
}

#[test]
fn what_lies_outside_the_disk_is_an_error() {
    let (mut driver, _, block) = driver(1);
    let end = SIZE / 512;
    for (sector, bytes) in
        [(end, 512), (end - 1, 1024), (u64::MAX, 512), (u64::MAX / 512, 512), (0, 100)]
    {
        let head = header(IN, sector);
        let (written, content) =
            driver.request(0, &[Part::Out(&head), Part::In(bytes), Part::In(1)]);
        assert_eq!((written, *content.last().unwrap()), (1, STATUS_ERROR), "{sector} {bytes}");
        let (head, data) = (header(OUT, sector), vec![1; bytes as usize]);
        let answer = driver.request(0, &[Part::Out(&head), Part::Out(&data), Part::In(1)]);
        assert_eq!(answer, (1, vec![STATUS_ERROR]));
    }
    // The data is outside RAM, the status is not.
    for is_in in [false, true] {
        let head = header(u32::from(!is_in), 0);
        let data = Part::At(u64::MAX - 100, 512, is_in);
        let writable = driver.offer(0, &[Part::Out(&head), data, Part::In(1)], false);
        driver.notify(0);
        driver.interrupt(0);
        driver.poll(0);
        assert_eq!(driver.collect(&writable[writable.len() - 1..]), [STATUS_ERROR]);
    }
    // No status, a short header, nothing at all.
    assert_eq!(driver.request(0, &[Part::Out(&header(IN, 0))]).0, 0);
    assert_eq!(driver.request(0, &[Part::Out(b"short"), Part::In(1)]), (1, vec![STATUS_ERROR]));
    assert_eq!(driver.request(0, &[Part::In(1)]), (1, vec![STATUS_ERROR]));
    assert_eq!((block.stats(), block.failure()), (BlockStats::default(), None));
}

#[test]
fn ranges_are_discarded_and_zeroed() {
    let (mut driver, file, block) = driver(1);
    file.write_all_at(&[0x77; SIZE as usize], 0).unwrap();
    let full = file.metadata().unwrap().blocks();
    let mut two = range(0, 1024, 0);
    two.extend(range(2048, 2048, 0));
    assert_eq!(simple(&mut driver, 11, &two), STATUS_OK);
    if cfg!(target_os = "linux") {
        assert!(file.metadata().unwrap().blocks() <= full - 3072 + 16, "there are no holes");
    }
    assert_eq!(simple(&mut driver, 13, &range(1024, 9, 0)), STATUS_OK);
    assert_eq!(simple(&mut driver, 13, &range(1040, 8, 1)), STATUS_OK);
    let mut stored = vec![0; SIZE as usize];
    file.read_exact_at(&mut stored, 0).unwrap();
    let sector = |number: usize| &stored[512 * number..512 * (number + 1)];
    for (number, byte) in
        [(1024, 0), (1032, 0), (1033, 0x77), (1039, 0x77), (1040, 0), (1048, 0x77), (4096, 0x77)]
    {
        assert!(sector(number).iter().all(|stored| *stored == byte), "{number}");
    }
    assert_eq!(block.stats().discarded_bytes, (1024 + 2048 + 9 + 8) * 512);
    assert_eq!(file.metadata().unwrap().len(), SIZE);
    // Refused, and nothing of it done.
    let last = SIZE / 512;
    let mut bad = range(4096, 8, 0);
    bad.extend(range(last, 1, 0));
    for (kind, data, status) in [
        (11, bad, STATUS_ERROR),
        (11, range(0, 8, 1), STATUS_UNSUPPORTED),
        (13, range(0, 8, 2), STATUS_UNSUPPORTED),
        (13, range(0, u32::MAX, 0), STATUS_ERROR),
        (11, range(u64::MAX, 8, 0), STATUS_ERROR),
        (11, vec![0; 15], STATUS_ERROR),
        (11, vec![0; 16 * 17], STATUS_ERROR),
    ] {
        assert_eq!(simple(&mut driver, kind, &data), status);
    }
    file.read_exact_at(&mut stored[..512], 4096 * 512).unwrap();
    assert_eq!(stored[0], 0x77);
}

#[test]
fn a_read_only_disk_says_so_and_stays_so() {
    let disk = RawFile::from_file(file(), true).unwrap();
    let mut driver = Driver::new(Block::new(Arc::new(disk), "ro", 1));
    assert_eq!(driver.offered() & (RO | DISCARD | WRITE_ZEROES), RO);
    driver.start(VERSION_1 | RO);
    let answer =
        driver.request(0, &[Part::Out(&header(OUT, 0)), Part::Out(&[1; 512]), Part::In(1)]);
    assert_eq!(answer, (1, vec![STATUS_ERROR]));
    assert_eq!(simple(&mut driver, 11, &range(0, 8, 0)), STATUS_ERROR);
    assert_eq!(driver.request(0, &[Part::Out(&header(IN, 0)), Part::In(512), Part::In(1)]).0, 513);
}

#[test]
fn each_of_several_rings_is_served() {
    let (mut driver, _, _) = driver(4);
    assert_ne!(driver.offered() & MQ, 0);
    assert_eq!(driver.get::<2>(0x2022), [4, 0]);
    for round in 0..8u8 {
        for queue in 0..4 {
            let head = header(OUT, u64::from(queue));
            driver.offer(queue, &[Part::Out(&head), Part::Out(&[round; 512]), Part::In(1)], true);
            driver.notify(queue);
        }
        for _ in 0..4 {
            driver.board.message();
        }
        for queue in 0..4 {
            assert_eq!(driver.poll(queue), 1);
            let head = header(IN, u64::from(queue));
            let (_, read) = driver.request(queue, &[Part::Out(&head), Part::In(512), Part::In(1)]);
            assert_eq!(read[0], round);
        }
    }
}

/// A store that has broken.
struct Broken;

impl Disk for Broken {
    fn size(&self) -> u64 {
        SIZE
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Err(io::Error::other("medium error"))
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn flush(&self) -> io::Result<()> {
        Err(io::Error::other("no flush"))
    }

    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::Error::other("no discard"))
    }

    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
        Err(io::Error::other("no zeroes"))
    }
}

#[test]
fn a_store_that_fails_is_reported() {
    let block = Block::new(Arc::new(Broken), "x", 1);
    let mut driver = Driver::new(Arc::clone(&block) as Arc<dyn VirtioDevice>);
    driver.start(VERSION_1);
    let answer =
        driver.request(0, &[Part::Out(&header(OUT, 0)), Part::Out(&[1; 512]), Part::In(1)]);
    assert_eq!(answer, (1, vec![STATUS_ERROR]));
    assert_eq!(simple(&mut driver, 4, &[]), STATUS_ERROR);
    assert_eq!(
        block.failure(),
        Some(io::Error::from(io::ErrorKind::StorageFull).to_string().as_str())
    );
}

#[test]
fn files_that_are_no_disk_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    assert!(RawFile::open(&path, false).is_err());
    assert!(!path.exists());
    File::create(&path).unwrap();
    assert!(RawFile::open(&path, true).is_err());
    std::fs::write(&path, [5; 1000]).unwrap();
    let disk = RawFile::open(&path, true).unwrap();
    assert_eq!(disk.size(), 1000);
    // The sectors are whole ones.
    let driver = Driver::new(Block::new(Arc::new(disk), "", 1));
    assert_eq!(driver.get::<8>(0x2000), [1, 0, 0, 0, 0, 0, 0, 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_request_is_too_odd(
        requests in prop::collection::vec(
            (0u32..16, any::<u64>(), prop::collection::vec(any::<u8>(), 0..600), 0u64..RAM_AND_MORE, 0u32..100_000, any::<bool>()),
            1..30,
        ),
    ) {
        let (mut driver, _, _) = driver(1);
        for (kind, sector, data, address, length, is_in) in requests {
            // Not over the rings: those are another test's.
            let address = address.max(0x10_0000);
            let head = header(kind, sector % 10_000);
            let parts = [
                Part::Out(&head), Part::Out(&data), Part::At(address, length, is_in), Part::In(1),
            ];
            driver.offer(0, &parts, true);
            driver.notify(0);
            driver.poll(0);
        }
    }
}

const RAM_AND_MORE: u64 = super::super::mock::RAM * 2;
