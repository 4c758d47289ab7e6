// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Where there is no KVM.

use std::sync::Arc;

use crate::ui::{Failure, Outcome};
use crate::vm::hv::Vm;

/// Fails: only Linux has KVM.
///
/// # Errors
/// Always.
pub fn create(_memory_bytes: u64, _cpus: u32) -> Outcome<Arc<dyn Vm>> {
    Err(Failure::input("this system has no KVM")
        .hint("choose another hypervisor: `--hypervisor auto`"))
}
