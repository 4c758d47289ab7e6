// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A machine with RAM and a ROM of a few integer instructions, which every `/dev/kvm` can run.

use std::time::{Duration, Instant};

use super::client::{self, call, get, one, pack, put, two};
use super::number::*;

pub const RAM: u64 = 1 << 20;
pub const ROM: u64 = 4096;
const ROM_AT: u64 = (4 << 30) - ROM;

pub const INOUT: u64 = 0;
pub const BOGUS: u64 = 2;
pub const RDMSR: u64 = 3;
pub const WRMSR: u64 = 4;
pub const PAGING: u64 = 8;
pub const INST_EMUL: u64 = 9;
pub const SUSPENDED: u64 = 14;
pub const MMIO: u64 = 15;
pub const REQIDLE: u64 = 20;
pub const DEBUG: u64 = 21;

pub const FULFILL_MMIO: u64 = 2;
pub const FULFILL_INOUT: u64 = 3;

/// A machine that is ready to run `code` from the reset vector.
pub fn machine(code: &[u8], cpus: u64) -> i32 {
    let fd = client::machine("guest");
    call(fd, VM_SET_TOPOLOGY, &mut pack::<8>(&[(0, 1, 2), (2, cpus, 2), (4, 1, 2)])).unwrap();
    client::allocate(fd, 0, RAM, "").unwrap();
    client::place(fd, 0, 0, RAM, 7).unwrap();
    client::allocate(fd, 2, ROM, "bootrom").unwrap();
    fill_rom(fd, code);
    start(fd, cpus);
    fd
}

/// Puts the code into the ROM: its first instruction, at the reset vector, jumps to the begin.
fn fill_rom(fd: i32, code: &[u8]) {
    let mut rom = vec![0xf4; ROM as usize];
    rom[..code.len()].copy_from_slice(code);
    rom[4080..4083].copy_from_slice(&[0xe9, 0x0d, 0xf0]);
    let mut bytes = pack::<16>(&[(0, 2, 4)]);
    call(fd, VM_DEVMEM_GETOFFSET, &mut bytes).unwrap();
    let at = client::map(fd, get(&bytes, 8, 8), ROM as usize).unwrap();
    // SAFETY: the mapping is that long, and the guest does not run yet.
    unsafe { std::ptr::copy_nonoverlapping(rom.as_ptr(), at, rom.len()) };
}

/// What every start needs, the first one and that after `VM_REINIT`.
pub fn start(fd: i32, cpus: u64) {
    client::place(fd, ROM_AT, 2, ROM, 5).unwrap();
    for cpu in 0..cpus {
        two(fd, VM_RESET_CPU, cpu, 0).unwrap();
        set_capability(fd, cpu, 0, 1).unwrap();
        set_run_state(fd, cpu, if cpu == 0 { 2 } else { 0 }).unwrap();
        one(fd, VM_ACTIVATE_CPU, cpu).unwrap();
    }
}

pub fn set_capability(fd: i32, cpu: u64, kind: u64, value: u64) -> Result<i32, i32> {
    call(fd, VM_SET_CAPABILITY, &mut pack::<16>(&[(0, cpu, 4), (4, kind, 4), (8, value, 4)]))
}

pub fn set_run_state(fd: i32, cpu: u64, state: u64) -> Result<i32, i32> {
    call(fd, VM_SET_RUN_STATE, &mut pack::<12>(&[(0, cpu, 4), (4, state, 4)]))
}

/// An exit record.
#[derive(Clone, Copy)]
pub struct Exit(pub [u8; 64]);

impl Exit {
    pub fn code(&self) -> u64 {
        get(&self.0, 0, 4)
    }

    pub fn rip(&self) -> u64 {
        get(&self.0, 8, 8)
    }

    /// Port, bytes, whether it is a read, and the value.
    pub fn port(&self) -> (u64, u64, bool, u64) {
        assert_eq!(self.code(), INOUT, "{:02x?}", self.0);
        let is_read = get(&self.0, 23, 1) & 1 != 0;
        (get(&self.0, 20, 2), get(&self.0, 22, 1), is_read, get(&self.0, 16, 4))
    }

    /// Address, bytes, whether it is a read, and the value.
    pub fn mmio(&self) -> (u64, u64, bool, u64) {
        assert_eq!(self.code(), MMIO, "{:02x?}", self.0);
        let is_read = get(&self.0, 17, 1) != 0;
        (get(&self.0, 24, 8), get(&self.0, 16, 1), is_read, get(&self.0, 32, 8))
    }
}

/// Enters once with a command and its payload.
pub fn enter(fd: i32, cpu: u64, command: u64, payload: &[u8]) -> Result<Exit, i32> {
    let mut exit = [0u8; 64];
    let mut entry = pack::<40>(&[(0, cpu, 4), (4, command, 4), (8, exit.as_mut_ptr() as u64, 8)]);
    entry[16..16 + payload.len()].copy_from_slice(payload);
    call(fd, VM_RUN, &mut entry)?;
    Ok(Exit(exit))
}

/// Enters again until the exit is something.
pub fn again(fd: i32, cpu: u64, first: Result<Exit, i32>) -> Exit {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut exit = first.unwrap();
    while matches!(exit.code(), BOGUS | REQIDLE) {
        assert!(Instant::now() < deadline, "the guest does nothing");
        exit = enter(fd, cpu, 0, &[]).unwrap();
    }
    exit
}

pub fn run(fd: i32, cpu: u64) -> Exit {
    again(fd, cpu, enter(fd, cpu, 0, &[]))
}

/// Answers a port access as it came, a read with a value, and goes on.
pub fn answer_port(fd: i32, cpu: u64, exit: &Exit, value: u64) -> Exit {
    let mut payload = [0; 12];
    payload[4..8].copy_from_slice(&exit.0[20..24]);
    put(&mut payload, 0, value, 4);
    again(fd, cpu, enter(fd, cpu, FULFILL_INOUT, &payload))
}

/// Answers an MMIO access as it came, and goes on.
pub fn answer_mmio(fd: i32, cpu: u64, exit: &Exit, value: u64) -> Exit {
    let mut payload = [0; 24];
    payload[..16].copy_from_slice(&exit.0[16..32]);
    put(&mut payload, 16, value, 8);
    again(fd, cpu, enter(fd, cpu, FULFILL_MMIO, &payload))
}

/// Lets the data segment reach all of 32 bits.
pub fn flatten(fd: i32) {
    let fields = [(0, 0, 4), (4, 25, 4), (8, 0, 8), (16, 0xffff_ffff, 4), (20, 0x8093, 4)];
    call(fd, VM_SET_SEGMENT_DESCRIPTOR, &mut pack::<24>(&fields)).unwrap();
}

/// The exit says that the machine is suspended so; source and time from version 16.
pub fn suspended(exit: &Exit, how: u64, source: u64) {
    assert_eq!((exit.code(), get(&exit.0, 16, 4)), (SUSPENDED, how));
    if super::version() >= 16 {
        assert_eq!(get(&exit.0, 20, 4), source);
        assert!(get(&exit.0, 24, 8) > 0);
    } else {
        assert_ne!(get(&exit.0, 20, 4), source, "not written before version 16");
    }
}
