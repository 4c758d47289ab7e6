// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Virtio over PCI: a transport, and the devices that a guest needs to be installed.
//!
//! A device says what it is and serves its rings; everything that the guest programs is in
//! [`Transport`]. Each device has one thread of its own, which the transport wakes: a vCPU never
//! waits for a disk, except for the reset that must not leave I/O in flight.

mod block;
mod block_file;
mod disk;
mod interrupts;
mod legacy;
#[cfg(test)]
mod mock;
mod net;
mod net_offload;
mod offload;
mod ring;
mod rng;
mod scsi;
mod scsi_cd;
mod scsi_pages;
mod transport;
mod worker;

use std::sync::Arc;

use super::MsiSink;
use super::pci::{Function, Spaces};
use crate::ui::Outcome;
use crate::vm::memory::Memory;

pub use block::{Block, BlockStats};
pub use block_file::RawFile;
pub use disk::Disk;
pub use net::{FrameHeader, Frames, MTU, Net, PLAIN, offloads};
pub use net_offload::OffloadedNet;
pub use offload::{Message, Offload, Signal};
pub use ring::{BadBuffer, Buffers, Chain, Ring};
pub use rng::Rng;
pub use scsi::Scsi;
pub use scsi_cd::ScsiCd;
pub use transport::Transport;

/// Makes a device look at its rings again; from any thread, never blocks.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Makes the PCI function of a device, to be plugged into any slot: modern, unless whoever serves
/// its rings knows only those of before VIRTIO 1.0.
///
/// # Errors
/// When the system has no thread for it.
pub fn plug(
    device: Arc<dyn VirtioDevice>,
    memory: Memory,
    sink: Arc<dyn MsiSink>,
    spaces: &Arc<Spaces>,
) -> Outcome<Function> {
    match device.offload() {
        Some(offload) if !offload.is_modern() => {
            Ok(legacy::LegacyTransport::function(device, offload, sink, spaces))
        }
        _ => Transport::function(device, memory, sink, spaces),
    }
}

/// What kind of device it is: the virtio device number and the PCI class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// A network interface.
    Net = 1,
    /// A disk.
    Block = 2,
    /// A source of entropy.
    Rng = 4,
    /// A SCSI host.
    Scsi = 8,
}

impl Kind {
    /// PCI class, subclass and interface.
    fn class(self) -> u32 {
        match self {
            Self::Net => 0x02_0000,
            Self::Block | Self::Scsi => 0x01_0000,
            Self::Rng => 0x00_ff00,
        }
    }
}

/// A device behind the transport. Registers are read by vCPUs while the device's thread serves a
/// ring, hence `&self` everywhere.
pub trait VirtioDevice: Send + Sync {
    /// What it is.
    fn kind(&self) -> Kind;

    /// The device's own feature bits; the transport adds its own.
    fn features(&self) -> u64;

    /// The largest size of each ring, powers of two.
    fn queue_sizes(&self) -> Vec<u16>;

    /// The device configuration structure.
    fn config(&self) -> Vec<u8>;

    /// The driver writes the device configuration structure.
    fn write_config(&self, _offset: u64, _data: &[u8]) {}

    /// The driver is ready, having accepted these features.
    fn activate(&self, _features: u64) {}

    /// Works on ring `queue` until it is empty or told to stop. Called on the device's own thread
    /// when the driver, or the device's own [`Wake`], asks for it.
    fn serve(&self, queue: usize, ring: &mut Ring);

    /// Who serves the rings in place of [`VirtioDevice::serve`]; nobody, usually.
    fn offload(&self) -> Option<Arc<dyn Offload>> {
        None
    }

    /// Takes the means to be served when something arrives from outside. Called once.
    fn set_wake(&self, _wake: Wake) {}

    /// The driver has reset the device; no ring is being served.
    fn reset(&self) {}
}
