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

    /// Expands with no more memory of what went before than the window has.
    fn expand_with_window(packed: &[u8], window_bits: u8) -> Result<Vec<u8>, String> {
        let mut inflate = Decompress::new_with_window_bits(false, window_bits);
        let mut out = Vec::new();
        loop {
            let mut part = [0; 100];
            let (before, given) = (inflate.total_out(), inflate.total_in() as usize);
            let status = inflate
                .decompress(&packed[given..], &mut part, FlushDecompress::None)
                .map_err(|error| error.to_string())?;
            out.extend(&part[..(inflate.total_out() - before) as usize]);
            match status {
                Status::StreamEnd => return Ok(out),
                _ if inflate.total_out() == before => return Err("no progress".into()),
                _ => {}
            }
        }
    }

    /// 3000 bytes of noise, again and again: repeats lie within the window.
    fn near() -> Vec<u8> {
        (0..65_536u64).map(|n| ((n % 3000).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8).collect()
    }

    /// 20000 bytes of noise, again and again: repeats lie beyond the window.
    fn far() -> Vec<u8> {
        (0..65_536u64).map(|n| ((n % 20_000).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8).collect()
    }

    #[test]
    fn a_reader_needs_no_more_than_the_window() {
        for level in 1..=9 {
            let mut packer = Packer::new(level);
            for data in [near(), vec![7; 65_536], [near(), far()].concat()[30_000..95_536].to_vec()] {
                let mut packed = Vec::new();
                assert!(packer.pack(&data, &mut packed).unwrap(), "level {level}");
                assert!(expand_with_window(&packed, WINDOW_BITS).unwrap() == data, "level {level}");
                let mut cluster = vec![0; data.len()];
                packed.extend([0x55; 300]);
                Unpacker::new().unpack(&packed, &mut cluster).unwrap();
                assert!(cluster == data);
            }
        }
        // The check can fail: an encoder with the usual window does not pass it.
        let mut deflate = Compress::new(Compression::new(6), false);
        let mut packed = Vec::with_capacity(1 << 17);
        deflate.compress_vec(&far(), &mut packed, FlushCompress::Finish).unwrap();
        assert!(expand_with_window(&packed, WINDOW_BITS).is_err());
    }

    #[test]
    fn what_does_not_become_smaller_is_left_alone() {
        let noise: Vec<u8> = (0..8192u64)
            .flat_map(|n| (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).to_le_bytes())
            .map(|byte| byte.wrapping_mul(167))
            .collect();
        let mut out = vec![1, 2, 3];
        assert!(!Packer::new(9).pack(&noise, &mut out).unwrap());
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
