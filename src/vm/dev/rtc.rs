// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The real-time clock MC146818 with its battery-backed memory, CMOS (Motorola MC146818A data
//! sheet, 1984).
//!
//! The time is UTC. It follows the machine's clock, not the host's jumps.

use std::sync::Arc;
use std::time::Duration;

use super::Irq;
use super::calendar::{Alarm, Calendar, Format};
use super::clock::{Clock, OnWake, Timed, Waker, ticks, time_of};
use crate::vm::bus::BusDevice;
use crate::vm::memory;

/// Ports that it takes: index and data.
pub const PORTS: u64 = 2;

const BYTES: usize = 128;

const SECOND: u8 = 0x00;
const SECOND_ALARM: u8 = 0x01;
const MINUTE: u8 = 0x02;
const MINUTE_ALARM: u8 = 0x03;
const HOUR: u8 = 0x04;
const HOUR_ALARM: u8 = 0x05;
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const A: u8 = 0x0a;
const B: u8 = 0x0b;
const C: u8 = 0x0c;
const D: u8 = 0x0d;
const CENTURY: u8 = 0x32;

const A_UPDATING: u8 = 1 << 7;
const B_SET: u8 = 1 << 7;
const B_BINARY: u8 = 1 << 2;
const B_24H: u8 = 1 << 1;
/// Flags of C and their enables in B.
const PERIODIC: u8 = 1 << 6;
const ALARM: u8 = 1 << 5;
const UPDATE: u8 = 1 << 4;
const C_REQUEST: u8 = 1 << 7;
/// Memory and time are valid.
const D_VALID: u8 = 1 << 7;

/// The crystal.
const HERTZ: u32 = 32_768;
/// How long before a second an update is announced.
const ANNOUNCED: Duration = Duration::from_micros(244);
const SECOND_LENGTH: Duration = Duration::from_secs(1);

/// The bytes of CMOS from which firmware learns the memory's size, as index and value. For a
/// kernel that has the clock itself.
pub fn memory_size(bytes: u64) -> Vec<(u8, u8)> {
    let (mut low, mut high) = (0, 0);
    for (start, bytes) in memory::layout(bytes) {
        *(if start < memory::HIGH_BASE { &mut low } else { &mut high }) += bytes;
    }
    let word = |value: u64| u16::try_from(value).unwrap_or(u16::MAX).to_le_bytes();
    let base = word((low >> 10).min(640));
    let extended = word(low.saturating_sub(1 << 20) >> 10);
    let above_16m = word(low.saturating_sub(16 << 20) >> 16);
    let above_4g = u32::try_from(high >> 16).unwrap_or(u32::MAX).min(0x00ff_ffff).to_le_bytes();
    vec![
        (0x15, base[0]),
        (0x16, base[1]),
        (0x17, extended[0]),
        (0x18, extended[1]),
        (0x30, extended[0]),
        (0x31, extended[1]),
        (0x34, above_16m[0]),
        (0x35, above_16m[1]),
        (0x5b, above_4g[0]),
        (0x5c, above_4g[1]),
        (0x5d, above_4g[2]),
    ]
}

/// A clock with CMOS. Put it at ports 0x70 and 0x71.
pub struct Rtc {
    clock: Arc<dyn Clock>,
    irq: Irq,
    waker: Waker,
    index: u8,
    /// Of the time's registers only those count that the guest wrote while it held the clock.
    cmos: [u8; BYTES],
    /// Seconds after 1970 in UTC at [`Rtc::origin`].
    seconds: i64,
    /// A moment, on the scale of [`Clock::now`], at which a second began. It may lie before 0.
    origin: i128,
    /// Up to when flags have been raised.
    seen: Duration,
}

impl Rtc {
    /// A clock that shows the host's time, in a machine with so many bytes of memory.
    pub fn new(clock: Arc<dyn Clock>, irq8: Irq, memory_bytes: u64) -> Self {
        let (now, wall) = (clock.now(), clock.wall());
        let mut rtc = Self {
            clock,
            irq: irq8,
            waker: Waker::default(),
            index: 0,
            cmos: [0; BYTES],
            seconds: i64::try_from(wall.as_secs()).unwrap_or(0),
            origin: nanos(now) - i128::from(wall.subsec_nanos()),
            seen: now,
        };
        rtc.put(A, 0x26);
        rtc.put(B, B_24H);
        for (index, value) in memory_size(memory_bytes) {
            rtc.write_cmos(index, value);
        }
        rtc
    }

    /// Sets what is called when a deadline appears or moves nearer.
    pub fn on_wake(&mut self, wake: OnWake) {
        self.waker.set(wake);
    }

    /// Sets a byte of CMOS, as firmware before us would have. Not for the clock's own registers.
    pub fn write_cmos(&mut self, index: u8, value: u8) {
        self.put(index, value);
    }

    fn get(&self, index: u8) -> u8 {
        self.cmos.get(usize::from(index)).copied().unwrap_or(0xff)
    }

    fn put(&mut self, index: u8, value: u8) {
        if let Some(cell) = self.cmos.get_mut(usize::from(index)) {
            *cell = value;
        }
    }

    fn is_held(&self) -> bool {
        self.get(B) & B_SET != 0
    }

    fn format(&self) -> Format {
        Format { is_binary: self.get(B) & B_BINARY != 0, is_24h: self.get(B) & B_24H != 0 }
    }

    /// Whole seconds after 1970, and the rest.
    fn time_at(&self, now: Duration) -> (i64, Duration) {
        const LENGTH: i128 = 1_000_000_000;
        let passed = nanos(now) - self.origin;
        let whole = i64::try_from(passed.div_euclid(LENGTH)).unwrap_or(0);
        let rest = u64::try_from(passed.rem_euclid(LENGTH)).unwrap_or(0);
        (self.seconds.saturating_add(whole), Duration::from_nanos(rest))
    }

    /// The moment at which a second begins, on the scale of [`Clock::now`].
    fn moment_of(&self, seconds: i64) -> Duration {
        let passed = i128::from(seconds) - i128::from(self.seconds);
        let moment = self.origin + passed * 1_000_000_000;
        Duration::from_nanos(u64::try_from(moment.max(0)).unwrap_or(u64::MAX))
    }

    /// The time's registers as the guest sees them.
    fn load_time(&mut self) {
        let format = self.format();
        let time = Calendar::of(self.time_at(self.clock.now()).0);
        self.put(SECOND, format.encode(time.second));
        self.put(MINUTE, format.encode(time.minute));
        self.put(HOUR, format.encode_hour(time.hour));
        self.put(WEEKDAY, format.encode(time.weekday));
        self.put(DAY, format.encode(time.day));
        self.put(MONTH, format.encode(time.month));
        self.put(YEAR, format.encode(time.year));
        self.put(CENTURY, format.encode(time.century));
    }

    /// Goes on from what the registers say. What is no time is forgotten. A new second begins,
    /// unless only some register of a running clock was written.
    fn store_time(&mut self, is_new_second: bool) {
        let format = self.format();
        let part = |index| format.decode(self.get(index));
        let time = Calendar {
            second: part(SECOND),
            minute: part(MINUTE),
            hour: format.decode_hour(self.get(HOUR)),
            weekday: part(WEEKDAY),
            day: part(DAY),
            month: part(MONTH),
            year: part(YEAR),
            century: part(CENTURY),
        };
        let Some(seconds) = time.seconds() else { return };
        let now = self.clock.now();
        let rest = if is_new_second { Duration::ZERO } else { self.time_at(now).1 };
        self.seconds = seconds;
        self.origin = nanos(now) - nanos(rest);
    }

    fn read_register(&mut self, index: u8) -> u8 {
        match index {
            SECOND | MINUTE | HOUR | WEEKDAY..=YEAR | CENTURY if !self.is_held() => {
                self.load_time();
                self.get(index)
            }
            A => self.get(A) | self.updating(),
            C => {
                self.catch_up();
                let flags = self.get(C);
                self.put(C, 0);
                flags
            }
            D => D_VALID,
            _ => self.get(index),
        }
    }

    fn updating(&self) -> u8 {
        let (_, rest) = self.time_at(self.clock.now());
        let is_soon = rest + ANNOUNCED >= SECOND_LENGTH;
        if is_soon && !self.is_held() { A_UPDATING } else { 0 }
    }

    fn write_register(&mut self, index: u8, value: u8) {
        self.catch_up();
        match index {
            SECOND | MINUTE | HOUR | WEEKDAY..=YEAR | CENTURY if !self.is_held() => {
                self.load_time();
                self.put(index, value);
                self.store_time(false);
            }
            A => self.put(A, value & !A_UPDATING),
            B => self.control(value),
            C | D => {}
            _ => self.put(index, value),
        }
    }

    fn control(&mut self, value: u8) {
        let was_held = self.is_held();
        let is_held = value & B_SET != 0;
        if is_held && !was_held {
            self.load_time();
        } else if was_held && !is_held {
            // The format is the one in which the registers were written.
            let format = self.get(B) & !(B_BINARY | B_24H) | value & (B_BINARY | B_24H);
            self.put(B, format);
            self.store_time(true);
            self.seen = self.clock.now();
        }
        // Holding the clock ends update interrupts.
        self.put(B, if is_held { value & !UPDATE } else { value });
        self.put(C, self.get(C) & !C_REQUEST);
    }

    fn alarm(&self) -> Alarm {
        let format = self.format();
        let part = |index| match self.get(index) {
            0xc0.. => None,
            value => Some(format.decode(value)),
        };
        let hour = match self.get(HOUR_ALARM) {
            0xc0.. => None,
            value => Some(format.decode_hour(value)),
        };
        Alarm { second: part(SECOND_ALARM), minute: part(MINUTE_ALARM), hour }
    }

    /// The exponent of the periodic rate: one tick is 2^n of the crystal's.
    fn period(&self) -> Option<u32> {
        match u32::from(self.get(A) & 0x0f) {
            0 => None,
            rate @ 1..=2 => Some(rate + 6),
            rate => Some(rate - 1),
        }
    }

    /// Raises the flags of all that happened since the last time.
    fn catch_up(&mut self) {
        let (before, now) = (self.seen, self.clock.now());
        self.seen = now;
        let mut flags = self.get(C);
        if let Some(exponent) = self.period()
            && ticks(before, HERTZ) >> exponent != ticks(now, HERTZ) >> exponent
        {
            flags |= PERIODIC;
        }
        let (first, last) = (self.time_at(before).0, self.time_at(now).0);
        if last > first && !self.is_held() {
            flags |= UPDATE;
            let alarm = self.alarm().next(first.saturating_add(1));
            if alarm.is_some_and(|at| at <= last) {
                flags |= ALARM;
            }
        }
        let is_request = flags & self.get(B) & (PERIODIC | ALARM | UPDATE) != 0;
        self.put(C, flags & !C_REQUEST | if is_request { C_REQUEST } else { 0 });
    }

    /// Sets the line, and says when something happens that the guest wants to hear of.
    fn settle(&mut self) {
        self.catch_up();
        self.irq.set(self.get(C) & C_REQUEST != 0);
        self.waker.update(self.next_deadline());
    }
}

impl BusDevice for Rtc {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        // The index cannot be read back.
        if offset == 1
            && let Some(first) = data.first_mut()
        {
            *first = self.read_register(self.index);
            self.settle();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (offset, byte) in (offset..).zip(data).take(2) {
            match offset {
                // The highest bit masks the NMI.
                0 => self.index = byte & 0x7f,
                1 => self.write_register(self.index, *byte),
                _ => {}
            }
        }
        self.settle();
    }
}

impl Timed for Rtc {
    fn next_deadline(&self) -> Option<Duration> {
        // What is already reported happens again without anybody being told.
        let wanted = self.get(B) & !self.get(C);
        let mut deadlines = [None; 3];
        if wanted & PERIODIC != 0
            && let Some(exponent) = self.period()
        {
            let count = (ticks(self.seen, HERTZ) >> exponent) + 1;
            deadlines[0] = Some(time_of(count << exponent, HERTZ));
        }
        if !self.is_held() {
            let next = self.time_at(self.seen).0.saturating_add(1);
            if wanted & UPDATE != 0 {
                deadlines[1] = Some(self.moment_of(next));
            }
            if wanted & ALARM != 0 {
                deadlines[2] = self.alarm().next(next).map(|at| self.moment_of(at));
            }
        }
        deadlines.into_iter().flatten().min()
    }

    fn tick(&mut self) {
        self.settle();
    }
}

fn nanos(time: Duration) -> i128 {
    i128::try_from(time.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
#[path = "rtc_tests.rs"]
mod tests;
