// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;

use super::super::clock::FakeClock;
use super::super::mock::{Asked, Line, acts, inb, outb};
use super::*;

struct Desk {
    controller: I8042,
    clock: Arc<FakeClock>,
    line: Arc<Line>,
    asked: Arc<Asked>,
}

impl Desk {
    fn new() -> Self {
        let (clock, line, asked) = (FakeClock::at(0), Line::new(), Asked::new());
        let controller = I8042::new(Arc::clone(&clock) as _, Arc::clone(&line) as _, {
            Arc::clone(&asked) as _
        });
        Self { controller, clock, line, asked }
    }

    /// A desk whose guest waits for keys.
    fn typing() -> Self {
        let mut desk = Self::new();
        assert_eq!(desk.keyboard(0xf4), [0xfa]);
        desk.line.edges();
        desk
    }

    fn status(&mut self) -> u8 {
        inb(&mut self.controller, COMMAND)
    }

    fn command(&mut self, command: u8) {
        outb(&mut self.controller, COMMAND, command);
    }

    fn drain(&mut self) -> Vec<u8> {
        let mut read = Vec::new();
        while self.status() & STATUS_FULL != 0 {
            read.push(inb(&mut self.controller, DATA));
        }
        read
    }

    fn ask(&mut self, command: u8) -> Vec<u8> {
        self.command(command);
        self.drain()
    }

    fn keyboard(&mut self, byte: u8) -> Vec<u8> {
        outb(&mut self.controller, DATA, byte);
        self.drain()
    }

    fn set_config(&mut self, config: u8) {
        self.command(0x60);
        outb(&mut self.controller, DATA, config);
    }

    /// Reads all that was typed, at the pace at which it comes.
    fn typed(&mut self) -> Vec<u8> {
        let mut read = self.drain();
        while let Some(deadline) = self.controller.next_deadline() {
            self.clock.advance(deadline.saturating_sub(self.clock.now()));
            self.controller.tick();
            let batch = self.drain();
            assert_eq!(batch.len(), 1);
            read.extend(batch);
        }
        read
    }

    fn press(&mut self, keysym: u32) -> Vec<u8> {
        self.controller.key(keysym, true);
        self.controller.key(keysym, false);
        self.typed()
    }
}

#[test]
fn edk2_starts_it() {
    let mut desk = Desk::new();
    assert_eq!(desk.status(), 0x10);
    assert_eq!(desk.ask(0x20), [0x61]);
    desk.command(0xad);
    desk.command(0xa7);
    assert_eq!(desk.status(), 0x18);
    assert_eq!(desk.ask(0xaa), [0x55]);
    assert_eq!(desk.status() & STATUS_SYSTEM, STATUS_SYSTEM);
    desk.set_config(0x67);
    assert_eq!(desk.ask(0x20), [0x67]);
    assert_eq!(desk.keyboard(0xf4), [0xfa]);
    assert_eq!(desk.ask(0xab), [0x00]);
    assert_eq!(desk.keyboard(0xff), [0xfa, 0xaa]);
    assert_eq!(desk.keyboard(0xf0), [0xfa]);
    assert_eq!(desk.keyboard(0x02), [0xfa]);
    assert_eq!(desk.keyboard(0xf4), [0xfa]);
    assert_eq!(desk.keyboard(0xed), [0xfa]);
    assert_eq!(desk.keyboard(0x00), [0xfa]);
    assert_eq!(desk.status() & 0xe0, 0);
}

#[test]
fn linux_takes_over_and_keeps_what_was_typed() {
    let mut desk = Desk::typing();
    desk.set_config(0x67);
    for _ in 0..10 {
        desk.controller.key(u32::from(b'a'), true);
    }
    // It flushes: that ends, for the wire is slow.
    assert_eq!(desk.drain(), [0x1e]);
    // Reads the configuration twice, disables interface and interrupt.
    assert_eq!((desk.ask(0x20), desk.ask(0x20)), (vec![0x67], vec![0x67]));
    desk.set_config(0x76);
    desk.clock.advance(Duration::from_secs(1));
    desk.controller.tick();
    assert_eq!((desk.drain(), desk.controller.next_deadline()), (vec![], None));
    // No mouse: an error of its interface, no byte as if it came from it, no answer.
    assert_eq!(desk.ask(0xa9), [0x01]);
    desk.command(0xd3);
    assert_eq!(desk.keyboard(0x5a), [0x5a]);
    desk.command(0xd4);
    assert!(desk.keyboard(0xf2).is_empty());
    desk.set_config(0x47);
    assert_eq!(desk.ask(0x20), [0x67, 0x1e]);
    // It asks for the identity with keys still there: the answer comes first.
    assert_eq!(desk.keyboard(0xf5), [0xfa]);
    assert_eq!(desk.keyboard(0xf2), [0xfa, 0xab, 0x41]);
    assert_eq!(desk.keyboard(0xf4)[0], 0xfa);
    assert!(desk.typed().iter().all(|code| *code == 0x1e));
}

#[test]
fn each_key_has_its_edge() {
    let mut desk = Desk::typing();
    desk.controller.key(u32::from(b'b'), true);
    desk.controller.key(u32::from(b'B'), false);
    assert_eq!((desk.line.edges(), desk.line.is_high()), (1, true));
    assert_eq!(desk.drain(), [0x30]);
    assert!(!desk.line.is_high());
    assert_eq!(desk.controller.next_deadline(), Some(PACE));
    desk.controller.tick();
    assert_eq!((desk.line.edges(), desk.status() & STATUS_FULL), (0, 0));
    desk.clock.advance(PACE);
    desk.controller.tick();
    assert_eq!((desk.line.edges(), desk.drain()), (1, vec![0xb0]));
    // An unread key gives way to an answer and comes back.
    desk.clock.advance(PACE);
    desk.controller.key(u32::from(b'c'), true);
    assert_eq!(desk.line.edges(), 1);
    assert_eq!(desk.ask(0x20), [0x61, 0x2e]);
    assert_eq!(desk.line.edges(), 2);
    // Without interrupts the line stays low.
    desk.set_config(0x60);
    assert_eq!(desk.press(u32::from(b'd')), [0x20, 0xa0]);
    assert_eq!(desk.line.edges(), 0);
}

#[test]
fn special_keys_send_what_the_standard_says() {
    let mut desk = Desk::typing();
    assert_eq!(desk.press(0xff52), [0xe0, 0x48, 0xe0, 0xc8]);
    assert_eq!(desk.press(0xff61), [0xe0, 0x2a, 0xe0, 0x37, 0xe0, 0xb7, 0xe0, 0xaa]);
    assert_eq!(desk.press(0xff13), [0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5]);
    assert_eq!(desk.press(0xff6b), [0xe0, 0x46, 0xe0, 0xc6]);
    assert_eq!(desk.press(0xffc4), [0x41, 0xc1]);
    assert!(desk.press(0x0100_20ac).is_empty());
    // Set 2 as the keyboard sends it.
    desk.set_config(0x21);
    assert_eq!(desk.press(0xff52), [0xe0, 0x75, 0xe0, 0xf0, 0x75]);
    assert_eq!(desk.keyboard(0xf2), [0xfa, 0xab, 0x83]);
}

#[test]
fn keys_wait_until_the_guest_enables_them_and_wake_the_board() {
    let mut desk = Desk::new();
    let woken = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&woken);
    desk.controller.on_wake(Box::new(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    }));
    desk.controller.key(0xff0d, true);
    desk.controller.key(0xff0d, false);
    assert_eq!((desk.typed(), woken.load(Ordering::Relaxed)), (vec![], 0));
    outb(&mut desk.controller, DATA, 0xf4);
    // The first key follows the answer at once; then there is a deadline.
    assert_eq!(desk.drain(), [0xfa, 0x1c]);
    assert_eq!(woken.load(Ordering::Relaxed), 1);
    assert_eq!(desk.typed(), [0x9c]);
}

#[test]
fn the_guest_resets_the_machine() {
    let mut desk = Desk::new();
    assert_eq!(desk.ask(0xd0), [0xc3]);
    desk.command(0xd1);
    outb(&mut desk.controller, DATA, 0xdf);
    assert_eq!(desk.ask(0xd0), [0xcf]);
    assert_eq!(desk.ask(0xc0), [0x80]);
    desk.command(0xff);
    assert_eq!(desk.asked.take(), []);
    desk.command(0xfe);
    desk.command(0xd1);
    outb(&mut desk.controller, DATA, 0xde);
    assert_eq!(desk.asked.take(), [Request::Reset, Request::Reset]);
    // RAM of the controller.
    desk.command(0x7f);
    outb(&mut desk.controller, DATA, 0x12);
    assert_eq!(desk.ask(0x3f), [0x12]);
}

proptest! {
    #[test]
    fn nothing_breaks_it(acts in acts(PORTS), keys in prop::collection::vec(0..0x1_0000_u32, 20)) {
        let mut desk = Desk::new();
        let mut keys = keys.into_iter();
        for act in acts {
            act.apply(&mut desk.controller, &desk.clock);
            if let Some(key) = keys.next() {
                desk.controller.key(key, true);
                desk.controller.key(key & 0x7f, key & 1 == 0);
            }
            desk.controller.tick();
            prop_assert!(desk.controller.replies.len() <= MOST_REPLIES);
            // After a tick nothing is overdue.
            let now = desk.clock.now();
            prop_assert!(desk.controller.next_deadline().is_none_or(|next| next > now));
            prop_assert_eq!(desk.status() & 0xe2, 0);
        }
    }
}
