// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The virtual machine as a build sees it, whoever emulates the devices.

pub mod board;
pub mod bus;
pub mod cable;
pub mod child;
pub mod dev;
mod driver;
pub mod firmware;
pub mod hv;
pub mod memory;
pub mod monitor;
mod stream;
pub mod tap;
pub mod vcpu;
pub mod vnc;

pub use driver::{
    Driver, Exit, Firmware, Forward, Machine, MachineEvent, MachineSpec, MachineStats, VncEndpoint,
};
