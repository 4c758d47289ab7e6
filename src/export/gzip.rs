// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Gzip members (RFC 1952): what one thread makes of one chunk. Members in a row are one gzip
//! file for every `gzip -d` since the format exists.

use crc32fast::Hasher;
use flate2::{Compress, Compression, FlushCompress, Status};

/// Makes gzip members, each complete in itself.
pub(super) struct Encoder {
    deflate: Compress,
    level: u32,
}

impl Encoder {
    /// `level` is 1 to 9.
    pub(super) fn new(level: u32) -> Self {
        Self { deflate: Compress::new(Compression::new(level), false), level }
    }

    /// The member that holds `data` (at most 4 GiB less one byte).
    pub(super) fn member(&mut self, data: &[u8]) -> Result<Vec<u8>, String> {
        let extra_flags = match self.level {
            9 => 2,
            1 => 4,
            _ => 0,
        };
        let mut out = Vec::with_capacity(data.len() / 2 + 1024);
        // No name and no time: equal data gives equal members. 3: Unix.
        out.extend_from_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, extra_flags, 3]);
        self.deflate.reset();
        loop {
            let consumed = usize::try_from(self.deflate.total_in()).map_err(|e| e.to_string())?;
            let rest = data.get(consumed..).unwrap_or_default();
            match self.deflate.compress_vec(rest, &mut out, FlushCompress::Finish) {
                Ok(Status::StreamEnd) => break,
                Ok(Status::Ok | Status::BufError) => out.reserve(data.len() / 4 + 1024),
                Err(error) => return Err(error.to_string()),
            }
        }
        let mut crc = Hasher::new();
        crc.update(data);
        out.extend_from_slice(&crc.finalize().to_le_bytes());
        let length = u32::try_from(data.len()).map_err(|e| e.to_string())?;
        out.extend_from_slice(&length.to_le_bytes());
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
        for level in [1, 6, 9] {
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
