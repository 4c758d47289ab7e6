// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What goes wrong with bhyve, in a user's words, with the next command.

use std::io;

use super::handle::{Control, Reservoir};
use crate::ui::Failure;
use crate::vm::hv::node::is;

pub(super) const CONTROL: &str = "/dev/vmmctl";
/// Names of this program's machines begin with it.
pub const PREFIX: &str = "imgforge-";
/// The newest version whose rules are known.
pub(super) const NEWEST: u32 = 18;
const MIB: u64 = 1 << 20;

/// What an operator does to give a zone the devices.
const ZONE: &str = "zonecfg -z ZONE 'set limitpriv=default,proc_clock_highres,sys_dl_config; \
                    add device; set match=\"/dev/viona\"; end; \
                    add device; set match=\"/dev/vmm*\"; end'";

/// Whether there is no control node.
pub(super) fn is_absent(error: &io::Error) -> bool {
    [libc::ENOENT, libc::ENXIO, libc::ENODEV].iter().any(|errno| is(error, *errno))
}

/// The control node cannot be opened.
pub(super) fn no_control(error: io::Error) -> Failure {
    if is_absent(&error) {
        return Failure::build("there is no bhyve here: this is no zone with its devices")
            .fact("device", CONTROL)
            .because(error)
            .fact("zonecfg", ZONE)
            .hint(
                "build in a zone of the brand `builder`, which has the devices (and needs that \
                 `limitpriv`)",
            )
            .hint(
                "or have the operator run the line above in the global zone for this one, and reboot \
                 it: `docs/first-run-on-smartos.md` tells all of it",
            )
            .hint("on other systems use `--hypervisor auto`");
    }
    if is(&error, libc::EACCES) || is(&error, libc::EPERM) {
        return Failure::build("bhyve may not be used by this user")
            .fact("device", CONTROL)
            .because(error)
            .hint("run imgforge as root, in this zone or in the global one");
    }
    Failure::build("bhyve's control device cannot be opened")
        .fact("device", CONTROL)
        .because(error)
        .hint("run `imgforge doctor`")
}

/// The kernel does not say its version.
pub(super) fn too_old(error: io::Error) -> Failure {
    let failure = Failure::build("this platform's bhyve is not one that imgforge knows");
    let failure = failure.fact("device", CONTROL);
    if is(&error, libc::ENOTTY) {
        return failure
            .because("its interface has no version, so it is older than May 2022")
            .hint("boot a newer platform image");
    }
    failure.because(error).hint("run `imgforge doctor`")
}

/// The processor cannot be used.
pub(super) fn no_processor(error: io::Error, words: &str) -> Failure {
    let words = if words.is_empty() { "no VT-x or SVM that is free" } else { words };
    Failure::build("bhyve cannot use this processor")
        .fact("device", CONTROL)
        .fact("kernel", words)
        .because(error)
        .hint("enable virtualization in the firmware's setup, and stop other hypervisors (KVM)")
}

/// An instance cannot be made.
pub(super) fn no_instance(name: &str, error: io::Error, others: &[String]) -> Failure {
    if is(&error, libc::ENXIO) {
        return no_processor(error, "");
    }
    if is(&error, libc::EPERM) {
        return no_control(error);
    }
    let failure = Failure::build("bhyve makes no virtual machine").fact("machine", name);
    if is(&error, libc::EINVAL) || is(&error, libc::EEXIST) {
        return occupied(others);
    }
    failure.because(error).hint("run `imgforge doctor`")
}

/// The zone has its one virtual machine already.
fn occupied(others: &[String]) -> Failure {
    let failure = Failure::build("this zone has a virtual machine already, and may have one only")
        .fact(
            "machine",
            if others.is_empty() { "(not visible)".into() } else { others.join(", ") },
        );
    if others.iter().any(|name| name.starts_with(PREFIX)) {
        return failure
            .hint("wait for the other build, or end what an interrupted one left: `imgforge clean`")
            .hint("what remains then goes by `bhyvectl --vm=NAME --destroy`");
    }
    failure.hint("stop it, or build in another zone")
}

/// There is not enough memory for the machine; `bytes` are wanted.
pub(super) fn no_memory(bytes: u64, reservoir: Option<Reservoir>) -> Failure {
    let failure = Failure::build("there is not enough memory for the machine")
        .fact("wanted", format!("{} MiB", bytes / MIB));
    let failure = match reservoir {
        Some(Reservoir { free, reserved, transient, limit }) => failure
            .fact("in use", format!("{} MiB, by virtual machines", (reserved + transient) / MIB))
            .fact("set aside", format!("{} MiB, free", free / MIB))
            .fact("limit", format!("{} MiB, for all virtual machines", limit / MIB)),
        None => failure.fact("free", "the kernel does not tell this zone"),
    };
    failure.hint("give the target less with `machine.memory`, or stop another virtual machine")
}

/// The kernel has not answered for a long time.
pub(super) fn stuck(what: &str, seconds: u64, bytes: u64) -> Failure {
    let reservoir = Control::open().and_then(|control| control.reservoir()).ok();
    let waits = format!("the kernel has not answered for {seconds} s; it may wait for memory");
    no_memory(bytes, reservoir).fact("while", what).because(waits)
}

/// A vCPU does not enter the guest.
pub(super) fn not_run(vcpu: i32, error: io::Error) -> Failure {
    let failure = Failure::build("bhyve does not run the guest").fact("vcpu", vcpu);
    if is(&error, libc::ENXIO) {
        return failure.because("somebody else has destroyed the virtual machine");
    }
    failure.because(error)
}

/// Any other call that fails.
pub(super) fn failed(what: &str, name: &str, error: io::Error) -> Failure {
    Failure::build(format!("bhyve {what}")).fact("machine", name).because(error)
}
