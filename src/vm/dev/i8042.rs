// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The keyboard controller 8042 of a PS/2 (IBM PS/2 technical reference), without a mouse.
//!
//! Answers to commands are there at once. Keys come at the speed of the wire and one at a time,
//! each with an edge of the interrupt line: firmware that polls loses none, and a kernel that
//! flushes comes to an end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::clock::{Clock, OnWake, Timed, Waker};
use super::keyboard::Keyboard;
use super::keys::{self, Key};
use super::{Irq, Request, Requests};
use crate::vm::bus::BusDevice;

/// Ports that it takes, from 0x60 on; only the first and the last are its own.
pub const PORTS: u64 = 5;

const DATA: u64 = 0;
const COMMAND: u64 = 4;

/// From the end of one byte to the next: eleven bits at 11 kHz.
const PACE: Duration = Duration::from_millis(1);

/// Most answers that wait. Linux takes a controller with more than sixteen bytes for absent.
const MOST_REPLIES: usize = 16;

const STATUS_FULL: u8 = 1 << 0;
const STATUS_SYSTEM: u8 = 1 << 2;
const STATUS_COMMAND: u8 = 1 << 3;
/// The keyboard is not locked.
const STATUS_UNLOCKED: u8 = 1 << 4;

const CONFIG_INTERRUPT: u8 = 1 << 0;
const CONFIG_SYSTEM: u8 = 1 << 2;
const CONFIG_DISABLED: u8 = 1 << 4;
const CONFIG_NO_MOUSE: u8 = 1 << 5;
const CONFIG_TRANSLATE: u8 = 1 << 6;

const OUTPUT_NO_RESET: u8 = 1 << 0;
const OUTPUT_A20: u8 = 1 << 1;
const OUTPUT_INTERRUPT: u8 = 1 << 4;

/// The prefix of a released key in set 2.
const RELEASE: u8 = 0xf0;

/// For whom the next byte at the data port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Keyboard,
    /// A byte of the controller's RAM; the first one is the configuration.
    Ram(u8),
    OutputPort,
    /// The output buffer, as if it came from a device.
    Output,
    Nobody,
}

#[derive(Debug, Clone, Copy)]
struct Output {
    byte: u8,
    /// It was typed; it may be put back and shown later.
    is_key: bool,
}

/// The controller with a keyboard. Put it at [`PORTS`] ports from 0x60 on.
pub struct I8042 {
    clock: Arc<dyn Clock>,
    irq: Irq,
    requests: Arc<dyn Requests>,
    waker: Waker,
    keyboard: Keyboard,
    /// Bytes 0x20 to 0x3F of the controller's RAM.
    ram: [u8; 32],
    output_port: u8,
    is_tested: bool,
    last_was_command: bool,
    target: Target,
    output: Option<Output>,
    replies: VecDeque<u8>,
    /// A typed byte that an answer displaced.
    displaced: Option<u8>,
    next_key: Duration,
}

impl I8042 {
    /// A controller as at power-on: the guest has to enable the keyboard before keys reach it.
    pub fn new(clock: Arc<dyn Clock>, irq1: Irq, requests: Arc<dyn Requests>) -> Self {
        let mut ram = [0; 32];
        ram[0] = CONFIG_INTERRUPT | CONFIG_NO_MOUSE | CONFIG_TRANSLATE;
        Self {
            clock,
            irq: irq1,
            requests,
            waker: Waker::default(),
            keyboard: Keyboard::default(),
            ram,
            output_port: 0xc0 | OUTPUT_NO_RESET | OUTPUT_A20,
            is_tested: false,
            last_was_command: false,
            target: Target::Keyboard,
            output: None,
            replies: VecDeque::new(),
            displaced: None,
            next_key: Duration::ZERO,
        }
    }

    /// Sets what is called when a deadline appears or moves nearer.
    pub fn on_wake(&mut self, wake: OnWake) {
        self.waker.set(wake);
    }

    /// A key goes down or up, by its X11 keysym (RFC 6143 §7.5.4). A shifted symbol is the key of
    /// a US keyboard that bears it, without Shift: whoever types holds Shift as well. What a US
    /// keyboard has not is ignored, and so are presses while some thousand bytes are waiting.
    pub fn key(&mut self, keysym: u32, down: bool) {
        let Some(key) = Key::of(keysym) else {
            tracing::debug!(keysym, "no such key");
            return;
        };
        self.keyboard.key(key, down);
        self.settle();
    }

    fn config(&self) -> u8 {
        self.ram[0]
    }

    fn set_config(&mut self, value: u8) {
        self.ram[0] = value | CONFIG_NO_MOUSE;
        self.is_tested = value & CONFIG_SYSTEM != 0;
    }

    fn is_enabled(&self) -> bool {
        self.config() & CONFIG_DISABLED == 0
    }

    fn has_key(&self) -> bool {
        self.is_enabled() && (self.displaced.is_some() || self.keyboard.is_ready())
    }

    fn reply(&mut self, byte: u8) {
        // Whoever never reads loses the oldest.
        if self.replies.len() >= MOST_REPLIES {
            self.replies.pop_front();
        }
        self.replies.push_back(byte);
    }

    /// What the keyboard says goes through the translation, its answers included.
    fn reply_from_keyboard(&mut self, answer: &[u8]) {
        let translates = self.config() & CONFIG_TRANSLATE != 0;
        for &byte in answer {
            self.reply(if translates { keys::translate(byte) } else { byte });
        }
    }

    /// Shows what there is to show, raises the line for it, and says when there will be more.
    fn settle(&mut self) {
        if !self.replies.is_empty() {
            self.displace();
        }
        if self.output.is_none() {
            self.output = self.next_output();
        }
        self.irq.set(self.output.is_some() && self.config() & CONFIG_INTERRUPT != 0);
        self.waker.update(self.next_deadline());
    }

    /// An answer comes before what was typed: the guest waits for it.
    fn displace(&mut self) {
        if let Some(Output { byte, is_key: true }) = self.output {
            self.displaced = Some(byte);
            self.output = None;
            self.irq.set(false);
        }
    }

    fn next_output(&mut self) -> Option<Output> {
        if let Some(byte) = self.replies.pop_front() {
            return Some(Output { byte, is_key: false });
        }
        if !self.has_key() || self.clock.now() < self.next_key {
            return None;
        }
        let byte = self.displaced.take().or_else(|| self.next_code())?;
        Some(Output { byte, is_key: true })
    }

    /// The next byte that was typed, in the set that the guest sees.
    fn next_code(&mut self) -> Option<u8> {
        let code = self.keyboard.next()?;
        if self.config() & CONFIG_TRANSLATE == 0 {
            return Some(code);
        }
        if code == RELEASE {
            return Some(keys::translate(self.keyboard.next()?) | 0x80);
        }
        Some(keys::translate(code))
    }

    fn status(&self) -> u8 {
        let bit = |is_set, bit| if is_set { bit } else { 0 };
        STATUS_UNLOCKED
            | bit(self.output.is_some(), STATUS_FULL)
            | bit(self.is_tested, STATUS_SYSTEM)
            | bit(self.last_was_command, STATUS_COMMAND)
    }

    /// Gives the output buffer. Empty, it gives the last byte: zero will do.
    fn take_output(&mut self) -> u8 {
        let Some(output) = self.output.take() else { return 0 };
        self.irq.set(false);
        if output.is_key {
            self.next_key = self.clock.now() + PACE;
        }
        self.settle();
        output.byte
    }

    fn command(&mut self, command: u8) {
        self.target = Target::Keyboard;
        match command {
            0x20..=0x3f => {
                self.reply(self.ram.get(usize::from(command & 0x1f)).copied().unwrap_or(0))
            }
            0x60..=0x7f => self.target = Target::Ram(command & 0x1f),
            // The mouse's interface: its clock line is stuck.
            0xa9 => self.reply(0x01),
            0xaa => {
                self.is_tested = true;
                self.ram[0] |= CONFIG_SYSTEM;
                self.reply(0x55);
            }
            0xab => self.reply(0x00),
            0xad => self.ram[0] |= CONFIG_DISABLED,
            0xae => self.ram[0] &= !CONFIG_DISABLED,
            // The input port: the keyboard is not locked.
            0xc0 => self.reply(0x80),
            0xd0 => self.reply(self.output_port()),
            0xd1 => self.target = Target::OutputPort,
            // Linux looks for the mouse by 0xD3: it gets the byte, but not as the mouse's.
            0xd2 | 0xd3 => self.target = Target::Output,
            0xd4 => self.target = Target::Nobody,
            0xf0..=0xff if command & OUTPUT_NO_RESET == 0 => self.requests.request(Request::Reset),
            // Among them 0xA7 and 0xA8, which disable and enable the mouse.
            _ => {}
        }
    }

    fn output_port(&self) -> u8 {
        let interrupt = if self.output.is_some() { OUTPUT_INTERRUPT } else { 0 };
        self.output_port & !OUTPUT_INTERRUPT | interrupt
    }

    fn data(&mut self, byte: u8) {
        match std::mem::replace(&mut self.target, Target::Keyboard) {
            Target::Keyboard => {
                // As the hardware does: the wire is needed.
                self.ram[0] &= !CONFIG_DISABLED;
                let answer = self.keyboard.command(byte);
                self.reply_from_keyboard(answer);
            }
            Target::Ram(0) => self.set_config(byte),
            Target::Ram(index) => {
                if let Some(cell) = self.ram.get_mut(usize::from(index)) {
                    *cell = byte;
                }
            }
            Target::OutputPort => {
                self.output_port = byte;
                if byte & OUTPUT_NO_RESET == 0 {
                    self.requests.request(Request::Reset);
                }
            }
            Target::Output => self.reply(byte),
            Target::Nobody => {}
        }
    }
}

impl BusDevice for I8042 {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let value = match offset {
            DATA => self.take_output(),
            COMMAND => self.status(),
            _ => return,
        };
        if let Some(first) = data.first_mut() {
            *first = value;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let Some(&value) = data.first() else { return };
        match offset {
            DATA => self.data(value),
            COMMAND => self.command(value),
            _ => return,
        }
        self.last_was_command = offset == COMMAND;
        self.settle();
    }
}

impl Timed for I8042 {
    fn next_deadline(&self) -> Option<Duration> {
        (self.output.is_none() && self.has_key()).then_some(self.next_key)
    }

    fn tick(&mut self) {
        self.settle();
    }
}

#[cfg(test)]
#[path = "i8042_tests.rs"]
mod tests;
