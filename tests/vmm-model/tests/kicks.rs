// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! How a vCPU is made to come out of `VM_RUN`.
#![allow(unsafe_code, clippy::unwrap_used)]

mod support;

use std::sync::mpsc;
use std::time::Duration;

use support::client::{self, register};
use support::guest::{self, Exit, answer_port, enter, run};
use support::number::*;
use support::{ALL, rule, version};

const RAX: u64 = 0;
/// `jmp $`.
const LOOP: [u8; 2] = [0xeb, 0xfe];

#[test]
fn trap_09_a_suspension_waits_for_every_active_vcpu_before_version_16() {
    rule("trap_09_a_suspension_waits_for_every_active_vcpu_before_version_16", ALL)
        .needs_kvm()
        .run(|| {
            let fd = guest::machine(&[&[0xe6, 0x80][..], &LOOP].concat(), 2);
            let exit = run(fd, 0);
            // The second vCPU waits for SIPI in the kernel until it is asked to come out.
            let (out, came_out) = mpsc::channel();
            let (go_on, may_go_on) = mpsc::channel();
            let second = std::thread::spawn(move || {
                let mut exit = enter(fd, 1, 0, &[]).unwrap();
                if exit.code() != guest::SUSPENDED {
                    out.send(()).unwrap();
                    may_go_on.recv().unwrap();
                    exit = run(fd, 1);
                }
                exit.0
            });
            support::wait_for("vCPU in the kernel", is_in_kernel);
            client::suspend(fd, 2).unwrap();
            let (sender, exits) = mpsc::channel();
            std::thread::spawn(move || sender.send(answer_port(fd, 0, &exit, 0).0));
            if version() < 16 {
                came_out.recv_timeout(Duration::from_secs(20)).unwrap();
                let early = exits.recv_timeout(Duration::from_millis(200));
                assert!(early.is_err(), "the first one must wait for the second");
            }
            let _ = go_on.send(());
            let first = Exit(exits.recv_timeout(Duration::from_secs(20)).unwrap());
            guest::suspended(&first, 2, u64::from(u32::MAX));
            guest::suspended(&Exit(second.join().unwrap()), 2, u64::from(u32::MAX));
        });
}

/// Whether a thread is inside of KVM. Threads that the kernel has made itself look alike.
fn is_in_kernel() -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks.flatten().any(|task| {
        let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let call = read("syscall");
        let mut words = call.split_whitespace();
        let is_inside = words.next() == Some("16") && words.nth(1) == Some("0xae80");
        is_inside && !read("comm").starts_with("kvm")
    })
}

#[test]
fn trap_10_only_the_barrier_is_sticky() {
    rule("trap_10_only_the_barrier_is_sticky", ALL).needs_kvm().run(|| {
        let fd = guest::machine(&LOOP, 1);
        let result = client::scalar(fd, VM_VCPU_BARRIER, 0);
        if version() < 16 {
            assert_eq!(result, Err(libc::ENOTTY));
            return;
        }
        result.unwrap();
        assert_eq!(enter(fd, 0, 0, &[]).unwrap().code(), guest::BOGUS);
        // Once only: the next entry stays until it is kicked.
        let (sender, exits) = mpsc::channel();
        std::thread::spawn(move || sender.send(enter(fd, 0, 0, &[]).unwrap().code()));
        assert!(exits.recv_timeout(Duration::from_millis(300)).is_err());
        client::scalar(fd, VM_VCPU_BARRIER, 0).unwrap();
        assert_eq!(exits.recv_timeout(Duration::from_secs(20)).unwrap(), guest::BOGUS);
    });
}

#[test]
fn trap_10_a_signal_makes_a_vcpu_come_out() {
    rule("trap_10_a_signal_makes_a_vcpu_come_out", [1, 18]).needs_kvm().run(|| {
        extern "C" fn ignore(_: libc::c_int) {}
        let handler = ignore as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // SAFETY: the handler does nothing.
        unsafe { libc::signal(libc::SIGUSR2, handler) };
        let fd = guest::machine(&LOOP, 1);
        let (sender, ids) = mpsc::channel();
        let runner = std::thread::spawn(move || {
            // SAFETY: asks for this thread's id.
            sender.send(unsafe { libc::pthread_self() }).unwrap();
            enter(fd, 0, 0, &[]).unwrap().code()
        });
        let id = ids.recv().unwrap();
        support::wait_for("end of the vCPU's stay", || {
            // SAFETY: the thread is not joined yet.
            unsafe { libc::pthread_kill(id, libc::SIGUSR2) };
            runner.is_finished()
        });
        assert_eq!(runner.join().unwrap(), guest::BOGUS);
    });
}

#[test]
fn trap_13_debug_suspension_spins() {
    rule("trap_13_debug_suspension_spins", [1, 18]).needs_kvm().run(|| {
        let fd = guest::machine(&[0xe6, 0x80], 1);
        client::one(fd, VM_SUSPEND_CPU, u64::from(u32::MAX)).unwrap();
        for _ in 0..3 {
            assert_eq!(enter(fd, 0, 0, &[]).unwrap().code(), guest::DEBUG);
        }
        client::one(fd, VM_RESUME_CPU, 0).unwrap();
        assert_eq!(run(fd, 0).port().0, 0x80);
    });
}

#[test]
fn trap_14_the_exit_for_another_call_is_20_up_to_version_15() {
    rule("trap_14_the_exit_for_another_call_is_20_up_to_version_15", ALL).needs_kvm().run(|| {
        // Halted, so that its thread sleeps where it is seen.
        let fd = guest::machine(&LOOP, 1);
        guest::set_run_state(fd, 0, 0).unwrap();
        let runner = std::thread::spawn(move || enter(fd, 0, 0, &[]).unwrap().code());
        support::wait_for("vCPU in the kernel", is_in_kernel);
        register(fd, 0, RAX).unwrap();
        let expected = if version() < 16 { guest::REQIDLE } else { guest::BOGUS };
        assert_eq!(runner.join().unwrap(), expected);
    });
}

#[test]
fn a_paused_machine_is_busy() {
    rule("a_paused_machine_is_busy", ALL).needs_kvm().run(|| {
        let fd = guest::machine(&[0xe6, 0x80], 1);
        if version() < 7 {
            assert_eq!(client::scalar(fd, VM_PAUSE, 0), Err(libc::ENOTTY));
            return;
        }
        assert_eq!(client::scalar(fd, VM_RESUME, 0), Err(libc::EALREADY));
        client::scalar(fd, VM_PAUSE, 0).unwrap();
        assert_eq!(client::scalar(fd, VM_PAUSE, 0), Err(libc::EALREADY));
        assert_eq!(enter(fd, 0, 0, &[]).err(), Some(libc::EBUSY));
        client::scalar(fd, VM_RESUME, 0).unwrap();
        assert_eq!(run(fd, 0).port().0, 0x80);
    });
}
