// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! How large a disk must be for its partition table, MBR or GPT (UEFI specification, section 5).

use crate::ui::Outcome;

const SECTOR: u64 = 512;
/// Type of the MBR's entry that stands for a GPT.
const PROTECTIVE: u8 = 0xee;

/// The bytes that the partition table of a disk of `size` bytes needs, when those are more; `None`
/// when all is well or there is no table. `read` gives the sector at an offset.
pub(super) fn needed(
    size: u64,
    read: impl Fn(u64) -> Outcome<[u8; SECTOR as usize]>,
) -> Outcome<Option<u64>> {
    if size < SECTOR {
        return Ok(None);
    }
    let mbr = read(0)?;
    if mbr[510..] != [0x55, 0xaa] {
        return Ok(None);
    }
    let entries: Vec<&[u8]> = mbr[446..510].chunks(16).collect();
    let end = if entries.iter().any(|entry| entry.get(4) == Some(&PROTECTIVE)) {
        if size < 2 * SECTOR { 2 } else { gpt_end(&read(SECTOR)?) }
    } else {
        entries.iter().map(|entry| mbr_end(entry)).max().unwrap_or(0)
    };
    Ok(end.checked_mul(SECTOR).filter(|needed| *needed > size))
}

/// The sector after the backup header, 0 without a GPT.
fn gpt_end(header: &[u8; SECTOR as usize]) -> u64 {
    let backup = header[32..40].try_into().map_or(0, u64::from_le_bytes);
    if header.starts_with(b"EFI PART") { backup.saturating_add(1) } else { 0 }
}

/// The sector after a partition, 0 when the entry is empty or no entry: the first sector of a
/// file system looks alike.
fn mbr_end(entry: &[u8]) -> u64 {
    let word = |at: usize| {
        let bytes = entry.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        u64::from(bytes.map_or(0, u32::from_le_bytes))
    };
    let is_entry = matches!(entry.first(), Some(0 | 0x80)) && entry.get(4).is_some_and(|k| *k != 0);
    if is_entry { word(8) + word(12) } else { 0 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn look(disk: &[u8]) -> Option<u64> {
        let read = |at: u64| {
            let at = usize::try_from(at).unwrap();
            Ok(disk[at..at + 512].try_into().unwrap())
        };
        needed(disk.len() as u64, read).unwrap()
    }

    fn mbr(kind: u8, first: u32, sectors: u32) -> Vec<u8> {
        let mut disk = vec![0; 64 << 10];
        disk[450] = kind;
        disk[454..458].copy_from_slice(&first.to_le_bytes());
        disk[458..462].copy_from_slice(&sectors.to_le_bytes());
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk
    }

    #[test]
    fn a_cut_disk_is_found() {
        assert_eq!(look(&vec![0; 64 << 10]), None);
        assert_eq!(look(&mbr(0x83, 1, 127)), None);
        assert_eq!(look(&mbr(0x83, 1, 128)), Some(129 * 512));
        let mut gpt = mbr(PROTECTIVE, 1, u32::MAX);
        assert_eq!(look(&gpt), None, "no header");
        gpt[512..520].copy_from_slice(b"EFI PART");
        gpt[544] = 127;
        assert_eq!(look(&gpt), None);
        gpt[544] = 128;
        assert_eq!(look(&gpt), Some(129 * 512));
        assert_eq!(look(&gpt[..512]), Some(1024));
    }

    proptest! {
        #[test]
        fn any_first_sectors_do(bytes in proptest::collection::vec(any::<u8>(), 1024)) {
            let mut bytes = bytes;
            look(&bytes);
            bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
            look(&bytes);
            bytes[450] = PROTECTIVE;
            bytes[512..520].copy_from_slice(b"EFI PART");
            look(&bytes);
        }
    }
}
