// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Blocks as they travel in streams of `zfs send -c` and `-e`: compressed.

use crate::export::forward::fill;

/// Compression codes of ZFS.
const OFF: u8 = 2;
const LZ4: u8 = 15;

/// Writes into `out` (of the block's size) what `packed` holds, the rest zero. `Err` says what is
/// wrong.
pub(super) fn unpack(code: u8, packed: &[u8], out: &mut [u8]) -> Result<(), String> {
    let written = match code {
        0 | OFF => {
            let plain = packed.get(..out.len()).unwrap_or(packed);
            out.get_mut(..plain.len()).unwrap_or_default().copy_from_slice(plain);
            plain.len()
        }
        5..=13 => inflate(packed, out)?,
        LZ4 => lz4(packed, out)?,
        _ => return Err(format!("compression {} is not supported", name(code))),
    };
    out.get_mut(written..).unwrap_or_default().fill(0);
    Ok(())
}

fn inflate(packed: &[u8], out: &mut [u8]) -> Result<usize, String> {
    fill(&mut flate2::read::ZlibDecoder::new(packed), out)
        .map_err(|error| format!("a gzip block is damaged: {error}"))
}

/// The length, big-endian, then one raw block; the rest is padding.
fn lz4(packed: &[u8], out: &mut [u8]) -> Result<usize, String> {
    let (length, rest) = packed.split_first_chunk().ok_or("an lz4 block is cut short")?;
    let length = u32::from_be_bytes(*length) as usize;
    let block = rest.get(..length).ok_or("an lz4 block is longer than its record")?;
    lz4_flex::block::decompress_into(block, out)
        .map_err(|error| format!("an lz4 block is damaged: {error}"))
}

/// The name of a compression.
pub(super) fn name(code: u8) -> String {
    match code {
        0 | OFF => "off".into(),
        3 => "lzjb".into(),
        5..=13 => format!("gzip-{}", code - 4),
        14 => "zle".into(),
        LZ4 => "lz4".into(),
        16 => "zstd".into(),
        _ => format!("number {code}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn packed_lz4(data: &[u8]) -> Vec<u8> {
        let block = lz4_flex::block::compress(data);
        let mut packed = u32::try_from(block.len()).unwrap().to_be_bytes().to_vec();
        packed.extend(block);
        packed.resize(packed.len().next_multiple_of(512), 0xaa);
        packed
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let failure = unpack(16, &[0; 64], &mut [0; 512]).unwrap_err();
        assert!(failure.contains("zstd"), "{failure}");
    }

    proptest! {
        #[test]
        fn blocks_come_back(data in proptest::collection::vec(0u8..4, 0..5000)) {
            let mut out = vec![7; 5000];
            let mut expected = data.clone();
            expected.resize(5000, 0);
            unpack(LZ4, &packed_lz4(&data), &mut out).unwrap();
            prop_assert_eq!(&out, &expected);
            let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            zlib.write_all(&data).unwrap();
            out.fill(7);
            unpack(6, &zlib.finish().unwrap(), &mut out).unwrap();
            prop_assert_eq!(&out, &expected);
        }

        #[test]
        fn rubbish_does_no_harm(code in 0u8..20, packed in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = unpack(code, &packed, &mut [0; 512]);
        }
    }
}
