// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What the kernel refuses, delays or interrupts: said with the remedy, or met without a word; and
//! nothing is left.

use super::code::{Code, code};
use super::zone::{Zone, has_kvm};

/// A guest that says something and ends.
fn brief() -> Code {
    code(|code| {
        code.say("here");
        code.power_off();
    })
}

/// A zone with that guest, and a fault.
fn zone(version: u32, faults: &str) -> Zone {
    let mut zone = Zone::new(version, 6);
    zone.install(&brief(), &[]);
    zone.fault(faults);
    zone
}

/// The monitor ends with these words, and no machine is left.
#[track_caller]
fn refused(zone: &Zone, words: &[&str]) {
    let ended = zone.run();
    // 2 is a mistake of the user's.
    assert!(matches!(ended.code, Some(1 | 2)), "{}", zone.story());
    for word in words {
        assert!(ended.stderr.contains(word), "no {word:?}\n{}", zone.story());
    }
    assert!(zone.machines().is_empty(), "{:?}\n{}", zone.machines(), zone.story());
}

#[test]
fn a_zone_without_bhyve_is_told_how_to_get_it() {
    let absent = ["there is no bhyve here", "/dev/vmmctl", "zonecfg", "brand `builder`"];
    refused(&zone(18, "open@1=ENOENT"), &absent);
    refused(&zone(18, "open@1=ENXIO"), &absent);
    refused(&zone(18, "open@1=EPERM"), &["may not be used by this user", "as root"]);
    refused(&zone(18, "VMM_INTERFACE_VERSION=ENOTTY"), &["older than May 2022", "newer platform"]);
    refused(&zone(18, "VMM_VM_SUPPORTED=ENXIO"), &["cannot use this processor", "stop other"]);
}

#[test]
fn a_machine_that_is_not_made_is_a_failure_with_its_reason() {
    refused(&zone(18, "VMM_CREATE_VM=ENXIO"), &["cannot use this processor"]);
    refused(&zone(18, "VMM_CREATE_VM=EPERM"), &["may not be used by this user", "as root"]);
    refused(&zone(18, "VMM_CREATE_VM=EBUSY"), &["makes no virtual machine", "imgforge doctor"]);
    for version in [1, 3, 4, 18] {
        let refused = |faults: &str, words: &[&str]| refused(&zone(version, faults), words);
        refused("open@2=ENXIO", &["does not show the machine it made", "imgforge-0badcafe-0"]);
        refused("VM_SET_TOPOLOGY=EINVAL", &["does not take so many processors"]);
        refused("VM_MMAP_MEMSEG=ENOSPC", &["does not show the guest its memory"]);
        refused("mmap=ENODEV", &["does not show us its memory"]);
        refused("VM_RTC_SETTIME=EINVAL", &["does not take the time"]);
        refused("VM_PMTMR_LOCATE=EINVAL", &["has no ACPI timer"]);
        refused("VM_DEVMEM_GETOFFSET=ENOENT", &["has no memory for the firmware"]);
        refused("VM_MMAP_MEMSEG@2=EFAULT", &["does not show the guest its firmware"]);
        refused("VM_ALLOC_MEMSEG@3=ENOMEM", &["has no memory for a device", "framebuffer"]);
    }
    refused(&zone(18, "VM_SET_AUTODESTRUCT=EPERM"), &["does not show the machine it made"]);
}

#[test]
fn memory_is_waited_for_unless_it_cannot_be_had() {
    let words = ["not enough memory", "256 MiB", "machine.memory"];
    for version in [1, 18] {
        refused(&zone(version, "VM_ALLOC_MEMSEG=ENOSPC"), &words);
    }
    let begin = std::time::Instant::now();
    refused(&zone(18, "VM_ALLOC_MEMSEG=ENOMEM"), &words);
    assert!(begin.elapsed() > std::time::Duration::from_secs(10), "it gave up at once");
}

#[test]
fn a_link_that_cannot_be_taken_is_a_failure_with_its_remedy() {
    for (faults, link, words) in [
        ("", "vm9", &["link is not there", "dladm create-vnic"][..]),
        ("open@3=ENOENT", "vm0", &["viona is not there", "add the device `viona`"]),
        ("VNA_IOC_CREATE=EBUSY", "vm0", &["does not take the link", "ipadm delete-if"]),
        ("VNA_IOC_CREATE=EIO", "vm0", &["does not take the link", "ip-type=exclusive"]),
    ] {
        for version in [3, 18] {
            let mut zone = zone(version, faults);
            zone.link = Some(link);
            let _wire = std::os::unix::net::UnixDatagram::bind(zone.path("wire")).unwrap();
            refused(&zone, words);
        }
    }
    let mut zone = Zone::new(18, 5);
    zone.install(&brief(), &[]);
    zone.link = Some("vm0");
    refused(&zone, &["viona is not one that imgforge knows", "version  5"]);
}

#[test]
fn a_zone_has_one_machine_and_says_whose_it_is() {
    let mut first = zone(18, "");
    first.stem = "web01".into();
    let mut holder = first.start();
    assert!(holder.connect(), "{}", first.story());
    let second = Zone::beside(&first);
    second.install(&brief(), &[]);
    let ended = second.run();
    assert_eq!(ended.code, Some(1), "{}", second.story());
    for word in ["has a virtual machine already", "web01-0", "build in another zone"] {
        assert!(ended.stderr.contains(word), "no {word:?}\n{}", second.story());
    }
    assert_eq!(first.machines(), ["web01-0"], "somebody else's machine stays");
    holder.ask("quit");
    assert_eq!(holder.end().code, Some(0), "{}", first.story());
    assert!(first.machines().is_empty());
}

/// The guest ends as if nothing had been.
#[track_caller]
fn met(version: u32, faults: &str) {
    let zone = zone(version, faults);
    let ended = zone.run();
    assert_eq!(ended.told(), ["SHUTDOWN guest-shutdown"], "{}", zone.story());
    assert_eq!((ended.code, ended.serial.as_str()), (Some(0), "here"), "{}", zone.story());
    assert!(zone.machines().is_empty(), "{:?}\n{}", zone.machines(), zone.story());
}

#[test]
fn what_passes_is_waited_for() {
    if !has_kvm("what_passes_is_waited_for") {
        return;
    }
    met(18, "VM_ALLOC_MEMSEG@1=ENOMEM,VM_ALLOC_MEMSEG@2=ENOMEM");
    met(18, "VM_ALLOC_MEMSEG@1=delay:1500");
    met(18, "VM_RUN@1=EINTR,VM_RUN@3=EINTR");
    met(18, "VM_RUN@2=EBUSY,VM_RUN@3=EBUSY");
    met(3, "VMM_DESTROY_VM@1=EINTR");
    for version in [4, 18] {
        met(version, "VM_SET_AUTODESTRUCT=ENOTTY");
        met(version, "VM_DESTROY_SELF=EIO");
        met(version, "VM_SET_CPUID=EINVAL");
    }
    met(18, "VM_VCPU_BARRIER=ENOTTY");
    met(18, "VM_RTC_WRITE=EINVAL");
}

#[test]
fn a_vcpu_that_does_not_run_is_a_failure() {
    if !has_kvm("a_vcpu_that_does_not_run_is_a_failure") {
        return;
    }
    for version in [1, 6, 15, 16, 18] {
        let refused = |faults: &str, words: &[&str]| refused(&zone(version, faults), words);
        refused("VM_RUN@3=EIO", &["cannot run the guest", "Input/output error"]);
        refused("VM_ACTIVATE_CPU=EBUSY", &["makes no vCPU"]);
        refused("VM_SET_RUN_STATE=EINVAL", &["makes no vCPU"]);
    }
}
