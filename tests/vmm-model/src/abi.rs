// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Numbers and sizes of the interface: illumos `usr/src/uts/intel/sys/vmm_dev.h` and `vmm.h`,
//! LP64.

/// What the third argument of an ioctl is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arg {
    /// Ignored.
    None,
    /// A number.
    Scalar,
    /// A structure of so many bytes that is read.
    In(usize),
    /// One that is read and written.
    InOut(usize),
    /// One that is written.
    Out(usize),
    /// One that is read, or nothing.
    MaybeIn(usize),
}

/// An ioctl.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) number: u32,
    pub(crate) name: &'static str,
    pub(crate) arg: Arg,
    /// The first version of the interface that has it.
    pub(crate) since: u32,
}

macro_rules! calls {
    ($($name:ident $number:literal $arg:expr, $since:literal;)*) => {
        $(pub(crate) const $name: u32 = $number;)*
        /// Every call that is played.
        pub(crate) static CALLS: &[Call] = &[
            $(Call { number: $number, name: stringify!($name), arg: $arg, since: $since },)*
        ];
    };
}

use Arg::{In, InOut, MaybeIn, None as Nothing, Out, Scalar};

calls! {
    VMM_CREATE_VM 0x564d01 In(136), 0;
    VMM_DESTROY_VM 0x564d02 In(128), 0;
    VMM_VM_SUPPORTED 0x564d03 Nothing, 0;
    VMM_INTERFACE_VERSION 0x564d04 Nothing, 1;
    VMM_RESV_QUERY 0x564d10 Out(32), 0;
    VM_RUN 0x767001 In(40), 0;
    VM_SET_REGISTER 0x767002 In(16), 0;
    VM_GET_REGISTER 0x767003 InOut(16), 0;
    VM_SET_SEGMENT_DESCRIPTOR 0x767004 In(24), 0;
    VM_GET_SEGMENT_DESCRIPTOR 0x767005 InOut(24), 0;
    VM_SET_REGISTER_SET 0x767006 In(24), 0;
    VM_GET_REGISTER_SET 0x767007 In(24), 0;
    VM_INJECT_EXCEPTION 0x767008 In(20), 0;
    VM_SET_CAPABILITY 0x767009 In(16), 0;
    VM_GET_CAPABILITY 0x76700a InOut(16), 0;
    VM_SET_X2APIC_STATE 0x76700d In(8), 0;
    VM_GLA2GPA_NOFAULT 0x76700f InOut(56), 0;
    VM_ACTIVATE_CPU 0x767010 In(4), 0;
    VM_RESET_CPU 0x767016 In(8), 0;
    VM_GET_RUN_STATE 0x767017 InOut(12), 0;
    VM_SET_RUN_STATE 0x767018 In(12), 0;
    VM_GET_CPUID 0x76701b InOut(24), 5;
    VM_SET_CPUID 0x76701c In(24), 5;
    VM_LEGACY_CPUID 0x76701d InOut(20), 5;
    VM_REINIT 0x766c01 In(8), 0;
    VM_ALLOC_MEMSEG 0x766c05 In(144), 0;
    VM_MMAP_MEMSEG 0x766c06 In(40), 0;
    VM_PMTMR_LOCATE 0x766c07 Scalar, 0;
    VM_MUNMAP_MEMSEG 0x766c08 In(16), 0;
    VM_PAUSE 0x766c0a Nothing, 7;
    VM_RESUME 0x766c0b Nothing, 7;
    VM_WRLOCK_CYCLE 0x766cff Nothing, 0;
    VM_GET_MEMSEG 0x766d02 InOut(144), 0;
    VM_MMAP_GETNEXT 0x766d03 InOut(40), 0;
    VM_LAPIC_MSI 0x766d06 In(16), 0;
    VM_IOAPIC_ASSERT_IRQ 0x766d07 In(4), 0;
    VM_IOAPIC_DEASSERT_IRQ 0x766d08 In(4), 0;
    VM_IOAPIC_PULSE_IRQ 0x766d09 In(4), 0;
    VM_ISA_ASSERT_IRQ 0x766d0a In(8), 0;
    VM_ISA_DEASSERT_IRQ 0x766d0b In(8), 0;
    VM_ISA_PULSE_IRQ 0x766d0c In(8), 0;
    VM_ISA_SET_IRQ_TRIGGER 0x766d0d In(8), 0;
    VM_RTC_WRITE 0x766d0e In(8), 0;
    VM_RTC_READ 0x766d0f InOut(8), 0;
    VM_RTC_SETTIME 0x766d10 In(16), 0;
    VM_RTC_GETTIME 0x766d11 Out(16), 0;
    VM_SUSPEND 0x766d12 In(8), 0;
    VM_IOAPIC_PINCOUNT 0x766d13 Out(4), 0;
    VM_GET_HPET_CAPABILITIES 0x766d15 Out(4), 0;
    VM_INJECT_NMI 0x766d18 In(4), 0;
    VM_GET_X2APIC_STATE 0x766d19 InOut(8), 0;
    VM_SET_TOPOLOGY 0x766d1a In(8), 0;
    VM_GET_TOPOLOGY 0x766d1b Out(8), 0;
    VM_GET_CPUS 0x766d1c In(16), 0;
    VM_SUSPEND_CPU 0x766d1d In(4), 0;
    VM_RESUME_CPU 0x766d1e In(4), 0;
    VM_SET_AUTODESTRUCT 0x766d24 Scalar, 4;
    VM_DESTROY_SELF 0x766d25 Nothing, 5;
    VM_DESTROY_PENDING 0x766d26 Nothing, 5;
    VM_VCPU_BARRIER 0x766d27 Scalar, 16;
    VM_DEVMEM_GETOFFSET 0x766dff InOut(16), 0;
    VNA_IOC_CREATE 0x564301 In(8), 0;
    VNA_IOC_DELETE 0x564302 Nothing, 0;
    VNA_IOC_VERSION 0x564303 Nothing, 1;
    VNA_IOC_RING_INIT 0x564310 In(16), 0;
    VNA_IOC_RING_RESET 0x564311 Scalar, 0;
    VNA_IOC_RING_KICK 0x564312 Scalar, 0;
    VNA_IOC_RING_SET_MSI 0x564313 In(24), 0;
    VNA_IOC_RING_INTR_CLR 0x564314 Scalar, 0;
    VNA_IOC_RING_PAUSE 0x564317 Scalar, 1;
    VNA_IOC_RING_INIT_MODERN 0x564318 In(32), 6;
    VNA_IOC_INTR_POLL 0x564320 Out(8), 0;
    VNA_IOC_SET_FEATURES 0x564321 In(8), 0;
    VNA_IOC_GET_FEATURES 0x564322 Out(8), 0;
    VNA_IOC_SET_NOTIFY_IOP 0x564323 Scalar, 0;
    VNA_IOC_SET_PROMISC 0x564324 Scalar, 2;
    VNA_IOC_GET_MTU 0x564327 Nothing, 4;
    VNA_IOC_SET_MTU 0x564328 Scalar, 4;
    VNA_IOC_SET_NOTIFY_MMIO 0x564329 MaybeIn(16), 6;
    VNA_IOC_INTR_POLL_MQ 0x56432a InOut(68), 6;
}

impl Call {
    /// What the third argument is on a kernel of these versions: some structures have grown.
    pub(crate) fn argument(&self, version: u32, viona: u32) -> Arg {
        match (self.number, self.arg) {
            (VNA_IOC_SET_FEATURES, _) if viona < 6 => In(4),
            (VNA_IOC_GET_FEATURES, _) if viona < 6 => Out(4),
            (VM_SUSPEND, _) if version < 16 => In(4),
            (VM_RTC_SETTIME, _) if version < 12 => In(8),
            (VM_RTC_GETTIME, _) if version < 12 => Out(8),
            (_, arg) => arg,
        }
    }
}

/// The call of that number on a kernel of that version.
pub(crate) fn find(number: u32, version: u32) -> Option<&'static Call> {
    CALLS.iter().find(|call| call.number == number && call.since <= version)
}

/// Whether the number belongs to the interface at all: everything else passes at once.
pub(crate) fn is_ours(request: u64) -> bool {
    matches!(request >> 8, 0x5643 | 0x564d | 0x7670 | 0x766c | 0x766d)
}

/// A 32-bit field.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    if let Some(from) = bytes.get(at..at + 4) {
        field.copy_from_slice(from);
    }
    u32::from_le_bytes(field)
}

/// A 64-bit field.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Writes a field, or as much of it as there is room for.
pub(crate) fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(field) {
        *to = *from;
    }
}

/// Offset of `vm_devmem_offset`s: `VM_DEVMEM_START`.
pub(crate) const DEVMEM: u64 = 0x4000_0000_0000;
