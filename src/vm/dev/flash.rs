// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The flash chip that holds UEFI variables: byte-wide, with Intel's basic command set (Intel
//! 28F008SA data sheet, 1992), of which edk2 uses a part.
//!
//! The guest's memory map leaves a hole where the chip is, so that every access comes here.

use crate::vm::bus::BusDevice;

/// Bytes that are erased at once.
const BLOCK: usize = 4096;
const ERASED: u8 = 0xff;

const READ_ARRAY: u8 = 0xff;
const READ_STATUS: u8 = 0x70;
const CLEAR_STATUS: u8 = 0x50;
const READ_ID: u8 = 0x90;
const PROGRAM: u8 = 0x40;
const PROGRAM_TOO: u8 = 0x10;
const ERASE: u8 = 0x20;
const CONFIRM: u8 = 0xd0;

const READY: u8 = 1 << 7;
/// An erase was not confirmed: the sequence was wrong.
const SEQUENCE_ERROR: u8 = 1 << 4 | 1 << 5;

/// Manufacturer Intel, 28F008SA.
const ID: [u8; 2] = [0x89, 0xa2];

/// What the next access means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Array,
    Status,
    Id,
    /// The next write is data.
    Program,
    /// The next write confirms.
    Erase,
}

/// What is given all bytes of the chip.
pub type OnSave = Box<dyn FnMut(&[u8]) + Send>;

/// A chip. Put it right below the firmware's code; it takes as many bytes as it holds.
pub struct Flash {
    bytes: Vec<u8>,
    mode: Mode,
    status: u8,
    is_changed: bool,
    on_save: Option<OnSave>,
}

impl Flash {
    /// A chip that holds these bytes.
    pub fn new(vars: Vec<u8>) -> Self {
        Self { bytes: vars, mode: Mode::Array, status: 0, is_changed: false, on_save: None }
    }

    /// Sets what is given all bytes when a sequence of changes is complete, that is when the guest
    /// returns to reading. A vCPU waits for it meanwhile. Changes after the last call are in
    /// [`Flash::contents`] only: keep those when the machine ends.
    pub fn on_save(&mut self, save: OnSave) {
        self.on_save = Some(save);
    }

    /// The bytes.
    pub fn contents(&self) -> &[u8] {
        &self.bytes
    }

    fn save(&mut self) {
        if std::mem::take(&mut self.is_changed)
            && let Some(save) = &mut self.on_save
        {
            save(&self.bytes);
        }
    }

    fn command(&mut self, command: u8) {
        self.mode = match command {
            READ_STATUS => Mode::Status,
            READ_ID => Mode::Id,
            PROGRAM | PROGRAM_TOO => Mode::Program,
            ERASE => Mode::Erase,
            CLEAR_STATUS => {
                self.status = 0;
                Mode::Array
            }
            READ_ARRAY => {
                self.save();
                Mode::Array
            }
            // Unknown ones do nothing.
            _ => Mode::Array,
        };
    }

    /// Any value replaces any other: bhyve's chip needs no erase, and its firmware relies on that.
    fn program(&mut self, offset: usize, data: &[u8]) {
        for (cell, byte) in self.bytes.iter_mut().skip(offset).zip(data) {
            *cell = *byte;
        }
        self.finish(READY);
    }

    fn erase(&mut self, offset: usize) {
        if let Some(block) = self.bytes.chunks_mut(BLOCK).nth(offset / BLOCK) {
            block.fill(ERASED);
        }
        self.finish(READY);
    }

    fn finish(&mut self, status: u8) {
        self.status |= status;
        self.is_changed = true;
        self.mode = Mode::Status;
    }
}

impl BusDevice for Flash {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        match self.mode {
            Mode::Array => {
                for (byte, cell) in data.iter_mut().zip(self.bytes.iter().skip(start)) {
                    *byte = *cell;
                }
            }
            Mode::Id => {
                for (byte, at) in data.iter_mut().zip(start..) {
                    *byte = ID.get(at % BLOCK).copied().unwrap_or(0);
                }
            }
            Mode::Status | Mode::Program | Mode::Erase => data.fill(self.status),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let Some(&command) = data.first() else { return };
        match self.mode {
            Mode::Program => self.program(start, data),
            Mode::Erase if command == CONFIRM => self.erase(start),
            Mode::Erase => {
                self.status |= READY | SEQUENCE_ERROR;
                self.mode = Mode::Status;
            }
            Mode::Array | Mode::Status | Mode::Id => self.command(command),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;

    use super::super::clock::FakeClock;
    use super::super::mock::{acts, inb, outb, read};
    use super::*;

    type Saved = Arc<Mutex<Vec<Vec<u8>>>>;

    fn chip(bytes: Vec<u8>) -> (Flash, Saved) {
        let mut flash = Flash::new(bytes);
        let saved = Saved::default();
        let saves = Arc::clone(&saved);
        flash.on_save(Box::new(move |bytes| saves.lock().unwrap().push(bytes.to_vec())));
        (flash, saved)
    }

    #[test]
    fn edk2_finds_flash() {
        let (mut flash, saved) = chip(vec![0x8d; 2 * BLOCK]);
        let original = inb(&mut flash, 0);
        outb(&mut flash, 0, CLEAR_STATUS);
        assert_eq!(inb(&mut flash, 0), original);
        outb(&mut flash, 0, READ_STATUS);
        assert_eq!(inb(&mut flash, 0), 0);
        outb(&mut flash, 0, READ_ARRAY);
        assert_eq!(inb(&mut flash, 0), original);
        assert!(saved.lock().unwrap().is_empty());
    }

    #[test]
    fn edk2_programs_and_erases() {
        let (mut flash, saved) = chip(vec![0; 3 * BLOCK]);
        for (offset, byte) in (BLOCK as u64..).zip(*b"Boot\xff\x50") {
            outb(&mut flash, offset, PROGRAM_TOO);
            outb(&mut flash, offset, byte);
        }
        assert_eq!(inb(&mut flash, 0), READY);
        assert!(saved.lock().unwrap().is_empty());
        outb(&mut flash, BLOCK as u64 + 5, READ_ARRAY);
        assert_eq!(read(&mut flash, BLOCK as u64), *b"Boot\xff\x50\0\0");
        assert_eq!(saved.lock().unwrap().len(), 1);
        outb(&mut flash, 2 * BLOCK as u64 - 1, ERASE);
        outb(&mut flash, 2 * BLOCK as u64 - 1, CONFIRM);
        outb(&mut flash, 0, READ_ARRAY);
        let mut expected = vec![0; 3 * BLOCK];
        expected[BLOCK..2 * BLOCK].fill(0xff);
        assert_eq!(flash.contents(), expected);
        assert_eq!(*saved.lock().unwrap().last().unwrap(), expected);
    }

    #[test]
    fn wrong_sequences_change_nothing() {
        let (mut flash, saved) = chip(vec![7; BLOCK]);
        outb(&mut flash, 0, ERASE);
        outb(&mut flash, 0, 0);
        assert_eq!(inb(&mut flash, 0), READY | SEQUENCE_ERROR);
        outb(&mut flash, 0, CLEAR_STATUS);
        outb(&mut flash, 0, READ_ID);
        assert_eq!(read(&mut flash, 0), [0x89, 0xa2, 0, 0]);
        outb(&mut flash, 0, 0xe8);
        outb(&mut flash, 0, READ_ARRAY);
        assert_eq!(read(&mut flash, BLOCK as u64 - 2), [7, 7, 0xff, 0xff]);
        assert!(saved.lock().unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn nothing_breaks_it(acts in acts(2 * BLOCK as u64)) {
            let (mut flash, _) = chip(vec![0x5a; 2 * BLOCK]);
            for act in acts {
                act.apply(&mut flash, &FakeClock::at(0));
                prop_assert_eq!(flash.contents().len(), 2 * BLOCK);
            }
        }
    }
}
