// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What the monitor gives up once it has everything, on Linux: a guest that takes it over finds
//! little.

#[path = "seccomp_linux.rs"]
mod seccomp;

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

use super::Hypervisor;

/// Addresses of the monitor itself, beside the guest's memory, in MiB. The C library sets 64 MiB of
/// them aside for each thread, which must not be those of the next board's memory.
const OWN_MIB: u64 = 4096;
/// Files that may be open.
const FILES: u64 = 256;

/// Gives up what is not needed any more. What a system does not have is left out: each of these is
/// a second line of defence.
pub(super) fn enter(hypervisor: Hypervisor, guest_mib: u64) {
    let mappings = seccomp::guest_mappings(hypervisor);
    let limits = [
        // No core file: it would hold the guest's memory, secrets included.
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NOFILE, FILES),
        (Resource::RLIMIT_AS, guest_mib.saturating_mul(mappings).saturating_add(OWN_MIB) << 20),
    ];
    let limits = limits.map(|(resource, limit)| setrlimit(resource, limit, limit));
    // No program that is started from here can gain any privilege, and nobody else may look into
    // this process.
    let privileges = [prctl::set_no_new_privs(), prctl::set_dumpable(false)];
    for error in limits.into_iter().chain(privileges).filter_map(Result::err) {
        tracing::debug!("a privilege could not be given up: {error}");
    }
    if let Err(error) = seccomp::enter(hypervisor) {
        tracing::warn!("the monitor runs without a filter for its system calls: {error}");
    }
}
