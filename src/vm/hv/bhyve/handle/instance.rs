// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! An instance, `/dev/vmm/NAME`: memory, interrupts, clocks, the state of vCPUs.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::OFlag;

use super::super::abi;
use super::control::node_path;
use super::name_bytes;
use crate::vm::hv::abi::Plain as _;
use crate::vm::hv::node::{Node, calls, if_known, is, number_calls};

calls! {
    ALLOCATE: abi::vm_memseg = abi::VM_ALLOC_MEMSEG;
    MAP: abi::vm_memmap = abi::VM_MMAP_MEMSEG;
    UNMAP: abi::vm_munmap = abi::VM_MUNMAP_MEMSEG;
    OFFSET: abi::vm_devmem_offset = abi::VM_DEVMEM_GETOFFSET;
    TOPOLOGY: abi::vm_cpu_topology = abi::VM_SET_TOPOLOGY;
    CAPABILITY: abi::vm_capability = abi::VM_SET_CAPABILITY;
    X2APIC: abi::vm_x2apic = abi::VM_SET_X2APIC_STATE;
    RESET: abi::vm_vcpu_reset = abi::VM_RESET_CPU;
    SET_CPUID: abi::vm_vcpu_cpuid_config = abi::VM_SET_CPUID;
    RUN_STATE: abi::vm_run_state = abi::VM_SET_RUN_STATE;
    ACTIVATE: abi::vm_activate_cpu = abi::VM_ACTIVATE_CPU;
    SET_REGISTER: abi::vm_register = abi::VM_SET_REGISTER;
    GET_REGISTER: abi::vm_register = abi::VM_GET_REGISTER;
    GET_DESCRIPTOR: abi::vm_seg_desc = abi::VM_GET_SEGMENT_DESCRIPTOR;
    SUSPEND: abi::vm_suspend = abi::VM_SUSPEND;
    MESSAGE: abi::vm_lapic_msi = abi::VM_LAPIC_MSI;
    IOAPIC_ASSERT: abi::vm_ioapic_irq = abi::VM_IOAPIC_ASSERT_IRQ;
    IOAPIC_DEASSERT: abi::vm_ioapic_irq = abi::VM_IOAPIC_DEASSERT_IRQ;
    ISA_ASSERT: abi::vm_isa_irq = abi::VM_ISA_ASSERT_IRQ;
    ISA_DEASSERT: abi::vm_isa_irq = abi::VM_ISA_DEASSERT_IRQ;
    ISA_TRIGGER: abi::vm_isa_irq_trigger = abi::VM_ISA_SET_IRQ_TRIGGER;
    RTC_WRITE: abi::vm_rtc_data = abi::VM_RTC_WRITE;
    RTC_TIME: abi::timespec = abi::VM_RTC_SETTIME;
}

number_calls! {
    AUTODESTRUCT = abi::VM_SET_AUTODESTRUCT;
    DESTROY_SELF = abi::VM_DESTROY_SELF;
    PM_TIMER = abi::VM_PMTMR_LOCATE;
    BARRIER = abi::VM_VCPU_BARRIER;
}

/// What the guest may do with memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vm::hv) enum Protection {
    /// RAM.
    All = 7,
    /// A ROM: a write ends the guest.
    ReadExecute = 5,
    /// A frame buffer.
    ReadWrite = 3,
}

/// An open instance. While it, or a mapping of its memory, or a viona is there, the virtual machine
/// is.
pub(in crate::vm::hv) struct Instance {
    pub(super) node: Node,
}

impl Instance {
    /// Opens the instance of a name that was just made.
    pub(in crate::vm::hv) fn open(name: &str) -> io::Result<Self> {
        Ok(Self { node: Node::open(&node_path(name), OFlag::empty())? })
    }

    /// The open file, for mappings.
    pub(in crate::vm::hv) fn file(&self) -> &Arc<File> {
        self.node.file()
    }

    /// The descriptor, for viona.
    pub(in crate::vm::hv) fn descriptor(&self) -> c_int {
        self.node.descriptor()
    }

    /// Has the kernel destroy the instance when its last descriptor is closed, be it by a crash;
    /// false before version 4.
    pub(in crate::vm::hv) fn set_autodestruct(&self) -> io::Result<bool> {
        if_known(self.node.number(&AUTODESTRUCT, 1)).map(|known| known.is_some())
    }

    /// Begins the destruction; late version 5 on, before it the last close does.
    pub(in crate::vm::hv) fn destroy_self(&self) -> io::Result<bool> {
        if_known(self.node.number(&DESTROY_SELF, 0)).map(|known| known.is_some())
    }

    /// Allocates a segment; it is zero. Without a name it is RAM.
    pub(in crate::vm::hv) fn allocate(
        &self,
        segment: u32,
        bytes: u64,
        name: &str,
    ) -> io::Result<()> {
        let len = usize::try_from(bytes).unwrap_or(usize::MAX);
        let segid = segment.cast_signed();
        self.node.send(&ALLOCATE, abi::vm_memseg { segid, len, name: name_bytes(name) })
    }

    /// Shows a segment to the guest, all of it.
    pub(in crate::vm::hv) fn map(
        &self,
        segment: u32,
        address: u64,
        bytes: u64,
        protection: Protection,
    ) -> io::Result<()> {
        let map = abi::vm_memmap {
            gpa: address,
            segid: segment.cast_signed(),
            segoff: 0,
            len: usize::try_from(bytes).unwrap_or(usize::MAX),
            prot: protection as c_int,
            flags: 0,
        };
        self.node.send(&MAP, map)
    }

    /// Takes away exactly what was mapped.
    pub(in crate::vm::hv) fn unmap(&self, address: u64, bytes: u64) -> io::Result<()> {
        let len = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.node.send(&UNMAP, abi::vm_munmap { gpa: address, len })
    }

    /// Where `mmap` has a segment, wherever the guest sees it.
    pub(in crate::vm::hv) fn segment_offset(&self, segment: u32) -> io::Result<u64> {
        let mut place = abi::vm_devmem_offset::zeroed();
        place.segid = segment.cast_signed();
        self.node.exchange(&OFFSET, &mut place)?;
        u64::try_from(place.offset)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a negative offset"))
    }

    /// One socket of single-thread cores, for CPUID.
    pub(in crate::vm::hv) fn set_topology(&self, cpus: u32) -> io::Result<()> {
        let cores = u16::try_from(cpus).unwrap_or(u16::MAX);
        let topology = abi::vm_cpu_topology { sockets: 1, cores, threads: 1, maxcpus: 0 };
        self.node.send(&TOPOLOGY, topology)
    }

    /// Has the kernel keep a vCPU asleep while it halts; the default from version 6 on.
    pub(in crate::vm::hv) fn sleep_on_halt(&self, vcpu: c_int) -> io::Result<()> {
        let capability = abi::vm_capability {
            cpuid: vcpu,
            captype: abi::VM_CAP_HALT_EXIT.cast_signed(),
            capval: 1,
            allcpus: 0,
        };
        self.node.send(&CAPABILITY, capability)
    }

    /// Leaves a vCPU without x2APIC, as bhyve does.
    pub(in crate::vm::hv) fn disable_x2apic(&self, vcpu: c_int) -> io::Result<()> {
        let state = abi::X2APIC_DISABLED.cast_signed();
        self.node.send(&X2APIC, abi::vm_x2apic { cpuid: vcpu, state })
    }

    /// Has the kernel answer CPUID as it does by itself; false before version 5, which knows nothing
    /// else.
    pub(in crate::vm::hv) fn set_usual_cpuid(&self, vcpu: c_int) -> io::Result<bool> {
        let config = abi::vm_vcpu_cpuid_config {
            vvcc_vcpuid: vcpu,
            vvcc_flags: abi::VCC_FLAG_LEGACY_HANDLING,
            // With that flag there must be no entries, so there is no pointer that is followed.
            ..abi::vm_vcpu_cpuid_config::zeroed()
        };
        if_known(self.node.send(&SET_CPUID, config)).map(|known| known.is_some())
    }

    /// Puts a vCPU into its power-on state.
    pub(in crate::vm::hv) fn reset_vcpu(&self, vcpu: c_int) -> io::Result<()> {
        self.node.send(&RESET, abi::vm_vcpu_reset { vcpuid: vcpu, kind: abi::VRK_RESET })
    }

    /// Lets a vCPU run, or has it wait for another one to start it.
    pub(in crate::vm::hv) fn set_running(&self, vcpu: c_int, runs: bool) -> io::Result<()> {
        let state = if runs { abi::VRS_RUN } else { abi::VRS_HALT };
        let state = abi::vm_run_state { vcpuid: vcpu, state, ..abi::vm_run_state::zeroed() };
        self.node.send(&RUN_STATE, state)
    }

    /// Brings a vCPU into the machine.
    pub(in crate::vm::hv) fn activate(&self, vcpu: c_int) -> io::Result<()> {
        self.node.send(&ACTIVATE, abi::vm_activate_cpu { vcpuid: vcpu })
    }

    /// Makes a vCPU leave the guest, or not enter it the next time; version 16 on.
    pub(in crate::vm::hv) fn barrier(&self, vcpu: usize) -> io::Result<()> {
        self.node.number(&BARRIER, vcpu).map(drop)
    }

    /// Ends the guest's run for good; each vCPU comes out with it.
    pub(in crate::vm::hv) fn suspend(&self) -> io::Result<()> {
        let suspend = abi::vm_suspend { how: abi::VM_SUSPEND_POWEROFF, source: -1 };
        match self.node.send(&SUSPEND, suspend) {
            Err(error) if is(&error, libc::EALREADY) => Ok(()),
            other => other,
        }
    }

    /// A register by its illumos number. The vCPU must not be running.
    pub(in crate::vm::hv) fn register(&self, vcpu: c_int, register: u32) -> io::Result<u64> {
        let regnum = register.cast_signed();
        let mut value = abi::vm_register { cpuid: vcpu, regnum, regval: 0 };
        self.node.exchange(&GET_REGISTER, &mut value)?;
        Ok(value.regval)
    }

    /// Sets a register.
    pub(in crate::vm::hv) fn set_register(
        &self,
        vcpu: c_int,
        register: u32,
        regval: u64,
    ) -> io::Result<()> {
        let regnum = register.cast_signed();
        self.node.send(&SET_REGISTER, abi::vm_register { cpuid: vcpu, regnum, regval })
    }

    /// Where a segment of the processor begins.
    pub(in crate::vm::hv) fn segment_base(&self, vcpu: c_int, register: u32) -> io::Result<u64> {
        let mut segment = abi::vm_seg_desc::zeroed();
        (segment.cpuid, segment.regnum) = (vcpu, register.cast_signed());
        self.node.exchange(&GET_DESCRIPTOR, &mut segment)?;
        Ok(segment.desc.base)
    }

    /// Delivers a message. The address must be one of the local APICs'.
    pub(in crate::vm::hv) fn message(&self, address: u64, data: u32) -> io::Result<()> {
        self.node.send(&MESSAGE, abi::vm_lapic_msi { msg: u64::from(data), addr: address })
    }

    /// One assertion, or one less, of a pin of the IOAPIC, which counts them.
    pub(in crate::vm::hv) fn set_ioapic(&self, pin: u32, high: bool) -> io::Result<()> {
        let call = if high { &IOAPIC_ASSERT } else { &IOAPIC_DEASSERT };
        self.node.send(call, abi::vm_ioapic_irq { irq: pin.cast_signed() })
    }

    /// The same for a line of both the PIC and the IOAPIC.
    pub(in crate::vm::hv) fn set_isa(&self, line: u32, high: bool) -> io::Result<()> {
        let (call, line) = (if high { &ISA_ASSERT } else { &ISA_DEASSERT }, line.cast_signed());
        self.node.send(call, abi::vm_isa_irq { atpic_irq: line, ioapic_irq: line })
    }

    /// Makes a line of the PIC level-triggered.
    pub(in crate::vm::hv) fn set_level_triggered(&self, line: u32) -> io::Result<()> {
        let trigger = abi::LEVEL_TRIGGER;
        let line = abi::vm_isa_irq_trigger { atpic_irq: line.cast_signed(), trigger };
        self.node.send(&ISA_TRIGGER, line)
    }

    /// Puts the ACPI timer at a port; there is none before.
    pub(in crate::vm::hv) fn place_pm_timer(&self, port: u16) -> io::Result<()> {
        self.node.number(&PM_TIMER, usize::from(port)).map(drop)
    }

    /// Writes a byte of CMOS that is no part of the clock.
    pub(in crate::vm::hv) fn write_cmos(&self, index: u8, value: u8) -> io::Result<()> {
        let mut byte = abi::vm_rtc_data::zeroed();
        (byte.offset, byte.value) = (c_int::from(index), value);
        self.node.send(&RTC_WRITE, byte)
    }

    /// Sets the clock, as time since 1970.
    pub(in crate::vm::hv) fn set_clock(&self, since: Duration) -> io::Result<()> {
        let tv_sec = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        let tv_nsec = i64::from(since.subsec_nanos());
        self.node.send(&RTC_TIME, abi::timespec { tv_sec, tv_nsec })
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // With no mapping left nobody misses it. Else, or without this call, it goes with the last
        // descriptor.
        if Arc::strong_count(self.file()) == 1 {
            let _ = self.destroy_self();
        }
    }
}
