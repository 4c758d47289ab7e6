// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The flash chip that holds UEFI variables: byte-wide, with Intel's basic command set (Intel
//! 28F008SA data sheet, 1992), of which edk2 uses a part.
//!
//! The guest's memory map leaves a hole where the chip is, so that every access comes here; but
//! where the hypervisor can, the guest reads the bytes by itself while nothing else is to be read.

use std::ops::Range;

use crate::vm::bus::BusDevice;

/// Bytes that are erased at once.
const BLOCK: usize = 4096;
const ERASED: u8 = 0xff;

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

/// What shows bytes to the guest: these, from this offset on, with what was shown before; or none
/// of them, so that reads come here.
pub type Window = Box<dyn FnMut(Option<(usize, &[u8])>) + Send>;

/// A chip. Put it right below the firmware's code; it takes as many bytes as it holds.
pub struct Flash {
    bytes: Vec<u8>,
    mode: Mode,
    status: u8,
    /// What was changed since it was last shown and saved.
    changed: Range<usize>,
    on_save: Option<OnSave>,
    window: Option<Window>,
    is_shown: bool,
}

impl Flash {
    /// A chip that holds these bytes.
    pub fn new(vars: Vec<u8>) -> Self {
        Self {
            bytes: vars,
            mode: Mode::Array,
            status: 0,
            changed: 0..0,
            on_save: None,
            window: None,
            is_shown: false,
        }
    }

    /// Sets what shows the bytes to the guest, and shows them.
    pub fn set_window(&mut self, mut window: Window) {
        let is_array = self.mode == Mode::Array;
        window(is_array.then_some((0, &self.bytes)));
        self.is_shown = is_array;
        self.window = Some(window);
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

    /// Shows the bytes while they are what is to be read, and saves them before.
    fn settle(&mut self) {
        let is_array = self.mode == Mode::Array;
        if is_array
            && !self.changed.is_empty()
            && let Some(save) = &mut self.on_save
        {
            save(&self.bytes);
        }
        if let Some(window) = &mut self.window
            && is_array != self.is_shown
        {
            let news = self.bytes.get(self.changed.clone()).unwrap_or_default();
            window(is_array.then_some((self.changed.start, news)));
            self.is_shown = is_array;
        }
        if is_array {
            self.changed = 0..0;
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
            // READ_ARRAY; unknown ones do nothing.
            _ => Mode::Array,
        };
    }

    /// Any value replaces any other: bhyve's chip needs no erase, and its firmware relies on that.
    fn program(&mut self, offset: usize, data: &[u8]) {
        for (cell, byte) in self.bytes.iter_mut().skip(offset).zip(data) {
            *cell = *byte;
        }
        self.finish(offset..offset.saturating_add(data.len()));
    }

    fn erase(&mut self, offset: usize) {
        let start = offset / BLOCK * BLOCK;
        if let Some(block) = self.bytes.chunks_mut(BLOCK).nth(offset / BLOCK) {
            block.fill(ERASED);
        }
        self.finish(start..start.saturating_add(BLOCK));
    }

    fn finish(&mut self, changed: Range<usize>) {
        let end = changed.end.min(self.bytes.len());
        let start = changed.start.min(end);
        self.changed = match self.changed.is_empty() {
            true => start..end,
            false => self.changed.start.min(start)..self.changed.end.max(end),
        };
        self.status |= READY;
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
        self.settle();
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

    const READ_ARRAY: u8 = 0xff;

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
    fn the_guest_sees_in_its_window_what_it_would_read() {
        let (mut flash, saved) = chip(vec![7; 2 * BLOCK]);
        let seen = Arc::new(Mutex::new((vec![0; 2 * BLOCK], false, 0)));
        let shown = Arc::clone(&seen);
        flash.set_window(Box::new(move |news| {
            let (bytes, is_shown, calls) = &mut *shown.lock().unwrap();
            *is_shown = news.is_some();
            *calls += 1;
            if let Some((at, news)) = news {
                bytes[at..at + news.len()].copy_from_slice(news);
            }
        }));
        assert_eq!(*seen.lock().unwrap(), (vec![7; 2 * BLOCK], true, 1));
        for (offset, byte) in (BLOCK as u64 - 2..).zip(*b"Boot") {
            outb(&mut flash, offset, PROGRAM);
            outb(&mut flash, offset, byte);
            assert!(!seen.lock().unwrap().1, "the status is to be read");
        }
        outb(&mut flash, 0, READ_ARRAY);
        outb(&mut flash, 0, CLEAR_STATUS);
        let (bytes, is_shown, calls) = seen.lock().unwrap().clone();
        assert!(bytes == flash.contents() && is_shown && calls == 3);
        assert_eq!(saved.lock().unwrap().len(), 1);
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
