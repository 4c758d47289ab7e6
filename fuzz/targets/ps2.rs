// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The keyboard controller: any sequence of commands, keys and moments. Afterwards, a driver that
//! sets it up anew reads the key that is pressed then.
#![no_main]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use imgforge::vm::bus::BusDevice;
use imgforge::vm::dev::clock::{Clock, Timed};
use imgforge::vm::dev::i8042::I8042;
use imgforge::vm::dev::{IrqLine, Request, Requests};
use libfuzzer_sys::fuzz_target;

const DATA: u64 = 0;
const COMMAND: u64 = 4;

/// Moves when told to.
#[derive(Default)]
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }

    fn wall(&self) -> Duration {
        self.now()
    }
}

struct Nothing;

impl IrqLine for Nothing {
    fn set(&self, _: bool) {}
}

impl Requests for Nothing {
    fn request(&self, _: Request) {}
}

struct Machine {
    clock: Arc<Hand>,
    controller: I8042,
}

impl Machine {
    fn pass(&mut self, micros: u64) {
        self.clock.0.fetch_add(micros, Ordering::Relaxed);
        self.controller.tick();
    }

    fn read(&mut self, port: u64) -> u8 {
        let mut data = [0];
        self.controller.read(port, &mut data);
        data[0]
    }

    /// Reads what there is, at most so many bytes.
    fn drain(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < most && self.read(COMMAND) & 1 != 0 {
            bytes.push(self.read(DATA));
            self.pass(2000);
        }
        bytes
    }
}

fuzz_target!(|bytes: &[u8]| {
    let clock = Arc::new(Hand::default());
    let controller =
        I8042::new(Arc::clone(&clock) as Arc<dyn Clock>, Arc::new(Nothing), Arc::new(Nothing));
    let mut machine = Machine { clock, controller };
    for step in bytes.chunks_exact(2).take(2000) {
        match step[0] % 6 {
            0 => machine.controller.write(DATA, &step[1..]),
            1 => machine.controller.write(COMMAND, &step[1..]),
            2 => drop(machine.read(DATA)),
            3 => drop(machine.read(COMMAND)),
            4 => machine.pass(u64::from(step[1]) * 20),
            _ => machine
                .controller
                .key(u32::from(step[1]) | 0xff00 * u32::from(step[0] >> 7), step[0] & 0x40 != 0),
        }
    }
    let left = machine.drain(5000);
    assert!(left.len() < 5000, "the controller never falls silent");
    // Self-test, interrupts and translation on, keyboard enabled; its reset, then scanning.
    for (port, byte) in [
        (COMMAND, 0xaa),
        (COMMAND, 0x60),
        (DATA, 0x41),
        (COMMAND, 0xae),
        (DATA, 0xff),
        (DATA, 0xf4),
    ] {
        machine.controller.write(port, &[byte]);
        machine.pass(2000);
        machine.drain(5000);
    }
    machine.controller.key(u32::from(b'a'), false);
    machine.pass(2000);
    machine.drain(5000);
    machine.controller.key(u32::from(b'a'), true);
    machine.pass(2000);
    assert!(machine.drain(16).contains(&0x1e), "the key does not arrive");
});
