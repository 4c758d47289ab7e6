// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The volume's properties: a microzap whose entry `size` is the volume's size.

use super::record::PROPERTIES_BLOCK;

/// First word of a microzap, and of a fat ZAP.
const MICRO: u64 = 0x8000_0000_0000_0003;
const FAT: u64 = 0x8000_0000_0000_0001;
const ENTRY: usize = 64;
const SIZE: &[u8] = b"size\0";

/// The block that says the volume's size. `salt` seeds a hash and must not be 0.
pub(super) fn block(size: u64, salt: u64) -> Vec<u8> {
    let mut block = vec![0; PROPERTIES_BLOCK as usize];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = block.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(0, &MICRO.to_le_bytes());
    put(8, &(salt | 1).to_le_bytes());
    put(ENTRY, &size.to_le_bytes());
    put(ENTRY + 14, SIZE);
    block
}

/// The size that a block of properties says; `Err` says what is wrong with it.
pub(super) fn size(block: &[u8]) -> Result<Option<u64>, &'static str> {
    let (entries, _) = block.as_chunks::<ENTRY>();
    let Some((header, entries)) = entries.split_first() else {
        return Err("the volume's properties are cut short");
    };
    match word(header) {
        MICRO => {}
        FAT => return Err("the volume's properties are a fat ZAP, which is not supported"),
        _ => return Err("the volume's properties are no ZAP"),
    }
    let is_size = |entry: &&[u8; ENTRY]| entry.get(14..).is_some_and(|name| name.starts_with(SIZE));
    Ok(entries.iter().find(is_size).map(word))
}

fn word(entry: &[u8; ENTRY]) -> u64 {
    entry.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(size(&block(10 << 30, 0)), Ok(Some(10 << 30)));
        assert_eq!(&block(1, 0)[8..16], &1u64.to_le_bytes(), "the salt is never 0");
    }

    #[test]
    fn other_entries_come_before() {
        let mut block = block(5 << 20, 77);
        block.copy_within(64..128, 192);
        block[64..78].fill(9);
        block[78..87].copy_from_slice(b"dumpsize\0");
        assert_eq!(size(&block), Ok(Some(5 << 20)));
    }

    #[test]
    fn what_is_no_microzap_is_refused() {
        assert!(size(&[]).is_err());
        assert!(size(&[0; 512]).unwrap_err().contains("no ZAP"));
        let mut fat = block(1, 1);
        fat[0] = 1;
        assert!(size(&fat).unwrap_err().contains("fat"));
        let mut nameless = block(1, 1);
        nameless[64 + 14] = b'S';
        assert_eq!(size(&nameless), Ok(None));
    }
}
