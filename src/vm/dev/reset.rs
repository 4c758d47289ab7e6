// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Registers that reset the machine, and a port for nobody.

use std::sync::Arc;

use super::{Request, Requests};
use crate::vm::bus::BusDevice;

/// A register of one byte in which a bit that becomes 1 resets the machine. The rest is storage.
pub struct ResetRegister {
    requests: Arc<dyn Requests>,
    value: u8,
    trigger: u8,
}

impl ResetRegister {
    /// The reset control register at port 0xCF9 (Intel 82371AB data sheet §4.2.2): bit 2. Give it
    /// to [`super::pci::Pci::new`], whose ports surround it.
    pub fn control(requests: Arc<dyn Requests>) -> Self {
        Self { requests, value: 0, trigger: 1 << 2 }
    }

    /// System control port A, 0x92 (IBM PS/2 technical reference): bit 0 resets; bit 1 is A20,
    /// which is always open and reads as written.
    pub fn port_a(requests: Arc<dyn Requests>) -> Self {
        Self { requests, value: 1 << 1, trigger: 1 << 0 }
    }
}

impl BusDevice for ResetRegister {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let (0, Some(first)) = (offset, data.first_mut()) {
            *first = self.value;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let (0, Some(&value)) = (offset, data.first()) else { return };
        let is_reset = value & !self.value & self.trigger != 0;
        self.value = value;
        if is_reset {
            self.requests.request(Request::Reset);
        }
    }
}

/// A port that swallows what is written: POST codes at 0x80 and 0x84, delays at 0x80 and 0xED.
#[derive(Debug, Default)]
pub struct PostPort;

impl PostPort {
    /// A port.
    pub fn new() -> Self {
        Self
    }
}

impl BusDevice for PostPort {
    fn read(&mut self, _offset: u64, _data: &mut [u8]) {}

    fn write(&mut self, _offset: u64, data: &[u8]) {
        tracing::trace!(code = ?data, "POST");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::clock::FakeClock;
    use super::super::mock::{Asked, acts, inb, outb};
    use super::*;

    #[test]
    fn linux_resets_by_the_control_register() {
        let asked = Asked::new();
        let mut register = ResetRegister::control(Arc::clone(&asked) as _);
        assert_eq!(inb(&mut register, 0), 0);
        outb(&mut register, 0, 0x02);
        assert_eq!((inb(&mut register, 0), asked.take()), (0x02, vec![]));
        outb(&mut register, 0, 0x06);
        outb(&mut register, 0, 0x0e);
        assert_eq!(asked.take(), [Request::Reset]);
    }

    #[test]
    fn firmware_reads_and_writes_port_a_without_a_reset() {
        let asked = Asked::new();
        let mut register = ResetRegister::port_a(Arc::clone(&asked) as _);
        let value = inb(&mut register, 0);
        outb(&mut register, 0, value | 2);
        assert_eq!((value, asked.take()), (2, vec![]));
        outb(&mut register, 0, 3);
        outb(&mut register, 0, 3);
        assert_eq!(asked.take(), [Request::Reset]);
    }

    #[test]
    fn nobody_is_at_the_post_port() {
        let mut port = PostPort::new();
        outb(&mut port, 0, 0x55);
        assert_eq!(inb(&mut port, 0), 0xff);
    }

    proptest! {
        #[test]
        fn nothing_breaks_them(acts in acts(2)) {
            let clock = FakeClock::at(0);
            let asked = Asked::new();
            let mut register = ResetRegister::port_a(asked);
            for act in acts {
                act.apply(&mut register, &clock);
                act.apply(&mut PostPort::new(), &clock);
            }
        }
    }
}
