// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A PS/2 keyboard: it answers commands and keeps what was typed until it may send.

use std::collections::{BTreeSet, VecDeque};

use super::keys::Key;

/// Bytes that may wait before new presses are dropped.
const LONGEST_QUEUE: usize = 4096;

const ACK: u8 = 0xfa;
const RESEND: u8 = 0xfe;
const SELF_TEST_PASSED: u8 = 0xaa;

/// A keyboard with scan code set 2, the only one that firmware and kernels of ours use.
#[derive(Debug, Default)]
pub(super) struct Keyboard {
    /// It sends keys: F4 was the last word on it.
    is_scanning: bool,
    /// The command whose parameter comes next.
    pending: Option<u8>,
    /// Keys that are down.
    down: BTreeSet<Key>,
    /// Scan codes of set 2.
    queue: VecDeque<u8>,
}

impl Keyboard {
    /// A key goes down, again while it is held, or up. The queue's length is bounded: what is
    /// pressed when it is full never was, and whatever was pressed is released.
    pub(super) fn key(&mut self, key: Key, is_down: bool) {
        if is_down && self.queue.len() < LONGEST_QUEUE {
            self.down.insert(key);
            self.queue.extend(key.make());
        } else if !is_down && self.down.remove(&key) {
            self.queue.extend(key.release());
        }
    }

    /// Whether there is something to send, and it may be sent.
    pub(super) fn is_ready(&self) -> bool {
        self.is_scanning && !self.queue.is_empty()
    }

    /// The next byte that was typed.
    pub(super) fn next(&mut self) -> Option<u8> {
        if self.is_scanning { self.queue.pop_front() } else { None }
    }

    /// Takes a byte from the controller; returns the answer. What was typed outlasts all commands:
    /// guests reset the keyboard whenever one hands over to the next.
    pub(super) fn command(&mut self, byte: u8) -> &'static [u8] {
        if let Some(command) = self.pending.take() {
            return self.parameter(command, byte);
        }
        match byte {
            // LEDs, scan code set, rate.
            0xed | 0xf0 | 0xf3 => {
                self.pending = Some(byte);
                &[ACK]
            }
            0xee => &[0xee],
            // A keyboard with 101 keys or more.
            0xf2 => &[ACK, 0xab, 0x83],
            0xf4 => {
                self.is_scanning = true;
                &[ACK]
            }
            0xf5 => {
                self.is_scanning = false;
                &[ACK]
            }
            0xf6 => &[ACK],
            0xff => {
                self.is_scanning = false;
                &[ACK, SELF_TEST_PASSED]
            }
            _ => &[RESEND],
        }
    }

    fn parameter(&mut self, command: u8, byte: u8) -> &'static [u8] {
        match (command, byte) {
            (0xf0, 0) => &[ACK, 2],
            // The others do not exist.
            (0xf0, 1 | 3..) => &[RESEND],
            _ => &[ACK],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_still_releases_keys() {
        let mut keyboard = Keyboard::default();
        keyboard.command(0xf4);
        for _ in 0..LONGEST_QUEUE {
            keyboard.key(Key::Plain(0x1c), true);
            keyboard.key(Key::Pause, true);
        }
        let full = keyboard.queue.len();
        assert!((LONGEST_QUEUE..LONGEST_QUEUE + 8).contains(&full));
        keyboard.key(Key::Plain(0x32), true);
        keyboard.key(Key::Plain(0x32), false);
        assert_eq!(keyboard.queue.len(), full);
        keyboard.key(Key::Plain(0x1c), false);
        keyboard.key(Key::Plain(0x1c), false);
        assert_eq!(keyboard.queue.len(), full + 2);
    }

    #[test]
    fn commands_are_answered() {
        let mut keyboard = Keyboard::default();
        let steps: [(u8, &[u8]); 16] = [
            (0xff, &[0xfa, 0xaa]),
            (0xf6, &[0xfa]),
            (0xf5, &[0xfa]),
            (0xf4, &[0xfa]),
            (0xf3, &[0xfa]),
            (0xff, &[0xfa]),
            (0xf2, &[0xfa, 0xab, 0x83]),
            (0xf0, &[0xfa]),
            (0x02, &[0xfa]),
            (0xf0, &[0xfa]),
            (0x00, &[0xfa, 0x02]),
            (0xf0, &[0xfa]),
            (0x03, &[0xfe]),
            (0xed, &[0xfa]),
            (0x07, &[0xfa]),
            (0x55, &[0xfe]),
        ];
        for (byte, answer) in steps {
            assert_eq!(keyboard.command(byte), answer, "{byte:#x}");
        }
        assert_eq!(keyboard.command(0xee), [0xee]);
    }
}
