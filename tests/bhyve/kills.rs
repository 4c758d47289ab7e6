// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The monitor is killed, at several points of its life. The kernel destroys its machine from
//! version 4 on; before, the next monitor of the same build or `imgforge clean` does.

use super::code::{Code, code};
use super::zone::{Zone, has_kvm};

/// Some of each kind: without destruction, with it, by signals, by barriers.
const VERSIONS: [u32; 7] = [1, 3, 4, 5, 15, 16, 18];

fn busy() -> Code {
    code(|code| {
        code.say("here");
        // jmp $
        code.emit(&[0xeb, 0xfe], ());
    })
}

fn zone(version: u32, faults: &str) -> Zone {
    let mut zone = Zone::new(version, 6);
    zone.leave_journal();
    zone.install(&busy(), &[]);
    zone.fault(faults);
    zone
}

/// After the kill: nothing, or what `clean` takes away.
#[track_caller]
fn judge(zone: &Zone, is_left: bool) {
    let left = zone.machines();
    let expected = if is_left { vec![format!("{}-0", zone.stem)] } else { Vec::new() };
    assert_eq!(left, expected, "{}", zone.story());
    let said = zone.clean(&[]);
    assert_eq!(said.contains(&zone.stem), is_left, "{said}");
    assert!(zone.machines().is_empty(), "{said}\n{}", zone.story());
}

#[test]
fn before_and_while_the_machine_is_made() {
    for version in VERSIONS {
        // Nothing can be armed before the machine can be opened.
        for (faults, call, is_left) in [
            ("open@1=delay:20000", "open waits", false),
            ("VMM_CREATE_VM=delay:20000", "VMM_CREATE_VM waits", false),
            ("open@2=delay:20000", "open waits", true),
            ("VM_ALLOC_MEMSEG@1=delay:20000", "VM_ALLOC_MEMSEG waits", version < 4),
            ("VM_ALLOC_MEMSEG@3=delay:20000", "VM_ALLOC_MEMSEG waits", version < 4),
        ] {
            let zone = zone(version, faults);
            let monitor = zone.start();
            zone.wait_for_call(call);
            monitor.kill();
            judge(&zone, is_left);
        }
    }
}

#[test]
fn while_the_guest_runs() {
    if !has_kvm("while_the_guest_runs") {
        return;
    }
    for version in VERSIONS {
        let zone = zone(version, "");
        let mut monitor = zone.start_until("here");
        // Who only looks ends nothing.
        assert!(zone.clean(&["--dry-run"]).contains(&zone.stem));
        assert_eq!(zone.machines(), [format!("{}-0", zone.stem)]);
        monitor.ask("query-status");
        assert!(monitor.child.try_wait().unwrap().is_none(), "{}", zone.story());
        monitor.kill();
        judge(&zone, version < 4);
    }
}

#[test]
fn while_it_ends() {
    if !has_kvm("while_it_ends") {
        return;
    }
    for version in VERSIONS {
        let (faults, call) = match version {
            1..4 => ("VMM_DESTROY_VM=delay:20000", "VMM_DESTROY_VM waits"),
            4..5 => ("VM_SUSPEND=delay:20000", "VM_SUSPEND waits"),
            _ => ("VM_DESTROY_SELF=delay:20000", "VM_DESTROY_SELF waits"),
        };
        let zone = zone(version, faults);
        let monitor = zone.start_until("here");
        monitor.ask("quit");
        zone.wait_for_call(call);
        monitor.kill();
        judge(&zone, version < 4);
    }
}

#[test]
fn the_next_monitor_of_the_build_destroys_what_is_left() {
    if !has_kvm("the_next_monitor_of_the_build_destroys_what_is_left") {
        return;
    }
    for version in [1, 2, 3] {
        let zone = zone(version, "");
        for _ in 0..2 {
            let monitor = zone.start_until("here");
            monitor.kill();
            std::fs::remove_file(zone.path("serial")).unwrap();
            assert_eq!(zone.machines().len(), 1, "{}", zone.story());
        }
        let monitor = zone.start_until("here");
        monitor.ask("quit");
        assert_eq!(monitor.end().code, Some(0), "{}", zone.story());
        assert!(zone.machines().is_empty(), "{}", zone.story());
    }
}

#[test]
fn a_machine_that_is_destroyed_from_outside_ends_the_monitor_with_the_reason() {
    if !has_kvm("a_machine_that_is_destroyed_from_outside_ends_the_monitor_with_the_reason") {
        return;
    }
    for version in VERSIONS {
        let zone = zone(version, "");
        let monitor = zone.start_until("here");
        judge(&zone, true);
        let ended = monitor.end();
        assert_eq!(ended.code, Some(1), "{}", zone.story());
        let reason = "somebody else has destroyed the virtual machine";
        assert!(ended.stderr.contains(reason), "{}", zone.story());
    }
}
