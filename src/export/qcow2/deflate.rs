// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Compressed clusters: raw deflate (RFC 1951) with a window of 4 KiB, which is all that QEMU's
//! reader promises to remember.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Binary logarithm of the window that is written.
const WINDOW_BITS: u8 = 12;

/// Compresses clusters, each by itself.
pub(super) struct Packer {
    deflate: Compress,
}

impl Packer {
    /// `level` is 1 to 9.
    pub(super) fn new(level: u32) -> Self {
        let level = Compression::new(level);
        Self { deflate: Compress::new_with_window_bits(level, false, WINDOW_BITS) }
    }

    /// Appends the compressed cluster to `out`, if that makes it smaller; else `out` is as it was.
    pub(super) fn pack(&mut self, cluster: &[u8], out: &mut Vec<u8>) -> Result<bool, String> {
        let start = out.len();
        let mut space = vec![0; cluster.len().saturating_sub(1)];
        self.deflate.reset();
        let status = self
            .deflate
            .compress(cluster, &mut space, FlushCompress::Finish)
            .map_err(|error| error.to_string())?;
        if status != Status::StreamEnd {
            return Ok(false);
        }
        let length = usize::try_from(self.deflate.total_out()).map_err(|e| e.to_string())?;
        out.extend_from_slice(space.get(..length).unwrap_or_default());
        Ok(out.len() > start)
    }
}

/// Expands clusters.
pub(super) struct Unpacker {
    inflate: Decompress,
}

impl Unpacker {
    pub(super) fn new() -> Self {
        // Other programs' windows may be larger.
        Self { inflate: Decompress::new(false) }
    }

    /// Fills `cluster` from `packed`, which may be followed by other bytes.
    pub(super) fn unpack(&mut self, packed: &[u8], cluster: &mut [u8]) -> Result<(), String> {
        self.inflate.reset(false);
        self.inflate
            .decompress(packed, cluster, FlushDecompress::Finish)
            .map_err(|error| error.to_string())?;
        match self.inflate.total_out() {
            out if out == cluster.len() as u64 => Ok(()),
            out => Err(format!("it gives {out} bytes")),
        }
    }
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unpacker")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// So many bytes of noise, again and again.
    fn repeated(period: usize) -> Vec<u8> {
        let noise = super::super::tests::noise(period, 1, 256);
        noise.iter().cycle().take(65_536).copied().collect()
    }

    #[test]
    fn clusters_survive_whatever_follows_them() {
        for level in 1..=9 {
            let mut packer = Packer::new(level);
            for data in [repeated(3000), vec![7; 65_536], vec![0; 512]] {
                let mut packed = Vec::new();
                assert!(packer.pack(&data, &mut packed).unwrap(), "level {level}");
                let mut cluster = vec![0; data.len()];
                packed.extend([0x55; 300]);
                Unpacker::new().unpack(&packed, &mut cluster).unwrap();
                assert!(cluster == data);
            }
        }
    }

    /// Noise that repeats itself is compressible for those only who look back far enough.
    #[test]
    fn nothing_refers_to_what_lies_before_the_window() {
        for level in 1..=9 {
            let packs =
                |period| Packer::new(level).pack(&repeated(period), &mut Vec::new()).unwrap();
            assert!(packs(3800), "level {level}");
            assert!(!packs(4097), "level {level}");
            let mut far = Compress::new(Compression::new(level), false);
            let mut space = vec![0; 65_535];
            let status = far.compress(&repeated(4097), &mut space, FlushCompress::Finish).unwrap();
            assert_eq!(status, Status::StreamEnd, "level {level}");
        }
    }

    #[test]
    fn what_does_not_become_smaller_is_left_alone() {
        let mut out = vec![1, 2, 3];
        assert!(!Packer::new(9).pack(&repeated(65_536), &mut out).unwrap());
        assert_eq!(out, [1, 2, 3]);
    }

    #[test]
    fn wrong_bytes_are_errors() {
        let mut cluster = vec![0; 4096];
        let mut unpacker = Unpacker::new();
        assert!(unpacker.unpack(&[], &mut cluster).is_err());
        assert!(unpacker.unpack(&[0xff; 50], &mut cluster).is_err());
        let mut packed = Vec::new();
        Packer::new(6).pack(&[5; 2048], &mut packed).unwrap();
        assert_eq!(unpacker.unpack(&packed, &mut cluster).unwrap_err(), "it gives 2048 bytes");
        unpacker.unpack(&packed, &mut cluster[..2048]).unwrap();
        // More than a cluster: what is beyond it does not matter, as for QEMU.
        unpacker.unpack(&packed, &mut cluster[..1024]).unwrap();
        assert_eq!(cluster[..1024], [5; 1024]);
    }
}
