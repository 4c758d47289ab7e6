// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `VM_RUN`: exits, how they are answered, and how a vCPU is made to come out.
#![allow(unsafe_code, clippy::unwrap_used)]

mod support;

use std::sync::mpsc;
use std::time::Duration;

use support::client::{self, get, pack, register, set_register};
use support::guest::{self, answer_mmio, answer_port, enter, run};
use support::number::*;
use support::{ALL, rule, version};

const RAX: u64 = 0;
const RDX: u64 = 3;
const RIP: u64 = 20;
/// `jmp $`.
const LOOP: [u8; 2] = [0xeb, 0xfe];
/// `mov eax, [0xd0000000]; mov [0xd0000004], eax`, with a flat DS made by hand before.
const MOVES: [u8; 12] = [0x67, 0x66, 0xa1, 0x00, 0x00, 0x00, 0xd0, 0x67, 0x66, 0xa3, 0x04, 0x00];
const MOVES_END: [u8; 2] = [0x00, 0xd0];

#[test]
fn trap_02_an_answer_must_echo_the_exit() {
    rule("trap_02_an_answer_must_echo_the_exit", ALL).needs_kvm().run(|| {
        // in al, 0x60; out 0x80, al
        let fd = guest::machine(&[0xe4, 0x60, 0xe6, 0x80], 1);
        let exit = run(fd, 0);
        assert_eq!(exit.port(), (0x60, 1, true, 0));
        for wrong in [[0x61, 0, 1, 1], [0x60, 0, 2, 1], [0x60, 0, 1, 0]] {
            let mut payload = [0; 12];
            payload[4..8].copy_from_slice(&wrong);
            let answer = enter(fd, 0, guest::FULFILL_INOUT, &payload);
            assert_eq!(answer.err(), Some(libc::EINVAL), "{wrong:?}");
        }
        let mmio = enter(fd, 0, guest::FULFILL_MMIO, &[0; 24]);
        assert_eq!(mmio.err(), Some(libc::EINVAL));
        let exit = answer_port(fd, 0, &exit, 0x5a);
        assert_eq!(exit.port(), (0x80, 1, false, 0x5a));
    });
}

#[test]
fn trap_02_an_unanswered_access_comes_for_ever() {
    rule("trap_02_an_unanswered_access_comes_for_ever", [1, 18]).needs_kvm().run(|| {
        // mov al, 1; out 0x80, al; out 0x81, al
        let fd = guest::machine(&[0xb0, 0x01, 0xe6, 0x80, 0xe6, 0x81], 1);
        let mut exit = run(fd, 0);
        for _ in 0..5 {
            assert_eq!(exit.port(), (0x80, 1, false, 1));
            exit = enter(fd, 0, 0, &[]).unwrap();
        }
        assert_eq!(answer_port(fd, 0, &exit, 0).port(), (0x81, 1, false, 1));
    });
}

#[test]
fn trap_02_rip_and_rax_are_the_kernels() {
    rule("trap_02_rip_and_rax_are_the_kernels", [6, 18]).needs_kvm().run(|| {
        // mov ax, 0x1234; in al, 0x60; jmp $
        let fd = guest::machine(&[0xb8, 0x34, 0x12, 0xe4, 0x60, 0xeb, 0xfe], 1);
        let exit = run(fd, 0);
        assert_eq!(exit.rip(), 0xf003);
        // Whoever writes RAX by hand has it overwritten by the answer.
        let mut payload = [0; 12];
        payload[4..8].copy_from_slice(&exit.0[20..24]);
        payload[0] = 0x77;
        client::scalar(fd, VM_WRLOCK_CYCLE, 0).unwrap();
        barrier_or_pause(fd);
        let exit = enter(fd, 0, guest::FULFILL_INOUT, &payload).unwrap();
        assert_eq!(exit.code(), if version() >= 16 { guest::BOGUS } else { guest::DEBUG });
        assert_eq!(register(fd, 0, RAX).unwrap() & 0xffff, 0x1277);
        assert_eq!(register(fd, 0, RIP).unwrap(), 0xf005);
    });
}

/// Makes the next entry come out at once, in a way of this version.
fn barrier_or_pause(fd: i32) {
    if version() >= 16 {
        client::scalar(fd, VM_VCPU_BARRIER, 0).unwrap();
    } else {
        client::one(fd, VM_SUSPEND_CPU, 0).unwrap();
    }
}

#[test]
fn strings_come_one_element_at_a_time() {
    rule("strings_come_one_element_at_a_time", [1, 18]).needs_kvm().run(|| {
        #[rustfmt::skip]
        let code = [
            0x31, 0xc0, 0x8e, 0xc0, 0x8e, 0xd8, 0xfc, // xor ax, ax; mov es, ax; mov ds, ax; cld
            0xba, 0x11, 0x05, 0xbf, 0x00, 0x10,       // mov dx, 0x511; mov di, 0x1000
            0xb9, 0x04, 0x00, 0xf3, 0x6c,             // mov cx, 4; rep insb
            0xbe, 0x00, 0x10, 0xb9, 0x02, 0x00,       // mov si, 0x1000; mov cx, 2
            0xf3, 0x6f,                               // rep outsw
        ];
        let fd = guest::machine(&code, 1);
        let mut exit = run(fd, 0);
        for byte in *b"bhyv" {
            assert_eq!(exit.port(), (0x511, 1, true, 0));
            exit = answer_port(fd, 0, &exit, byte.into());
        }
        assert_eq!(exit.port(), (0x511, 2, false, u64::from(u16::from_le_bytes(*b"bh"))));
        let exit = answer_port(fd, 0, &exit, 0);
        assert_eq!(exit.port(), (0x511, 2, false, u64::from(u16::from_le_bytes(*b"yv"))));
    });
}

#[test]
fn mmio_is_read_and_written_where_nothing_is() {
    rule("mmio_is_read_and_written_where_nothing_is", [1, 18]).needs_kvm().run(|| {
        let fd = guest::machine(&[&MOVES[..], &MOVES_END, &LOOP].concat(), 1);
        guest::flatten(fd);
        let exit = run(fd, 0);
        assert_eq!(exit.mmio(), (0xd000_0000, 4, true, 0));
        let again = enter(fd, 0, 0, &[]).unwrap();
        assert_eq!(again.mmio(), exit.mmio());
        let mut wrong = [0; 24];
        wrong[..16].copy_from_slice(&exit.0[16..32]);
        wrong[0] = 2;
        assert_eq!(enter(fd, 0, guest::FULFILL_MMIO, &wrong).err(), Some(libc::EINVAL));
        let exit = answer_mmio(fd, 0, &exit, 0x1122_3344);
        assert_eq!(exit.mmio(), (0xd000_0004, 4, false, 0x1122_3344));
    });
}

#[test]
fn a_discarded_read_is_executed_again() {
    rule("a_discarded_read_is_executed_again", [1, 18]).needs_kvm().run(|| {
        let fd = guest::machine(&[0xe4, 0x60, 0xe6, 0x80], 1);
        assert_eq!(run(fd, 0).port(), (0x60, 1, true, 0));
        let exit = guest::again(fd, 0, enter(fd, 0, 1, &[]));
        assert_eq!(exit.port(), (0x60, 1, true, 0));
        assert_eq!(answer_port(fd, 0, &exit, 9).port(), (0x80, 1, false, 9));
    });
}

#[test]
fn bad_entries_are_refused() {
    rule("bad_entries_are_refused", ALL).needs_kvm().run(|| {
        let fd = guest::machine(&[0xe6, 0x80], 1);
        let error = |command, cpu| enter(fd, cpu, command, &[]).err();
        assert_eq!(error(4, 0), Some(libc::EINVAL), "unknown command");
        assert_eq!(error(guest::FULFILL_INOUT, 0), Some(libc::EINVAL), "nothing pending");
        assert_eq!(error(0, 1), Some(libc::EINVAL), "not active");
        assert_eq!(error(0, 64), Some(libc::EINVAL), "no such vCPU");
        let consistent = enter(fd, 0, 0x8000_0000, &[]);
        if version() < 15 {
            assert_eq!(consistent.err(), Some(libc::EINVAL));
        } else {
            assert_eq!(consistent.unwrap().code(), guest::BOGUS);
        }
        assert_eq!(client::call(fd, VM_RUN, &mut pack::<40>(&[(8, 8, 8)])), Err(libc::EFAULT));
    });
}

#[test]
fn trap_03_the_boot_vcpu_halts_until_it_is_set_running() {
    rule("trap_03_the_boot_vcpu_halts_until_it_is_set_running", ALL).needs_kvm().run(|| {
        let fd = guest::machine(&[0xe6, 0x80], 1);
        guest::set_run_state(fd, 0, 0).unwrap();
        let (sender, exits) = mpsc::channel();
        std::thread::spawn(move || sender.send(run(fd, 0)));
        assert!(exits.recv_timeout(Duration::from_millis(300)).is_err(), "it must not run");
        guest::set_run_state(fd, 0, 2).unwrap();
        assert_eq!(exits.recv_timeout(Duration::from_secs(20)).unwrap().port().0, 0x80);
        assert_eq!(guest::set_run_state(fd, 0, 0x10), Err(libc::EINVAL));
    });
}

#[test]
fn trap_04_halt_exit_is_off_before_version_6() {
    rule("trap_04_halt_exit_is_off_before_version_6", ALL).run(|| {
        let fd = client::machine("m");
        let mut bytes = pack::<16>(&[(0, 0, 4), (4, 0, 4)]);
        client::call(fd, VM_GET_CAPABILITY, &mut bytes).unwrap();
        assert_eq!(get(&bytes, 8, 4), u64::from(version() >= 6));
        guest::set_capability(fd, 0, 0, 1).unwrap();
        client::call(fd, VM_GET_CAPABILITY, &mut bytes).unwrap();
        assert_eq!(get(&bytes, 8, 4), 1);
    });
}

#[test]
fn trap_06_a_write_to_rom_is_fatal() {
    rule("trap_06_a_write_to_rom_is_fatal", [1, 18]).needs_kvm().run(|| {
        // cs: mov [0xf100], al
        let fd = guest::machine(&[0x2e, 0xa2, 0x00, 0xf1, 0xe6, 0x80], 1);
        for _ in 0..2 {
            let exit = run(fd, 0);
            assert_eq!(exit.code(), guest::PAGING);
            assert_eq!(get(&exit.0, 16, 8), 0xffff_f100);
            assert_eq!(get(&exit.0, 24, 4), 2, "a write");
        }
    });
}

#[test]
fn msrs_nobody_knows_are_the_programs() {
    rule("msrs_nobody_knows_are_the_programs", [1, 18]).needs_kvm().run(|| {
        #[rustfmt::skip]
        let code = [
            0x66, 0xb9, 0x00, 0x00, 0x34, 0x12, // mov ecx, 0x12340000
            0x0f, 0x32,                         // rdmsr
            0xe6, 0x80,                         // out 0x80, al
            0x0f, 0x30,                         // wrmsr
            0xe6, 0x81,                         // out 0x81, al
        ];
        let fd = guest::machine(&code, 1);
        let exit = run(fd, 0);
        assert_eq!((exit.code(), get(&exit.0, 16, 4)), (guest::RDMSR, 0x1234_0000));
        set_register(fd, 0, RAX, 0x42).unwrap();
        set_register(fd, 0, RDX, 0x43).unwrap();
        let exit = run(fd, 0);
        assert_eq!(exit.port(), (0x80, 1, false, 0x42));
        let exit = answer_port(fd, 0, &exit, 0);
        assert_eq!((exit.code(), get(&exit.0, 16, 4)), (guest::WRMSR, 0x1234_0000));
        assert_eq!(get(&exit.0, 24, 8), 0x43_0000_0042);
        assert_eq!(run(fd, 0).port().0, 0x81);
    });
}

#[test]
fn an_msr_can_be_refused_by_an_exception() {
    rule("an_msr_can_be_refused_by_an_exception", [1, 18]).needs_kvm().run(|| {
        #[rustfmt::skip]
        let code = [
            0x31, 0xc0, 0x8e, 0xd8,             // xor ax, ax; mov ds, ax
            0x66, 0xb9, 0x00, 0x00, 0x34, 0x12, // mov ecx, 0x12340000
            0x0f, 0x32,                         // rdmsr
            0xe6, 0x80,                         // out 0x80, al
        ];
        let fd = guest::machine(&code, 1);
        // Vector 13 leads to a page of RAM whose code is out 0x99, al; SS and SP are 0 and 0x800.
        let ram = client::map(fd, 0, guest::RAM as usize).unwrap();
        // SAFETY: both places are inside of the mapping.
        unsafe {
            ram.add(13 * 4).cast::<u32>().write_unaligned(0x0000_2000);
            ram.add(0x2000).cast::<u16>().write_unaligned(0x99e6);
        }
        set_register(fd, 0, 19, 0x800).unwrap();
        let exit = run(fd, 0);
        assert_eq!(exit.code(), guest::RDMSR);
        let inject = |vector| {
            let fields = [(4, vector, 4), (12, 1, 4), (16, 1, 4)];
            client::call(fd, VM_INJECT_EXCEPTION, &mut pack::<20>(&fields))
        };
        for vector in [2, 8, 32] {
            assert_eq!(inject(vector), Err(libc::EINVAL));
        }
        inject(13).unwrap();
        assert_eq!(inject(13), Err(libc::EBUSY));
        assert_eq!(register(fd, 0, RIP).unwrap(), exit.rip(), "the instruction comes again");
        assert_eq!(run(fd, 0).port().0, 0x99);
    });
}

/// Protected mode, with flat segments and no room for an interrupt's gate.
fn protect(fd: i32) {
    for segment in 22..28 {
        let access = if segment == 23 { 0xc09b } else { 0xc093 };
        let base = if segment == 23 { 0xffff_0000 } else { 0 };
        let fields = [(4, segment, 4), (8, base, 8), (16, 0xffff_ffff, 4), (20, access, 4)];
        client::call(fd, VM_SET_SEGMENT_DESCRIPTOR, &mut pack::<24>(&fields)).unwrap();
        set_register(fd, 0, segment, 8).unwrap();
    }
    client::call(fd, VM_SET_SEGMENT_DESCRIPTOR, &mut pack::<24>(&[(4, 30, 4)])).unwrap();
    set_register(fd, 0, 15, 0x11).unwrap();
}

#[test]
fn a_triple_fault_suspends_the_machine() {
    rule("a_triple_fault_suspends_the_machine", ALL).needs_kvm().run(|| {
        let fd = guest::machine(&LOOP, 1);
        protect(fd);
        client::call(fd, VM_INJECT_EXCEPTION, &mut pack::<20>(&[(4, 6, 4)])).unwrap();
        guest::suspended(&run(fd, 0), 4, 0);
        guest::suspended(&run(fd, 0), 4, 0);
        assert_eq!(client::suspend(fd, 1), Err(libc::EALREADY));
    });
}

#[test]
fn halting_with_interrupts_off_suspends_the_machine() {
    rule("halting_with_interrupts_off_suspends_the_machine", [5, 6, 15, 16, 18]).needs_kvm().run(
        || {
            let fd = guest::machine(&[0xfa, 0xf4], 1);
            let exit = run(fd, 0);
            assert_eq!((exit.code(), get(&exit.0, 16, 4)), (guest::SUSPENDED, 3));
        },
    );
}
