// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A function: its 256 bytes of configuration space and its BARs.

use std::sync::Arc;

use super::{Bar, Msix, Spaces};
use crate::vm::dev::lanes;

const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const HEADER_TYPE: usize = 0x0e;
const BARS: usize = 0x10;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
/// I/O, memory, bus master, and interrupt disable.
const COMMAND_BITS: u16 = 0x0407;

/// Who a function says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
    /// Class, subclass and interface, from the highest byte down.
    pub class: u32,
    /// Revision.
    pub revision: u8,
    /// Subsystem vendor and subsystem.
    pub subsystem: (u16, u16),
}

/// A PCI function with a type 0 header and no interrupt pin.
pub struct Function {
    space: [u8; 256],
    writable: [u8; 256],
    power_on: [u8; 256],
    bars: [Option<Bar>; 6],
    spaces: Arc<Spaces>,
    /// Where the MSI-X capability is.
    msix: Option<(usize, Arc<Msix>)>,
    /// The byte that links to the next capability, and where that may begin.
    chain: (usize, usize),
    on_reset: Option<Box<dyn FnMut() + Send>>,
}

impl Function {
    /// A function without BARs and capabilities.
    pub fn new(identity: &Identity, spaces: &Arc<Spaces>) -> Self {
        let mut function = Self {
            space: [0; 256],
            writable: [0; 256],
            power_on: [0; 256],
            bars: Default::default(),
            spaces: Arc::clone(spaces),
            msix: None,
            chain: (CAPABILITIES, 0x40),
            on_reset: None,
        };
        lanes::put(&mut function.writable, COMMAND, COMMAND_BITS.to_le_bytes());
        // Cache line size and latency timer: storage.
        lanes::put(&mut function.writable, 0x0c, [0xff; 2]);
        lanes::put(&mut function.writable, INTERRUPT_LINE, [0xff]);
        function
            .fixed(0x00, identity.vendor.to_le_bytes())
            .fixed(0x02, identity.device.to_le_bytes())
            .fixed(0x08, (identity.class << 8 | u32::from(identity.revision)).to_le_bytes())
            .fixed(0x2c, identity.subsystem.0.to_le_bytes())
            .fixed(0x2e, identity.subsystem.1.to_le_bytes())
    }

    /// Sets the value that bytes have at power-on.
    #[must_use]
    pub fn fixed<const N: usize>(mut self, offset: usize, bytes: [u8; N]) -> Self {
        lanes::put(&mut self.space, offset, bytes);
        self.power_on = self.space;
        self
    }

    /// Lets the guest write bytes that do nothing, with their value at power-on.
    #[must_use]
    pub fn storage<const N: usize>(mut self, offset: usize, bytes: [u8; N]) -> Self {
        lanes::put(&mut self.writable, offset, [0xff; N]);
        self.fixed(offset, bytes)
    }

    /// Tells that other functions share the slot. Function 0 must, or they are never found.
    #[must_use]
    pub fn multifunction(self) -> Self {
        self.fixed(HEADER_TYPE, [0x80])
    }

    /// Gives base address register `index`, 0 to 5, something to decode.
    #[must_use]
    pub fn bar(mut self, index: usize, bar: Bar) -> Self {
        if let Some(place) = self.bars.get_mut(index) {
            let offset = BARS + 4 * index;
            lanes::put(&mut self.writable, offset, bar.writable().to_le_bytes());
            let kind = bar.kind();
            *place = Some(bar);
            return self.fixed(offset, kind.to_le_bytes());
        }
        self
    }

    /// Appends a capability: its id and what follows the link to the next one. One that does not
    /// fit is left out.
    #[must_use]
    pub fn capability(mut self, id: u8, body: &[u8]) -> Self {
        let (link, at) = self.chain;
        let end = at + 2 + body.len();
        let Some(place) = self.space.get_mut(at..end) else { return self };
        if let [id_byte, next, rest @ ..] = place {
            *id_byte = id;
            *next = 0;
            rest.copy_from_slice(body);
        }
        self.chain = (at + 1, end.next_multiple_of(4));
        self.fixed(link, [at as u8]).fixed(STATUS, [0x10])
    }

    /// Appends the MSI-X capability; table and pending bits are in BAR `index` as
    /// [`super::MsixPage`] lays them out.
    #[must_use]
    pub fn msix(mut self, index: u8, msix: Arc<Msix>) -> Self {
        let at = self.chain.1;
        // The two upper bits of the message control word: enable and function mask.
        lanes::put(&mut self.writable, at + 3, [0xc0]);
        let body = msix.capability(index);
        self.msix = Some((at, msix));
        self.capability(0x11, &body)
    }

    /// What else happens when the machine is reset.
    #[must_use]
    pub fn on_reset(mut self, hook: impl FnMut() + Send + 'static) -> Self {
        self.on_reset = Some(Box::new(hook));
        self
    }

    /// Back to the state of power-on: off the buses, nothing pending.
    pub fn reset(&mut self) {
        self.space = self.power_on;
        self.remap();
        if let Some((_, msix)) = &self.msix {
            msix.reset();
        }
        if let Some(hook) = &mut self.on_reset {
            hook();
        }
    }

    /// Reads configuration space.
    pub fn read(&self, register: u8, data: &mut [u8]) {
        lanes::read(&self.space, u64::from(register), data);
    }

    /// Writes configuration space. Tells whether a BAR left its place, so that another one may
    /// have room now.
    pub fn write(&mut self, register: u8, data: &[u8]) -> bool {
        lanes::write(&mut self.space, &self.writable, u64::from(register), data);
        if let Some((at, msix)) = &self.msix {
            msix.set_control(u16::from_le_bytes([self.byte(at + 2), self.byte(at + 3)]));
        }
        self.remap()
    }

    /// Puts the BARs where the registers say: first all that move away, then those that come.
    pub(super) fn remap(&mut self) -> bool {
        let command = self.byte(COMMAND);
        let registers: [u32; 6] = std::array::from_fn(|index| {
            let at = BARS + 4 * index;
            u32::from_le_bytes(std::array::from_fn(|byte| self.byte(at + byte)))
        });
        let spaces = &self.spaces;
        let mut has_left = false;
        let bars = self.bars.iter_mut().zip(registers);
        let mut waiting = Vec::new();
        for (bar, register) in bars {
            let Some(bar) = bar else { continue };
            let wanted = bar.wanted(register, command, spaces);
            if bar.mapped() == wanted {
                continue;
            }
            has_left |= bar.unmap(spaces);
            if let Some(address) = wanted {
                waiting.push((bar, address));
            }
        }
        for (bar, address) in waiting {
            if let Err(failure) = bar.map(address, spaces) {
                tracing::debug!(%failure, "a BAR finds its place taken");
            }
        }
        has_left
    }

    fn byte(&self, offset: usize) -> u8 {
        self.space.get(offset).copied().unwrap_or_default()
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        for bar in self.bars.iter_mut().flatten() {
            bar.unmap(&self.spaces);
        }
    }
}
