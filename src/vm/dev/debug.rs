// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The debug port to which DEBUG builds of OVMF print (edk2's PlatformDebugLibIoPort).

use crate::vm::bus::BusDevice;

/// What firmware reads when the port is there.
const PRESENT: u8 = 0xe9;
/// Longest line in bytes; longer ones are broken.
const LONGEST: usize = 512;

/// A port of one byte, at 0x402 unless ACPI's registers are there: see
/// [`super::pm::PowerManagement::with_debug_port`].
pub struct DebugPort {
    sink: Box<dyn FnMut(&str) + Send>,
    line: Vec<u8>,
}

impl DebugPort {
    /// A port that gives its lines, without their ends, to `sink`. The sink must not block: a vCPU
    /// waits for it.
    pub fn new(sink: Box<dyn FnMut(&str) + Send>) -> Self {
        Self { sink, line: Vec::new() }
    }

    fn print(&mut self, byte: u8) {
        if !matches!(byte, b'\n' | b'\r') {
            self.line.push(byte);
        }
        if byte == b'\n' || self.line.len() >= LONGEST {
            (self.sink)(&String::from_utf8_lossy(&self.line));
            self.line.clear();
        }
    }
}

impl BusDevice for DebugPort {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        if let Some(first) = data.first_mut() {
            *first = PRESENT;
        }
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        if let [byte] = data {
            self.print(*byte);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;

    use super::super::clock::FakeClock;
    use super::super::mock::{acts, inb, outb};
    use super::*;

    fn port() -> (DebugPort, Arc<Mutex<Vec<String>>>) {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&lines);
        (DebugPort::new(Box::new(move |line| seen.lock().unwrap().push(line.to_owned()))), lines)
    }

    #[test]
    fn lines_are_handed_on() {
        let (mut port, lines) = port();
        assert_eq!(inb(&mut port, 0), 0xe9);
        for byte in b"SecCoreStart\r\n\nM\xffre" {
            outb(&mut port, 0, *byte);
        }
        assert_eq!(*lines.lock().unwrap(), ["SecCoreStart", ""]);
        for _ in 0..LONGEST {
            outb(&mut port, 0, b'.');
        }
        let lines = lines.lock().unwrap();
        assert!(lines.len() == 3 && lines[2].starts_with("M\u{fffd}re."));
    }

    proptest! {
        #[test]
        fn no_line_is_long(acts in acts(1)) {
            let (mut port, _) = port();
            for act in acts {
                act.apply(&mut port, &FakeClock::at(0));
                prop_assert!(port.line.len() < LONGEST);
            }
        }
    }
}
