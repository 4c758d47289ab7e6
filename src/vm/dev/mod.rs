// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Device models: register in, register out, an interrupt line. No I/O of their own but through
//! the back ends that they are given.

mod calendar;
pub mod clock;
pub mod debug;
pub mod flash;
pub mod framebuffer;
pub mod fw_cfg;
pub mod hpet;
pub mod i8042;
mod keyboard;
mod keys;
mod lanes;
#[cfg(test)]
mod mock;
pub mod pci;
pub mod pm;
pub mod reset;
pub mod rtc;
pub mod uart;
pub mod virtio;

use std::sync::Arc;

/// An interrupt line of the PIC and IOAPIC.
pub trait IrqLine: Send + Sync {
    /// Raises or lowers it. Calling it without a change does nothing.
    fn set(&self, high: bool);

    /// One edge.
    fn pulse(&self) {
        self.set(true);
        self.set(false);
    }
}

/// Where message-signalled interrupts go: the local APICs.
pub trait MsiSink: Send + Sync {
    /// Delivers one message, as written by a device to `address`.
    fn send(&self, address: u64, data: u32);
}

/// What the guest asks of the machine by way of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Power off (ACPI S5).
    PowerOff,
    /// Reset.
    Reset,
}

/// Takes requests. Never blocks: a vCPU thread calls it.
pub trait Requests: Send + Sync {
    /// The guest asks.
    fn request(&self, request: Request);
}

/// An interrupt line that devices share.
pub type Irq = Arc<dyn IrqLine>;
