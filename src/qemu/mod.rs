// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The QEMU driver: argv and QMP, nothing else.
//!
//! One run, in order: [`Search`] finds the program and the firmware; [`argv`] turns the
//! specification into arguments; [`process`] starts QEMU paused, in a process group of its own,
//! and hears its last words; [`qmp`] speaks to it; [`machine`] makes both into a
//! [`crate::vm::Machine`]; [`driver`] ties them together. [`leftover`] ends what a killed build
//! left running.

mod argv;
mod counters;
mod driver;
mod find;
mod leftover;
mod machine;
mod process;
mod qmp;
mod wire;

pub use argv::Accel;
pub use driver::QemuDriver;
pub(crate) use find::{OVMF_PLACES, beside};
pub use find::{Program, Search, UefiFirmware};
pub use leftover::end_leftover;
pub(crate) use process::on_path;

#[cfg(test)]
mod tests;
