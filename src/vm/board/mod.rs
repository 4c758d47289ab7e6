// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The board: one machine in the shape of an i440FX, which both firmwares take for their own.
//!
//! | where | what |
//! |---|---|
//! | 0:0.0, 0:1.0, 0:1.3 | host bridge, ISA bridge, power management |
//! | 0:3.0 | virtio-scsi with the CD drive |
//! | 0:4.0, 0:5.0, 0:6.0 | virtio-blk, virtio-rng, virtio-net |
//! | 0:30.0 | frame buffer |
//! | ports | two 16550A, keyboard controller, RTC, ACPI at 0x400, fw_cfg at 0x510, reset at 0xCF9 |
//! | below 4 GiB | firmware, flash for variables, HPET |
//!
//! A guest's reset ends a board; the next one is made of the same [`Plan`] and [`Backends`].

mod legacy;
mod tables;
mod timers;
mod wires;

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use self::legacy::Legacy;
use self::timers::{Alarm, Timers};
use super::dev::clock::{Clock, SystemClock};
use super::dev::framebuffer::{Face, Framebuffer};
use super::dev::i8042::I8042;
use super::dev::pci::{Pci, Spaces, bridges};
use super::dev::pm::PowerManagement;
use super::dev::reset::ResetRegister;
use super::dev::virtio::{
    Block, Disk, Frames, Net, OffloadedNet, Rng, Scsi, ScsiCd, VirtioDevice, plug,
};
use super::dev::{Request, Requests};
use super::firmware::acpi;
use super::firmware::boot_order::BootDevice;
use super::firmware::rom::{Profile, Rom};
use super::hv::{Link, Vm};
use super::vcpu::{Buses, Run, Threads};
use crate::ui::Outcome;

const CD_SLOT: u8 = 3;
const DISK_SLOT: u8 = 4;
const RNG_SLOT: u8 = 5;
const NET_SLOT: u8 = 6;
const SCREEN_SLOT: u8 = 30;

/// Where BARs may not be any more: devices of the chipset begin.
const PCI_END: u64 = 0xfc00_0000;
/// Ports that BARs may take.
const PCI_PORTS: std::ops::Range<u64> = 0x2000..0x1_0000;
const SCREEN_BYTES: u64 = 16 << 20;
/// What an operator sees of the disk: `/dev/disk/by-id/virtio-…`.
const DISK_NAME: &str = "imgforge";

/// What the machine is.
#[derive(Debug, Clone)]
pub struct Plan {
    /// vCPUs.
    pub cpus: u32,
    /// RAM.
    pub memory_bytes: u64,
    /// The firmware.
    pub rom: Rom,
    /// The system's UUID.
    pub uuid: Uuid,
    /// The guest is told that it runs on SmartOS.
    pub smartos: bool,
}

/// Takes what a serial port sends. Never blocks for long: a vCPU waits for it.
pub type Sink = Box<dyn Write + Send>;

/// What a network interface is plugged into.
#[derive(Clone)]
pub enum Wire {
    /// A cable, whose frames this process carries.
    Cable(Arc<dyn Frames>),
    /// A link of the host, whose frames the kernel carries.
    Link(Link),
}

/// What outlives a guest's reset.
#[derive(Clone)]
pub struct Backends {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The CD drive.
    pub cd: Option<Arc<ScsiCd>>,
    /// The network: the interface's address and what it is plugged into.
    pub network: Option<([u8; 6], Wire)>,
    /// Where the first serial port's bytes go.
    pub serial: Arc<dyn Fn() -> Sink + Send + Sync>,
    /// The firmware's variables.
    pub variables: Arc<Mutex<Vec<u8>>>,
}

/// A machine, from power-on to its end. Dropping it ends it.
pub struct Board {
    // Dropped in this order: first what runs the guest, then what serves its devices.
    threads: Option<Threads>,
    _timers: Timers,
    run: Arc<Run>,
    vm: Arc<dyn Vm>,
    cpus: u32,
    block: Arc<Block>,
    screen: Arc<Framebuffer>,
    keyboard: Arc<Mutex<I8042>>,
    power: Arc<Mutex<PowerManagement>>,
}

impl Board {
    /// Puts a machine together. It does not run yet.
    ///
    /// # Errors
    /// When the hypervisor or the system lacks something.
    pub fn new(plan: &Plan, backends: &Backends, vm: &Arc<dyn Vm>) -> Outcome<Self> {
        vm.set_rom(&plan.rom.code)?;
        let buses = Arc::new(Buses::default());
        let run = Run::new(Arc::clone(&buses));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let alarm = Arc::new(Alarm::default());
        let requests = wires::requests(&run);
        let legacy =
            Legacy { vm, buses: &buses, clock: &clock, alarm: &alarm, requests: &requests };
        let devices = legacy.plug(plan, backends)?;

        let mut slots = Slots::new(plan, vm, &buses, &requests);
        let mut boots = Vec::new();
        if let Some(cd) = &backends.cd {
            slots.virtio(CD_SLOT, Scsi::new(Arc::clone(cd)))?;
            if cd.is_loaded() {
                boots.push(BootDevice::ScsiDisk { slot: CD_SLOT });
            }
        }
        let queues = u16::try_from(plan.cpus).unwrap_or(1);
        let block = Block::new(Arc::clone(&backends.disk), DISK_NAME, queues);
        slots.virtio(DISK_SLOT, Arc::clone(&block) as Arc<dyn VirtioDevice>)?;
        boots.push(BootDevice::Block { slot: DISK_SLOT });
        slots.virtio(RNG_SLOT, Rng::new())?;
        match &backends.network {
            Some((mac, Wire::Cable(cable))) => {
                slots.virtio(NET_SLOT, Net::new(*mac, Arc::clone(cable)))?;
            }
            Some((mac, Wire::Link(link))) => {
                slots.virtio(NET_SLOT, OffloadedNet::new(*mac, vm.link(link)?))?;
            }
            None => {}
        }
        let screen = slots.screen(plan.rom.profile)?;
        buses.ports.insert(0xcf8..0xd00, Arc::new(Mutex::new(slots.pci)))?;

        let told = tables::tell(plan, &vm.memory(), &boots)?;
        let ports = super::dev::fw_cfg::PORTS;
        buses.ports.insert(0x510..0x510 + ports, Arc::new(Mutex::new(told)))?;
        let timers = Timers::start(&alarm, clock, devices.timed)?;
        Ok(Self {
            threads: None,
            _timers: timers,
            run,
            vm: Arc::clone(vm),
            cpus: plan.cpus,
            block,
            screen,
            keyboard: devices.keyboard,
            power: devices.power,
        })
    }

    /// Lets the guest run, from the reset vector.
    ///
    /// # Errors
    /// When the hypervisor makes no vCPU, or the system no thread.
    pub fn start(&mut self) -> Outcome<()> {
        if self.threads.is_none() {
            self.threads = Some(Threads::start(&self.run, &self.vm, self.cpus)?);
        }
        Ok(())
    }

    /// The run, with which to wait for its end.
    pub fn run(&self) -> &Arc<Run> {
        &self.run
    }

    /// Ends the run from outside.
    pub fn request(&self, request: Request) {
        self.run.request(request);
    }

    /// The disk as the guest sees it.
    pub fn disk(&self) -> &Arc<Block> {
        &self.block
    }

    /// The picture.
    pub fn screen(&self) -> &Arc<Framebuffer> {
        &self.screen
    }

    /// A key goes down or up, an X11 keysym.
    pub fn key(&self, keysym: u32, down: bool) {
        lock(&self.keyboard).key(keysym, down);
    }

    /// Presses the ACPI power button.
    pub fn press_power_button(&self) {
        lock(&self.power).press_power_button();
    }
}

/// PCI functions on their way to their slots.
struct Slots<'a> {
    vm: &'a Arc<dyn Vm>,
    spaces: Arc<Spaces>,
    pci: Pci,
}

impl<'a> Slots<'a> {
    fn new(plan: &Plan, vm: &'a Arc<dyn Vm>, buses: &Buses, requests: &Arc<dyn Requests>) -> Self {
        let window = u64::from(acpi::pci_window_start(plan.memory_bytes))..PCI_END;
        let spaces = Spaces::new(&buses.ports, &buses.mmio, window, PCI_PORTS);
        let reset = ResetRegister::control(Arc::clone(requests));
        Self { vm, spaces, pci: Pci::new(Arc::new(Mutex::new(reset))) }
    }

    fn virtio(&mut self, slot: u8, device: Arc<dyn VirtioDevice>) -> Outcome<()> {
        let memory = self.vm.memory();
        let sink = wires::messages(self.vm);
        let function = plug(device, memory, sink, &self.spaces)?;
        self.pci.insert(slot, 0, function)
    }

    /// The frame buffer, and the bridges that firmware looks for.
    fn screen(&mut self, profile: Profile) -> Outcome<Arc<Framebuffer>> {
        self.pci.insert(0, 0, bridges::host(&self.spaces))?;
        self.pci.insert(1, 0, bridges::isa(&self.spaces))?;
        self.pci.insert(1, 3, bridges::power_management(&self.spaces))?;
        let face = match profile {
            Profile::Bhyve => Face::Bhyve,
            Profile::Ovmf => Face::Bochs,
        };
        let memory = self.vm.device_memory("framebuffer", SCREEN_BYTES)?;
        let screen = Framebuffer::new(face, memory.clone())?;
        let vm = Arc::clone(self.vm);
        let place = Arc::new(move |address| {
            if let Err(failure) = vm.place(&memory, address) {
                tracing::warn!(%failure, "the frame buffer cannot be shown to the guest");
            }
        });
        self.pci.insert(SCREEN_SLOT, 0, screen.function(place, &self.spaces))?;
        Ok(screen)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "hostile_tests.rs"]
mod hostile_tests;
