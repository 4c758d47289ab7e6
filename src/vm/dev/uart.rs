// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A serial port: the 16550A UART (National Semiconductor PC16550D, 1995).
//!
//! Bytes leave at once, whatever the divisor says. Bytes that arrive wait with the host until the
//! receive FIFO has room: none is ever lost but those that the guest discards itself.

use std::collections::VecDeque;
use std::io::Write;

use super::Irq;
use crate::vm::bus::BusDevice;

/// Ports that it takes.
pub const PORTS: u64 = 8;

/// Bytes that the FIFO holds when it is on.
const FIFO: usize = 16;

/// Interrupt enable register: received data, transmitter empty, line status, modem status.
const IER_DATA: u8 = 1 << 0;
const IER_EMPTY: u8 = 1 << 1;
const IER_LINE: u8 = 1 << 2;
const IER_MODEM: u8 = 1 << 3;

/// Interrupt identification.
const IIR_NONE: u8 = 0x01;
const IIR_MODEM: u8 = 0x00;
const IIR_EMPTY: u8 = 0x02;
const IIR_DATA: u8 = 0x04;
const IIR_LINE: u8 = 0x06;
const IIR_TIMEOUT: u8 = 0x0c;
const IIR_FIFO: u8 = 0xc0;

const FCR_ENABLE: u8 = 1 << 0;
const FCR_CLEAR_RECEIVER: u8 = 1 << 1;

const LCR_DIVISOR: u8 = 1 << 7;

const MCR_DTR: u8 = 1 << 0;
const MCR_RTS: u8 = 1 << 1;
const MCR_OUT1: u8 = 1 << 2;
const MCR_OUT2: u8 = 1 << 3;
const MCR_LOOP: u8 = 1 << 4;

const LSR_DATA: u8 = 1 << 0;
const LSR_OVERRUN: u8 = 1 << 1;
/// The transmitter is always empty: its holding register and its shift register.
const LSR_EMPTY: u8 = 1 << 5 | 1 << 6;

const MSR_CTS: u8 = 1 << 4;
const MSR_DSR: u8 = 1 << 5;
const MSR_RI: u8 = 1 << 6;
const MSR_DCD: u8 = 1 << 7;

/// A serial port. Put it at [`PORTS`] ports: 0x3F8 for COM1, 0x2F8 for COM2.
pub struct Uart {
    irq: Irq,
    sink: Box<dyn Write + Send>,
    on_room: Option<Box<dyn Fn() + Send>>,
    /// Received bytes that the guest has not read; never more than [`Uart::capacity`].
    received: VecDeque<u8>,
    /// The host has more than fitted.
    is_awaited: bool,
    overrun: bool,
    /// The transmitter became empty and the guest has not been told.
    empty: bool,
    /// Changes of modem lines since the modem status was read.
    changes: u8,
    enabled: u8,
    fifo: bool,
    trigger: usize,
    line_control: u8,
    modem_control: u8,
    scratch: u8,
    divisor: [u8; 2],
}

impl Uart {
    /// A port whose bytes go to `sink`. The sink must not block: a vCPU waits for it. What it
    /// cannot take is lost.
    pub fn new(irq: Irq, sink: Box<dyn Write + Send>) -> Self {
        Self {
            irq,
            sink,
            on_room: None,
            received: VecDeque::with_capacity(FIFO),
            is_awaited: false,
            overrun: false,
            empty: false,
            changes: 0,
            enabled: 0,
            fifo: false,
            trigger: 1,
            line_control: 0,
            modem_control: 0,
            scratch: 0,
            // 9600 baud, as a PC's firmware would leave it.
            divisor: [12, 0],
        }
    }

    /// Sets what is called when [`Uart::receive`] is worth another try after it did not take
    /// everything. It is called with the port locked: it must neither wait nor use the port.
    pub fn on_room(&mut self, wake: Box<dyn Fn() + Send>) {
        self.on_room = Some(wake);
    }

    /// Gives the guest bytes; returns how many were taken. While the guest tests the port in
    /// loopback mode that is none.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        let room = if self.is_loopback() {
            0
        } else {
            self.capacity().saturating_sub(self.received.len())
        };
        let taken = room.min(bytes.len());
        self.received.extend(bytes.iter().take(taken));
        self.is_awaited = taken < bytes.len();
        self.update();
        taken
    }

    fn capacity(&self) -> usize {
        if self.fifo { FIFO } else { 1 }
    }

    fn is_loopback(&self) -> bool {
        self.modem_control & MCR_LOOP != 0
    }

    fn is_divisor(&self) -> bool {
        self.line_control & LCR_DIVISOR != 0
    }

    /// The cause of highest priority (table 3 of the data sheet).
    fn cause(&self) -> u8 {
        let is_enabled = |bit| self.enabled & bit != 0;
        if is_enabled(IER_LINE) && self.overrun {
            IIR_LINE
        } else if is_enabled(IER_DATA) && self.received.len() >= self.trigger {
            IIR_DATA
        } else if is_enabled(IER_DATA) && !self.received.is_empty() {
            // The time-out of four characters has always passed.
            IIR_TIMEOUT
        } else if is_enabled(IER_EMPTY) && self.empty {
            IIR_EMPTY
        } else if is_enabled(IER_MODEM) && self.changes != 0 {
            IIR_MODEM
        } else {
            IIR_NONE
        }
    }

    /// Not gated by OUT2: no guest of ours depends on that.
    fn update(&self) {
        self.irq.set(self.cause() != IIR_NONE);
    }

    fn tell_of_room(&mut self) {
        let has_room = !self.is_loopback() && self.received.len() <= self.capacity() / 2;
        if has_room
            && std::mem::take(&mut self.is_awaited)
            && let Some(wake) = &self.on_room
        {
            wake();
        }
    }

    fn read_register(&mut self, offset: u64) -> u8 {
        match offset {
            0 if self.is_divisor() => self.divisor[0],
            1 if self.is_divisor() => self.divisor[1],
            0 => self.received.pop_front().unwrap_or(0),
            1 => self.enabled,
            2 => self.read_cause(),
            3 => self.line_control,
            4 => self.modem_control,
            5 => self.read_line_status(),
            6 => self.lines() | std::mem::take(&mut self.changes),
            7 => self.scratch,
            _ => 0xff,
        }
    }

    fn read_cause(&mut self) -> u8 {
        let cause = self.cause();
        if cause == IIR_EMPTY {
            self.empty = false;
        }
        if self.fifo { cause | IIR_FIFO } else { cause }
    }

    fn read_line_status(&mut self) -> u8 {
        let data = if self.received.is_empty() { 0 } else { LSR_DATA };
        let overrun = if std::mem::take(&mut self.overrun) { LSR_OVERRUN } else { 0 };
        LSR_EMPTY | data | overrun
    }

    /// Modem lines: the other side is always ready, or it is ourselves.
    fn lines(&self) -> u8 {
        if !self.is_loopback() {
            return MSR_CTS | MSR_DSR | MSR_DCD;
        }
        let pairs =
            [(MCR_RTS, MSR_CTS), (MCR_DTR, MSR_DSR), (MCR_OUT1, MSR_RI), (MCR_OUT2, MSR_DCD)];
        let set = pairs.iter().filter(|(output, _)| self.modem_control & output != 0);
        set.fold(0, |lines, (_, input)| lines | input)
    }

    fn write_register(&mut self, offset: u64, value: u8) {
        match offset {
            0 if self.is_divisor() => self.divisor[0] = value,
            1 if self.is_divisor() => self.divisor[1] = value,
            0 => self.transmit(value),
            1 => self.enable(value),
            2 => self.control_fifo(value),
            3 => self.line_control = value,
            4 => self.control_modem(value),
            7 => self.scratch = value,
            // Both status registers are read only.
            _ => {}
        }
    }

    fn transmit(&mut self, byte: u8) {
        // The register is full for no time at all, yet the interrupt falls and rises.
        self.empty = false;
        self.update();
        if self.is_loopback() {
            self.loop_back(byte);
        } else if let Err(error) = self.sink.write_all(&[byte]) {
            tracing::debug!(%error, "a byte of a serial port is lost");
        }
        self.empty = true;
    }

    fn loop_back(&mut self, byte: u8) {
        if self.received.len() >= self.capacity() {
            self.overrun = true;
            // With a FIFO the new byte is lost, without one the old.
            if self.fifo {
                return;
            }
            self.received.clear();
        }
        self.received.push_back(byte);
    }

    fn enable(&mut self, value: u8) {
        let value = value & 0x0f;
        if value & !self.enabled & IER_EMPTY != 0 {
            // Linux starts its output by this edge alone.
            self.empty = true;
        }
        self.enabled = value;
    }

    fn control_fifo(&mut self, value: u8) {
        let fifo = value & FCR_ENABLE != 0;
        if fifo != self.fifo || value & FCR_CLEAR_RECEIVER != 0 && fifo {
            self.received.clear();
        }
        self.fifo = fifo;
        self.trigger = match (fifo, value >> 6) {
            (false, _) | (true, 0) => 1,
            (true, 1) => 4,
            (true, 2) => 8,
            (true, _) => 14,
        };
    }

    fn control_modem(&mut self, value: u8) {
        let before = self.lines();
        self.modem_control = value & 0x1f;
        let after = self.lines();
        // RI counts when it falls only.
        let changed = (before ^ after) & !(after & MSR_RI);
        self.changes |= changed >> 4;
    }
}

impl BusDevice for Uart {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        for (offset, byte) in (offset..).zip(data) {
            *byte = self.read_register(offset);
        }
        self.update();
        self.tell_of_room();
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (offset, byte) in (offset..).zip(data) {
            self.write_register(offset, *byte);
        }
        self.update();
        self.tell_of_room();
    }
}

#[cfg(test)]
#[path = "uart_tests.rs"]
mod tests;
