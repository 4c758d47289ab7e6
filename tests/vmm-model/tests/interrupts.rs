// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Interrupt lines and messages, and what the kernel has on the board.
#![allow(unsafe_code, clippy::unwrap_used)]

mod support;

use std::sync::mpsc;
use std::time::Duration;

use support::client::{self, call, get, one, pack, scalar, two};
use support::number::*;
use support::{ALL, guest, rule, version};

/// `sti; jmp $`.
const WAIT: [u8; 3] = [0xfb, 0xeb, 0xfe];
/// `xor ax, ax; mov ss, ax; mov sp, 0x800`.
const STACK: [u8; 7] = [0x31, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x08];
/// Initialises the first PIC for vectors from 8, everything unmasked.
#[rustfmt::skip]
const PIC: [u8; 20] = [
    0xb0, 0x11, 0xe6, 0x20, 0xb0, 0x08, 0xe6, 0x21, 0xb0, 0x04, 0xe6, 0x21,
    0xb0, 0x01, 0xe6, 0x21, 0xb0, 0x00, 0xe6, 0x21,
];
const OUT_80: [u8; 2] = [0xe6, 0x80];
const LAPIC: u32 = 0xfee0_0000;
const IOAPIC: u32 = 0xfec0_0000;

/// `mov dword [address], value`.
fn store(address: u32, value: u32) -> Vec<u8> {
    [&[0x67, 0x66, 0xc7, 0x05], &address.to_le_bytes()[..], &value.to_le_bytes()].concat()
}

/// Switches the local APIC on.
fn lapic_on() -> Vec<u8> {
    store(LAPIC + 0xf0, 0x1ff)
}

/// A machine that runs these parts, with a handler of `vector` that says so by port 0x99.
fn machine(parts: &[&[u8]], vector: usize, cpus: u64) -> i32 {
    let fd = guest::machine(&parts.concat(), cpus);
    guest::flatten(fd);
    let ram = client::map(fd, 0, guest::RAM as usize).unwrap();
    // SAFETY: both places are inside of the mapping.
    unsafe {
        ram.add(vector * 4).cast::<u32>().write_unaligned(0x0000_2000);
        // out 0x99, al; jmp $
        ram.add(0x2000).cast::<u32>().write_unaligned(0xfeeb_99e6);
    }
    fd
}

/// Runs the guest until it is ready.
fn ready(fd: i32) -> guest::Exit {
    let exit = guest::run(fd, 0);
    assert_eq!(exit.port().0, 0x80);
    exit
}

fn message(fd: i32, first: u64, second: u64) -> Result<i32, i32> {
    call(fd, VM_LAPIC_MSI, &mut pack::<16>(&[(0, first, 8), (8, second, 8)]))
}

#[test]
fn trap_08_a_message_comes_before_its_address() {
    rule("trap_08_a_message_comes_before_its_address", [1, 18]).needs_kvm().run(|| {
        let fd = machine(&[&STACK, &lapic_on(), &OUT_80, &WAIT], 0x41, 1);
        let exit = ready(fd);
        assert_eq!(message(fd, 0xfee0_0000, 0x41), Err(-1), "the other way round");
        assert_eq!(message(fd, 0x41, 0), Err(-1), "not programmed");
        message(fd, 0x41, 0xfee0_0000).unwrap();
        assert_eq!(guest::answer_port(fd, 0, &exit, 0).port().0, 0x99);
    });
}

#[test]
fn an_ioapic_pin_interrupts() {
    rule("an_ioapic_pin_interrupts", [1, 18]).needs_kvm().run(|| {
        let entry = [
            store(IOAPIC, 0x10 + 2 * 21 + 1),
            store(IOAPIC + 0x10, 0),
            store(IOAPIC, 0x10 + 2 * 21),
            store(IOAPIC + 0x10, 0x42),
        ];
        let fd = machine(&[&STACK, &lapic_on(), &entry.concat(), &OUT_80, &WAIT], 0x42, 1);
        let exit = ready(fd);
        one(fd, VM_IOAPIC_PULSE_IRQ, 21).unwrap();
        assert_eq!(guest::answer_port(fd, 0, &exit, 0).port().0, 0x99);
    });
}

#[test]
fn an_isa_line_interrupts_by_the_pic() {
    rule("an_isa_line_interrupts_by_the_pic", [1, 18]).needs_kvm().run(|| {
        let fd = machine(&[&STACK, &PIC, &OUT_80, &WAIT], 12, 1);
        let exit = ready(fd);
        two(fd, VM_ISA_ASSERT_IRQ, 4, u64::from(u32::MAX)).unwrap();
        assert_eq!(guest::answer_port(fd, 0, &exit, 0).port().0, 0x99);
    });
}

#[test]
fn lines_are_counted() {
    rule("lines_are_counted", [1, 18]).run(|| {
        let fd = client::machine("m");
        assert_eq!(one(fd, VM_IOAPIC_DEASSERT_IRQ, 9), Err(libc::ERANGE));
        for number in [VM_IOAPIC_ASSERT_IRQ, VM_IOAPIC_ASSERT_IRQ, VM_IOAPIC_PULSE_IRQ] {
            one(fd, number, 9).unwrap();
        }
        for expected in [Ok(0), Ok(0), Err(libc::ERANGE)] {
            assert_eq!(one(fd, VM_IOAPIC_DEASSERT_IRQ, 9), expected);
        }
        one(fd, VM_IOAPIC_ASSERT_IRQ, 31).unwrap();
        assert_eq!(one(fd, VM_IOAPIC_ASSERT_IRQ, 32), Err(libc::EINVAL));
        assert_eq!(two(fd, VM_ISA_ASSERT_IRQ, 16, 9), Err(libc::EINVAL));
        let mut pins = [0; 4];
        call(fd, VM_IOAPIC_PINCOUNT, &mut pins).unwrap();
        assert_eq!(get(&pins, 0, 4), 32);
    });
}

#[test]
fn trap_07_a_line_asserted_before_the_pic_is_ready_is_stuck() {
    rule("trap_07_a_line_asserted_before_the_pic_is_ready_is_stuck", ALL).needs_kvm().run(|| {
        let fd = machine(&[&PIC, &OUT_80], 12, 1);
        two(fd, VM_ISA_ASSERT_IRQ, 4, 4).unwrap();
        ready(fd);
        // The PIC has not counted, so that its step fails and the IOAPIC is not reached.
        assert_eq!(two(fd, VM_ISA_DEASSERT_IRQ, 4, 4), Err(libc::ERANGE));
        assert_eq!(one(fd, VM_IOAPIC_DEASSERT_IRQ, 4), Ok(0), "it is still asserted there");
        assert_eq!(one(fd, VM_IOAPIC_DEASSERT_IRQ, 4), Err(libc::ERANGE));
        // From now on both count.
        two(fd, VM_ISA_ASSERT_IRQ, 4, 4).unwrap();
        two(fd, VM_ISA_DEASSERT_IRQ, 4, 4).unwrap();
        assert_eq!(one(fd, VM_IOAPIC_DEASSERT_IRQ, 4), Err(libc::ERANGE));
    });
}

#[test]
fn some_lines_cannot_be_level_triggered() {
    rule("some_lines_cannot_be_level_triggered", [1, 18]).run(|| {
        let fd = client::machine("m");
        for line in 0..17 {
            let is_refused = matches!(line, 0 | 1 | 2 | 8 | 13 | 16);
            let expected = if is_refused { Err(libc::EINVAL) } else { Ok(0) };
            assert_eq!(two(fd, VM_ISA_SET_IRQ_TRIGGER, line, 1), expected, "line {line}");
        }
        assert_eq!(two(fd, VM_ISA_SET_IRQ_TRIGGER, 0, 0), Ok(0));
    });
}

#[test]
fn the_kernel_starts_other_vcpus() {
    rule("the_kernel_starts_other_vcpus", [1, 6, 15, 16, 18]).needs_kvm().run(|| {
        let start = [
            store(LAPIC + 0x310, 1 << 24),
            store(LAPIC + 0x300, 0x4500),
            store(LAPIC + 0x300, 0x4602),
        ];
        let fd = machine(&[&lapic_on(), &OUT_80, &start.concat(), &[0xe6, 0x81]], 0x41, 2);
        let exit = ready(fd);
        let (sender, exits) = mpsc::channel();
        std::thread::spawn(move || sender.send(guest::run(fd, 1)));
        assert!(exits.recv_timeout(Duration::from_millis(200)).is_err(), "not started yet");
        assert_eq!(guest::answer_port(fd, 0, &exit, 0).port().0, 0x81);
        // It begins at 0x2000, where the handler is.
        let exit = exits.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(exit.port().0, 0x99);
        let mut state = pack::<12>(&[(0, 1, 4)]);
        call(fd, VM_GET_RUN_STATE, &mut state).unwrap();
        assert_eq!(get(&state, 4, 4), 2);
    });
}

#[test]
fn trap_16_the_pm_timer_is_nowhere_until_it_is_located() {
    rule("trap_16_the_pm_timer_is_nowhere_until_it_is_located", [1, 18]).needs_kvm().run(|| {
        // mov dx, 0x408; in eax, dx; in eax, dx; out 0x80, al; in al, dx
        let code = [0xba, 0x08, 0x04, 0x66, 0xed, 0x66, 0xed, 0xe6, 0x80, 0xec];
        let fd = guest::machine(&code, 1);
        let exit = guest::run(fd, 0);
        assert_eq!(exit.port(), (0x408, 4, true, 0));
        scalar(fd, VM_PMTMR_LOCATE, 0x408).unwrap();
        let exit = guest::answer_port(fd, 0, &exit, 0);
        assert_eq!(exit.port().0, 0x80, "the second read is the kernel's");
        // One byte is not what the timer knows.
        let exit = guest::answer_port(fd, 0, &exit, 0);
        assert_eq!(exit.code(), guest::INST_EMUL);
        assert_eq!(get(&exit.0, 16, 1), 0xec, "the instruction");
        assert_eq!(scalar(fd, VM_PMTMR_LOCATE, 0x1_0000), Err(libc::EINVAL));
    });
}

#[test]
fn trap_16_port_61_is_the_kernels_and_64_is_not() {
    rule("trap_16_port_61_is_the_kernels_and_64_is_not", [1, 18]).needs_kvm().run(|| {
        let fd = guest::machine(&[0xe4, 0x61, 0xe4, 0x64], 1);
        assert_eq!(guest::run(fd, 0).port(), (0x64, 1, true, 0));
    });
}

#[test]
fn trap_16_the_clock_starts_in_1970() {
    rule("trap_16_the_clock_starts_in_1970", ALL).run(|| {
        let fd = client::machine("m");
        let mut time = [0; 16];
        call(fd, VM_RTC_GETTIME, &mut time).unwrap();
        assert!(get(&time, 0, 8) < 60, "{time:?}");
    });
}

#[test]
fn trap_12_the_clock_takes_8_bytes_up_to_version_11() {
    rule("trap_12_the_clock_takes_8_bytes_up_to_version_11", ALL).run(|| {
        let fd = client::machine("m");
        let set = |seconds: u64, nanos: u64| {
            call(fd, VM_RTC_SETTIME, &mut pack::<16>(&[(0, seconds, 8), (8, nanos, 8)]))
        };
        set(1_700_000_000, 0).unwrap();
        let bad = set(1, 1_000_000_000);
        assert_eq!(bad, if version() < 12 { Ok(0) } else { Err(libc::EINVAL) });
        assert_eq!(set(u64::MAX, 0), Err(libc::EINVAL));
        set(1_700_000_000, 0).unwrap();
        let mut time = pack::<16>(&[(8, u64::MAX, 8)]);
        call(fd, VM_RTC_GETTIME, &mut time).unwrap();
        assert!((1_700_000_000..1_700_000_060).contains(&get(&time, 0, 8)));
        assert_eq!(get(&time, 8, 8) == u64::MAX, version() < 12, "not written before");
    });
}

#[test]
fn the_guest_reads_clock_and_cmos() {
    rule("the_guest_reads_clock_and_cmos", [1, 18]).needs_kvm().run(|| {
        #[rustfmt::skip]
        let code = [
            0xb0, 0x09, 0xe6, 0x70, 0xe4, 0x71, 0xe6, 0x80, // year
            0xb0, 0x34, 0xe6, 0x70, 0xe4, 0x71, 0xe6, 0x80, // memory
            0xe5, 0x70,                                     // in ax, 0x70
        ];
        let fd = guest::machine(&code, 1);
        let write = |offset, value| {
            call(fd, VM_RTC_WRITE, &mut pack::<8>(&[(0, offset, 4), (4, value, 1)]))
        };
        for offset in [0, 9, 10, 13, 0x32, 128] {
            assert_eq!(write(offset, 1), Err(libc::EINVAL), "{offset:#x}");
        }
        write(0x34, 0x5a).unwrap();
        // 2024-02-29T12:00:00Z, a day that not every year has.
        call(fd, VM_RTC_SETTIME, &mut pack::<16>(&[(0, 1_709_208_000, 8)])).unwrap();
        let exit = guest::run(fd, 0);
        assert_eq!(exit.port().3, 0x24);
        let exit = guest::answer_port(fd, 0, &exit, 0);
        assert_eq!(exit.port().3, 0x5a);
        let exit = guest::answer_port(fd, 0, &exit, 0);
        assert_eq!(exit.code(), guest::INST_EMUL, "two bytes");
        let mut day = pack::<8>(&[(0, 7, 4)]);
        call(fd, VM_RTC_READ, &mut day).unwrap();
        assert_eq!(day[4], 0x29);
    });
}

/// A message to the local APIC, so many ticks after the counter has begun.
fn hpet_interrupts(ticks: u32) {
    const HPET: u32 = 0xfed0_0000;
    let timer = [
        store(HPET + 0x114, LAPIC),
        store(HPET + 0x110, 0x43),
        store(HPET + 0x108, ticks),
        store(HPET + 0x100, 1 << 14 | 1 << 2),
        store(HPET + 0x10, 1),
    ];
    let fd = machine(&[&STACK, &lapic_on(), &timer.concat(), &OUT_80, &WAIT], 0x43, 1);
    let exit = ready(fd);
    assert_eq!(guest::answer_port(fd, 0, &exit, 0).port().0, 0x99);
    let mut capabilities = [0; 4];
    call(fd, VM_GET_HPET_CAPABILITIES, &mut capabilities).unwrap();
    assert_eq!(capabilities[1] & 0x1f, 7, "eight timers");
    assert_eq!(capabilities[1] & 0x80, 0, "they do not replace PIT and RTC");
}

#[test]
fn a_timer_of_the_hpet_interrupts() {
    let rule = rule("a_timer_of_the_hpet_interrupts", [1, 18]).needs_kvm();
    rule.run(|| hpet_interrupts(1 << 18));
}

/// As firmware asks for it.
#[test]
fn a_timer_of_the_hpet_interrupts_at_the_first_tick() {
    let rule = rule("a_timer_of_the_hpet_interrupts_at_the_first_tick", [1, 18]).needs_kvm();
    rule.run(|| hpet_interrupts(1));
}
