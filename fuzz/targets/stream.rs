// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Send streams. A checksum guards every record, so that random bytes would never come past the
//! first one: the input is a list of edits of a sound stream, which is sealed anew.
#![no_main]

use std::io::Cursor;

use imgforge::export::{Chunk, Source, StreamOptions, VolumeStream, read_stream};
use libfuzzer_sys::fuzz_target;

const RECORD: usize = 312;
const SUM: usize = 280;
const WRITE: u8 = 3;
const END: u8 = 5;

struct Disk(Vec<Chunk>);

impl Source for Disk {
    fn name(&self) -> String {
        "disk".into()
    }

    fn total(&self) -> Option<u64> {
        Some(40_000)
    }

    fn next(&mut self, _: Vec<u8>) -> imgforge::ui::Outcome<Option<Chunk>> {
        Ok(self.0.pop())
    }
}

fn sound() -> Vec<u8> {
    let mut disk = Disk(vec![Chunk::Data(vec![7; 10_000]), Chunk::Zeros(30_000)]);
    let options = StreamOptions { epoch: Some(1), volblocksize: 512, ..StreamOptions::default() };
    let mut stream = VolumeStream::new(&mut disk, &options).expect("sound options");
    let mut bytes = Vec::new();
    while let Some(Chunk::Data(data)) = stream.next(Vec::new()).expect("a disk in memory") {
        bytes.extend(data);
    }
    bytes
}

fn sum(state: &mut [u64; 4], bytes: &[u8]) {
    for word in bytes.chunks_exact(4) {
        let mut term = u64::from(u32::from_le_bytes(word.try_into().expect("four bytes")));
        for each in state.iter_mut() {
            *each = each.wrapping_add(term);
            term = *each;
        }
    }
}

fn bytes(state: &[u64; 4]) -> Vec<u8> {
    state.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Each edit: number of the record, place in it and its payload (two bytes), new value.
fn edited(edits: &[u8]) -> Vec<u8> {
    let stream = sound();
    let (mut at, mut number, mut out, mut state) = (0, 0u8, Vec::new(), [0; 4]);
    while at < stream.len() {
        let payload = if stream[at] == WRITE { 512 } else { 0 };
        let mut piece = stream[at..at + RECORD + payload].to_vec();
        at += piece.len();
        for edit in edits.chunks_exact(4).filter(|edit| edit[0] % 32 == number) {
            let place = usize::from(u16::from_le_bytes([edit[1], edit[2]])) % piece.len();
            piece[place] = edit[3];
        }
        let is_begin = number == 0;
        number += 1;
        if piece[0] == END {
            piece[8..40].copy_from_slice(&bytes(&state));
        }
        sum(&mut state, &piece[..SUM]);
        if !is_begin {
            piece[SUM..RECORD].copy_from_slice(&bytes(&state));
        }
        sum(&mut state, &piece[SUM..]);
        out.extend(piece);
    }
    out
}

fuzz_target!(|edits: &[u8]| {
    let stream = edited(edits);
    if let Ok(mut reader) = read_stream(Box::new(Cursor::new(stream)), "fuzz") {
        let _ = reader.verify();
    }
});
