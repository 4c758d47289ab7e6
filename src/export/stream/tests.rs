// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::record::{CHECKSUM, DATA, Kind, LENGTH, PROPERTIES, Record};
use super::*;
use crate::export::source::{Chunk, Source};
use crate::ui::Outcome;

/// A disk given as pieces: data, or zeros by their number.
struct Pieces {
    pieces: std::vec::IntoIter<Chunk>,
    total: Option<u64>,
}

impl Pieces {
    fn new(pieces: Vec<Chunk>) -> Self {
        let total = pieces.iter().map(|piece| match piece {
            Chunk::Data(data) => data.len() as u64,
            Chunk::Zeros(count) => *count,
        });
        let total = Some(total.sum());
        Self { pieces: pieces.into_iter(), total }
    }
}

impl Source for Pieces {
    fn name(&self) -> String {
        "disk".into()
    }

    fn total(&self) -> Option<u64> {
        self.total
    }

    fn next(&mut self, _: Vec<u8>) -> Outcome<Option<Chunk>> {
        Ok(self.pieces.next())
    }
}

fn options(volblocksize: u32) -> StreamOptions {
    StreamOptions { volblocksize, epoch: Some(1_700_000_000), ..StreamOptions::default() }
}

/// All bytes of a source.
fn drain(source: &mut dyn Source) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = source.next(Vec::new())? {
        match chunk {
            Chunk::Data(data) => bytes.extend(data),
            Chunk::Zeros(count) => bytes.resize(bytes.len() + usize::try_from(count).unwrap(), 0),
        }
    }
    Ok(bytes)
}

fn stream_of(pieces: Vec<Chunk>, volblocksize: u32) -> Vec<u8> {
    let mut disk = Pieces::new(pieces);
    drain(&mut VolumeStream::new(&mut disk, &options(volblocksize)).unwrap()).unwrap()
}

fn read(stream: &[u8]) -> Outcome<(Vec<u8>, StreamInfo)> {
    let mut reader = read_stream(Box::new(std::io::Cursor::new(stream.to_vec())), "stream")?;
    let disk = drain(&mut reader)?;
    Ok((disk, reader.info().clone()))
}

fn small() -> Vec<u8> {
    stream_of(
        vec![Chunk::Data(vec![1; 20_000]), Chunk::Zeros(50_000), Chunk::Data(vec![2; 9])],
        8192,
    )
}

const BIG_ENDIAN: [u8; 8] = record::MAGIC.to_be_bytes();

/// Offsets of the records of a sound stream.
fn records(stream: &[u8]) -> Vec<usize> {
    let mut offsets = Vec::new();
    let mut at = 0;
    while at < stream.len() {
        let record = Record(stream[at..at + LENGTH].try_into().unwrap());
        offsets.push(at);
        at += LENGTH;
        if record.kind() == Some(Kind::Write) {
            at += usize::try_from(record.u64(32)).unwrap();
        }
    }
    offsets
}

/// Changes records of a stream and makes all checksums right again, so that only the change itself
/// can be found.
fn forge(stream: &[u8], mut change: impl FnMut(&mut Record, &mut Vec<u8>) -> bool) -> Vec<u8> {
    let mut sum = fletcher::Fletcher4::default();
    let mut out = Vec::new();
    let offsets = records(stream);
    for (index, at) in offsets.iter().enumerate() {
        let end = offsets.get(index + 1).copied().unwrap_or(stream.len());
        let mut record = Record(stream[*at..at + LENGTH].try_into().unwrap());
        let mut payload = stream[at + LENGTH..end].to_vec();
        if !change(&mut record, &mut payload) {
            continue;
        }
        if record.kind() == Some(Kind::End) {
            record.set(8, &sum.to_bytes());
        }
        if record.kind() != Some(Kind::Begin) {
            record.set(CHECKSUM, &[0; 32]);
        }
        record.seal(&mut sum);
        sum.update(&payload);
        out.extend_from_slice(&record.0);
        out.extend(payload);
    }
    out
}

fn is_write(record: &Record, object: record::Object) -> bool {
    record.kind() == Some(Kind::Write) && record.u64(8) == object.number
}

fn refused(stream: &[u8], why: &str) {
    let failure = read(stream).unwrap_err().to_string();
    assert!(failure.contains(why), "{why:?} is not in: {failure}");
    assert!(failure.contains("offset"), "{failure}");
}

#[test]
fn a_volume_is_read_as_it_was_written() {
    let (disk, info) = read(&small()).unwrap();
    assert_eq!(disk.len(), 1 << 20);
    assert!(disk[..20_000].iter().all(|b| *b == 1) && disk[20_000..70_000].iter().all(|b| *b == 0));
    assert_eq!(disk[70_000..70_010], [2, 2, 2, 2, 2, 2, 2, 2, 2, 0]);
    assert_eq!((info.volsize, info.volblocksize, info.holes), (1 << 20, 8192, 2));
    assert_eq!(info.data_bytes, 4 * 8192);
    assert!(info.record_checksums && info.features.is_empty() && !info.package);
    assert!(info.name.starts_with("zones/") && info.name.ends_with("@final"));
}

#[test]
fn forging_without_a_change_changes_nothing() {
    assert_eq!(forge(&small(), |_, _| true), small());
}

#[test]
fn the_same_disk_gives_the_same_bytes_only_with_an_epoch() {
    assert_eq!(small(), small());
    let free = || {
        let mut disk = Pieces::new(vec![Chunk::Zeros(512)]);
        drain(&mut VolumeStream::new(&mut disk, &StreamOptions::default()).unwrap()).unwrap()
    };
    assert_ne!(free(), free());
}

#[test]
fn an_empty_disk_has_records_only() {
    let stream = stream_of(vec![Chunk::Zeros(100 << 30)], 8192);
    assert_eq!(stream.len(), 10 * LENGTH + 512);
    let mut reader = read_stream(Box::new(std::io::Cursor::new(stream)), "s").unwrap();
    assert_eq!(reader.next(Vec::new()).unwrap(), Some(Chunk::Zeros(100 << 30)));
    assert_eq!(reader.next(Vec::new()).unwrap(), None);
    assert_eq!(reader.info().holes, 1);
}

#[test]
fn bad_options_are_refused() {
    let make = |options: &StreamOptions, total| {
        let mut disk = Pieces { pieces: vec![].into_iter(), total };
        VolumeStream::new(&mut disk, options).map(|_| ()).unwrap_err().to_string()
    };
    for volblocksize in [0, 256, 1000, 12_288, 262_144] {
        assert!(make(&options(volblocksize), Some(1)).contains("power of two"));
    }
    assert!(make(&options(8192), Some(0)).contains("empty"));
    assert!(make(&options(8192), Some(u64::MAX)).contains("8 EiB"));
    assert!(make(&options(8192), Some(1 << 63)).contains("8 EiB"));
    assert!(make(&options(8192), None).contains("not known"));
    for name in
        ["", "final", "@final", "a@", "a@b@c", "a@b/c", "a\n@b", &format!("{}@b", "a".repeat(254))]
    {
        let options = StreamOptions { name: Some(name.to_owned()), ..options(8192) };
        assert!(make(&options, Some(1)).contains("no snapshot's name"), "{name}");
    }
    let options = StreamOptions { guid: Some(0), ..options(8192) };
    assert!(make(&options, Some(1)).contains("guid"));
}

#[test]
fn a_disk_that_changes_its_size_is_an_error() {
    for pieces in [vec![Chunk::Zeros(3000)], vec![Chunk::Data(vec![1; 9000])]] {
        let mut disk = Pieces { pieces: pieces.into_iter(), total: Some(5000) };
        let mut stream = VolumeStream::new(&mut disk, &options(512)).unwrap();
        assert!(drain(&mut stream).unwrap_err().summary().contains("changed while read"));
    }
}

#[test]
fn a_cut_anywhere_is_found() {
    let stream = small();
    let cuts = (0..stream.len()).step_by(97).chain(records(&stream)).chain([stream.len() - 1]);
    for cut in cuts {
        let failure = read(&stream[..cut]).unwrap_err();
        assert!(failure.summary().contains("too early"), "{cut}: {failure}");
    }
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    let stream = small();
    for at in (0..stream.len()).step_by(61) {
        let mut damaged = stream.clone();
        damaged[at] ^= 1 << (at % 8);
        // Of a name nothing can be known before the next checksum, so it is found there.
        assert!(read(&damaged).is_err(), "byte {at}");
    }
}

#[test]
fn whatever_follows_the_end_is_refused() {
    let mut stream = small();
    stream.push(0);
    refused(&stream, "bytes follow it");
}

#[test]
fn what_receivers_take_to_their_harm_is_refused() {
    let stream = small();
    refused(&forge(&stream, |r, _| !is_write(r, PROPERTIES)), "size is missing");
    let nameless = forge(&stream, |r, payload| {
        if is_write(r, PROPERTIES) {
            payload[78] = b'x';
        }
        true
    });
    refused(&nameless, "size is missing");
    let empty = stream_of(vec![Chunk::Zeros(1)], 8192);
    for (stream, size, why) in [
        (&empty, 0u64, "size is 0"),
        (&stream, 8192, "beyond the volume's size"),
        (&stream, (1 << 20) + 512, "no multiple"),
        (&stream, u64::MAX - 8191, "out of range"),
    ] {
        let changed = forge(stream, |r, payload| {
            if is_write(r, PROPERTIES) {
                payload[64..72].copy_from_slice(&size.to_le_bytes());
            }
            true
        });
        refused(&changed, why);
    }
}

#[test]
fn wrong_fields_are_named() {
    let stream = small();
    let set = |kind: Kind, at: usize, bytes: &'static [u8]| {
        forge(&stream, |record, _| {
            if record.kind() == Some(kind) {
                record.set(at, bytes);
            }
            true
        })
    };
    refused(&set(Kind::Begin, 8, &[0]), "does not begin");
    refused(&set(Kind::Begin, 8, &BIG_ENDIAN), "big-endian");
    refused(&set(Kind::Begin, 32, &[2]), "file system");
    refused(&set(Kind::Begin, 48, &[1]), "incremental");
    refused(&set(Kind::Begin, 16, &[1, 0, 0, 8]), "zstd");
    refused(&set(Kind::Begin, 16, &[1, 0, 0, 4]), "raw");
    refused(&set(Kind::Begin, 16, &[1 | 1 << 6]), "unknown feature of bit 4");
    refused(&set(Kind::Begin, 16, &[3]), "header type 3");
    refused(&set(Kind::Object, 24, &[0, 3]), "block size");
    refused(&set(Kind::Object, 16, &[19]), "has type 19");
    refused(&set(Kind::Object, 48, &[1]), "raw");
    refused(&set(Kind::Object, 28, &[2]), "checksum is wrong");
    refused(&set(Kind::Write, 24, &[1]), "where blocks do");
    refused(&set(Kind::Write, 40, &[1]), "belongs to the snapshot");
    refused(&set(Kind::Write, 50, &[16]), "empty");
    refused(&set(Kind::End, 40, &[1]), "another snapshot");
    refused(&set(Kind::FreeObjects, 0, &[6]), "WRITE_BYREF is not supported");
    refused(&set(Kind::FreeObjects, 0, &[99]), "type 99");
    refused(&set(Kind::FreeObjects, 0, &[0]), "begins before");
    refused(&forge(&stream, |r, _| r.kind() != Some(Kind::Object)), "no OBJECT");
}

#[test]
fn blocks_out_of_order_are_refused() {
    let mut offset = 1 << 20;
    let backwards = forge(&small(), |record, _| {
        if is_write(record, DATA) {
            offset -= 8192;
            record.set_u64(24, offset);
        }
        record.kind() != Some(Kind::Free)
    });
    refused(&backwards, "before the one before it");
    let far = forge(&small(), |record, _| {
        if is_write(record, DATA) {
            record.set_u64(24, u64::MAX - 8191);
        }
        true
    });
    refused(&far, "beyond what a disk can have");
}

#[test]
fn streams_without_record_checksums_are_read() {
    let stream = small();
    let mut sum = fletcher::Fletcher4::default();
    let mut old = Vec::new();
    let offsets = records(&stream);
    for (index, at) in offsets.iter().enumerate() {
        let end = offsets.get(index + 1).copied().unwrap_or(stream.len());
        let mut record = stream[*at..end].to_vec();
        if index > 0 {
            record[CHECKSUM..LENGTH].fill(0);
        }
        if index + 1 == offsets.len() {
            record[8..40].copy_from_slice(&sum.to_bytes());
        }
        sum.update(&record);
        old.extend(record);
    }
    let (disk, info) = read(&old).unwrap();
    assert_eq!(disk, read(&stream).unwrap().0);
    assert!(!info.record_checksums);
    old[LENGTH * 8] ^= 1;
    assert!(read(&old).is_err());
}

fn piece() -> impl Strategy<Value = Chunk> {
    prop_oneof![
        (1u64..300_000).prop_map(Chunk::Zeros),
        (1usize..100_000, any::<u8>()).prop_map(|(length, byte)| Chunk::Data(vec![byte; length])),
        proptest::collection::vec(0u8..2, 1..2000).prop_map(Chunk::Data),
    ]
}

fn same(pieces: &[Chunk]) -> Vec<Chunk> {
    pieces
        .iter()
        .map(|piece| match piece {
            Chunk::Data(data) => Chunk::Data(data.clone()),
            Chunk::Zeros(count) => Chunk::Zeros(*count),
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_disk_makes_the_round_trip(
        pieces in proptest::collection::vec(piece(), 1..12),
        shift in 9u32..18,
    ) {
        let mut expected = drain(&mut Pieces::new(same(&pieces))).unwrap();
        expected.resize(expected.len().next_multiple_of(1 << 20), 0);
        let stream = stream_of(pieces, 1 << shift);
        let (disk, info) = read(&stream).unwrap();
        prop_assert!(disk == expected);
        prop_assert_eq!(info.stream_bytes, stream.len() as u64);
        prop_assert_eq!(info.data_bytes + info.hole_bytes, info.volsize);
        // However the disk's zeros came, the stream is the same.
        let dense = stream_of(vec![Chunk::Data(expected)], 1 << shift);
        prop_assert_eq!(dense.len(), stream.len());
    }

    #[test]
    fn rubbish_does_no_harm(
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        at in 0usize..30_000,
    ) {
        let _ = read(&bytes);
        let mut stream = small();
        let end = (at + bytes.len()).min(stream.len());
        if at < end {
            stream[at..end].copy_from_slice(&bytes[..end - at]);
        }
        let _ = read(&stream);
    }

    #[test]
    fn forged_records_do_no_harm(
        number in 0usize..14,
        at in 0usize..LENGTH,
        bytes in proptest::collection::vec(any::<u8>(), 1..9),
    ) {
        let mut index = 0;
        let forged = forge(&small(), |record, _| {
            if index == number {
                record.set(at.min(LENGTH - bytes.len()), &bytes);
            }
            index += 1;
            true
        });
        // Bounded memory is part of it: such a disk would not fit.
        let reader = read_stream(Box::new(std::io::Cursor::new(forged)), "stream");
        if let Ok(mut reader) = reader {
            let _ = reader.verify();
        }
    }
}
