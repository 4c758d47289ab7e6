// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A virtual machine on Linux KVM, by Linux' `Documentation/virt/kvm/api.rst`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
    KVM_MAX_CPUID_ENTRIES, KVM_MEM_READONLY, KVM_PIT_SPEAKER_DUMMY, KvmIrqRouting,
    kvm_irq_routing_entry, kvm_msi, kvm_pit_config, kvm_reinject_control,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VmFd};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MmapRegion};

use super::cpuid;
use super::kick::Kick;
use super::vcpu::KvmVcpu;
use crate::ui::{Failure, Outcome};
use crate::vm::hv::{KernelDevices, Vcpu, Vm};
use crate::vm::memory::{DeviceMemory, Memory, layout};

/// Pages that KVM needs on Intel processors, where the board has nothing.
const IDENTITY_MAP: u64 = 0xfeff_c000;
const TASK_STATE: usize = 0xfeff_d000;
const PAGE: usize = 4096;
const LARGEST_ROM: usize = 8 << 20;
const TOP: u64 = 4 << 30;

/// Makes a virtual machine with its memory and interrupt controllers.
///
/// # Errors
/// When KVM is absent or refuses, or there is not enough memory.
pub fn create(memory_bytes: u64, cpus: u32) -> Outcome<Arc<dyn Vm>> {
    let kvm = Kvm::new().map_err(|error| {
        failed("cannot open /dev/kvm", error)
            .hint("load the module (`modprobe kvm_intel` or `kvm_amd`), or join the group `kvm`")
    })?;
    let fd = kvm.create_vm().map_err(|error| failed("KVM makes no machine", error))?;
    let memory = Arc::new(allocate(memory_bytes)?);
    let vm = KvmVm {
        kvm,
        fd,
        memory,
        cpus,
        slots: Arc::default(),
        kicks: (0..cpus).map(|_| Arc::new(Kick::default())).collect(),
        lines: Mutex::new(0),
    };
    vm.interrupt_controllers()
        .map_err(|error| failed("KVM has no interrupt controllers", error))?;
    for region in vm.memory.iter() {
        let host = region.as_ptr() as u64;
        vm.map(region.start_addr().0, host, region.len(), 0)?;
    }
    Ok(Arc::new(vm))
}

fn allocate(bytes: u64) -> Outcome<GuestMemoryMmap> {
    let range = |(start, bytes): (u64, u64)| {
        usize::try_from(bytes).ok().map(|bytes| (GuestAddress(start), bytes))
    };
    let ranges: Vec<_> = layout(bytes).into_iter().filter_map(range).collect();
    GuestMemoryMmap::from_ranges(&ranges).map_err(|error| {
        Failure::build("there is not enough memory for the machine")
            .because(error)
            .fact("memory", format!("{} MiB", bytes >> 20))
            .hint("give the target less with `machine.memory`, or free some on this host")
    })
}

struct KvmVm {
    kvm: Kvm,
    fd: VmFd,
    memory: Memory,
    cpus: u32,
    slots: Arc<Mutex<Slots>>,
    kicks: Vec<Arc<Kick>>,
    /// Levels of the interrupt lines, one bit each.
    lines: Mutex<u32>,
}

/// Numbers of memory slots, and what lives in them.
#[derive(Default)]
pub(super) struct Slots {
    next: u32,
    devices: Vec<Placed>,
    rom: Option<Arc<MmapRegion>>,
}

/// Device memory, and where the guest sees it.
struct Placed {
    slot: u32,
    region: Arc<MmapRegion>,
    flags: u32,
    at: Option<u64>,
}

impl KvmVm {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn interrupt_controllers(&self) -> Result<(), kvm_ioctls::Error> {
        self.fd.set_identity_map_address(IDENTITY_MAP)?;
        self.fd.set_tss_address(TASK_STATE)?;
        self.fd.create_irq_chip()?;
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..kvm_pit_config::default() };
        self.fd.create_pit2(pit)?;
        self.lose_missed_ticks()?;
        let entries: Vec<_> = (0..24).flat_map(routes).collect();
        let routing = KvmIrqRouting::from_entries(&entries)
            .map_err(|_| kvm_ioctls::Error::new(libc::ENOMEM))?;
        self.fd.set_gsi_routing(&routing)
    }

    /// Has the PIT drop ticks that the guest was too slow for, as bhyve's does, instead of
    /// delivering them all at once later.
    fn lose_missed_ticks(&self) -> Result<(), kvm_ioctls::Error> {
        /// `KVM_REINJECT_CONTROL`, `_IO(KVMIO, 0x71)`.
        const REINJECT_CONTROL: u32 = 0xae71;
        let control = kvm_reinject_control { pit_reinject: 0, ..kvm_reinject_control::default() };
        // SAFETY: the descriptor is a machine's, and the kernel only reads the structure, which
        // outlives the call.
        let result = unsafe {
            libc::ioctl(self.fd.as_raw_fd(), REINJECT_CONTROL.into(), &raw const control)
        };
        if result == 0 { Ok(()) } else { Err(kvm_ioctls::Error::last()) }
    }

    /// Shows host memory to the guest in a new slot.
    fn map(&self, guest: u64, host: u64, bytes: u64, flags: u32) -> Outcome<u32> {
        let mut slots = self.slots();
        let slot = slots.next;
        slots.next += 1;
        drop(slots);
        self.set_slot(slot, guest, host, bytes, flags)?;
        Ok(slot)
    }

    /// Device memory that the guest does not see yet.
    fn allocate_device(&self, bytes: u64, flags: u32) -> Outcome<DeviceMemory> {
        let region = Arc::new(host_memory(usize::try_from(bytes).unwrap_or(usize::MAX))?);
        let mut slots = self.slots();
        let slot = slots.next;
        slots.next += 1;
        slots.devices.push(Placed { slot, region: Arc::clone(&region), flags, at: None });
        Ok(DeviceMemory { slot, region })
    }

    fn set_slot(&self, slot: u32, guest: u64, host: u64, bytes: u64, flags: u32) -> Outcome<()> {
        let region = kvm_userspace_memory_region {
            slot,
            flags,
            guest_phys_addr: guest,
            memory_size: bytes,
            userspace_addr: host,
        };
        // SAFETY: `host` and `bytes` come from mappings that `self.memory` and `self.slots` hold
        // until `self.fd` is closed, and each vCPU until its own end; everything else reaches them by volatile access.
        unsafe { self.fd.set_user_memory_region(region) }.map_err(|error| {
            failed("KVM does not take memory", error)
                .fact("address", format!("{guest:#x}"))
                .fact("bytes", bytes)
        })
    }
}

/// The legacy wiring: line n reaches pin n of both controllers, but for the timer, which is at pin 2
/// of the IOAPIC.
fn routes(line: u32) -> Vec<kvm_irq_routing_entry> {
    let entry = |chip: u32, pin: u32| {
        let mut entry = kvm_irq_routing_entry {
            gsi: line,
            type_: KVM_IRQ_ROUTING_IRQCHIP,
            ..kvm_irq_routing_entry::default()
        };
        entry.u.irqchip.irqchip = chip;
        entry.u.irqchip.pin = pin;
        entry
    };
    let mut entries = Vec::new();
    match line {
        0..8 => entries.push(entry(KVM_IRQCHIP_PIC_MASTER, line)),
        8..16 => entries.push(entry(KVM_IRQCHIP_PIC_SLAVE, line - 8)),
        _ => {}
    }
    match line {
        0 => entries.push(entry(KVM_IRQCHIP_IOAPIC, 2)),
        2 => {}
        _ => entries.push(entry(KVM_IRQCHIP_IOAPIC, line)),
    }
    entries
}

impl Vm for KvmVm {
    fn memory(&self) -> Memory {
        Arc::clone(&self.memory)
    }

    fn kernel_devices(&self) -> KernelDevices {
        KernelDevices { rtc: false, hpet: false, pm_timer: false }
    }

    fn set_rom(&self, image: &[u8]) -> Outcome<()> {
        if image.is_empty() || !image.len().is_multiple_of(PAGE) || image.len() > LARGEST_ROM {
            return Err(Failure::input("the firmware is no ROM image")
                .fact("bytes", image.len())
                .because("a ROM is a multiple of 4 KiB and has at most 8 MiB"));
        }
        let region = Arc::new(host_memory(image.len())?);
        fill(&region, image)?;
        let bytes = image.len() as u64;
        self.map(TOP - bytes, region.as_ptr() as u64, bytes, KVM_MEM_READONLY)?;
        self.slots().rom = Some(region);
        Ok(())
    }

    fn device_memory(&self, _name: &str, bytes: u64) -> Outcome<DeviceMemory> {
        self.allocate_device(bytes, 0)
    }

    fn read_memory(&self, _name: &str, bytes: u64) -> Outcome<Option<DeviceMemory>> {
        self.allocate_device(bytes, KVM_MEM_READONLY).map(Some)
    }

    fn place(&self, memory: &DeviceMemory, address: Option<u64>) -> Outcome<()> {
        let mut slots = self.slots();
        let Some(place) = slots.devices.iter_mut().find(|placed| placed.slot == memory.slot) else {
            return Err(Failure::build("device memory of another machine"));
        };
        if place.at == address {
            return Ok(());
        }
        let (host, bytes) = (place.region.as_ptr() as u64, place.region.size() as u64);
        if let Some(old) = place.at.take() {
            self.set_slot(place.slot, old, host, 0, place.flags)?;
        }
        if let Some(new) = address {
            self.set_slot(place.slot, new, host, bytes, place.flags)?;
            place.at = address;
        }
        Ok(())
    }

    fn vcpu(&self, number: u32) -> Outcome<Box<dyn Vcpu>> {
        let kick = self.kicks.get(number as usize).ok_or_else(|| {
            Failure::build("a vCPU too many").fact("number", number).fact("vCPUs", self.cpus)
        })?;
        let make = || {
            let vcpu = self.fd.create_vcpu(u64::from(number))?;
            let mut cpuid = self.kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
            cpuid::adapt(&mut cpuid, number, self.cpus);
            vcpu.set_cpuid2(&cpuid)?;
            Ok(vcpu)
        };
        let vcpu = make().map_err(|error| failed("KVM makes no vCPU", error))?;
        let held = (self.memory(), Arc::clone(&self.slots));
        Ok(Box::new(KvmVcpu::new(vcpu, Arc::clone(kick), held)))
    }

    fn set_irq(&self, line: u32, high: bool) {
        let Some(bit) = 1u32.checked_shl(line) else { return };
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if (*lines & bit != 0) == high {
            return;
        }
        *lines ^= bit;
        // Fails only for lines that do not exist.
        let _ = self.fd.set_irq_line(line, high);
    }

    fn send_msi(&self, address: u64, data: u32) {
        let message = kvm_msi {
            address_lo: address as u32,
            address_hi: (address >> 32) as u32,
            data,
            ..kvm_msi::default()
        };
        // Fails only when no APIC takes it, as on real hardware.
        let _ = self.fd.signal_msi(message);
    }

    fn write_cmos(&self, _index: u8, _value: u8) {}

    fn kick(&self, number: u32) {
        if let Some(kick) = self.kicks.get(number as usize) {
            kick.kick();
        }
    }
}

fn host_memory(bytes: usize) -> Outcome<MmapRegion> {
    MmapRegion::new(bytes).map_err(|error| {
        Failure::build("there is no memory for a device").because(error).fact("bytes", bytes)
    })
}

fn fill(region: &MmapRegion, image: &[u8]) -> Outcome<()> {
    use vm_memory::{Bytes as _, VolatileMemory as _};
    let slice = region
        .get_slice(0, image.len())
        .map_err(|error| Failure::build("cannot fill the ROM").because(error))?;
    slice
        .write_slice(image, 0)
        .map_err(|error| Failure::build("cannot fill the ROM").because(error))
}

fn failed(what: &str, error: kvm_ioctls::Error) -> Failure {
    Failure::build(what).because(io::Error::from_raw_os_error(error.errno()))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
