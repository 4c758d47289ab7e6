// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Headers that are wrong in one place each, and headers of random bytes.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// Where the L1 table of the good header is.
const L1: u64 = 0x30000;
/// Length of a file that holds it.
const LENGTH: u64 = 0x40000;

fn good() -> Vec<u8> {
    header(16, 1 << 30, (L1, 2), (0x10000, 1))
}

fn parse(bytes: &[u8], length: u64) -> Result<Header, Refusal> {
    Header::parse(bytes, length, |_, buffer| {
        buffer.fill(b'x');
        Ok(())
    })
}

fn with(at: usize, value: &[u8]) -> Result<Header, Refusal> {
    let mut bytes = good();
    bytes[at..at + value.len()].copy_from_slice(value);
    parse(&bytes, LENGTH)
}

#[test]
fn what_is_written_is_read() {
    let header = parse(&good(), LENGTH).unwrap();
    assert_eq!(header, Header { version: 3, cluster_bits: 16, size: 1 << 30, l1_offset: L1 });
    assert_eq!((header.l1_entries(), header.l2_span()), (2, 512 << 20));
}

#[test]
fn each_wrong_field_is_refused_by_name() {
    let say = |at, value: &[u8]| with(at, value).unwrap_err().failure(Path::new("x")).to_string();
    let long = |value: u64| value.to_be_bytes();
    let word = |value: u32| value.to_be_bytes();
    for (at, value, expected) in [
        (0, &b"QFI\0"[..], "not a qcow2 image"),
        (4, &word(1), "version 1"),
        (4, &word(4), "version 4"),
        (8, &long(0x200), "difference to a backing file"),
        (20, &word(8), "clusters of 2^8"),
        (20, &word(22), "clusters of 2^22"),
        (20, &word(u32::MAX), "clusters of 2^4294967295"),
        (24, &long(u64::MAX), "a disk of 18446744073709551615 bytes"),
        (24, &long(i64::MAX as u64), "an L1 table of 17179869184 entries"),
        (24, &long(2 << 30), "an L1 table of 2 entries for a disk that needs 4"),
        (32, &word(1), "encryption (AES)"),
        (32, &word(2), "encryption (LUKS)"),
        (32, &word(3), "encryption method 3"),
        (36, &word(1), "an L1 table of 1 entries"),
        (36, &word(u32::MAX), "an L1 table of 4294967295 entries"),
        (40, &long(0), "an L1 table at offset 0"),
        (40, &long(L1 + 8), "an L1 table at offset 196616"),
        (40, &long(LENGTH), "cut short"),
        (40, &long(u64::MAX - 0xffff), "cut short"),
        (72, &long(1), "marked dirty"),
        (72, &long(2), "marked corrupt"),
        (72, &long(4), "an external data file"),
        (72, &long(16), "extended L2"),
        (72, &long(1 << 40), "unknown features 0x10000000000"),
        (100, &word(96), "a header of 96 bytes"),
        (100, &word(105), "a header of 105 bytes"),
    ] {
        let text = say(at, value);
        assert!(text.contains(expected), "{at}: {text}");
        assert!(text.contains("hint: "), "{text}");
    }
    let mut zstd = good();
    zstd[79] = 8;
    zstd[103] = 112;
    zstd[104] = 1;
    let text = parse(&zstd, LENGTH).unwrap_err().failure(Path::new("x")).to_string();
    assert!(text.contains("zstd compression"), "{text}");
}

#[test]
fn a_header_that_ends_anywhere_is_cut() {
    for length in 0..WRITTEN {
        let refusal = parse(&good()[..length], LENGTH).unwrap_err();
        let expected = if length < 4 { Refusal::NotQcow2 } else { Refusal::Cut };
        assert_eq!(refusal, expected, "{length}");
    }
}

#[test]
fn names_the_backing_file_but_allocates_no_more_than_a_name() {
    let mut bytes = good();
    bytes[8..16].copy_from_slice(&0x200u64.to_be_bytes());
    bytes[16..20].copy_from_slice(&3u32.to_be_bytes());
    assert_eq!(parse(&bytes, LENGTH), Err(Refusal::Backing(Some("xxx".into()))));
    bytes[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(parse(&bytes, LENGTH), Err(Refusal::Backing(None)));
}

proptest! {
    #[test]
    fn random_fields_never_give_a_table_outside_the_file(
        cluster_bits in 0u32..40,
        size in any::<u64>(),
        entries in any::<u32>(),
        offset in any::<u64>(),
        length in any::<u64>(),
    ) {
        let bytes = header(cluster_bits, size, (offset, entries), (0x10000, 1));
        if let Ok(header) = parse(&bytes, length) {
            prop_assert!(header.l1_entries() <= u64::from(entries));
            prop_assert!(header.size == 0 || header.l1_offset + header.l1_entries() * 8 <= length);
            prop_assert!(header.l1_entries() * 8 <= LARGEST_L1);
        }
    }

    #[test]
    fn random_bytes_do_no_harm(tail in proptest::collection::vec(any::<u8>(), 0..112)) {
        let mut bytes = b"QFI\xfb\0\0\0\x03".to_vec();
        bytes.extend(tail);
        let _ = parse(&bytes, 1 << 20);
    }
}
