// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The hypervisor kernels behind one trait, whose contract is bhyve's: one exit at a time, one
//! answer for each exit that asks for one, and an access that is not answered comes again.

pub mod abi;
pub mod bhyve;
pub mod kvm;
mod node;
pub mod scatter;
pub mod tap;
pub mod viona;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::dev::virtio::Offload;
use super::memory::{DeviceMemory, Memory};
use crate::ui::{Failure, Outcome};

/// What a kernel emulates itself. What it does not, the board adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelDevices {
    /// The real-time clock with CMOS, ports 0x70 and 0x71.
    pub rtc: bool,
    /// The HPET at 0xFED00000.
    pub hpet: bool,
    /// The ACPI timer at port 0x408.
    pub pm_timer: bool,
}

/// A link of the host, such as a VNIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its largest packet, when it is known.
    pub mtu: Option<u16>,
}

/// A virtual machine in the kernel: its memory, interrupt controllers and vCPUs. Dropping the last
/// reference destroys it. A guest's reset ends one and makes the next: that leaves nothing behind
/// on any kernel.
pub trait Vm: Send + Sync {
    /// RAM, mapped for the guest as [`super::memory::layout`] says.
    fn memory(&self) -> Memory;

    /// What needs no device model of ours.
    fn kernel_devices(&self) -> KernelDevices;

    /// Puts the firmware's image right below 4 GiB, readable and executable for the guest. Writes
    /// of the guest to it are lost or end the machine, as the kernel has it.
    ///
    /// # Errors
    /// When the image is no multiple of 4 KiB or too large, or the kernel refuses.
    fn set_rom(&self, image: &[u8]) -> Outcome<()>;

    /// Allocates memory for a device. The guest does not see it yet.
    ///
    /// # Errors
    /// When the kernel has none.
    fn device_memory(&self, name: &str, bytes: u64) -> Outcome<DeviceMemory>;

    /// Allocates memory that the guest may read and execute where it is shown, while its writes
    /// come as exits. `None` when the kernel has no such thing: reads come as exits there, too.
    ///
    /// # Errors
    /// When the kernel has none.
    fn read_memory(&self, name: &str, bytes: u64) -> Outcome<Option<DeviceMemory>>;

    /// Shows device memory to the guest at `address`, or hides it with `None`. It is hidden first
    /// where it was before.
    ///
    /// # Errors
    /// When the range overlaps memory, or the kernel refuses.
    fn place(&self, memory: &DeviceMemory, address: Option<u64>) -> Outcome<()>;

    /// Makes the vCPU of a number from 0, in its power-on state: 0 runs, others wait for SIPI.
    /// Each one at most once.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn vcpu(&self, number: u32) -> Outcome<Box<dyn Vcpu>>;

    /// Sets a line of the interrupt controllers: ISA lines 0 to 15 reach PIC and IOAPIC.
    fn set_irq(&self, line: u32, high: bool);

    /// Delivers a message-signalled interrupt.
    fn send_msi(&self, address: u64, data: u32);

    /// Writes a byte of CMOS that firmware reads, where the kernel has the RTC.
    fn write_cmos(&self, index: u8, value: u8);

    /// Takes a link of the host for a network interface of the guest, whose rings the kernel serves.
    ///
    /// # Errors
    /// When there is no such link, it is in use, or this kernel has nothing of the kind.
    fn link(&self, link: &Link) -> Outcome<Arc<dyn Offload>> {
        Err(Failure::input("this hypervisor serves no links of the host").fact("link", &link.name))
    }

    /// Makes the vCPU return from [`Vcpu::run`] soon with [`VcpuExit::Again`], or not enter it the
    /// next time. From any thread.
    fn kick(&self, number: u32);
}

/// One virtual processor. Belongs to one thread at a time.
pub trait Vcpu: Send {
    /// Runs the guest until it needs us.
    ///
    /// # Errors
    /// When the kernel fails, not when the guest does.
    fn run(&mut self) -> Outcome<VcpuExit>;

    /// Answers the last exit, a read: `data` has as many bytes as it asked for.
    fn answer(&mut self, data: &[u8]);

    /// The registers in a few lines, for the report of a guest that crashed.
    fn registers(&self) -> String;
}

/// Up to eight bytes of an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes {
    bytes: [u8; 8],
    length: u8,
}

impl Bytes {
    /// Takes at most eight bytes.
    pub fn new(data: &[u8]) -> Self {
        let mut bytes = [0; 8];
        let length = data.len().min(8);
        for (to, from) in bytes.iter_mut().zip(data) {
            *to = *from;
        }
        Self { bytes, length: length as u8 }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// Why a vCPU left the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VcpuExit {
    /// A read of a port, 1, 2 or 4 bytes; must be answered.
    PortRead {
        /// The port.
        port: u16,
        /// Bytes.
        size: u8,
    },
    /// A write to a port.
    PortWrite {
        /// The port.
        port: u16,
        /// What is written.
        data: Bytes,
    },
    /// A read of a place without memory, 1 to 8 bytes; must be answered.
    MmioRead {
        /// The guest-physical address.
        address: u64,
        /// Bytes.
        size: u8,
    },
    /// A write to a place without memory.
    MmioWrite {
        /// The guest-physical address.
        address: u64,
        /// What is written.
        data: Bytes,
    },
    /// Nothing: enter again.
    Again,
    /// The guest shut itself down by a triple fault.
    TripleFault,
    /// The kernel asks for a reset or power-off, which the guest caused by a kernel's device.
    Asked(super::dev::Request),
    /// The kernel cannot go on; what it said.
    Broken(String),
}
