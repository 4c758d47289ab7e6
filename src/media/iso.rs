// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A light look at a medium before a machine is started with it: can firmware boot it at all?
//!
//! Sources of facts: ECMA-119 §8 (volume descriptors), the El Torito specification 1.0 §2 (boot
//! catalogue), UEFI 2.10 §5 (GPT) and §13.3.2 (El Torito platform 0xEF). Only a few sectors are
//! read, at most 128 KiB; every number in them is taken as hostile.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::ui::{Failure, Outcome};
use crate::vm::Firmware;

/// Bytes of a CD sector.
const SECTOR: u64 = 2048;
/// First volume descriptor's sector.
const FIRST_DESCRIPTOR: u64 = 16;
/// How many volume descriptors are looked at.
const MAX_DESCRIPTORS: u64 = 32;
/// Bytes looked at to name what is no medium.
const HEAD: usize = 40 * 1024;
/// EFI system partition, as stored (UEFI 2.10 table 5.7).
const ESP: [u8; 16] =
    [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];

/// What a medium is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediumKind {
    /// A CD or DVD image with an El Torito boot catalogue.
    Iso9660,
    /// A disk image with a GUID partition table.
    Gpt,
    /// A disk image with an MBR only.
    Mbr,
}

/// What was learnt about a bootable medium.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootMedium {
    /// Its kind.
    pub kind: MediumKind,
    /// Volume label of an ISO, without padding and control characters.
    pub label: Option<String>,
    /// It has boot code for legacy BIOS.
    pub bios: bool,
    /// It has an EFI boot image or an EFI system partition.
    pub uefi: bool,
}

impl BootMedium {
    /// One line for the log: `ISO 9660 "Debian 13", boots BIOS and UEFI`.
    pub fn describe(&self) -> String {
        let kind = match self.kind {
            MediumKind::Iso9660 => "ISO 9660",
            MediumKind::Gpt => "GPT disk",
            MediumKind::Mbr => "MBR disk",
        };
        let label = self.label.as_ref().map(|label| format!(" \"{label}\"")).unwrap_or_default();
        let firmware = match (self.bios, self.uefi) {
            (true, true) => "boots BIOS and UEFI",
            (true, false) => "boots BIOS",
            (false, true) => "boots UEFI",
            (false, false) => "boots other firmware only",
        };
        format!("{kind}{label}, {firmware}")
    }

    /// Refuses a medium that the chosen firmware cannot boot.
    ///
    /// # Errors
    ///
    /// The medium has no boot image for `firmware`.
    pub fn require(&self, firmware: Firmware) -> Outcome<()> {
        let (boots, name, other) = match firmware {
            Firmware::Uefi => (self.uefi, "UEFI", "bios"),
            Firmware::Bios => (self.bios, "BIOS", "uefi"),
        };
        if boots {
            return Ok(());
        }
        Err(Failure::input(format!("the medium does not boot under {name}"))
            .fact("medium", self.describe())
            .hint(format!("set `machine.firmware: {other}` in the target, or use another medium")))
    }
}

/// Looks at the file at `path` and says how it boots.
///
/// # Errors
///
/// The file cannot be read, or is not bootable; then what it is instead is named (a web page, a
/// gzip file, a truncated ISO, …).
pub fn inspect(path: &Path) -> Outcome<BootMedium> {
    let unreadable = |error: std::io::Error| {
        Failure::build("cannot read the medium").because(error).fact("file", path.display())
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let length = file.seek(SeekFrom::End(0)).map_err(unreadable)?;
    let place = |failure: Failure| {
        failure.fact("file", path.display()).fact("size", format!("{length} bytes"))
    };
    examine(&mut file, length).map_err(place)
}

/// [`inspect`] on anything that can be read and sought.
fn examine(file: &mut (impl Read + Seek), length: u64) -> Outcome<BootMedium> {
    let head = bytes_at(file, 0, HEAD)?;
    if head.get(0x8001..0x8006) == Some(b"CD001") {
        return examine_iso(file, length);
    }
    if let Some(what) = named_content(&head) {
        return Err(not_bootable(format!("it is {what}")));
    }
    if let Some(disk) = examine_disk(&head) {
        return Ok(disk);
    }
    Err(not_bootable(if length < SECTOR * (FIRST_DESCRIPTOR + 1) {
        "it is too short to be an ISO or a disk; was the download cut off?"
    } else if head.iter().all(|byte| *byte == 0) {
        "it starts with zeros only"
    } else {
        "it has neither an ISO 9660 volume descriptor nor a partition table"
    }))
}

fn not_bootable(why: impl std::fmt::Display) -> Failure {
    Failure::build(format!("the medium is not bootable: {why}"))
        .hint("check the target's media url; it must name an installer image (.iso)")
}

fn bytes_at(file: &mut (impl Read + Seek), offset: u64, count: usize) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(offset))
        .and_then(|_| file.take(count as u64).read_to_end(&mut bytes))
        .map_err(|error| Failure::build("cannot read the medium").because(error))?;
    Ok(bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let field = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

fn examine_iso(file: &mut (impl Read + Seek), length: u64) -> Outcome<BootMedium> {
    let mut label = None;
    let mut catalogue = None;
    for index in 0..MAX_DESCRIPTORS {
        let sector = bytes_at(file, (FIRST_DESCRIPTOR + index) * SECTOR, SECTOR as usize)?;
        if sector.get(1..6) != Some(b"CD001") {
            break;
        }
        match sector.first() {
            Some(0) if sector.get(7..30) == Some(b"EL TORITO SPECIFICATION") => {
                catalogue = catalogue.or(u32_at(&sector, 71));
            }
            Some(1) if label.is_none() => {
                let size = u64::from(u32_at(&sector, 80).unwrap_or_default()) * SECTOR;
                if size > length {
                    return Err(not_bootable(format!(
                        "it is truncated: its header says {size} bytes, the file has {length}"
                    ))
                    .hint("remove the file and download it again"));
                }
                label = sector.get(40..72).map(readable);
            }
            Some(255) => break,
            _ => {}
        }
    }
    let label = label.filter(|label| !label.is_empty());
    let Some(catalogue) = catalogue else {
        let name = label.map(|label| format!(" \"{label}\"")).unwrap_or_default();
        return Err(not_bootable(format!(
            "it is an ISO 9660 volume{name} without an El Torito boot catalogue"
        )));
    };
    let sector = bytes_at(file, u64::from(catalogue) * SECTOR, SECTOR as usize)?;
    let (bios, uefi) = read_catalogue(&sector, length)?;
    Ok(BootMedium { kind: MediumKind::Iso9660, label, bios, uefi })
}

/// Printable ASCII of a fixed-width field, padding removed.
fn readable(field: &[u8]) -> String {
    let text: String =
        field.iter().filter(|b| (32..127).contains(*b)).map(|b| *b as char).collect();
    text.trim().to_owned()
}

/// Which firmware the boot catalogue serves: (BIOS, UEFI). El Torito 1.0 §2.1 to §2.5.
fn read_catalogue(sector: &[u8], length: u64) -> Outcome<(bool, bool)> {
    let broken = |why: &str| not_bootable(format!("its El Torito boot catalogue {why}"));
    let entry = |index: usize| sector.get(index * 32..index * 32 + 32);
    let validation = entry(0).ok_or_else(|| broken("lies beyond the end of the file"))?;
    let sum = validation
        .chunks_exact(2)
        .fold(0_u16, |sum, word| sum.wrapping_add(u16::from_le_bytes([word[0], word[1]])));
    if validation[0] != 1 || validation[30..] != [0x55, 0xaa] || sum != 0 {
        return Err(broken("is damaged"));
    }
    let (mut bios, mut uefi, mut cut) = (false, false, false);
    let mut platform = validation[1];
    let mut left = 1_u16; // the initial entry
    let mut last_section = false;
    let mut index = 1;
    while let Some(entry) = entry(index) {
        index += 1;
        match entry[0] {
            0x90 | 0x91 if left == 0 && !last_section => {
                platform = entry[1];
                left = u16::from_le_bytes([entry[2], entry[3]]);
                last_section = entry[0] == 0x91;
            }
            0x44 => {} // extension of the entry before
            indicator if left > 0 => {
                left -= 1;
                if indicator != 0x88 {
                    continue;
                }
                let start = u64::from(u32_at(entry, 8).unwrap_or_default()) * SECTOR;
                match (start < length, platform) {
                    (false, _) => cut = true,
                    (true, 0) => bios = true,
                    (true, 0xef) => uefi = true,
                    _ => {}
                }
            }
            _ => break,
        }
    }
    match (bios || uefi, cut) {
        (true, _) => Ok((bios, uefi)),
        (false, true) => Err(broken("points beyond the end of the file: it is truncated")),
        (false, false) => Err(broken("has no entry for BIOS or UEFI on x86")),
    }
}

/// A disk image by its partition table. `head` holds its first sectors.
fn examine_disk(head: &[u8]) -> Option<BootMedium> {
    let mbr = head.get(510..512) == Some(&[0x55, 0xaa]);
    let boot_code = head.get(..440).is_some_and(|code| code.iter().any(|byte| *byte != 0));
    for sector in [512_usize, 4096] {
        if head.get(sector..sector + 8) != Some(b"EFI PART") {
            continue;
        }
        let table = (u32_at(head, sector + 72)? as usize).checked_mul(sector)?;
        let size = (u32_at(head, sector + 84)? as usize).clamp(128, 4096);
        let uefi = (0..128_usize)
            .map_while(|index| head.get(table.checked_add(index * size)?..)?.get(..16))
            .any(|kind| kind == ESP);
        let kind = MediumKind::Gpt;
        return Some(BootMedium { kind, label: None, bios: mbr && boot_code, uefi });
    }
    let kinds: Vec<u8> = (0..4).filter_map(|n| head.get(446 + n * 16 + 4)).copied().collect();
    let partitioned = kinds.iter().any(|kind| *kind != 0);
    let states_valid = (0..4).all(|n| matches!(head.get(446 + n * 16), Some(0 | 0x80)));
    (mbr && partitioned && states_valid).then(|| BootMedium {
        kind: MediumKind::Mbr,
        label: None,
        bios: boot_code,
        uefi: kinds.contains(&0xef),
    })
}

/// Names content that is often found where a medium or a sums file should be.
pub(super) fn named_content(head: &[u8]) -> Option<&'static str> {
    const MAGIC: [(&[u8], &str); 14] = [
        (b"\x1f\x8b", "gzip-compressed data"),
        (b"\xfd7zXZ\0", "xz-compressed data"),
        (b"\x28\xb5\x2f\xfd", "zstd-compressed data"),
        (b"BZh", "bzip2-compressed data"),
        (b"PK\x03\x04", "a zip archive"),
        (b"7z\xbc\xaf\x27\x1c", "a 7-zip archive"),
        (b"QFI\xfb", "a QCOW2 disk"),
        (b"KDMV", "a VMDK disk"),
        (b"conectix", "a VHD disk"),
        (b"vhdxfile", "a VHDX disk"),
        (b"\x7fELF", "an ELF program"),
        (b"!<arch>\n", "an ar archive (.deb)"),
        (b"%PDF-", "a PDF document"),
        (b"d8:announce", "a torrent file"),
    ];
    if head.is_empty() {
        return Some("an empty file");
    }
    if let Some((_, what)) = MAGIC.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Some(what);
    }
    if head.get(257..262) == Some(b"ustar") {
        return Some("a tar archive");
    }
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let starts =
        |word: &[u8]| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    if starts(b"<!doctype html") || starts(b"<html") || starts(b"<head") {
        return Some("a web page (HTML)");
    }
    if starts(b"<?xml") {
        return Some("an XML document");
    }
    None
}

#[cfg(test)]
#[path = "iso_tests.rs"]
mod tests;
