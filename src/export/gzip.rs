// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Gzip members (RFC 1952): what one thread makes of one chunk. Members in a row are one gzip
//! file for every `gzip -d` since the format exists.

use crc32fast::Hasher;
use libdeflater::{CompressionLvl, Compressor};

/// Identification, method and no flags.
const HEADER: usize = 10;
/// CRC and length.
const TRAILER: usize = 8;

/// Makes gzip members, each complete in itself.
pub(super) struct Encoder {
    deflate: Compressor,
    level: u32,
}

impl Encoder {
    /// `level` is 1 to 9.
    pub(super) fn new(level: u32) -> Self {
        let known = i32::try_from(level).ok().and_then(|level| CompressionLvl::new(level).ok());
        Self { deflate: Compressor::new(known.unwrap_or_default()), level }
    }

    /// The member that holds `data` (at most 4 GiB less one byte).
    pub(super) fn member(&mut self, data: &[u8]) -> Result<Vec<u8>, String> {
        let length = u32::try_from(data.len()).map_err(|e| e.to_string())?;
        let extra_flags = match self.level {
            9 => 2,
            1 => 4,
            _ => 0,
        };
        let bound = self.deflate.deflate_compress_bound(data.len());
        let mut out = vec![0; HEADER + bound + TRAILER];
        let (head, rest) = out.split_at_mut(HEADER);
        // No name and no time: equal data gives equal members. 3: Unix.
        head.copy_from_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, extra_flags, 3]);
        let packed = self.deflate.deflate_compress(data, rest).map_err(|e| e.to_string())?;
        let mut crc = Hasher::new();
        crc.update(data);
        out.truncate(HEADER + packed);
        out.extend_from_slice(&crc.finalize().to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        out.shrink_to_fit();
        Ok(out)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;

    fn unpack(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn incompressible_data_survives() {
        let data: Vec<u8> = (0..1u64 << 17)
            .flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
            .collect();
        for level in 1..=9 {
            let mut encoder = Encoder::new(level);
            assert_eq!(unpack(&encoder.member(&data).unwrap()), data);
            assert_eq!(unpack(&encoder.member(b"").unwrap()), b"");
        }
    }

    proptest! {
        #[test]
        fn members_in_a_row_are_one_file(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 1..5),
            level in 1u32..=9,
        ) {
            let mut encoder = Encoder::new(level);
            let packed: Vec<u8> = parts.iter().flat_map(|p| encoder.member(p).unwrap()).collect();
            prop_assert_eq!(unpack(&packed), parts.concat());
        }
    }
}
