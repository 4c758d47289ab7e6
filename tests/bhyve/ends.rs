// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A guest meets the board, and ends in each way that there is.

use super::code::{Code, code};
use super::firmware::ERASED;
use super::zone::{Zone, has_kvm};

/// Every version, and one that nobody has seen yet.
const VERSIONS: std::ops::RangeInclusive<u32> = 1..=19;

/// Counters of interrupts, by the handlers below.
const TICKS: u32 = 0x6000;
const SENT: u32 = 0x6004;

/// A zone in which `program` has run to its end, with nothing left.
fn run(version: u32, program: &Code, handlers: &[(u8, Code)]) -> (Zone, super::zone::Ended) {
    let zone = Zone::new(version, 6);
    zone.install(program, handlers);
    let ended = zone.run();
    assert!(zone.machines().is_empty(), "{:?}\n{}", zone.machines(), zone.story());
    (zone, ended)
}

#[test]
fn a_guest_powers_off() {
    if !has_kvm("a_guest_powers_off") {
        return;
    }
    for version in VERSIONS {
        let program = code(|code| {
            code.say("here");
            code.power_off();
        });
        let (zone, ended) = run(version, &program, &[]);
        assert_eq!(ended.told(), ["SHUTDOWN guest-shutdown"], "{}", zone.story());
        assert_eq!((ended.code, ended.serial.as_str()), (Some(0), "here"), "{}", zone.story());
        let is_warned = zone.text("log").contains("versions up to 18 are known");
        assert_eq!(is_warned, version > 18, "{}", zone.story());
    }
}

/// The first time it runs, the guest leaves a mark in the flash and resets.
pub fn twice(first: impl FnOnce(&mut Code), second: impl FnOnce(&mut Code)) -> Code {
    code(|code| {
        code.load8(ERASED);
        code.when(0xff, |code| {
            code.store8(ERASED, 0x10);
            code.store8(ERASED, 0x5a);
            code.store8(ERASED, 0xff);
            first(code);
        });
        code.load8(ERASED);
        code.expect(0x5a, "the flash after a reset");
        second(code);
    })
}

#[test]
fn a_guest_resets_and_keeps_its_variables() {
    if !has_kvm("a_guest_resets_and_keeps_its_variables") {
        return;
    }
    for version in VERSIONS {
        let by_keyboard = version % 2 == 0;
        let first = |code: &mut Code| {
            code.say("first ");
            if by_keyboard { code.reset_by_keyboard() } else { code.reset() }
        };
        let second = |code: &mut Code| {
            code.say("second");
            code.power_off();
        };
        let (zone, ended) = run(version, &twice(first, second), &[]);
        let told = ["RESET guest-reset", "SHUTDOWN guest-shutdown"];
        assert_eq!(ended.told(), told, "{}", zone.story());
        assert_eq!((ended.code, ended.serial.as_str()), (Some(0), "first second"));
        let kept = std::fs::read(zone.path("variables")).unwrap();
        assert_eq!(kept[(ERASED & 0xf_ffff) as usize], 0x5a, "variables outlive the machine");
    }
}

#[test]
fn a_guest_faults_three_times_over() {
    if !has_kvm("a_guest_faults_three_times_over") {
        return;
    }
    for version in VERSIONS {
        let program = code(|code| {
            code.say("here");
            code.triple_fault();
        });
        let (zone, ended) = run(version, &program, &[]);
        // Who then asks for the end may be let go before it is told.
        assert_eq!(ended.told()[0], "GUEST_PANICKED triple fault", "{}", zone.story());
        let registers = ended.events[0]["data"]["info"]["registers"].as_str().unwrap();
        assert!(registers.contains("rip 00000000ffff1"), "{registers}");
        assert_eq!((ended.code, ended.serial.as_str()), (Some(0), "here"));
    }
}

#[test]
fn a_guest_halts_for_ever() {
    if !has_kvm("a_guest_halts_for_ever") {
        return;
    }
    for version in VERSIONS {
        let program = code(|code| {
            code.say("here");
            code.halt();
        });
        let (zone, ended) = run(version, &program, &[]);
        assert_eq!(ended.told(), ["SHUTDOWN guest-shutdown"], "{}", zone.story());
        assert_eq!((ended.code, ended.serial.as_str()), (Some(0), "here"));
    }
}

/// Initialises both PICs, with lines 0 and 4 open.
fn set_up_pics(code: &mut Code) {
    for (port, values) in [(0x20, [0x11, 0x20, 4, 1, 0xee]), (0xa0, [0x11, 0x28, 2, 1, 0xff])] {
        code.out8(port, values[0]);
        values[1..].iter().for_each(|value| code.out8(port + 1, *value));
    }
}

/// Counts, and acknowledges the interrupt.
fn counting(place: u32, more: impl FnOnce(&mut Code)) -> Code {
    code(|code| {
        more(code);
        code.emit(&[0xff, 0x05], place);
        code.out8(0x20, 0x20);
    })
}

/// Interrupts of the kernel's timer, of a line of ours, and of a line that was raised and lowered
/// before the PICs were there.
fn interrupts(code: &mut Code) {
    // Ready to send, which reading the reason takes back.
    code.out8(0x3fc, 0x08);
    code.out8(0x3f9, 2);
    code.in8(0x3fa);
    code.expect(2, "the serial port's reason");
    code.out8(0x3f9, 0);
    set_up_pics(code);
    code.out8(0x43, 0x34);
    code.out8(0x40, 0x00);
    code.out8(0x40, 0x10);
    code.halt_until(TICKS, 3);
    code.load32(SENT);
    code.expect(0, "an interrupt that was over");
    code.out8(0x3f9, 2);
    code.halt_until(SENT, 1);
    code.out8(0x3f9, 0);
    code.say("interrupts ");
}

fn clocks(code: &mut Code) {
    code.in32(0x408);
    code.expect_some("the ACPI timer");
    code.out8(0x70, 0x32);
    code.in8(0x71);
    code.expect(0x20, "the century");
    code.out8(0x70, 0x35);
    code.in8(0x71);
    // 240 MiB above the first 16, in units of 64 KiB.
    code.expect(0x0f, "the memory's size in CMOS");
    code.load32(0xfed0_0000);
    code.expect_some("the HPET's capabilities");
    code.say("clocks ");
}

fn configuration(code: &mut Code) {
    code.out16(0x510, 0);
    for letter in *b"QEMU" {
        code.in8(0x511);
        code.expect(letter.into(), "fw_cfg's signature");
    }
    for (slot, id, what) in
        [(0, 0x1237_8086, "host bridge"), (4, 0x1042_1af4, "disk"), (30, 0x40fb_fb5d, "screen")]
    {
        code.pci(slot, 0, 0);
        code.expect(id, what);
    }
    code.pci(29, 0, 0);
    code.expect(u32::MAX, "an empty slot");
    code.say("configuration ");
}

/// The frame buffer where the guest wants it, then elsewhere, with what was drawn.
fn screen(code: &mut Code) {
    const PLACES: [u32; 2] = [0xd000_0000, 0xd800_0000];
    code.load32(PLACES[0]);
    code.expect(u32::MAX, "nobody's memory");
    code.set_pci(30, 0, 0x14, PLACES[0]);
    code.set_pci(30, 0, 0x04, 2);
    code.store32(PLACES[0] + 0x1000, 0x0012_3456);
    code.set_pci(30, 0, 0x14, PLACES[1]);
    code.load32(PLACES[1] + 0x1000);
    code.expect(0x0012_3456, "a pixel in the moved frame buffer");
    code.load32(PLACES[0] + 0x1000);
    code.expect(u32::MAX, "memory that was moved away");
    code.set_pci(30, 0, 0x04, 0);
    code.load32(PLACES[1]);
    code.expect(u32::MAX, "memory that was hidden");
    code.say("screen ");
}

/// Registers that nobody knows read 0; nobody's ports read all ones.
fn nobody(code: &mut Code) {
    // mov ecx, 0x12340000; rdmsr; or eax, edx; wrmsr
    code.emit(&[0xb8], u32::MAX);
    code.emit(&[0x89, 0xc2, 0xb9], 0x1234_0000_u32);
    code.emit(&[0x0f, 0x32, 0x09, 0xd0, 0x0f, 0x30], ());
    code.expect(0, "nobody's register");
    code.in8(0x5555);
    code.expect(0xff, "nobody's port");
    code.in32(0x5554);
    code.expect(u32::MAX, "nobody's port, 4 bytes");
    code.out32(0x5554, 7);
    code.say("nobody ");
}

#[test]
fn a_guest_meets_the_board() {
    if !has_kvm("a_guest_meets_the_board") {
        return;
    }
    let program = code(|code| {
        interrupts(code);
        clocks(code);
        configuration(code);
        screen(code);
        nobody(code);
        code.power_off();
    });
    let timer = counting(TICKS, |_| {});
    let serial = counting(SENT, |code| code.in8(0x3fa));
    let handlers = [(0x20, timer), (0x24, serial)];
    for version in VERSIONS {
        let (zone, ended) = run(version, &program, &handlers);
        assert_eq!(
            ended.serial,
            "interrupts clocks configuration screen nobody ",
            "{}",
            zone.story()
        );
        assert_eq!(ended.told(), ["SHUTDOWN guest-shutdown"], "{}", zone.story());
    }
}
