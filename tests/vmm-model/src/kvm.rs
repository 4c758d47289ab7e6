// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What lies under a machine: Linux KVM with its interrupt controllers and PIT. Linux
//! `Documentation/virt/kvm/api.rst`.

use kvm_bindings::{
    CpuId, KVM_CAP_X86_USER_SPACE_MSR, KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQCHIP_IOAPIC,
    KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_MAX_CPUID_ENTRIES, KVM_MEM_READONLY,
    KVM_MSR_EXIT_REASON_INVAL, KVM_MSR_EXIT_REASON_UNKNOWN, KVM_PIT_SPEAKER_DUMMY,
    KVM_SYNC_X86_REGS, KvmIrqRouting, kvm_enable_cap, kvm_irq_routing_entry, kvm_irqchip, kvm_msi,
    kvm_pic_state, kvm_pit_config, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, VmFd};

use crate::{Answer, Errno, log};

/// Pages that KVM needs on Intel processors, where nobody puts anything.
const IDENTITY_MAP: u64 = 0xfeff_c000;
const TASK_STATE: usize = 0xfeff_d000;
/// Pins of KVM's IOAPIC. bhyve's has 32; the upper ones are counted but lead nowhere.
pub(crate) const PINS: u32 = 24;
/// Numbers of the lines to the IOAPIC; those to the PICs begin at 0.
const IOAPIC_LINES: u32 = 32;

/// A machine of KVM.
pub(crate) struct Kvm {
    pub(crate) vm: VmFd,
    /// What `CPUID` can say here.
    pub(crate) cpuid: CpuId,
    /// A vCPU that comes out has left its registers in the memory that it shares.
    pub(crate) shares_registers: bool,
}

impl Kvm {
    /// Makes a machine.
    ///
    /// # Errors
    /// `ENXIO`, with a line in the log, where KVM does not work.
    pub(crate) fn new() -> Answer<Self> {
        Self::make().map_err(|error| {
            log::line(&format!("KVM makes no machine: {error}"));
            Errno(libc::ENXIO)
        })
    }

    fn make() -> Result<Self, kvm_ioctls::Error> {
        let kvm = kvm_ioctls::Kvm::new()?;
        let vm = kvm.create_vm()?;
        vm.set_identity_map_address(IDENTITY_MAP)?;
        vm.set_tss_address(TASK_STATE)?;
        vm.create_irq_chip()?;
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..kvm_pit_config::default() };
        vm.create_pit2(pit)?;
        vm.set_gsi_routing(&routes()?)?;
        let mut msrs =
            kvm_enable_cap { cap: KVM_CAP_X86_USER_SPACE_MSR, ..kvm_enable_cap::default() };
        msrs.args[0] = u64::from(KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_INVAL);
        // Without it an unknown MSR is #GP at once, and no exit.
        let _ = vm.enable_cap(&msrs);
        let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
        let shared = kvm.check_extension_int(Cap::SyncRegs);
        let shares_registers = shared & KVM_SYNC_X86_REGS.cast_signed() != 0;
        Ok(Self { vm, cpuid, shares_registers })
    }

    /// Shows the guest host memory, or hides it with a length of 0.
    pub(crate) fn show(&self, slot: u32, gpa: u64, host: u64, len: u64, may_write: bool) -> Answer {
        let region = kvm_userspace_memory_region {
            slot,
            flags: if may_write { 0 } else { KVM_MEM_READONLY },
            guest_phys_addr: gpa,
            memory_size: len,
            userspace_addr: host,
        };
        // SAFETY: the memory is a segment's mapping, which lives as long as its machine and is
        // not Rust's to reason about: everyone copies bytes in and out by pointer.
        let result = unsafe { self.vm.set_user_memory_region(region) };
        result.map(|()| 0).map_err(|error| {
            log::line(&format!("KVM refuses memory at {gpa:#x}: {error}"));
            Errno(libc::EFAULT)
        })
    }

    /// Sets the level of an IOAPIC pin.
    pub(crate) fn set_pin(&self, pin: u32, high: bool) {
        if pin < PINS {
            let _ = self.vm.set_irq_line(IOAPIC_LINES + pin, high);
        }
    }

    /// Sets the level of a PIC input.
    pub(crate) fn set_pic(&self, line: u32, high: bool) {
        let _ = self.vm.set_irq_line(line, high);
    }

    /// Delivers a message.
    pub(crate) fn message(&self, address: u64, data: u32) {
        let msi = kvm_msi {
            address_lo: address as u32,
            address_hi: (address >> 32) as u32,
            data,
            ..kvm_msi::default()
        };
        let _ = self.vm.signal_msi(msi);
    }

    /// The state of the PIC that has this line.
    fn pic(&self, line: u32) -> Option<(kvm_irqchip, kvm_pic_state)> {
        let chip_id = if line < 8 { KVM_IRQCHIP_PIC_MASTER } else { KVM_IRQCHIP_PIC_SLAVE };
        let mut chip = kvm_irqchip { chip_id, ..kvm_irqchip::default() };
        self.vm.get_irqchip(&mut chip).ok()?;
        // SAFETY: for a PIC's number the kernel has filled this member of the union.
        let state = unsafe { chip.chip.pic };
        Some((chip, state))
    }

    /// Whether the guest has initialised the PIC that has this line: its vectors begin somewhere,
    /// and no command word is awaited.
    pub(crate) fn is_pic_ready(&self, line: u32) -> bool {
        self.pic(line).is_some_and(|(_, state)| state.init_state == 0 && state.irq_base != 0)
    }

    /// Makes a PIC input level or edge triggered.
    pub(crate) fn set_trigger(&self, line: u32, is_level: bool) {
        let Some((mut chip, mut state)) = self.pic(line) else { return };
        let bit = 1 << (line & 7);
        state.elcr = if is_level { state.elcr | bit } else { state.elcr & !bit };
        chip.chip.pic = state;
        let _ = self.vm.set_irqchip(&chip);
    }
}

/// PICs and IOAPIC apart, as bhyve has them; the PIT alone drives both.
fn routes() -> Result<KvmIrqRouting, kvm_ioctls::Error> {
    let entry = |gsi: u32, irqchip: u32, pin: u32| {
        let mut entry = kvm_irq_routing_entry {
            gsi,
            type_: KVM_IRQ_ROUTING_IRQCHIP,
            ..kvm_irq_routing_entry::default()
        };
        entry.u.irqchip.irqchip = irqchip;
        entry.u.irqchip.pin = pin;
        entry
    };
    let pics = (0..16).map(|line| match line {
        0..8 => entry(line, KVM_IRQCHIP_PIC_MASTER, line),
        _ => entry(line, KVM_IRQCHIP_PIC_SLAVE, line - 8),
    });
    let pins = (0..PINS).map(|pin| entry(IOAPIC_LINES + pin, KVM_IRQCHIP_IOAPIC, pin));
    let timer = std::iter::once(entry(0, KVM_IRQCHIP_IOAPIC, 2));
    let entries: Vec<_> = pics.chain(pins).chain(timer).collect();
    KvmIrqRouting::from_entries(&entries).map_err(|_| kvm_ioctls::Error::new(libc::ENOMEM))
}
