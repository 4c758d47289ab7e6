// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The bridges that firmware knows the board by: i440FX, and PIIX3 with PIIX4's power management.

use std::sync::Arc;

use super::{Function, Identity, Spaces};

const INTEL: u16 = 0x8086;

/// The first PIIX4 whose timer can be read once: Linux reads those of earlier ones three times.
const PIIX4M: u8 = 3;

fn intel(device: u16, class: u32, revision: u8) -> Identity {
    Identity { vendor: INTEL, device, class, revision, subsystem: (0, 0) }
}

/// 0:0.0, the i440FX host bridge. Both firmwares branch on its id. Its PAM registers are storage:
/// below 1 MiB everything is RAM.
pub fn host(spaces: &Arc<Spaces>) -> Function {
    Function::new(&intel(0x1237, 0x06_0000, 0), spaces).storage(0x59, [0; 7])
}

/// 0:1.0, the PIIX3 ISA bridge. Firmware finds keyboard and serial ports by it.
pub fn isa(spaces: &Arc<Spaces>) -> Function {
    Function::new(&intel(0x7000, 0x06_0100, 0), spaces).multifunction().storage(0x60, [0x80; 4])
}

/// 0:1.3, the PIIX4 power management function, whose base is set to port 0x400 from the start and
/// stays there: firmware takes a base that is enabled as it is.
pub fn power_management(spaces: &Arc<Spaces>) -> Function {
    Function::new(&intel(0x7113, 0x06_8000, PIIX4M), spaces)
        .fixed(0x40, 0x401u32.to_le_bytes())
        .fixed(0x80, [0x01])
}
