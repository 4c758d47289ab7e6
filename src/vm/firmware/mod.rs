// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What the firmware is told of the machine, and where the firmware itself is found.

pub mod acpi;
pub mod boot_order;
mod dsdt;
pub mod e820;
mod loader;
pub mod rom;
pub mod smbios;
#[cfg(test)]
mod tests;
mod variables;
mod volume;
