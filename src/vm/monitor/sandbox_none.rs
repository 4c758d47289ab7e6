// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What the monitor gives up beside its privileges where no other mechanism is used yet.

use super::Hypervisor;

/// Nothing.
pub(super) fn enter(_hypervisor: Hypervisor, _guest_mib: u64) {}
