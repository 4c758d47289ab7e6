// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::super::clock::FakeClock;
use super::super::mock::{Line, acts, inb, outb};
use super::*;

#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Vec<u8>>>);

impl Write for Sent {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn port() -> (Uart, Arc<Line>, Sent) {
    let (line, sent) = (Line::new(), Sent::default());
    (Uart::new(Arc::clone(&line) as Irq, Box::new(sent.clone())), line, sent)
}

#[test]
fn linux_finds_a_16550a() {
    let (mut uart, ..) = port();
    // Scratch, the enable register's high bits.
    for value in [0xaa, 0x55] {
        outb(&mut uart, 7, value);
        assert_eq!(inb(&mut uart, 7), value);
    }
    outb(&mut uart, 1, 0xff);
    assert_eq!(inb(&mut uart, 1), 0x0f);
    outb(&mut uart, 1, 0);
    // Loopback.
    outb(&mut uart, 4, 0x1a);
    assert_eq!(inb(&mut uart, 6) & 0xf0, 0x90);
    outb(&mut uart, 4, 0xe0);
    assert_eq!(inb(&mut uart, 4), 0);
    assert_eq!(inb(&mut uart, 6) & 0xf0, 0xb0);
    // The FIFO; no enhanced registers behind 0xBF.
    outb(&mut uart, 2, 1);
    assert_eq!(inb(&mut uart, 2), 0xc1);
    outb(&mut uart, 3, 0xbf);
    outb(&mut uart, 0, 1);
    outb(&mut uart, 1, 0);
    assert_eq!((inb(&mut uart, 0), inb(&mut uart, 1), inb(&mut uart, 2)), (1, 0, 0xc1));
    outb(&mut uart, 3, 3);
    assert_eq!((inb(&mut uart, 3), inb(&mut uart, 5)), (3, 0x60));
}

#[test]
fn each_byte_sent_interrupts_once() {
    let (mut uart, line, sent) = port();
    outb(&mut uart, 0, b'a');
    assert_eq!((line.edges(), inb(&mut uart, 2)), (0, IIR_NONE));
    outb(&mut uart, 1, IER_EMPTY);
    assert!(line.is_high());
    assert_eq!((line.edges(), inb(&mut uart, 2)), (1, IIR_EMPTY));
    assert!(!line.is_high());
    assert_eq!(inb(&mut uart, 2), IIR_NONE);
    outb(&mut uart, 0, b'b');
    // Though nobody asked why.
    outb(&mut uart, 0, b'c');
    assert_eq!((line.edges(), inb(&mut uart, 2)), (2, IIR_EMPTY));
    outb(&mut uart, 1, 0);
    outb(&mut uart, 1, IER_EMPTY);
    assert_eq!(line.edges(), 1);
    assert_eq!(*sent.0.lock().unwrap(), b"abc");
}

#[test]
fn the_host_waits_for_room() {
    let (mut uart, line, _) = port();
    let woken = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&woken);
    uart.on_room(Box::new(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    }));
    let woken = || woken.swap(0, Ordering::Relaxed);
    outb(&mut uart, 1, IER_DATA);
    // Without FIFO there is room for one.
    assert_eq!((uart.receive(b"xy"), uart.receive(b"y")), (1, 0));
    assert_eq!((inb(&mut uart, 2), inb(&mut uart, 5) & 1), (IIR_DATA, 1));
    assert_eq!((woken(), inb(&mut uart, 0), woken()), (0, b'x', 1));
    // With one for sixteen; below the trigger the time-out is reported.
    outb(&mut uart, 2, 0x81);
    line.edges();
    assert_eq!(uart.receive(b"1234567"), 7);
    assert_eq!((line.edges(), inb(&mut uart, 2)), (1, IIR_FIFO | IIR_TIMEOUT));
    assert_eq!(uart.receive(b"89abcdefghij"), 9);
    assert_eq!(inb(&mut uart, 2), IIR_FIFO | IIR_DATA);
    let read: Vec<u8> = (0..8).map(|_| inb(&mut uart, 0)).collect();
    assert_eq!((read.as_slice(), woken()), (b"12345678".as_slice(), 1));
    assert_eq!((uart.receive(b"hij"), inb(&mut uart, 0)), (3, b'9'));
    // The guest discards the rest.
    outb(&mut uart, 2, 0x83);
    assert_eq!((inb(&mut uart, 5) & 1, line.is_high()), (0, false));
}

#[test]
fn loopback_returns_bytes_and_lines() {
    let (mut uart, line, sent) = port();
    outb(&mut uart, 1, IER_LINE | IER_MODEM);
    outb(&mut uart, 4, MCR_LOOP | MCR_OUT1);
    // CTS, DSR and DCD fell, RI rose.
    assert_eq!((line.is_high(), inb(&mut uart, 2)), (true, IIR_MODEM));
    assert_eq!((inb(&mut uart, 6), line.is_high()), (0x4b, false));
    outb(&mut uart, 4, MCR_LOOP);
    assert_eq!(inb(&mut uart, 6), 0x04);
    assert_eq!(uart.receive(b"z"), 0);
    outb(&mut uart, 0, 1);
    outb(&mut uart, 0, 2);
    assert_eq!(inb(&mut uart, 2), IIR_LINE);
    assert_eq!((inb(&mut uart, 5), inb(&mut uart, 5)), (0x63, 0x61));
    assert_eq!((inb(&mut uart, 0), inb(&mut uart, 5)), (2, 0x60));
    assert!(sent.0.lock().unwrap().is_empty());
    outb(&mut uart, 2, 1);
    for byte in 0..20 {
        outb(&mut uart, 0, byte);
    }
    assert_eq!((inb(&mut uart, 5), inb(&mut uart, 0)), (0x63, 0));
    outb(&mut uart, 4, 0);
    outb(&mut uart, 2, 0);
    assert_eq!(uart.receive(b"z"), 1);
}

proptest! {
    #[test]
    fn nothing_breaks_it(acts in acts(PORTS), feed in prop::collection::vec(any::<u8>(), 0..40)) {
        let (mut uart, line, _) = port();
        let clock = FakeClock::at(0);
        for act in acts {
            act.apply(&mut uart, &clock);
            let taken = uart.receive(&feed);
            prop_assert!(taken <= feed.len() && uart.received.len() <= uart.capacity());
            prop_assert_eq!(line.is_high(), uart.cause() != IIR_NONE);
        }
    }
}
