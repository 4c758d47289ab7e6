// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! PCI: configuration mechanism #1, functions with BARs that the guest places, MSI-X, and the
//! bridges of an i440FX board.

mod bar;
pub mod bridges;
mod config;
mod function;
#[cfg(test)]
pub(super) mod mock;
mod msix;

use std::ops::Range;
use std::sync::{Arc, Weak};

pub use bar::{Bar, Place};
pub use config::Pci;
pub use function::{Function, Identity};
pub use msix::{Msix, MsixPage};

use crate::vm::bus::Bus;

/// Where BARs come to lie, and where they may.
pub struct Spaces {
    // The buses own the functions, not the other way round.
    ports: Weak<Bus>,
    mmio: Weak<Bus>,
    memory_window: Range<u64>,
    port_window: Range<u64>,
}

impl Spaces {
    /// The buses, and the addresses and ports on them that BARs may take. What lies outside is
    /// never mapped: a BAR that is being sized would land on the ROM and the local APICs.
    pub fn new(
        ports: &Arc<Bus>,
        mmio: &Arc<Bus>,
        memory_window: Range<u64>,
        port_window: Range<u64>,
    ) -> Arc<Self> {
        let (ports, mmio) = (Arc::downgrade(ports), Arc::downgrade(mmio));
        Arc::new(Self { ports, mmio, memory_window, port_window })
    }
}
