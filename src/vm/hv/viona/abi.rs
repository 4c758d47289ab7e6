// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The raw layer of viona: numbers and structures under illumos' own names, from `sys/viona_io.h`
//! of illumos.
#![allow(non_camel_case_types)]

use std::ffi::{c_int, c_void};

use crate::vm::hv::abi::{Layer, constants, enumerations, structures};

constants! {
    CONSTANTS;
    VNA_IOC_CREATE = 0x56_4301,
    VNA_IOC_DELETE = 0x56_4302,
    VNA_IOC_VERSION = 0x56_4303,
    VNA_IOC_RING_INIT = 0x56_4310,
    VNA_IOC_RING_RESET = 0x56_4311,
    VNA_IOC_RING_KICK = 0x56_4312,
    VNA_IOC_RING_SET_MSI = 0x56_4313,
    VNA_IOC_RING_INTR_CLR = 0x56_4314,
    VNA_IOC_RING_PAUSE = 0x56_4317,
    VNA_IOC_RING_INIT_MODERN = 0x56_4318,
    VNA_IOC_INTR_POLL = 0x56_4320,
    VNA_IOC_SET_FEATURES = 0x56_4321,
    VNA_IOC_GET_FEATURES = 0x56_4322,
    VNA_IOC_SET_NOTIFY_IOP = 0x56_4323,
    VNA_IOC_SET_PROMISC = 0x56_4324,
    VNA_IOC_GET_PARAMS = 0x56_4325,
    VNA_IOC_SET_PARAMS = 0x56_4326,
    VNA_IOC_GET_MTU = 0x56_4327,
    VNA_IOC_SET_MTU = 0x56_4328,
    VNA_IOC_SET_NOTIFY_MMIO = 0x56_4329,
    VNA_IOC_INTR_POLL_MQ = 0x56_432a,
}

enumerations! {
    ENUMERATIONS;
    viona_promisc_t {
        VIONA_PROMISC_NONE = 0,
        VIONA_PROMISC_MULTI = 1,
        VIONA_PROMISC_ALL = 2,
        VIONA_PROMISC_MAX = 3,
    }
}

structures! {
    STRUCTURES;
    struct vioc_create { c_linkid: u32, c_vmfd: c_int, }
    struct vioc_ring_init { ri_index: u16, ri_qsize: u16, ri_qaddr: u64, }
    struct vioc_ring_init_modern {
        rim_index: u16,
        rim_qsize: u16,
        rim_qaddr_desc: u64,
        rim_qaddr_avail: u64,
        rim_qaddr_used: u64,
    }
    struct vioc_ring_msi { rm_index: u16, rm_addr: u64, rm_msg: u64, }
    struct vioc_intr_poll { vip_status: [u32; 2], }
    struct vioc_intr_poll_mq { vipm_nrings: u16, vipm_status: [u32; 16], }
    struct vioc_notify_mmio { vim_address: u64, vim_size: u32, }
    struct vioc_get_params { vgp_param: *mut c_void, vgp_param_sz: usize, }
    struct vioc_set_params {
        vsp_param: *const c_void,
        vsp_param_sz: usize,
        vsp_error: *mut c_void,
        vsp_error_sz: usize,
    }
}

/// All of it.
pub(in crate::vm::hv) const LAYER: Layer =
    Layer { structures: STRUCTURES, constants: CONSTANTS, enumerations: ENUMERATIONS };
