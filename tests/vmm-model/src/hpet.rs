// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The HPET: eight timers at 2^24 Hz, 32 bits wide.

use std::time::{Duration, Instant};

use crate::vm::Vm;
use crate::{irq, lock};

/// Where the guest sees it.
pub(crate) const BASE: u64 = 0xfed0_0000;
/// How much the guest sees of it.
pub(crate) const SIZE: u64 = 1024;
const TIMERS: usize = 8;
const HERTZ: u64 = 1 << 24;
/// Femtoseconds of a tick.
const PERIOD: u64 = 1_000_000_000_000_000 / HERTZ;
const ENABLED: u64 = 1;
/// Bits of a timer's configuration.
const LEVEL: u64 = 1 << 1;
const INTERRUPT: u64 = 1 << 2;
const PERIODIC: u64 = 1 << 3;
const CAN_PERIODIC: u64 = 1 << 4;
const SET_VALUE: u64 = 1 << 6;
const ROUTE_SHIFT: u32 = 9;
const MESSAGE: u64 = 1 << 14;
const CAN_MESSAGE: u64 = 1 << 15;
/// IOAPIC inputs that a timer may drive: 20 to 23.
const ROUTES: u64 = 0x00f0_0000 << 32;
const WRITABLE: u64 = LEVEL | INTERRUPT | PERIODIC | SET_VALUE | 0x1f << ROUTE_SHIFT | MESSAGE;

#[derive(Clone, Copy, Default)]
struct Timer {
    config: u64,
    comparator: u32,
    step: u32,
    message: u64,
    /// When it is due.
    due: Option<Instant>,
}

impl Timer {
    /// A periodic timer's next time is the first one that the counter has not passed.
    fn go_ahead_of(&mut self, counter: u32) {
        if self.config & PERIODIC != 0 && self.step != 0 {
            let missed = counter.wrapping_sub(self.comparator) / self.step;
            let ahead = missed.wrapping_add(1).wrapping_mul(self.step);
            self.comparator = self.comparator.wrapping_add(ahead);
        }
    }
}

/// The device.
pub(crate) struct Hpet {
    config: u64,
    status: u64,
    /// The counter while it stands, and since when it runs from there.
    counter: u32,
    since: Option<Instant>,
    timers: [Timer; TIMERS],
}

impl Default for Hpet {
    fn default() -> Self {
        let timer = Timer { comparator: u32::MAX, ..Timer::default() };
        Self { config: 0, status: 0, counter: 0, since: None, timers: [timer; TIMERS] }
    }
}

/// `VM_GET_HPET_CAPABILITIES`: the low half of the first register. Without the bit by which timers
/// could take the place of the PIT and the RTC: that is not supported.
pub(crate) const CAPABILITIES: u32 = 0x8086 << 16 | ((TIMERS as u32 - 1) << 8) | 1;

impl Hpet {
    fn now(&self) -> u32 {
        let ran = self.since.map_or(0, |since| since.elapsed().as_nanos());
        self.counter.wrapping_add((ran * u128::from(HERTZ) / 1_000_000_000) as u32)
    }

    /// An access of the guest, a write when there is a value.
    pub(crate) fn access(&mut self, vm: &Vm, at: u64, bytes: u8, written: Option<u64>) -> u64 {
        let (register, shift) = (at & !7, (at & 7) * 8);
        let old = self.register(register);
        let mask = if bytes >= 8 { u64::MAX } else { (1 << (u64::from(bytes) * 8)) - 1 };
        if let Some(value) = written {
            let before = self.next();
            self.write(register, old & !(mask << shift) | (value & mask) << shift);
            if self.next().is_some_and(|next| before.is_none_or(|before| next < before)) {
                crate::ticker::wake(vm);
            }
        }
        old >> shift & mask
    }

    fn register(&self, at: u64) -> u64 {
        match at {
            0 => PERIOD << 32 | u64::from(CAPABILITIES),
            0x10 => self.config,
            0x20 => self.status,
            0xf0 => self.now().into(),
            _ => self.timer(at).map_or(0, |(number, part)| {
                let timer = &self.timers[number];
                match part {
                    0 => timer.config | CAN_PERIODIC | CAN_MESSAGE | ROUTES,
                    8 => timer.comparator.into(),
                    _ => timer.message,
                }
            }),
        }
    }

    fn timer(&self, at: u64) -> Option<(usize, u64)> {
        let at = at.checked_sub(0x100)?;
        let number = (at / 0x20) as usize;
        (number < TIMERS).then_some((number, at % 0x20))
    }

    fn write(&mut self, at: u64, value: u64) {
        match at {
            0x10 => self.configure(value & ENABLED),
            0x20 => self.status &= !value,
            0xf0 if self.since.is_none() => self.counter = value as u32,
            _ => {
                if let Some((number, part)) = self.timer(at) {
                    self.set_timer(number, part, value);
                }
            }
        }
    }

    fn configure(&mut self, config: u64) {
        self.counter = self.now();
        self.config = config;
        let begin = Instant::now();
        self.since = (config & ENABLED != 0).then_some(begin);
        // From the very first tick on: one of the next few may be a timer's.
        (0..TIMERS).for_each(|number| self.arm_from(number, self.counter, begin));
    }

    fn set_timer(&mut self, number: usize, part: u64, value: u64) {
        let timer = &mut self.timers[number];
        match part {
            0 => timer.config = value & WRITABLE,
            8 if timer.config & PERIODIC != 0 => {
                timer.step = value as u32;
                if timer.config & SET_VALUE != 0 {
                    timer.comparator = value as u32;
                    timer.config &= !SET_VALUE;
                }
            }
            8 => timer.comparator = value as u32,
            16 => timer.message = value,
            _ => {}
        }
        self.arm(number);
    }

    /// Computes when a timer is due.
    fn arm(&mut self, number: usize) {
        let (counter, now) = (self.now(), Instant::now());
        self.arm_from(number, counter, now);
    }

    /// The same when the counter stands there at that moment. A comparator behind it is due when
    /// the counter has come round.
    fn arm_from(&mut self, number: usize, counter: u32, now: Instant) {
        let is_running = self.since.is_some();
        let timer = &mut self.timers[number];
        if !is_running {
            // What was due before the counter stopped still comes.
            timer.due = timer.due.filter(|due| *due <= now);
            return;
        }
        timer.due = None;
        timer.go_ahead_of(counter);
        if timer.config & INTERRUPT != 0 {
            let ticks = u64::from(timer.comparator.wrapping_sub(counter));
            let wait = Duration::from_nanos(ticks * 1_000_000_000 / HERTZ);
            timer.due = Some(now + wait);
        }
    }

    /// When the next timer is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.timers.iter().filter_map(|timer| timer.due).min()
    }

    /// Numbers of the timers that are due, which are armed again.
    fn expire(&mut self) -> Vec<(u64, u64)> {
        let now = Instant::now();
        let mut fired = Vec::new();
        for number in 0..TIMERS {
            let timer = &mut self.timers[number];
            if timer.due.is_none_or(|due| due > now) {
                continue;
            }
            timer.due = None;
            fired.push((timer.config, timer.message));
            if timer.config & PERIODIC != 0 && timer.step != 0 {
                self.arm(number);
            }
        }
        fired
    }
}

/// Delivers the interrupts that are due.
pub(crate) fn deliver(vm: &Vm) {
    let fired = lock(&vm.board.hpet).expire();
    for (config, message) in fired {
        let mut bytes = [0; 16];
        if config & MESSAGE != 0 {
            bytes[..4].copy_from_slice(&(message as u32).to_le_bytes());
            bytes[8..12].copy_from_slice(&((message >> 32) as u32).to_le_bytes());
            let _ = irq::call(vm, crate::abi::VM_LAPIC_MSI, &mut bytes);
            continue;
        }
        let pin = (config >> ROUTE_SHIFT & 0x1f) as u8;
        // 0 is no route.
        if pin != 0 {
            bytes[0] = pin;
            let _ = irq::call(vm, crate::abi::VM_IOAPIC_PULSE_IRQ, &mut bytes);
        }
    }
}
