// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! ACPI's fixed hardware: events, the power button, power-off, and the timer (ACPI 6.5 §4.8.3).
//!
//! The FADT names no SMI command port and no general-purpose events: ACPI is always on.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::clock::{Clock, OnWake, Timed, Waker, ticks, time_of};
use super::{Irq, Request, Requests, lanes};
use crate::vm::bus::{BusDevice, SharedDevice};

/// Ports that it takes.
pub const PORTS: u64 = 16;

const STATUS: u64 = 0;
const ENABLE: u64 = 2;
const CONTROL: u64 = 4;
const TIMER: u64 = 8;
const END: u64 = 12;

/// Events: the timer's highest bit changes, the global lock is released, the power button, the
/// real-time clock, the machine wakes.
const TIMER_EVENT: u16 = 1 << 0;
const BUTTON_EVENT: u16 = 1 << 8;
const EVENTS: u16 = TIMER_EVENT | 1 << 5 | BUTTON_EVENT | 1 << 10 | 1 << 15;

const SCI_ENABLED: u16 = 1 << 0;
const SLEEP: u16 = 1 << 13;
/// What the guest may set: the bus master's bit and the kind of sleep.
const STORED: u16 = 1 << 1 | 7 << 10;

/// The ACPI timer, in hertz.
const HERTZ: u32 = 3_579_545;
/// From one change of the 32-bit timer's highest bit to the next, as an exponent.
const HALF: u32 = 31;

/// The block at port 0x400.
pub struct PowerManagement {
    clock: Arc<dyn Clock>,
    sci: Irq,
    requests: Arc<dyn Requests>,
    waker: Waker,
    debug: Option<SharedDevice>,
    status: u16,
    enable: u16,
    control: u16,
    /// Up to when the timer's changes have been reported.
    seen: Duration,
}

impl PowerManagement {
    /// A block whose timer is the machine's clock. `sci` is a level.
    pub fn new(clock: Arc<dyn Clock>, sci: Irq, requests: Arc<dyn Requests>) -> Self {
        let seen = clock.now();
        Self {
            clock,
            sci,
            requests,
            waker: Waker::default(),
            debug: None,
            status: 0,
            enable: 0,
            control: SCI_ENABLED,
            seen,
        }
    }

    /// Gives accesses of one byte at port 0x402, the enable register, to firmware's debug port.
    /// ACPI uses two bytes there.
    #[must_use]
    pub fn with_debug_port(mut self, port: SharedDevice) -> Self {
        self.debug = Some(port);
        self
    }

    /// Sets what is called when a deadline appears or moves nearer.
    pub fn on_wake(&mut self, wake: OnWake) {
        self.waker.set(wake);
    }

    /// Presses the power button. A guest without ACPI does not notice.
    pub fn press_power_button(&mut self) {
        self.status |= BUTTON_EVENT;
        self.settle();
    }

    /// The registers, as they lie at the ports.
    fn image(&mut self) -> [u8; END as usize] {
        self.catch_up();
        let mut image = [0; END as usize];
        lanes::put(&mut image, STATUS as usize, self.status.to_le_bytes());
        lanes::put(&mut image, ENABLE as usize, self.enable.to_le_bytes());
        lanes::put(&mut image, CONTROL as usize, self.control.to_le_bytes());
        // 32 bits, as the FADT says: the rest is cut off.
        let timer = ticks(self.clock.now(), HERTZ) as u32;
        lanes::put(&mut image, TIMER as usize, timer.to_le_bytes());
        image
    }

    fn catch_up(&mut self) {
        let now = self.clock.now();
        if ticks(self.seen, HERTZ) >> HALF != ticks(now, HERTZ) >> HALF {
            self.status |= TIMER_EVENT;
        }
        self.seen = now;
    }

    fn settle(&mut self) {
        self.catch_up();
        self.sci.set(self.status & self.enable != 0);
        self.waker.update(self.next_deadline());
    }

    fn set_control(&mut self, control: u16) {
        self.control = SCI_ENABLED | control & STORED;
        if control & SLEEP != 0 {
            // Whatever the kind: there is no other sleep.
            self.requests.request(Request::PowerOff);
        }
    }
}

impl BusDevice for PowerManagement {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let (ENABLE, 1, Some(debug)) = (offset, data.len(), &self.debug) {
            debug.lock().unwrap_or_else(PoisonError::into_inner).read(0, data);
            return;
        }
        lanes::read(&self.image(), offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let (ENABLE, 1, Some(debug)) = (offset, data.len(), &self.debug) {
            debug.lock().unwrap_or_else(PoisonError::into_inner).write(0, data);
            return;
        }
        self.catch_up();
        // Where nothing is written: no event is cleared, the rest stays.
        let mut image = [0; 6];
        lanes::put(&mut image, ENABLE as usize, self.enable.to_le_bytes());
        lanes::put(&mut image, CONTROL as usize, self.control.to_le_bytes());
        lanes::write(&mut image, &[0xff; 6], offset, data);
        let [status @ .., e0, e1, c0, c1] = image;
        self.status &= !u16::from_le_bytes(status);
        self.enable = u16::from_le_bytes([e0, e1]) & EVENTS;
        self.set_control(u16::from_le_bytes([c0, c1]));
        self.settle();
    }
}

impl Timed for PowerManagement {
    fn next_deadline(&self) -> Option<Duration> {
        // What is already reported happens again without anybody being told.
        let is_wanted = self.enable & !self.status & TIMER_EVENT != 0;
        let next = (ticks(self.seen, HERTZ) >> HALF) + 1;
        is_wanted.then(|| time_of(next << HALF, HERTZ))
    }

    fn tick(&mut self) {
        self.settle();
    }
}

/// A second place of the control register, which firmware knows by heart: OVMF powers off by port
/// 0xB004 wherever the block is, others by 0x604.
pub struct PowerOffPort {
    requests: Arc<dyn Requests>,
}

impl PowerOffPort {
    /// Ports that it takes.
    pub const PORTS: u64 = 2;

    /// A port that only powers off.
    pub fn new(requests: Arc<dyn Requests>) -> Self {
        Self { requests }
    }
}

impl BusDevice for PowerOffPort {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        lanes::read(&SCI_ENABLED.to_le_bytes(), offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut control = [0; 2];
        lanes::write(&mut control, &[0xff; 2], offset, data);
        if u16::from_le_bytes(control) & SLEEP != 0 {
            self.requests.request(Request::PowerOff);
        }
    }
}

#[cfg(test)]
#[path = "pm_tests.rs"]
mod tests;
