// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! An empty store of UEFI variables, as edk2's build makes one: all erased but for three headers.

use super::volume::VARIABLES;

/// Erased flash.
const ERASED: u8 = 0xff;
const BLOCK: usize = 4096;
/// GUID of a store of authenticated variables.
const STORE: [u8; 16] = *b"\x78\x2c\xf3\xaa\x7b\x94\x9a\x43\xa1\x80\x2e\x14\x4e\xc3\x77\x92";
/// GUID of the working block of fault-tolerant writes, and the CRC of its empty header.
const WORKING: [u8; 20] =
    *b"\x2b\x29\x58\x9e\x68\x7c\x7d\x49\xa0\xce\x65\x00\xfd\x9f\x1b\x95\x2c\xaf\x2c\x64";
/// Bytes of the volume's header; the store begins after it.
const HEADER: usize = 72;

/// The store that belongs to code of that size: 128 KiB in 2 MiB of flash, 528 KiB in 4 MiB. None
/// for other sizes.
pub(super) fn empty_for(code: usize) -> Option<Vec<u8>> {
    const KIB: usize = 1024;
    match code {
        0x1e_0000 => Some(empty(128 * KIB, 56 * KIB)),
        0x37_c000 => Some(empty(528 * KIB, 256 * KIB)),
        _ => None,
    }
}

/// A store of `total` bytes of which `live` are for variables; an event log of a block, a working
/// block and a spare area follow.
fn empty(total: usize, live: usize) -> Vec<u8> {
    let mut header = vec![0; 16];
    header.extend_from_slice(&VARIABLES);
    header.extend_from_slice(&(total as u64).to_le_bytes());
    header.extend_from_slice(b"_FVH\xff\xfe\x04\x00");
    header.extend_from_slice(&(HEADER as u16).to_le_bytes());
    // The checksum, no extension, reserved, revision 2.
    header.extend_from_slice(&[0, 0, 0, 0, 0, 2]);
    header.extend_from_slice(&((total / BLOCK) as u32).to_le_bytes());
    header.extend_from_slice(&(BLOCK as u32).to_le_bytes());
    header.resize(HEADER, 0);
    let words = header.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let sum = words.fold(0_u16, u16::wrapping_sub);
    header[50..52].copy_from_slice(&sum.to_le_bytes());

    header.extend_from_slice(&STORE);
    header.extend_from_slice(&((live - HEADER) as u32).to_le_bytes());
    // Formatted, healthy.
    header.extend_from_slice(&[0x5a, 0xfe, 0, 0, 0, 0, 0, 0]);

    let mut working = WORKING.to_vec();
    // Valid, not invalid; the length of the queue that follows.
    working.extend_from_slice(&[0xfe, 0xff, 0xff, 0xff]);
    working.extend_from_slice(&((BLOCK - 32) as u64).to_le_bytes());

    let mut store = header;
    store.resize(live + BLOCK, ERASED);
    store.extend_from_slice(&working);
    store.resize(total, ERASED);
    store
}
