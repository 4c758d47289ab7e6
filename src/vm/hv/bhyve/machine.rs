// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A virtual machine of bhyve: memory, interrupts, and what the kernel's own devices are told.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    Bytes as _, FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion,
    VolatileMemory as _,
};

use super::failures;
use super::handle::{Instance, Protection};
use super::kick::Kick;
use super::leftovers;
use super::msr::Registers;
use super::vcpu::BhyveVcpu;
use crate::ui::{Failure, Outcome};
use crate::vm::dev::virtio::Offload;
use crate::vm::hv::node::is;
use crate::vm::hv::viona::Viona;
use crate::vm::hv::{KernelDevices, Link, Vcpu, Vm};
use crate::vm::memory::{DeviceMemory, Memory, layout};

const PAGE: usize = 4096;
const LARGEST_ROM: usize = 16 << 20;
const TOP: u64 = 4 << 30;
/// The ACPI timer's port, and the line of ACPI's interrupt.
const PM_TIMER: u16 = 0x408;
const SCI: u32 = 9;
/// Lines that the PIC has, too.
const ISA_LINES: u32 = 16;
const IOAPIC_PINS: u32 = 32;
/// Segments: RAM below and above 4 GiB, the ROM, devices. The kernel has five.
const ROM: u32 = 2;
const DEVICES: std::ops::Range<u32> = 3..5;
/// The first version with a barrier, which gets a vCPU out of the guest for certain.
pub(super) const BARRIERS: u32 = 16;

/// What a machine shall be, and what is known of its instance.
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) version: u32,
    /// The kernel destroys it with the last descriptor.
    pub(super) destroys_itself: bool,
    pub(super) memory_bytes: u64,
    pub(super) cpus: u32,
}

pub(super) struct BhyveVm {
    // Memory first: when its mappings are gone, the instance can be destroyed at once.
    memory: Memory,
    devices: Mutex<Vec<Device>>,
    instance: Arc<Instance>,
    name: String,
    version: u32,
    destroys_itself: bool,
    kicks: Vec<Arc<Kick>>,
    registers: Arc<Registers>,
    /// Levels of the interrupt lines, one bit each: the kernel counts assertions.
    lines: Mutex<u32>,
    /// vCPUs that were handed out, one bit each.
    taken: Mutex<u64>,
}

/// Memory of a device, and where the guest sees it.
struct Device {
    segment: u32,
    bytes: u64,
    at: Option<u64>,
}

impl BhyveVm {
    /// Gives an instance its memory and clocks. When the kernel has no memory, `again` is told for
    /// how long already; it says whether to try once more (after some waiting of its own) or with
    /// which failure to end.
    pub(super) fn new(
        instance: Instance,
        plan: Plan,
        again: impl Fn(Duration) -> Option<Failure>,
    ) -> Outcome<Self> {
        let Plan { name, version, destroys_itself, memory_bytes, cpus } = plan;
        let instance = Arc::new(instance);
        let fail = |what: &'static str| {
            let name = name.clone();
            move |error: io::Error| failures::failed(what, &name, error)
        };
        instance.set_topology(cpus).map_err(fail("does not take so many processors"))?;
        let memory = allocate(&instance, &name, memory_bytes, again)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        instance.set_clock(now).map_err(fail("does not take the time"))?;
        instance.set_level_triggered(SCI).map_err(fail("has no interrupt for ACPI"))?;
        instance.place_pm_timer(PM_TIMER).map_err(fail("has no ACPI timer"))?;
        Ok(Self {
            memory: Arc::new(memory),
            devices: Mutex::default(),
            instance,
            name,
            version,
            destroys_itself,
            kicks: (0..cpus).map(|_| Arc::default()).collect(),
            registers: Arc::default(),
            lines: Mutex::new(0),
            taken: Mutex::new(0),
        })
    }

    fn failed(&self, what: &str, error: io::Error) -> Failure {
        failures::failed(what, &self.name, error)
    }

    /// Prepares a vCPU: all of them before any runs.
    fn prepare(&self, number: i32) -> io::Result<()> {
        self.instance.reset_vcpu(number)?;
        self.instance.sleep_on_halt(number)?;
        self.instance.disable_x2apic(number)?;
        self.choose_cpuid(number);
        // All wait to be started, the first one too, if it is not told otherwise.
        self.instance.set_running(number, number == 0)?;
        self.instance.activate(number)
    }

    /// What CPUID says is the kernel's choice, which is the default, too: the host's leaves without
    /// what cannot be had in a guest, with the topology and the hypervisor's own leaf.
    fn choose_cpuid(&self, number: i32) {
        match self.instance.set_usual_cpuid(number) {
            Ok(true) => {}
            Ok(false) => tracing::debug!("vcpu {number}: this kernel knows one kind of CPUID only"),
            Err(error) => tracing::warn!("vcpu {number}: CPUID stays as it was: {error}"),
        }
    }

    /// What the kernel counted, for the monitor's log.
    fn tell_statistics(&self) {
        for vcpu in 0..self.kicks.len() {
            match self.instance.statistics(vcpu as i32) {
                Ok(counters) => {
                    let counters = counters.iter().map(|(name, value)| format!("{name} {value}"));
                    let counters: Vec<_> = counters.collect();
                    tracing::debug!("vcpu {vcpu} in the kernel: {}", counters.join(", "));
                }
                Err(error) => {
                    tracing::debug!("the kernel's counters of vcpu {vcpu} are not known: {error}");
                }
            }
        }
    }

    fn lower(&self, line: u32) -> io::Result<()> {
        if line >= ISA_LINES {
            return self.instance.set_ioapic(line, false);
        }
        match self.instance.set_isa(line, false) {
            // Raised before the guest had set up the PIC, which did not count it then; the IOAPIC
            // did, and has not been reached by this call.
            Err(error) if is(&error, libc::ERANGE) => self.instance.set_ioapic(line, false),
            other => other,
        }
    }
}

impl Drop for BhyveVm {
    fn drop(&mut self) {
        self.tell_statistics();
        if !self.destroys_itself {
            // Before version 4.
            leftovers::destroy_later(&self.name);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// RAM: allocated, shown to the guest, and mapped.
fn allocate(
    instance: &Instance,
    name: &str,
    bytes: u64,
    again: impl Fn(Duration) -> Option<Failure>,
) -> Outcome<GuestMemoryMmap> {
    let mut regions = Vec::new();
    for (segment, (start, bytes)) in (0..).zip(layout(bytes)) {
        let begin = Instant::now();
        while let Err(error) = instance.allocate(segment, bytes, "") {
            let tried = match error.raw_os_error() {
                Some(libc::ENOMEM) => begin.elapsed(),
                // More than this host gives to virtual machines: no patience helps.
                Some(libc::ENOSPC) => Duration::MAX,
                _ => return Err(failures::failed("gives no memory", name, error)),
            };
            if let Some(failure) = again(tried) {
                return Err(failure.because(error));
            }
        }
        let shown = instance.map(segment, start, bytes, Protection::All);
        shown
            .map_err(|error| failures::failed("does not show the guest its memory", name, error))?;
        // Below 2^46, the offset is the guest's address.
        let region = map(instance, start, bytes)
            .map_err(|error| failures::failed("does not show us its memory", name, error))?;
        regions.extend(GuestRegionMmap::new(region, GuestAddress(start)));
    }
    GuestMemoryMmap::from_regions(regions)
        .map_err(|error| Failure::build("the guest's memory cannot be used").because(error))
}

/// Maps memory of an instance. The mapping holds on to the instance's descriptor: memory that is
/// still in use does not vanish.
fn map(instance: &Instance, offset: u64, bytes: u64) -> io::Result<MmapRegion> {
    let file = FileOffset::from_arc(Arc::clone(instance.file()), offset);
    let mapped = MmapRegionBuilder::new(usize::try_from(bytes).unwrap_or(usize::MAX))
        .with_file_offset(file)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_SHARED)
        .build()
        .map_err(io::Error::other);
    let result = mapped.as_ref().map_or_else(ToString::to_string, |_| "mapped".into());
    tracing::trace!("mmap {bytes:#x} bytes at {offset:#x} = {result}");
    mapped
}

/// Allocates a device's segment and maps it here, not for the guest.
fn device_segment(
    instance: &Instance,
    segment: u32,
    bytes: u64,
    name: &str,
) -> io::Result<MmapRegion> {
    instance.allocate(segment, bytes, name)?;
    map(instance, instance.segment_offset(segment)?, bytes)
}

impl Vm for BhyveVm {
    fn memory(&self) -> Memory {
        Arc::clone(&self.memory)
    }

    fn kernel_devices(&self) -> KernelDevices {
        KernelDevices { rtc: true, hpet: true, pm_timer: true }
    }

    fn set_rom(&self, image: &[u8]) -> Outcome<()> {
        if image.is_empty() || !image.len().is_multiple_of(PAGE) || image.len() > LARGEST_ROM {
            return Err(Failure::input("the firmware is no ROM image")
                .fact("bytes", image.len())
                .because("a ROM is a multiple of 4 KiB and has at most 16 MiB"));
        }
        let bytes = image.len() as u64;
        let region = device_segment(&self.instance, ROM, bytes, "bootrom")
            .map_err(|error| self.failed("has no memory for the firmware", error))?;
        let filled = region.get_slice(0, image.len()).map(|slice| slice.write_slice(image, 0));
        if !matches!(filled, Ok(Ok(()))) {
            return Err(Failure::build("cannot fill the ROM"));
        }
        self.instance
            .map(ROM, TOP - bytes, bytes, Protection::ReadExecute)
            .map_err(|error| self.failed("does not show the guest its firmware", error))
    }

    fn device_memory(&self, name: &str, bytes: u64) -> Outcome<DeviceMemory> {
        let mut devices = lock(&self.devices);
        let used = devices.len() as u32;
        let Some(segment) = DEVICES.clone().nth(used as usize) else {
            return Err(Failure::build("bhyve has no memory for so many devices")
                .fact("device", name)
                .fact("devices", used));
        };
        let region = device_segment(&self.instance, segment, bytes, name).map_err(|error| {
            self.failed("has no memory for a device", error).fact("device", name)
        })?;
        devices.push(Device { segment, bytes, at: None });
        Ok(DeviceMemory { slot: segment, region: Arc::new(region) })
    }

    /// None: a write to memory that is shown read-only ends the guest here.
    fn read_memory(&self, _name: &str, _bytes: u64) -> Outcome<Option<DeviceMemory>> {
        Ok(None)
    }

    fn place(&self, memory: &DeviceMemory, address: Option<u64>) -> Outcome<()> {
        let mut devices = lock(&self.devices);
        let Some(device) = devices.iter_mut().find(|device| device.segment == memory.slot) else {
            return Err(Failure::build("device memory of another machine"));
        };
        if device.at == address {
            return Ok(());
        }
        if let Some(old) = device.at.take() {
            self.instance
                .unmap(old, device.bytes)
                .map_err(|error| self.failed("does not hide a device's memory", error))?;
        }
        if let Some(new) = address {
            let segment = device.segment;
            self.instance
                .map(segment, new, device.bytes, Protection::ReadWrite)
                .map_err(|error| self.failed("does not show a device's memory", error))?;
            device.at = address;
        }
        Ok(())
    }

    fn vcpu(&self, number: u32) -> Outcome<Box<dyn Vcpu>> {
        let kick = self.kicks.get(number as usize);
        let bit = 1u64.checked_shl(number).unwrap_or_default();
        let mut taken = lock(&self.taken);
        let (Some(kick), true) = (kick, bit != 0 && *taken & bit == 0) else {
            return Err(Failure::build("a vCPU too many")
                .fact("number", number)
                .fact("vCPUs", self.kicks.len()));
        };
        *taken |= bit;
        let id = number.cast_signed();
        self.prepare(id).map_err(|error| self.failed("makes no vCPU", error))?;
        let instance = Arc::clone(&self.instance);
        let (kick, registers) = (Arc::clone(kick), Arc::clone(&self.registers));
        Ok(Box::new(BhyveVcpu::new(instance, id, self.version, kick, registers)))
    }

    fn set_irq(&self, line: u32, high: bool) {
        if line >= IOAPIC_PINS {
            return;
        }
        let mut lines = lock(&self.lines);
        if (*lines >> line & 1 != 0) == high {
            return;
        }
        *lines ^= 1 << line;
        let set = match high {
            true if line < ISA_LINES => self.instance.set_isa(line, true),
            true => self.instance.set_ioapic(line, true),
            false => self.lower(line),
        };
        if let Err(error) = set {
            tracing::debug!("line {line} is not set to {high}: {error}");
        }
    }

    fn send_msi(&self, address: u64, data: u32) {
        // Anything else is no local APIC's.
        if address >> 20 == 0xfee
            && let Err(error) = self.instance.message(address, data)
        {
            tracing::debug!("a message {data:#x} to {address:#x} is lost: {error}");
        }
    }

    fn write_cmos(&self, index: u8, value: u8) {
        if let Err(error) = self.instance.write_cmos(index, value) {
            tracing::warn!("byte {index:#x} of CMOS cannot be written: {error}");
        }
    }

    fn link(&self, link: &Link) -> Outcome<Arc<dyn Offload>> {
        Ok(Viona::attach(&self.instance, link)?)
    }

    fn kick(&self, number: u32) {
        let Some(kick) = self.kicks.get(number as usize) else { return };
        let has_left = self.version >= BARRIERS && self.instance.barrier(number as usize).is_ok();
        if !has_left {
            kick.kick();
        }
    }
}
