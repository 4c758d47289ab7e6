// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Model-specific registers that illumos' kernel leaves to us.
//!
//! Those with a meaning answer as illumos' bhyve does (`cmd/bhyve/amd64/xmsr.c`); all others read
//! 0 and take any value, for a guest that asks for one that is missing must not fail to boot.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// How many are remembered as logged.
const REMEMBERED: usize = 256;

/// `MSR_RAPL_POWER_UNIT`: the units of Intel's energy counters.
const RAPL_UNIT: (u32, u64) = (0x606, 0x000a_1003);
/// AMD's `HWCR`: what a guest expects of a processor that is set up.
const HWCR: (u32, u64) = (0xc001_0015, 0x0100_0210);
/// AMD's instruction cache configuration.
const AMD_CONFIGURATION: (u32, u64) = (0xc001_1029, 1);
/// AMD's `VM_CR`: there is no SVM inside.
const VM_CR: (u32, u64) = (0xc001_0114, 1 << 4);

const KNOWN: [(u32, u64); 4] = [RAPL_UNIT, HWCR, AMD_CONFIGURATION, VM_CR];

/// The registers of one machine.
#[derive(Default)]
pub(super) struct Registers {
    logged: Mutex<BTreeSet<u32>>,
}

impl Registers {
    /// What a register reads.
    pub(super) fn read(&self, register: u32) -> u64 {
        self.note("reads", register);
        KNOWN.iter().find(|(known, _)| *known == register).map_or(0, |(_, value)| *value)
    }

    /// A write, which does nothing.
    pub(super) fn write(&self, register: u32, value: u64) {
        if self.note("writes", register) {
            tracing::debug!("it writes {value:#x}");
        }
    }

    /// Says once of each register that the guest uses it.
    fn note(&self, what: &str, register: u32) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = logged.len() < REMEMBERED && logged.insert(register);
        if is_new {
            tracing::debug!("the guest {what} the processor's register {register:#x}");
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_registers_read_zero_and_are_logged_once() {
        let registers = Registers::default();
        assert_eq!(registers.read(0x606), 0x000a_1003);
        assert_eq!(registers.read(0x1234), 0);
        assert!(registers.note("writes", 7) && !registers.note("reads", 7));
        for register in 0..10_000 {
            registers.write(register, 1);
        }
        assert_eq!(registers.logged.lock().map(|logged| logged.len()).ok(), Some(REMEMBERED));
    }
}
