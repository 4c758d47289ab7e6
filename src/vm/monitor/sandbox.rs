// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What the monitor gives up once it has everything: a guest that takes it over finds little.

#[cfg(target_os = "linux")]
#[path = "privileges_linux.rs"]
mod privileges;
#[cfg(not(target_os = "linux"))]
#[path = "privileges_none.rs"]
mod privileges;

use nix::sys::resource::{Resource, setrlimit};

/// Memory of the monitor itself, beside the guest's, in MiB.
const OWN_MIB: u64 = 1024;
/// Files that may be open.
const FILES: u64 = 256;

/// Gives up what is not needed any more. What a system does not have is left out: each of these is
/// a second line of defence.
pub(super) fn enter(guest_mib: u64) {
    let limits = [
        // No core file: it would hold the guest's memory, secrets included.
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NOFILE, FILES),
        (Resource::RLIMIT_AS, guest_mib.saturating_add(OWN_MIB) << 20),
    ];
    for (resource, limit) in limits {
        if let Err(error) = setrlimit(resource, limit, limit) {
            tracing::debug!("a limit could not be set: {error}");
        }
    }
    privileges::drop_them();
}
