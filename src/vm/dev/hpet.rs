// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The high precision event timer (IA-PC HPET specification 1.0a, 2004), as the ACPI table of ours
//! describes it: a 32-bit counter, three timers, messages only.
//!
//! Timers without a message go nowhere: no route to the IOAPIC is offered. Ticks that nobody had
//! the time for are left out, never made up for.

use std::sync::Arc;
use std::time::Duration;

use super::clock::{Clock, OnWake, Timed, Waker};
use super::{MsiSink, lanes};
use crate::vm::bus::BusDevice;

/// Bytes that it takes.
pub const BYTES: u64 = 0x400;

/// Where it is, in guest-physical memory.
pub const ADDRESS: u64 = 0xfed0_0000;

const TIMERS: usize = 3;

const CAPABILITIES: u64 = 0x000;
const CONFIGURATION: u64 = 0x010;
const STATUS: u64 = 0x020;
const COUNTER: u64 = 0x0f0;
const FIRST_TIMER: u64 = 0x100;
const TIMER_BYTES: u64 = 0x20;

/// Femtoseconds of one tick: 2^24 hertz, as bhyve has it.
const PERIOD: u64 = 59_604_644;
/// Vendor 8086, three timers, revision 1.
const IDENTITY: u64 = 0x8086_0201;

const ENABLE: u64 = 1 << 0;

const LEVEL: u64 = 1 << 1;
const TIMER_ENABLE: u64 = 1 << 2;
const PERIODIC: u64 = 1 << 3;
const SET_VALUE: u64 = 1 << 6;
const MESSAGE: u64 = 1 << 14;
const WRITABLE: u64 = LEVEL | TIMER_ENABLE | PERIODIC | SET_VALUE | MESSAGE;
/// Periodic and message-capable; 32 bits.
const TIMER_CAPABILITIES: u64 = 1 << 4 | 1 << 15;

/// Least ticks from one periodic interrupt to the next: 100 µs, lest the guest keep the board busy.
const LEAST_PERIOD: u64 = 1678;

/// The whole turn of the counter.
const TURN: u64 = 1 << 32;

#[derive(Debug, Clone, Copy, Default)]
struct Timer {
    config: u64,
    comparator: u32,
    period: u32,
    /// Address in the high half, data in the low.
    message: u64,
    /// When it goes off, in ticks that do not wrap. None while it cannot.
    target: Option<u64>,
}

/// A timer block.
pub struct Hpet {
    clock: Arc<dyn Clock>,
    sink: Arc<dyn MsiSink>,
    waker: Waker,
    is_enabled: bool,
    status: u64,
    /// The counter when it was last started or set, in ticks that do not wrap.
    base: u64,
    /// When that was.
    since: Duration,
    timers: [Timer; TIMERS],
}

impl Hpet {
    /// A block that stands still, as at power-on. Put it at [`ADDRESS`].
    pub fn new(clock: Arc<dyn Clock>, sink: Arc<dyn MsiSink>) -> Self {
        Self {
            clock,
            sink,
            waker: Waker::default(),
            is_enabled: false,
            status: 0,
            base: 0,
            since: Duration::ZERO,
            timers: [Timer::default(); TIMERS],
        }
    }

    /// Sets what is called when a deadline appears or moves nearer.
    pub fn on_wake(&mut self, wake: OnWake) {
        self.waker.set(wake);
    }

    /// The counter, without its wraps.
    fn ticks(&self) -> u64 {
        if !self.is_enabled {
            return self.base;
        }
        let passed = self.clock.now().saturating_sub(self.since).as_nanos();
        let ticks = passed * 1_000_000 / u128::from(PERIOD);
        self.base.saturating_add(u64::try_from(ticks).unwrap_or(u64::MAX))
    }

    /// When [`Hpet::ticks`] gets there, while the counter runs.
    fn moment_of(&self, ticks: u64) -> Duration {
        let ahead = u128::from(ticks.saturating_sub(self.base)) * u128::from(PERIOD);
        let nanos = u64::try_from(ahead.div_ceil(1_000_000)).unwrap_or(u64::MAX);
        self.since.saturating_add(Duration::from_nanos(nanos))
    }

    /// Sets the counter, and with it all timers.
    fn restart(&mut self, counter: u64, is_enabled: bool) {
        self.base = counter;
        self.since = self.clock.now();
        self.is_enabled = is_enabled;
        for index in 0..TIMERS {
            self.arm(index);
        }
    }

    /// Finds out when a timer goes off next.
    fn arm(&mut self, index: usize) {
        let (now, is_running) = (self.ticks(), self.is_enabled);
        let Some(timer) = self.timers.get_mut(index) else { return };
        if !is_running || timer.config & TIMER_ENABLE == 0 {
            timer.target = None;
            return;
        }
        // A comparator behind the counter goes off at once.
        let ahead = timer.comparator.wrapping_sub(now as u32);
        let ahead = if ahead < 1 << 31 { ahead } else { 0 };
        timer.target = Some(now.saturating_add(u64::from(ahead)));
    }

    /// Sends what is due.
    fn settle(&mut self) {
        let now = self.ticks();
        for index in 0..TIMERS {
            self.fire(index, now);
        }
        self.waker.update(self.next_deadline());
    }

    fn fire(&mut self, index: usize, now: u64) {
        let Some(timer) = self.timers.get_mut(index) else { return };
        let Some(target) = timer.target.filter(|target| *target <= now) else { return };
        if timer.config & PERIODIC != 0 && timer.period > 0 {
            // What was missed is left out.
            let period = u64::from(timer.period).max(LEAST_PERIOD);
            let next = target + ((now - target) / period + 1) * period;
            timer.target = Some(next);
            timer.comparator = next as u32;
        } else {
            // Again when the counter has come round.
            let turns = (now - target) / TURN + 1;
            timer.target = Some(target.saturating_add(turns.saturating_mul(TURN)));
        }
        if timer.config & LEVEL != 0 {
            self.status |= 1 << index;
        }
        if timer.config & MESSAGE != 0 {
            self.sink.send(timer.message >> 32, timer.message as u32);
        }
    }

    /// A register of 64 bits, by the offset of its first byte.
    fn register(&self, offset: u64) -> u64 {
        match offset {
            CAPABILITIES => PERIOD << 32 | IDENTITY,
            CONFIGURATION => u64::from(self.is_enabled),
            STATUS => self.status,
            COUNTER => self.ticks() & (TURN - 1),
            _ => match self.timer(offset) {
                Some((index, register)) => self.timer_register(index, register),
                None => 0,
            },
        }
    }

    /// Which timer and which of its registers.
    fn timer(&self, offset: u64) -> Option<(usize, u64)> {
        let offset = offset.checked_sub(FIRST_TIMER)?;
        let index = usize::try_from(offset / TIMER_BYTES).ok().filter(|index| *index < TIMERS)?;
        Some((index, offset % TIMER_BYTES))
    }

    fn timer_register(&self, index: usize, register: u64) -> u64 {
        let Some(timer) = self.timers.get(index) else { return 0 };
        match register {
            0x00 => timer.config | TIMER_CAPABILITIES,
            0x08 => timer.comparator.into(),
            0x10 => timer.message,
            _ => 0,
        }
    }

    /// Writes a register. `is_low` says that its low half is among what was written.
    fn set_register(&mut self, offset: u64, value: u64, is_low: bool) {
        match offset {
            CONFIGURATION if (value & ENABLE != 0) != self.is_enabled => {
                self.restart(self.ticks() & (TURN - 1), !self.is_enabled);
            }
            // The counter and comparators have no high half.
            COUNTER if is_low => self.restart(value & (TURN - 1), self.is_enabled),
            _ => {
                if let Some((index, register)) = self.timer(offset) {
                    self.set_timer(index, register, value, is_low);
                }
            }
        }
    }

    fn set_timer(&mut self, index: usize, register: u64, value: u64, is_low: bool) {
        let Some(timer) = self.timers.get_mut(index) else { return };
        match register {
            0x00 => {
                let changed = (timer.config ^ value) & (TIMER_ENABLE | PERIODIC);
                timer.config = value & WRITABLE;
                if changed != 0 {
                    self.arm(index);
                }
            }
            0x08 if is_low => {
                timer.set_comparator(value as u32);
                self.arm(index);
            }
            0x10 => timer.message = value,
            _ => {}
        }
    }
}

impl Timer {
    /// One-shot: when. Periodic: how often, and when first if the guest said so before (§2.3.9.2).
    fn set_comparator(&mut self, value: u32) {
        let is_periodic = self.config & PERIODIC != 0;
        if is_periodic {
            self.period = value;
        }
        if !is_periodic || self.config & SET_VALUE != 0 {
            self.comparator = value;
        }
        self.config &= !SET_VALUE;
    }
}

impl BusDevice for Hpet {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if offset & !7 == STATUS {
            self.settle();
        }
        let value = self.register(offset & !7).to_le_bytes();
        lanes::read(&value, offset & 7, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.settle();
        let register = offset & !7;
        if register == STATUS {
            let mut cleared = [0; 8];
            lanes::write(&mut cleared, &[0xff; 8], offset & 7, data);
            self.status &= !u64::from_le_bytes(cleared);
            return;
        }
        let mut value = self.register(register).to_le_bytes();
        lanes::write(&mut value, &[0xff; 8], offset & 7, data);
        self.set_register(register, u64::from_le_bytes(value), offset & 7 < 4);
        self.settle();
    }
}

impl Timed for Hpet {
    fn next_deadline(&self) -> Option<Duration> {
        // Who wants no message is not waited for: its status is found when it is read.
        let wanted = self.timers.iter().filter(|timer| timer.config & MESSAGE != 0);
        wanted.filter_map(|timer| timer.target).min().map(|target| self.moment_of(target))
    }

    fn tick(&mut self) {
        self.settle();
    }
}

#[cfg(test)]
#[path = "hpet_tests.rs"]
mod tests;
