// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `etc/e820`: RAM as OVMF wants to be told of it.

use crate::vm::memory;

/// The fw_cfg file's name.
pub const FILE: &str = "etc/e820";

/// Type of an entry: RAM.
const RAM: u32 = 1;

/// The file's content for a guest with that much memory: one packed entry {base, bytes, type} for
/// each range of [`memory::layout`].
///
/// The hole below 1 MiB is not taken out: OVMF takes the end of the first entry for the end of low
/// memory and knows the hole by itself.
pub fn table(memory_bytes: u64) -> Vec<u8> {
    let mut file = Vec::new();
    for (start, bytes) in memory::layout(memory_bytes) {
        file.extend_from_slice(&start.to_le_bytes());
        file.extend_from_slice(&bytes.to_le_bytes());
        file.extend_from_slice(&RAM.to_le_bytes());
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_packed() {
        let small = table(512 << 20);
        assert_eq!(small.len(), 20);
        assert_eq!(&small[8..], [0, 0, 0, 0x20, 0, 0, 0, 0, 1, 0, 0, 0]);
        let large = table(5 << 30);
        assert_eq!(&large[..20], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc0, 0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(&large[20..], [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 1, 0, 0, 0]);
    }
}
