// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Faults on demand.
#![allow(unsafe_code, clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use support::client::{self, call, named, pack, scalar};
use support::nic::{Nic, viona};
use support::number::*;
use support::{guest, rule};

const FAULTS: &str = "VMM_MODEL_FAULTS";

#[test]
fn a_call_is_interrupted_once() {
    let rule = rule("a_call_is_interrupted_once", [18]).with(FAULTS, "VMM_DESTROY_VM@1=EINTR");
    rule.run(|| {
        let control = client::control();
        client::create(control, "m").unwrap();
        let destroy = || call(control, VMM_DESTROY_VM, &mut named::<128>("m"));
        assert_eq!(destroy(), Err(libc::EINTR));
        assert_eq!(destroy(), Ok(0));
    });
}

#[test]
fn there_is_no_room_for_memory() {
    let faults = "VM_ALLOC_MEMSEG@1=ENOMEM, VM_MMAP_MEMSEG=ENOSPC, mmap=ENODEV";
    rule("there_is_no_room_for_memory", [18]).with(FAULTS, faults).run(|| {
        let machine = client::machine("m");
        assert_eq!(client::allocate(machine, 0, 4096, ""), Err(libc::ENOMEM));
        client::allocate(machine, 0, 4096, "").unwrap();
        for _ in 0..2 {
            assert_eq!(client::place(machine, 0, 0, 4096, 7), Err(libc::ENOSPC));
        }
        assert_eq!(client::map(machine, 0, 4096), Err(libc::ENODEV));
    });
}

#[test]
fn viona_fails() {
    let faults = "VNA_IOC_RING_KICK@2=EIO,VNA_IOC_RING_RESET@1=EINTR";
    viona("viona_fails", &[1, 6]).with(FAULTS, faults).run(|| {
        let nic = Nic::new();
        nic.init(1).unwrap();
        let kicks = [Ok(0), Err(libc::EIO), Ok(0)];
        for expected in kicks {
            assert_eq!(scalar(nic.fd, VNA_IOC_RING_KICK, 1), expected);
        }
        assert_eq!(scalar(nic.fd, VNA_IOC_RING_RESET, 1), Err(libc::EINTR));
        assert_eq!(scalar(nic.fd, VNA_IOC_RING_RESET, 1), Ok(0));
    });
}

#[test]
fn a_call_is_slow() {
    rule("a_call_is_slow", [18]).with(FAULTS, "VM_SET_TOPOLOGY=delay:200").run(|| {
        let machine = client::machine("m");
        let started = Instant::now();
        call(machine, VM_SET_TOPOLOGY, &mut pack::<8>(&[(0, 1, 2), (2, 1, 2), (4, 1, 2)])).unwrap();
        assert!(started.elapsed() >= Duration::from_millis(200));
    });
}

#[test]
fn the_kernel_refuses_autodestruct() {
    let rule = rule("the_kernel_refuses_autodestruct", [18]);
    rule.with(FAULTS, "VM_SET_AUTODESTRUCT=ENOTTY").run(|| {
        let control = client::control();
        client::create(control, "m").unwrap();
        let machine = client::open_machine("m").unwrap();
        assert_eq!(scalar(machine, VM_SET_AUTODESTRUCT, 1), Err(libc::ENOTTY));
        client::close(machine).unwrap();
        assert_eq!(client::create(control, "m"), Err(libc::EEXIST), "it is left");
    });
}

#[test]
fn a_node_cannot_be_opened() {
    rule("a_node_cannot_be_opened", [18]).with(FAULTS, "open@2=ENXIO").run(|| {
        let control = client::control();
        client::create(control, "m").unwrap();
        assert_eq!(client::open_machine("m"), Err(libc::ENXIO));
        assert!(client::open_machine("m").is_ok());
    });
}

#[test]
fn a_vcpu_does_not_enter() {
    let rule = rule("a_vcpu_does_not_enter", [18]).with(FAULTS, "VM_RUN@2=EBUSY");
    rule.needs_kvm().run(|| {
        let machine = guest::machine(&[0xe6, 0x80], 1);
        assert_eq!(guest::run(machine, 0).port().0, 0x80);
        assert_eq!(guest::enter(machine, 0, 0, &[]).err(), Some(libc::EBUSY));
        assert_eq!(guest::run(machine, 0).port().0, 0x80, "nothing is lost");
    });
}
