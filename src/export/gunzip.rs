// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A raw disk in a gzip file, of one member or many.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use super::forward::{chunk, fill};
use super::source::{CHUNK, Chunk, Source};
use crate::ui::{Failure, Outcome};

/// Expands a gzip file; every member's length and checksum is verified.
pub struct GunzipDisk {
    name: String,
    decoder: MultiGzDecoder<Counted>,
    at: u64,
}

impl GunzipDisk {
    /// The disk in `input`, which `name` calls in messages.
    pub fn new(input: Box<dyn Read + Send>, name: &str) -> Self {
        let input = Counted { input: BufReader::with_capacity(1 << 18, input), bytes: 0 };
        Self { name: name.to_owned(), decoder: MultiGzDecoder::new(input), at: 0 }
    }

    fn failure(&self, error: io::Error) -> Failure {
        let offset = self.decoder.get_ref().bytes;
        let name = &self.name;
        let failure = match error.kind() {
            io::ErrorKind::UnexpectedEof => Failure::input(format!(
                "the gzip file {name} is cut short: it ends at offset {offset}"
            )),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                Failure::input(format!("the gzip file {name} is damaged at offset {offset}"))
            }
            _ => {
                return Failure::build(format!("cannot read {name} at offset {offset}"))
                    .because(error);
            }
        };
        failure
            .because(error)
            .fact("offset", format!("{offset}, after {} bytes of the disk", self.at))
            .hint("copy the file again, and compare its digest with the original's")
    }
}

impl Source for GunzipDisk {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn total(&self) -> Option<u64> {
        None
    }

    fn next(&mut self, mut buffer: Vec<u8>) -> Outcome<Option<Chunk>> {
        buffer.resize(CHUNK, 0);
        let count = fill(&mut self.decoder, &mut buffer).map_err(|error| self.failure(error))?;
        self.at += count as u64;
        Ok(chunk(buffer, count))
    }
}

/// Counts the bytes that were used, not those that were read ahead.
struct Counted {
    input: BufReader<Box<dyn Read + Send>>,
    bytes: u64,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

impl BufRead for Counted {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.bytes += count as u64;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::gzip::Encoder;
    use super::*;

    fn expand(bytes: &[u8]) -> Outcome<Vec<u8>> {
        let mut disk = GunzipDisk::new(Box::new(io::Cursor::new(bytes.to_vec())), "d.raw.gz");
        let mut all = Vec::new();
        while let Some(chunk) = disk.next(Vec::new())? {
            match chunk {
                Chunk::Data(data) => all.extend(data),
                Chunk::Zeros(count) => all.resize(all.len() + usize::try_from(count).unwrap(), 0),
            }
        }
        Ok(all)
    }

    /// A chunk, zeros and a rest, in three members; and where the members end.
    fn packed() -> (Vec<u8>, Vec<u8>, Vec<usize>) {
        let data: Vec<u8> = (0..40_000u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
        let plain = [data, vec![0; 3_000_000], b"the end".to_vec()];
        let mut encoder = Encoder::new(6);
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for part in &plain {
            bytes.extend(encoder.member(part).unwrap());
            ends.push(bytes.len());
        }
        (plain.concat(), bytes, ends)
    }

    #[test]
    fn members_are_one_disk() {
        let (plain, bytes, _) = packed();
        assert!(expand(&bytes).unwrap() == plain);
    }

    #[test]
    fn a_cut_file_is_an_error_wherever_a_member_is_cut() {
        let (_, bytes, ends) = packed();
        for length in (0..bytes.len()).step_by(7).filter(|length| !ends.contains(length)) {
            let failure = expand(&bytes[..length]).unwrap_err();
            let expected = format!("is cut short: it ends at offset {length}");
            assert!(failure.summary().ends_with(&expected), "{length}: {failure}");
        }
    }

    #[test]
    fn damage_is_named_with_its_offset() {
        let (_, mut bytes, ends) = packed();
        // The checksum of the first member.
        bytes[ends[0] - 8] ^= 1;
        let failure = expand(&bytes).unwrap_err();
        let expected = format!("is damaged at offset {}", ends[0]);
        assert!(failure.summary().ends_with(&expected), "{failure}");
        bytes[ends[0] - 8] ^= 1;
        bytes.extend(b"what is this?");
        let failure = expand(&bytes).unwrap_err();
        assert!(failure.summary().contains("is damaged at offset"), "{failure}");
        assert!(expand(b"no gzip file at all").is_err());
    }
}
