// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The answer on hosts that never have KVM.

use super::Verdict;

/// Says that this platform has no KVM.
pub fn probe() -> Verdict {
    Verdict::Absent { reason: "KVM exists on x86-64 Linux only".to_owned() }
}
