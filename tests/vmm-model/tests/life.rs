// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The life of a machine: who makes it, who holds it, and how it ends.
#![allow(unsafe_code, clippy::unwrap_used)]

mod support;

use std::process::{Command, Stdio};
use std::time::Duration;

use support::client::{self, call, named, open, scalar, two};
use support::number::*;
use support::{ALL, guest, rule, version, wait_for};

const CONTROL: i32 = libc::O_RDWR | libc::O_EXCL;

/// Nothing is left in the zone: a machine can be made.
fn is_empty() -> bool {
    let control = client::control();
    let is_empty = client::create(control, "next").is_ok();
    if is_empty {
        call(control, VMM_DESTROY_VM, &mut named::<128>("next")).unwrap();
    }
    client::close(control).unwrap();
    is_empty
}

#[test]
fn the_version_is_the_answer() {
    rule("the_version_is_the_answer", 0..=18).run(|| {
        let control = client::control();
        let asked = scalar(control, VMM_INTERFACE_VERSION, 0);
        let expected = match version() {
            0 => Err(libc::ENOTTY),
            version => Ok(version.cast_signed()),
        };
        assert_eq!(asked, expected);
        let machine = client::machine("m");
        let asked = scalar(machine, VMM_INTERFACE_VERSION, 0);
        assert_eq!(asked, if version() < 6 { Err(libc::ENOTTY) } else { expected });
        assert_eq!(scalar(machine, 0x76_6d77, 0), Err(libc::ENOTTY), "no such call");
    });
}

const CRASH: &str = "trap_01_a_crashed_process_leaves_its_machine_unless_autodestruct_is_set";
const GUEST: &str = "trap_01_a_guest_that_runs_dies_with_its_process";

#[test]
fn trap_01_a_crashed_process_leaves_its_machine_unless_autodestruct_is_set() {
    rule(CRASH, [3, 4, 18]).run(|| {
        if let Ok(how) = std::env::var("HOLDER") {
            return hold(&how);
        }
        crash(CRASH, "bare");
        assert!(!is_empty());
        let control = client::control();
        call(control, VMM_DESTROY_VM, &mut named::<128>("held")).unwrap();
        assert!(is_empty());
        if version() >= 4 {
            crash(CRASH, "armed");
            assert!(is_empty());
        }
    });
}

#[test]
fn trap_01_a_guest_that_runs_dies_with_its_process() {
    rule(GUEST, [4, 18]).needs_kvm().run(|| {
        if std::env::var_os("HOLDER").is_some() {
            let machine = guest::machine(&[0xeb, 0xfe], 1);
            say_ready();
            loop {
                let _ = guest::enter(machine, 0, 0, &[]).unwrap();
            }
        }
        crash(GUEST, "runs");
        assert!(is_empty());
    });
}

/// Where a process that holds a machine says that it does.
fn ready() -> std::path::PathBuf {
    std::path::Path::new(&std::env::var("VMM_MODEL_STATE").unwrap()).join("ready")
}

fn say_ready() {
    std::fs::write(ready(), "").unwrap();
}

/// Holds a machine until the process is killed.
fn hold(how: &str) {
    let control = client::control();
    client::create(control, "held").unwrap();
    let machine = client::open_machine("held").unwrap();
    if how == "armed" {
        scalar(machine, VM_SET_AUTODESTRUCT, 1).unwrap();
    }
    client::allocate(machine, 0, 1 << 20, "").unwrap();
    client::place(machine, 0, 0, 1 << 20, 7).unwrap();
    client::map(machine, 0, 1 << 20).unwrap();
    say_ready();
    loop {
        std::thread::park_timeout(Duration::from_secs(60));
    }
}

/// Runs a test in a process that holds a machine, and kills it meanwhile.
fn crash(test: &str, how: &str) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env("HOLDER", how)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("process that holds a machine", || ready().exists());
    assert!(!is_empty(), "it is held");
    client::kill(child.id());
    child.wait().unwrap();
    std::fs::remove_file(ready()).unwrap();
}

#[test]
fn trap_01_a_copy_in_a_child_keeps_the_machine() {
    rule("trap_01_a_copy_in_a_child_keeps_the_machine", [18]).run(|| {
        let control = client::control();
        client::create(control, "m").unwrap();
        // Without O_CLOEXEC: whoever is started inherits it.
        let machine = open("/dev/vmm/m", libc::O_RDWR).unwrap();
        scalar(machine, VM_SET_AUTODESTRUCT, 1).unwrap();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        client::close(machine).unwrap();
        assert!(!is_empty(), "the child holds it");
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(is_empty());
    });
}

#[test]
fn trap_01_destroying_by_name_waits_for_the_last_close() {
    rule("trap_01_destroying_by_name_waits_for_the_last_close", ALL).run(|| {
        let control = client::control();
        assert_eq!(call(control, VMM_DESTROY_VM, &mut named::<128>("m")), Err(libc::ENOENT));
        client::create(control, "m").unwrap();
        let machine = client::open_machine("m").unwrap();
        let destroyer =
            std::thread::spawn(move || call(control, VMM_DESTROY_VM, &mut named::<128>("m")));
        wait_for("destruction that has begun", || {
            two(machine, VM_IOAPIC_PULSE_IRQ, 9, 0) == Err(libc::ENXIO)
        });
        assert!(!destroyer.is_finished());
        assert_eq!(client::open_machine("m"), Err(libc::ENXIO));
        client::close(machine).unwrap();
        assert_eq!(destroyer.join().unwrap(), Ok(0));
        assert_eq!(client::open_machine("m"), Err(libc::ENOENT));
    });
}

#[test]
fn only_root_destroys_by_name() {
    rule("only_root_destroys_by_name", [18]).with("VMM_MODEL_UID", "100").run(|| {
        let control = client::control();
        client::create(control, "m").unwrap();
        assert_eq!(call(control, VMM_DESTROY_VM, &mut named::<128>("m")), Err(libc::EPERM));
    });
}

#[test]
fn a_destroyed_machine_answers_enxio() {
    rule("a_destroyed_machine_answers_enxio", ALL).run(|| {
        let machine = client::machine("m");
        if version() < 5 {
            assert_eq!(scalar(machine, VM_DESTROY_SELF, 0), Err(libc::ENOTTY));
            return;
        }
        assert_eq!(scalar(machine, VM_DESTROY_PENDING, 0), Ok(0));
        scalar(machine, VM_DESTROY_SELF, 0).unwrap();
        assert_eq!(scalar(machine, VM_DESTROY_PENDING, 0), Ok(1));
        assert_eq!(scalar(machine, VM_DESTROY_SELF, 0), Err(libc::ENXIO));
        assert_eq!(guest::enter(machine, 0, 0, &[]).err(), Some(libc::ENXIO));
        assert_eq!(client::map(machine, 0, 4096), Err(libc::ENXIO));
        client::close(machine).unwrap();
        assert!(is_empty());
    });
}

#[test]
fn a_vcpu_in_the_guest_leaves_when_its_machine_is_destroyed() {
    rule("a_vcpu_in_the_guest_leaves_when_its_machine_is_destroyed", [5, 18]).needs_kvm().run(
        || {
            let machine = guest::machine(&[0xeb, 0xfe], 1);
            let runner = std::thread::spawn(move || {
                loop {
                    if let Err(error) = guest::enter(machine, 0, 0, &[]) {
                        return error;
                    }
                }
            });
            scalar(machine, VM_DESTROY_SELF, 0).unwrap();
            assert_eq!(runner.join().unwrap(), libc::ENXIO);
        },
    );
}

#[test]
fn trap_15_a_second_machine_in_a_zone_is_einval() {
    rule("trap_15_a_second_machine_in_a_zone_is_einval", ALL).run(|| {
        let control = client::control();
        client::create(control, "one").unwrap();
        assert_eq!(client::create(control, "two"), Err(libc::EINVAL));
        assert_eq!(client::create(control, "one"), Err(libc::EEXIST));
    });
}

#[test]
fn the_global_zone_has_many() {
    rule("the_global_zone_has_many", [18]).with("VMM_MODEL_ZONE", "global").run(|| {
        let control = client::control();
        client::create(control, "one").unwrap();
        client::create(control, "two").unwrap();
        let mut names: Vec<_> = std::fs::read_dir("/dev/vmm")
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["one", "two"]);
    });
}

#[test]
fn nodes_are_seen_where_they_should_be() {
    rule("nodes_are_seen_where_they_should_be", [18]).run(|| {
        use std::os::unix::fs::FileTypeExt as _;
        for node in ["/dev/vmmctl", "/dev/viona"] {
            assert!(std::fs::metadata(node).unwrap().file_type().is_char_device(), "{node}");
        }
        assert!(std::fs::metadata("/dev/vmm").unwrap().is_dir());
        let path = std::path::Path::new("/dev/vmm/m");
        assert!(!path.exists());
        let machine = client::machine("m");
        assert!(path.exists());
        // SAFETY: the path is a C string.
        assert_eq!(unsafe { libc::access(c"/dev/vmm/m".as_ptr(), libc::R_OK) }, 0);
        let first = machine.cast_unsigned();
        // SAFETY: takes three numbers; the descriptor is nobody else's.
        assert_eq!(unsafe { libc::close_range(first, first, 0) }, 0);
        assert!(!path.exists(), "that was the last descriptor");
    });
}

#[test]
fn a_duplicate_is_as_good_as_the_first() {
    rule("a_duplicate_is_as_good_as_the_first", [18]).run(|| {
        let machine = client::machine("m");
        // SAFETY: takes a number.
        let copy = unsafe { libc::dup(machine) };
        client::close(machine).unwrap();
        assert!(!is_empty());
        client::allocate(copy, 0, 4096, "").unwrap();
        client::close(copy).unwrap();
        assert!(is_empty());
    });
}

#[test]
fn the_control_node_is_opened_exclusively() {
    rule("the_control_node_is_opened_exclusively", [18]).run(|| {
        assert_eq!(open("/dev/vmmctl", libc::O_RDWR), Err(libc::EINVAL));
        let first = open("/dev/vmmctl", CONTROL).unwrap();
        open("/dev/vmmctl", CONTROL).expect("it is no lock");
        assert_eq!(client::map(first, 0, 4096), Err(libc::ENODEV));
        let reader = open("/dev/vmmctl", libc::O_RDONLY | libc::O_EXCL).unwrap();
        assert_eq!(client::create(reader, "m"), Err(libc::EPERM));
        for name in ["", "a/b"] {
            assert_eq!(client::create(first, name), Err(libc::EINVAL), "{name:?}");
        }
        let long = call(first, VMM_CREATE_VM, &mut {
            let mut bytes = [0u8; 136];
            bytes[..128].fill(b'x');
            bytes
        });
        assert_eq!(long, Err(libc::ENAMETOOLONG));
    });
}
