// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A virtqueue: virtio 1.2, section 2.7.

use std::sync::atomic::{Ordering, fence};

use crate::abi::{u32_at, u64_at};
use crate::memory::Space;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const NO_INTERRUPT: u16 = 1;
/// Longest chain that is followed.
const LONGEST: usize = 1024;

/// Where the queue is, and how far it is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Queue {
    size: u16,
    descriptors: u64,
    available: u64,
    used: u64,
    taken: u16,
    given: u16,
}

/// A piece of guest memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    at: u64,
    len: u32,
    is_writable: bool,
}

/// Pieces that belong together.
pub(super) struct Chain {
    head: u16,
    pieces: Vec<Piece>,
}

impl Chain {
    /// Bytes that the device may write.
    pub(super) fn room(&self) -> usize {
        self.pieces.iter().filter(|piece| piece.is_writable).map(|piece| piece.len as usize).sum()
    }

    /// What the driver has written.
    pub(super) fn read(&self, space: &Space) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in self.pieces.iter().filter(|piece| !piece.is_writable) {
            let start = bytes.len();
            // No frame is larger, whatever the driver says.
            bytes.resize(start + (piece.len as usize).min(1 << 17), 0);
            space.read(piece.at, &mut bytes[start..]);
        }
        bytes
    }

    /// Writes as much as there is room for; how much that was.
    pub(super) fn write(&self, space: &Space, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        for piece in self.pieces.iter().filter(|piece| piece.is_writable) {
            let (now, later) = rest.split_at(rest.len().min(piece.len as usize));
            space.write(piece.at, now);
            rest = later;
        }
        bytes.len() - rest.len()
    }
}

fn half(space: &Space, at: u64) -> u16 {
    let mut bytes = [0; 2];
    space.read(at, &mut bytes);
    u16::from_le_bytes(bytes)
}

impl Queue {
    pub(super) fn new(size: u16, descriptors: u64, available: u64, used: u64) -> Self {
        Self { size, descriptors, available, used, taken: 0, given: 0 }
    }

    /// The next chain that the driver offers.
    pub(super) fn take(&mut self, space: &Space) -> Option<Chain> {
        if self.size == 0 || half(space, self.available + 2) == self.taken {
            return None;
        }
        fence(Ordering::Acquire);
        let slot = u64::from(self.taken % self.size);
        let head = half(space, self.available + 4 + 2 * slot);
        self.taken = self.taken.wrapping_add(1);
        Some(Chain { head, pieces: self.follow(space, head) })
    }

    /// Takes back chains that were not used.
    pub(super) fn untake(&mut self, count: u16) {
        self.taken = self.taken.wrapping_sub(count);
    }

    fn follow(&self, space: &Space, head: u16) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut table = (self.descriptors, self.size);
        let mut index = head;
        while pieces.len() < LONGEST && index < table.1 {
            let mut bytes = [0; 16];
            space.read(table.0 + 16 * u64::from(index), &mut bytes);
            let (at, len) = (u64_at(&bytes, 0), u32_at(&bytes, 8));
            let (flags, next) = (u32_at(&bytes, 12) as u16, (u32_at(&bytes, 12) >> 16) as u16);
            if flags & INDIRECT != 0 && table.0 == self.descriptors {
                table = (at, (len / 16).min(LONGEST as u32) as u16);
                index = 0;
                continue;
            }
            pieces.push(Piece { at, len, is_writable: flags & WRITE != 0 });
            if flags & NEXT == 0 {
                break;
            }
            index = next;
        }
        pieces
    }

    /// Gives chains back, all at once.
    pub(super) fn give(&mut self, space: &Space, chains: &[(Chain, usize)]) {
        for (chain, written) in chains {
            let slot = u64::from(self.given % self.size);
            let mut entry = [0; 8];
            entry[..2].copy_from_slice(&chain.head.to_le_bytes());
            entry[4..].copy_from_slice(&(*written as u32).to_le_bytes());
            space.write(self.used + 4 + 8 * slot, &entry);
            self.given = self.given.wrapping_add(1);
        }
        fence(Ordering::Release);
        space.write(self.used + 2, &self.given.to_le_bytes());
        fence(Ordering::SeqCst);
    }

    /// Whether the driver wants interrupts.
    pub(super) fn wants_interrupt(&self, space: &Space) -> bool {
        half(space, self.available) & NO_INTERRUPT == 0
    }
}
