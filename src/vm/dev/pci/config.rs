// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Configuration mechanism #1: ports 0xCF8 to 0xCFF.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use super::Function;
use crate::ui::{Failure, Outcome};
use crate::vm::bus::{BusDevice, SharedDevice};
use crate::vm::dev::lanes;

const ENABLE: u32 = 0x8000_0000;
const RESET: u64 = 1;
const DATA: u64 = 4;

/// Bus 0 and the two registers that reach its functions. Put it at ports 0xCF8 to 0xCFF.
///
/// Accesses are told apart by port and width: only 32 bits at 0xCF8 are the address register, 8
/// bits at 0xCF9 belong to the reset register, other widths there do nothing.
pub struct Pci {
    address: u32,
    functions: BTreeMap<(u8, u8), Function>,
    reset_register: SharedDevice,
}

impl Pci {
    /// An empty bus. `reset_register` gets the 8-bit accesses at 0xCF9, as its offset 0.
    pub fn new(reset_register: SharedDevice) -> Self {
        Self { address: 0, functions: BTreeMap::new(), reset_register }
    }

    /// Plugs a function in.
    ///
    /// # Errors
    /// When there is no such place, or another function is there.
    pub fn insert(&mut self, slot: u8, number: u8, function: Function) -> Outcome<()> {
        if slot > 31 || number > 7 || self.functions.contains_key(&(slot, number)) {
            return Err(Failure::build("no such place for a PCI function, or it is taken")
                .fact("place", format!("0:{slot}.{number}")));
        }
        self.functions.insert((slot, number), function);
        Ok(())
    }

    /// Makes all functions as at power-on.
    pub fn reset(&mut self) {
        self.address = 0;
        for function in self.functions.values_mut() {
            function.reset();
        }
    }

    /// The selected function, and the register at a data port.
    fn selected(&mut self, offset: u64) -> Option<(&mut Function, u8)> {
        let [register, function, bus, _] = self.address.to_le_bytes();
        if self.address & ENABLE == 0 || bus != 0 {
            return None;
        }
        let register = (register & 0xfc) | (offset & 3) as u8;
        let function = self.functions.get_mut(&(function >> 3, function & 7))?;
        Some((function, register))
    }
}

impl BusDevice for Pci {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match (offset, data.len()) {
            (0, 4) => data.copy_from_slice(&self.address.to_le_bytes()),
            (RESET, 1) => {
                let register = &self.reset_register;
                register.lock().unwrap_or_else(PoisonError::into_inner).read(0, data);
            }
            (DATA.., 1..=4) => {
                if let Some((function, register)) = self.selected(offset) {
                    function.read(register, data);
                }
            }
            _ => {}
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset, data.len()) {
            (0, 4) => self.address = lanes::number(data) as u32,
            (RESET, 1) => {
                let register = &self.reset_register;
                register.lock().unwrap_or_else(PoisonError::into_inner).write(0, data);
            }
            (DATA.., 1..=4) => {
                let Some((function, register)) = self.selected(offset) else { return };
                if function.write(register, data) {
                    for function in self.functions.values_mut() {
                        function.remap();
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
