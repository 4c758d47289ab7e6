// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The VNC server: whatever a client says, every key that it pressed comes up, and the picture
//! is sent or not, without a panic. The input is what the client says after its version, with the
//! screen's width and height before it.
#![no_main]

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::sync::{Mutex, atomic};

use imgforge::vm::vnc::{Screen, converse};
use libfuzzer_sys::fuzz_target;

/// Changes a little, and sometimes its size, with each look.
struct Changing {
    size: (u32, u32),
    looks: atomic::AtomicU32,
}

impl Screen for Changing {
    fn copy(&self, into: &mut Vec<u32>) -> (u32, u32) {
        let look = self.looks.fetch_add(1, atomic::Ordering::Relaxed);
        let (width, height) = (self.size.0 + look / 4 % 3, self.size.1);
        into.clear();
        into.extend(
            (0..width * height)
                .map(|at| if at % 97 == look % 97 { at.wrapping_mul(look) } else { at / 200 }),
        );
        (width, height)
    }
}

struct Client<'a>(&'a [u8]);

impl Read for Client<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Client<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let [width, height, version, said @ ..] = bytes else { return };
    let size = (u32::from(*width) + 1, u32::from(*height) + 1);
    let screen = Changing { size, looks: atomic::AtomicU32::new(0) };
    let greeting: &[u8] = match version % 3 {
        0 => b"RFB 003.003\n",
        1 => b"RFB 003.007\n",
        _ => b"RFB 003.008\n",
    };
    let script = [greeting, said].concat();
    let held = Mutex::new(BTreeSet::new());
    let keys = |keysym: u32, down: bool| {
        let mut held = held.lock().expect("one thread");
        if down {
            held.insert(keysym)
        } else {
            held.remove(&keysym)
        };
    };
    let _ = converse(Client(&script), None, &screen, &keys);
    assert!(held.lock().expect("one thread").is_empty(), "a key stays down");
});
