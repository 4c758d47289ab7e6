// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::super::clock::FakeClock;
use super::super::mock::{Line, acts, inb, outb};
use super::*;

/// 2024-02-29, a Thursday, 12:34:56 UTC.
const START: u64 = 1_709_210_096;
const MILLISECOND: Duration = Duration::from_millis(1);

struct Desk {
    rtc: Rtc,
    clock: Arc<FakeClock>,
    line: Arc<Line>,
}

impl Desk {
    fn new(memory_bytes: u64) -> Self {
        let (clock, line) = (FakeClock::at(START), Line::new());
        let rtc = Rtc::new(Arc::clone(&clock) as _, Arc::clone(&line) as _, memory_bytes);
        Self { rtc, clock, line }
    }

    fn get(&mut self, index: u8) -> u8 {
        // The NMI's bit does not matter.
        outb(&mut self.rtc, 0, index | 0x80);
        inb(&mut self.rtc, 1)
    }

    fn set(&mut self, index: u8, value: u8) {
        self.rtc.write(0, &[index, value]);
    }

    fn time(&mut self) -> [u8; 8] {
        [CENTURY, YEAR, MONTH, DAY, WEEKDAY, HOUR, MINUTE, SECOND].map(|index| self.get(index))
    }

    /// Waits for the deadline, which must exist, and returns how long that took.
    fn wait(&mut self) -> Duration {
        let waited = self.rtc.next_deadline().unwrap() - self.clock.now();
        self.clock.advance(waited);
        self.rtc.tick();
        waited
    }
}

#[test]
fn firmware_reads_the_time() {
    let mut desk = Desk::new(0);
    desk.set(A, 0x26);
    desk.set(D, 0);
    desk.set(B, 0x02);
    assert_eq!((desk.get(D), desk.get(A)), (0x80, 0x26));
    assert_eq!(desk.time(), [0x20, 0x24, 0x02, 0x29, 0x05, 0x12, 0x34, 0x56]);
    desk.clock.advance(Duration::from_secs(12 * 3600 + 4));
    assert_eq!(desk.time(), [0x20, 0x24, 0x03, 0x01, 0x06, 0x00, 0x35, 0x00]);
    desk.set(B, 0x04);
    assert_eq!(desk.time(), [20, 24, 3, 1, 6, 12, 35, 0]);
    // The update is announced.
    desk.clock.advance(Duration::from_micros(999_700));
    assert_eq!(desk.get(A), 0x26);
    desk.clock.advance(Duration::from_micros(100));
    assert_eq!(desk.get(A), 0xa6);
    desk.set(A, 0xff);
    desk.clock.advance(Duration::from_micros(200));
    assert_eq!((desk.get(A), desk.get(SECOND)), (0x7f, 1));
}

#[test]
fn the_guest_sets_the_time() {
    let mut desk = Desk::new(0);
    desk.clock.advance(MILLISECOND * 300);
    desk.set(B, 0x82);
    let written = [0x19, 0x99, 0x12, 0x31, 0x06, 0x23, 0x59, 0x58];
    for (index, value) in
        [CENTURY, YEAR, MONTH, DAY, WEEKDAY, HOUR, MINUTE, SECOND].into_iter().zip(written)
    {
        desk.set(index, value);
    }
    desk.clock.advance(Duration::from_secs(100));
    assert_eq!(desk.time(), written);
    desk.set(B, 0x02);
    desk.clock.advance(MILLISECOND * 1999);
    assert_eq!(desk.get(SECOND), 0x59);
    desk.clock.advance(MILLISECOND);
    assert_eq!(desk.time(), [0x20, 0x00, 0x01, 0x01, 0x07, 0x00, 0x00, 0x00]);
    // One register of the running clock, and one that makes no date.
    desk.set(YEAR, 0x07);
    desk.set(MONTH, 0x13);
    assert_eq!(desk.time(), [0x20, 0x07, 0x01, 0x01, 0x02, 0x00, 0x00, 0x00]);
}

#[test]
fn memory_has_its_size_in_cmos() {
    let mut desk = Desk::new(5 << 30);
    let bytes = [0x15, 0x16, 0x17, 0x18, 0x30, 0x31, 0x34, 0x35, 0x5b, 0x5c, 0x5d];
    assert_eq!(
        bytes.map(|index| desk.get(index)),
        [0x80, 0x02, 0xff, 0xff, 0xff, 0xff, 0x00, 0xbf, 0x00, 0x80, 0x00]
    );
    let mut small = Desk::new(8 << 20);
    assert_eq!([0x17, 0x18, 0x34, 0x35].map(|index| small.get(index)), [0x00, 0x1c, 0, 0]);
    // Storage.
    desk.set(0x0f, 0xfe);
    desk.rtc.write_cmos(0x7f, 9);
    assert_eq!((desk.get(0x0f), desk.get(0x7f), inb(&mut desk.rtc, 0)), (0xfe, 9, 0xff));
}

#[test]
fn periodic_update_and_alarm_interrupt() {
    let mut desk = Desk::new(0);
    assert_eq!(desk.rtc.next_deadline(), None);
    // 1024 Hz, as register A has it at first.
    desk.set(B, 0x42);
    let waited = desk.wait();
    assert!(waited <= MILLISECOND && desk.line.is_high());
    assert_eq!((desk.rtc.next_deadline(), desk.get(C), desk.get(C)), (None, 0xc0, 0));
    assert!(!desk.line.is_high());
    let total: Duration = (0..1024)
        .map(|_| {
            let waited = desk.wait();
            assert_eq!(desk.get(C) & 0xcf, 0xc0);
            waited
        })
        .sum();
    assert!(total.abs_diff(Duration::from_secs(1)) < MILLISECOND / 100);
    // Updates.
    desk.set(B, 0x12);
    desk.get(C);
    desk.wait();
    assert_eq!((desk.line.is_high(), desk.get(C)), (true, 0xd0));
    assert_eq!((desk.wait(), desk.get(C)), (Duration::from_secs(1), 0xd0));
    // An alarm at 13:00 sharp.
    desk.set(HOUR_ALARM, 0x13);
    desk.set(B, 0x22);
    desk.wait();
    assert_eq!((desk.get(C), desk.get(HOUR), desk.get(MINUTE)), (0xf0, 0x13, 0x00));
    // Each minute at its tenth second.
    desk.set(HOUR_ALARM, 0xff);
    desk.set(MINUTE_ALARM, 0xff);
    desk.set(SECOND_ALARM, 0x10);
    assert_eq!(desk.wait(), Duration::from_secs(10));
    desk.get(C);
    assert_eq!(desk.wait(), Duration::from_secs(60));
    // Held, the clock does not go off.
    desk.get(C);
    desk.set(B, 0xb2);
    assert_eq!((desk.rtc.next_deadline(), desk.get(B)), (None, 0xa2));
}

proptest! {
    #[test]
    fn nothing_breaks_it(acts in acts(PORTS)) {
        let mut desk = Desk::new(1 << 30);
        for act in acts {
            act.apply(&mut desk.rtc, &desk.clock);
            desk.rtc.tick();
            let now = desk.clock.now();
            prop_assert!(desk.rtc.next_deadline().is_none_or(|next| next > now));
            desk.time();
        }
    }
}
