// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Guests with more than one processor: the kernel starts the others, and each way to end has to
//! get all of them out.

use super::code::{Code, code};
use super::zone::{Zone, has_kvm};

const VERSIONS: [u32; 8] = [1, 3, 4, 5, 6, 15, 16, 18];
const CALL: u32 = 0xfee0_0300;
/// Where the others begin, and where they count themselves.
const BEGIN: u32 = 0x8000;
const COUNT: u32 = 0x500;

/// The others say that they are there, and do what comes last, in real mode.
fn others(last: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x31, 0xc0, 0x8e, 0xd8]; // xor ax, ax; mov ds, ax
    bytes.extend([0xba, 0xf8, 0x03, 0xb0, b'a', 0xee]); // mov dx, 0x3f8; mov al, 'a'; out dx, al
    bytes.extend([0xf0, 0xff, 0x06, 0x00, 0x05]); // lock inc word [COUNT]
    bytes.extend(last);
    bytes
}

/// cli; hlt; for ever.
const HALT: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfd];
/// jmp $
const SPIN: [u8; 2] = [0xeb, 0xfe];

/// Starts the other processors, waits for them, and ends.
fn program(cpus: u32, last: &[u8], end: impl FnOnce(&mut Code)) -> Code {
    code(|code| {
        code.store(BEGIN, &others(last));
        code.store32(0xfee0_00f0, 0x1ff);
        // To all but itself: INIT, then the page to begin at.
        code.store32(CALL, 0x000c_4500);
        code.store32(CALL, 0x000c_4600 | BEGIN >> 12);
        code.wait(cpus - 1, |code| code.load16(COUNT));
        code.say("all");
        end(code);
    })
}

#[track_caller]
fn run(version: u32, cpus: u32, last: &[u8], end: impl FnOnce(&mut Code), told: &str) {
    let mut zone = Zone::new(version, 6);
    zone.cpus = cpus;
    zone.install(&program(cpus, last, end), &[]);
    let ended = zone.run();
    assert_eq!(ended.told().first().map(String::as_str), Some(told), "{}", zone.story());
    let expected = format!("{}all", "a".repeat(cpus as usize - 1));
    assert_eq!((ended.code, ended.serial), (Some(0), expected), "{}", zone.story());
    assert!(zone.machines().is_empty(), "{:?}\n{}", zone.machines(), zone.story());
}

#[test]
fn all_processors_leave_when_one_powers_off() {
    if !has_kvm("all_processors_leave_when_one_powers_off") {
        return;
    }
    for version in VERSIONS {
        for cpus in [2, 4] {
            run(version, cpus, &HALT, Code::power_off, "SHUTDOWN guest-shutdown");
            run(version, cpus, &SPIN, Code::power_off, "SHUTDOWN guest-shutdown");
        }
    }
}

#[test]
fn all_processors_leave_when_one_faults() {
    if !has_kvm("all_processors_leave_when_one_faults") {
        return;
    }
    for version in VERSIONS {
        run(version, 3, &SPIN, Code::triple_fault, "GUEST_PANICKED triple fault");
    }
}

#[test]
fn a_machine_whose_processors_all_halt_is_off() {
    if !has_kvm("a_machine_whose_processors_all_halt_is_off") {
        return;
    }
    for version in VERSIONS {
        run(version, 3, &HALT, Code::halt, "SHUTDOWN guest-shutdown");
    }
}

#[test]
fn a_monitor_with_several_processors_ends_from_outside() {
    if !has_kvm("a_monitor_with_several_processors_ends_from_outside") {
        return;
    }
    for version in VERSIONS {
        let mut zone = Zone::new(version, 6);
        zone.cpus = 4;
        zone.install(&program(4, &SPIN, |code| code.emit(&SPIN, ())), &[]);
        let monitor = zone.start_until("all");
        monitor.ask("quit");
        assert_eq!(monitor.end().code, Some(0), "{}", zone.story());
        assert!(zone.machines().is_empty(), "{}", zone.story());
    }
}
