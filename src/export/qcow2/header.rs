// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The first bytes of an image: what it is, and whether this program can read it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::LARGEST_L1;
use crate::ui::{Failure, Outcome};

/// `QFI` and 0xfb.
pub(in super::super) const MAGIC: [u8; 4] = *b"QFI\xfb";

/// Bytes of the header that are looked at; `header_length` may say more.
const LOOKED_AT: usize = 112;

/// Bytes of the headers that are written: version 3 without the optional fields.
const WRITTEN: usize = 104;

/// Binary logarithm of the bits of one reference count that are written.
const REFCOUNT_ORDER: u32 = 4;

/// What reading needs of a header, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// 2 or 3.
    pub(super) version: u32,
    /// Binary logarithm of the cluster size, 9 to 21.
    pub(super) cluster_bits: u32,
    /// Size of the disk in bytes, at most `i64::MAX`.
    pub(super) size: u64,
    /// Where the L1 table is; all the entries that `size` needs lie in the file.
    pub(super) l1_offset: u64,
}

impl Header {
    /// Reads the header of an image that has `length` bytes.
    ///
    /// # Errors
    /// When it is no qcow2 image, damaged, or uses what is not supported; says what.
    pub(super) fn read(path: &Path, file: &File, length: u64) -> Outcome<Self> {
        let mut bytes = [0; LOOKED_AT];
        let filled = usize::try_from(length).map_or(LOOKED_AT, |length| length.min(LOOKED_AT));
        file.read_exact_at(&mut bytes[..filled], 0)
            .map_err(|error| Failure::build(cannot_read(path)).because(error))?;
        let refuse = |refusal: Refusal| refusal.failure(path);
        Self::parse(&bytes[..filled], length, |at, buffer| file.read_exact_at(buffer, at))
            .map_err(refuse)
    }

    /// `start` are the first bytes; `read` reads the name of a backing file, for the message.
    fn parse(
        start: &[u8],
        length: u64,
        read: impl Fn(u64, &mut [u8]) -> io::Result<()>,
    ) -> Result<Self, Refusal> {
        if !start.starts_with(&MAGIC) {
            return Err(Refusal::NotQcow2);
        }
        let version = word(start, 4).ok_or(Refusal::Cut)?;
        if !(2..=3).contains(&version) {
            return Err(Refusal::Feature(format!("version {version} of the format")));
        }
        let needed = if version == 2 { 72 } else { 104 };
        if start.len() < needed {
            return Err(Refusal::Cut);
        }
        let field = |at| word(start, at).ok_or(Refusal::Cut);
        let long = |at| long(start, at).ok_or(Refusal::Cut);
        if long(8)? != 0 {
            return Err(Refusal::Backing(backing_name(long(8)?, field(16)?, read)));
        }
        match field(32)? {
            0 => {}
            1 => return Err(Refusal::Feature("encryption (AES)".into())),
            2 => return Err(Refusal::Feature("encryption (LUKS)".into())),
            other => return Err(Refusal::Feature(format!("encryption method {other}"))),
        }
        if version == 3 {
            check_features(start, long(72)?, field(100)?)?;
        }
        let header =
            Self { version, cluster_bits: field(20)?, size: long(24)?, l1_offset: long(40)? };
        header.check(u64::from(field(36)?), length)?;
        Ok(header)
    }

    /// Holds sizes and offsets against each other and the file.
    fn check(&self, l1_entries: u64, length: u64) -> Result<(), Refusal> {
        if !(9..=21).contains(&self.cluster_bits) {
            return Err(Refusal::Damaged(format!("clusters of 2^{} bytes", self.cluster_bits)));
        }
        if i64::try_from(self.size).is_err() {
            return Err(Refusal::Damaged(format!("a disk of {} bytes", self.size)));
        }
        let needed = self.l1_entries();
        if needed.saturating_mul(8) > LARGEST_L1 || l1_entries * 8 > LARGEST_L1 {
            return Err(Refusal::Damaged(format!(
                "an L1 table of {} entries, more than any program reads",
                needed.max(l1_entries)
            )));
        }
        if l1_entries < needed {
            return Err(Refusal::Damaged(format!(
                "an L1 table of {l1_entries} entries for a disk that needs {needed}"
            )));
        }
        if needed == 0 {
            return Ok(());
        }
        if self.l1_offset == 0 || !self.l1_offset.is_multiple_of(self.cluster_size()) {
            return Err(Refusal::Damaged(format!("an L1 table at offset {}", self.l1_offset)));
        }
        match self.l1_offset.checked_add(needed * 8) {
            Some(end) if end <= length => Ok(()),
            _ => Err(Refusal::Cut),
        }
    }

    /// Bytes per cluster.
    pub(super) fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Bytes of the disk that one L2 table describes.
    pub(super) fn l2_span(&self) -> u64 {
        1 << (2 * self.cluster_bits - 3)
    }

    /// Entries of the L1 table that the disk's size needs.
    pub(super) fn l1_entries(&self) -> u64 {
        self.size.div_ceil(self.l2_span())
    }
}

/// The header of an image that this program writes: its cluster size, the disk's size, and the
/// tables as offset and count (L1 in entries, reference counts in clusters).
pub(super) fn header(
    cluster_bits: u32,
    size: u64,
    l1: (u64, u32),
    refcounts: (u64, u32),
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(WRITTEN + 8);
    bytes.extend(MAGIC);
    bytes.extend(3u32.to_be_bytes());
    bytes.extend([0; 12]); // no backing file
    bytes.extend(cluster_bits.to_be_bytes());
    bytes.extend(size.to_be_bytes());
    bytes.extend(0u32.to_be_bytes()); // not encrypted
    bytes.extend(l1.1.to_be_bytes());
    bytes.extend(l1.0.to_be_bytes());
    bytes.extend(refcounts.0.to_be_bytes());
    bytes.extend(refcounts.1.to_be_bytes());
    bytes.extend([0; 12]); // no snapshots
    bytes.extend([0; 24]); // no features
    bytes.extend(REFCOUNT_ORDER.to_be_bytes());
    bytes.extend((WRITTEN as u32).to_be_bytes());
    bytes.extend([0; 8]); // the end of the header extensions
    bytes
}

fn check_features(start: &[u8], incompatible: u64, header_length: u32) -> Result<(), Refusal> {
    const DIRTY: u64 = 1;
    const CORRUPT: u64 = 1 << 1;
    const EXTERNAL: u64 = 1 << 2;
    const COMPRESSION: u64 = 1 << 3;
    const EXTENDED_L2: u64 = 1 << 4;
    let known = DIRTY | CORRUPT | EXTERNAL | COMPRESSION | EXTENDED_L2;
    let has = |bit| incompatible & bit != 0;
    if (header_length as usize) < WRITTEN || !header_length.is_multiple_of(8) {
        return Err(Refusal::Damaged(format!("a header of {header_length} bytes")));
    }
    if has(CORRUPT) {
        return Err(Refusal::Marked("corrupt: a program found contradictions in it"));
    }
    if has(DIRTY) {
        return Err(Refusal::Marked("dirty: the program that wrote it did not close it"));
    }
    if has(EXTERNAL) {
        return Err(Refusal::Feature("an external data file".into()));
    }
    if has(EXTENDED_L2) {
        return Err(Refusal::Feature("extended L2 entries (subclusters)".into()));
    }
    if has(!known) {
        return Err(Refusal::Feature(format!("unknown features {:#x}", incompatible & !known)));
    }
    let kind = if header_length as usize > WRITTEN { start.get(WRITTEN).copied() } else { None };
    match kind.unwrap_or(0) {
        0 => Ok(()),
        1 => Err(Refusal::Feature("zstd compression".into())),
        other => Err(Refusal::Feature(format!("compression type {other}"))),
    }
}

/// The backing file's name, where it can be read.
fn backing_name(
    at: u64,
    length: u32,
    read: impl Fn(u64, &mut [u8]) -> io::Result<()>,
) -> Option<String> {
    // QEMU allows no longer ones.
    let mut name = vec![0; usize::try_from(length).ok().filter(|length| *length <= 1023)?];
    read(at, &mut name).ok()?;
    Some(String::from_utf8_lossy(&name).into_owned())
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_be_bytes(*word))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|long| u64::from_be_bytes(*long))
}

/// Why an image is not read.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    NotQcow2,
    Cut,
    Damaged(String),
    Marked(&'static str),
    Feature(String),
    Backing(Option<String>),
}

impl Refusal {
    fn failure(self, path: &Path) -> Failure {
        let shown = path.display();
        let check = format!("look at it with `qemu-img check {shown}`");
        let flatten = "make a plain image with `qemu-img convert -O qcow2 OLD NEW` first";
        let failure = match self {
            Self::NotQcow2 => Failure::input(format!("{shown} is not a qcow2 image"))
                .hint("say with `--from` what it is"),
            Self::Cut => Failure::input(format!("the qcow2 image {shown} is cut short"))
                .hint("copy it again; its size is not what it was"),
            Self::Damaged(what) => {
                Failure::input(format!("the qcow2 image {shown} is damaged: {what}")).hint(check)
            }
            Self::Marked(what) => {
                Failure::input(format!("the qcow2 image {shown} is marked {what}"))
                    .hint(format!("repair it with `qemu-img check -r all {shown}`"))
            }
            Self::Feature(what) => Failure::input(format!(
                "the qcow2 image {shown} uses {what}, which is not supported"
            ))
            .hint(flatten),
            Self::Backing(name) => {
                let failure = Failure::input(format!(
                    "the qcow2 image {shown} is only the difference to a backing file"
                ))
                .hint(flatten);
                match name {
                    Some(name) => failure.fact("backing", name),
                    None => failure,
                }
            }
        };
        failure.fact("file", shown)
    }
}

pub(super) fn cannot_read(path: &Path) -> String {
    format!("cannot read the qcow2 image {}", path.display())
}

#[cfg(test)]
#[path = "header_tests.rs"]
mod tests;
