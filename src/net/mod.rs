// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The build network.
//!
//! On Linux a network in user mode, which needs no privileges and nothing of the host: the guest
//! sits behind an address translation of its own and reaches the host's loopback services at a
//! fixed address. Or a link of the host that exists already: a VNIC under bhyve, a tap under KVM.

mod existing;
mod tap;
pub mod user;
mod vnic;

pub use existing::{Existing, existing};
