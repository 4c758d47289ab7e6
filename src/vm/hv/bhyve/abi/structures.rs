// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Structures, as `repr(C)` on the 64-bit data model lays them out.
#![allow(non_camel_case_types)]

use std::ffi::{c_int, c_void};

use crate::vm::hv::abi::structures;

/// Names in requests: `VM_MAX_NAMELEN`, and what `vm_memseg` has.
pub(crate) const NAME_BYTES: usize = 128;

/// What differs between exits.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) union vm_exit_u {
    pub(crate) inout: vm_inout,
    pub(crate) mmio: vm_mmio,
    pub(crate) paging: vm_exit_paging,
    pub(crate) mmio_emul: vm_exit_mmio_emul,
    pub(crate) inst_emul: vm_exit_inst_emul,
    pub(crate) vmx: vm_exit_vmx,
    pub(crate) svm: vm_exit_svm,
    pub(crate) bpt: vm_exit_bpt,
    pub(crate) msr: vm_exit_msr,
    pub(crate) hlt: vm_exit_hlt,
    pub(crate) ioapic_eoi: vm_exit_ioapic_eoi,
    pub(crate) suspended: vm_exit_suspended,
    pub(crate) task_switch: vm_task_switch,
}

/// What an entry answers.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) union vm_entry_u {
    pub(crate) inout: vm_inout,
    pub(crate) mmio: vm_mmio,
}

/// Structures that have no name in the header.
macro_rules! unnamed {
    ($($name:ident { $($field:ident: $type:ty,)* })*) => {
        $(
            #[repr(C)]
            #[derive(Clone, Copy)]
            pub(crate) struct $name {
                $(pub(crate) $field: $type,)*
            }
        )*
    };
}

unnamed! {
    vm_exit_paging { gpa: u64, fault_type: c_int, }
    vm_exit_mmio_emul { gpa: u64, gla: u64, cs_base: u64, cs_d: c_int, }
    vm_exit_inst_emul { inst: [u8; 15], num_valid: u8, }
    vm_exit_vmx {
        status: c_int,
        exit_reason: u32,
        exit_qualification: u64,
        inst_type: c_int,
        inst_error: c_int,
    }
    vm_exit_svm { exitcode: u64, exitinfo1: u64, exitinfo2: u64, }
    vm_exit_bpt { inst_length: c_int, }
    vm_exit_msr { code: u32, wval: u64, }
    vm_exit_hlt { rflags: u64, }
    vm_exit_ioapic_eoi { vector: c_int, }
    vm_exit_suspended { how: c_int, source: c_int, when: u64, }
}

structures! {
    STRUCTURES;

    struct vm_exit { exitcode: c_int, inst_length: c_int, rip: u64, u: vm_exit_u, }
    inside {
        u.inout, u.mmio, u.paging.gpa, u.paging.fault_type, u.mmio_emul.gpa, u.mmio_emul.gla,
        u.mmio_emul.cs_base, u.mmio_emul.cs_d, u.inst_emul.inst, u.inst_emul.num_valid,
        u.vmx.status, u.vmx.exit_reason, u.vmx.exit_qualification, u.vmx.inst_type,
        u.vmx.inst_error, u.svm.exitcode, u.svm.exitinfo1, u.svm.exitinfo2, u.bpt.inst_length,
        u.msr.code, u.msr.wval, u.hlt.rflags, u.ioapic_eoi.vector, u.suspended.how,
        u.suspended.source, u.suspended.when, u.task_switch,
    }

    struct vm_entry { cpuid: c_int, cmd: u32, exit_data: *mut c_void, u: vm_entry_u, }
    inside { u.inout, u.mmio, }

    struct vm_inout { eax: u32, port: u16, bytes: u8, flags: u8, addrsize: u8, segment: u8, }
    struct vm_mmio { bytes: u8, read: u8, _pad: [u16; 3], gpa: u64, data: u64, }

    struct vm_create_req { name: [u8; NAME_BYTES], flags: u64, }
    struct vm_destroy_req { name: [u8; NAME_BYTES], }
    struct vmm_resv_query {
        vrq_free_sz: u64,
        vrq_alloc_sz: u64,
        vrq_alloc_transient_sz: u64,
        vrq_limit: u64,
    }

    struct vm_register { cpuid: c_int, regnum: c_int, regval: u64, }
    struct seg_desc { base: u64, limit: u32, access: u32, }
    struct vm_seg_desc { cpuid: c_int, regnum: c_int, desc: seg_desc, }
    struct vm_register_set {
        cpuid: c_int,
        count: u32,
        regnums: *const c_int,
        regvals: *mut u64,
    }
    struct vm_exception {
        cpuid: c_int,
        vector: c_int,
        error_code: u32,
        error_code_valid: c_int,
        restart_instruction: c_int,
    }
    struct vm_capability { cpuid: c_int, captype: c_int, capval: c_int, allcpus: c_int, }
    struct vm_x2apic { cpuid: c_int, state: c_int, }
    struct vm_guest_paging { cr3: u64, cpl: c_int, cpu_mode: c_int, paging_mode: c_int, }
    struct vm_gla2gpa {
        vcpuid: c_int,
        prot: c_int,
        gla: u64,
        paging: vm_guest_paging,
        fault: c_int,
        gpa: u64,
    }
    struct vm_task_switch {
        tsssel: u16,
        ext: c_int,
        errcode: u32,
        errcode_valid: c_int,
        reason: c_int,
        paging: vm_guest_paging,
    }
    struct vm_activate_cpu { vcpuid: c_int, }
    struct vm_vcpu_reset { vcpuid: c_int, kind: u32, }
    struct vm_run_state { vcpuid: c_int, state: u32, sipi_vector: u8, _pad: [u8; 3], }
    struct vcpu_cpuid_entry {
        vce_function: u32,
        vce_index: u32,
        vce_flags: u32,
        vce_eax: u32,
        vce_ebx: u32,
        vce_ecx: u32,
        vce_edx: u32,
        _pad: u32,
    }
    struct vm_vcpu_cpuid_config {
        vvcc_vcpuid: c_int,
        vvcc_flags: u32,
        vvcc_nent: u32,
        _pad: u32,
        vvcc_entries: *mut c_void,
    }
    struct vm_legacy_cpuid {
        vlc_vcpuid: c_int,
        vlc_eax: u32,
        vlc_ebx: u32,
        vlc_ecx: u32,
        vlc_edx: u32,
    }

    struct vm_reinit { flags: u64, }
    struct vm_memseg { segid: c_int, len: usize, name: [u8; NAME_BYTES], }
    struct vm_memmap {
        gpa: u64,
        segid: c_int,
        segoff: i64,
        len: usize,
        prot: c_int,
        flags: c_int,
    }
    struct vm_munmap { gpa: u64, len: usize, }
    struct vm_devmem_offset { segid: c_int, offset: i64, }

    struct vm_lapic_msi { msg: u64, addr: u64, }
    struct vm_ioapic_irq { irq: c_int, }
    struct vm_isa_irq { atpic_irq: c_int, ioapic_irq: c_int, }
    struct vm_isa_irq_trigger { atpic_irq: c_int, trigger: u32, }

    struct vm_rtc_data { offset: c_int, value: u8, }
    struct vm_suspend { how: u32, source: c_int, }
    struct vm_hpet_cap { capabilities: u32, }
    struct vm_stats {
        cpuid: c_int,
        index: c_int,
        num_entries: c_int,
        tv: [i64; 2],
        statbuf: [u64; 64],
    }
    struct vm_stat_desc { index: c_int, desc: [u8; NAME_BYTES], }
    struct vm_nmi { cpuid: c_int, }
    struct vm_cpu_topology { sockets: u16, cores: u16, threads: u16, maxcpus: u16, }
    struct vm_cpuset { which: c_int, cpusetsize: u32, cpus: *mut c_void, }
}

unnamed! {
    // `timespec_t`, which `VM_RTC_SETTIME` takes whole from version 12 on, and whose seconds it
    // takes before.
    timespec { tv_sec: i64, tv_nsec: i64, }
}

// SAFETY: integers.
#[allow(unsafe_code)]
unsafe impl crate::vm::hv::abi::Plain for timespec {}
