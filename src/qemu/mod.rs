// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The QEMU driver: argv and QMP, nothing else.
//!
//! One run, in order: [`Search`] finds the program and the firmware; [`argv`] turns the
//! specification into arguments; [`crate::vm::child`] starts QEMU paused, speaks to it and makes a
//! [`crate::vm::Machine`] of it; [`driver`] ties them together.

mod argv;
mod driver;
mod find;
mod usernet;

pub use argv::Accel;
pub use driver::QemuDriver;
pub(crate) use find::{OVMF_PLACES, beside};
pub use find::{Program, Search, UefiFirmware};

#[cfg(test)]
mod tests;
