// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The typed layer: each call of bhyve as a function. Nothing else says `ioctl`.

mod control;
mod instance;
mod run;
mod statistics;

pub(in crate::vm::hv) use control::{Control, Reservoir, exists};
pub(in crate::vm::hv) use instance::{Instance, Protection};
pub(super) use run::{Answer, Exit};

use super::abi::NAME_BYTES;

/// A name as the kernel takes it, ended by a zero byte.
fn name_bytes(name: &str) -> [u8; NAME_BYTES] {
    let mut bytes = [0; NAME_BYTES];
    // The last byte stays zero.
    for (to, from) in bytes.iter_mut().take(NAME_BYTES - 1).zip(name.bytes()) {
        *to = from;
    }
    bytes
}
