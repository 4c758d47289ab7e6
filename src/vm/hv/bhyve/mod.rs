// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! bhyve, the hypervisor of illumos, in three layers: `abi` has its numbers and structures,
//! `handle` its calls with types, and the files beside them make a [`Vm`](super::Vm) of it.
//!
//! It compiles on every Unix and speaks `open`, `ioctl` and `mmap` alone; where there is no
//! `/dev/vmmctl` it says so. Interface versions 1 to 18 are known, newer ones are tried.

pub(super) mod abi;
mod failures;
mod handle;
mod kick;
mod leftovers;
mod machine;
mod msr;
mod start;
mod trial;
mod vcpu;

pub use failures::PREFIX;
pub(super) use handle::Instance;
pub use leftovers::{destroy, machines, machines_of, wait_for_ends};
pub use start::{Found, Look, STARTING, create, look};
pub use trial::{Trial, trial};
