// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! One base address register: what is behind it and where the guest has it now.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use super::Spaces;
use crate::ui::Outcome;
use crate::vm::bus::{Bus, BusDevice, SharedDevice};

/// Shows memory to the guest at an address, or hides it.
pub type Place = Arc<dyn Fn(Option<u64>) + Send + Sync>;

/// What a base address register decodes.
pub struct Bar {
    size: u32,
    is_port: bool,
    is_prefetchable: bool,
    device: SharedDevice,
    place: Option<Place>,
    mapped: Option<u64>,
}

/// Keeps the bus's range while memory is mapped over it.
struct Reserved;

impl BusDevice for Reserved {
    fn read(&mut self, _offset: u64, _data: &mut [u8]) {}

    fn write(&mut self, _offset: u64, _data: &[u8]) {}
}

impl Bar {
    /// Registers in memory space. `size` is rounded up to a power of two from 16 bytes to 1 GiB.
    pub fn registers(size: u32, device: SharedDevice) -> Self {
        let size = size.clamp(16, 1 << 30).next_power_of_two();
        Self { size, is_port: false, is_prefetchable: false, device, place: None, mapped: None }
    }

    /// Registers in port space. `size` is rounded up to a power of two from 4 to 256 ports.
    pub fn ports(size: u32, device: SharedDevice) -> Self {
        let size = size.clamp(4, 256).next_power_of_two();
        Self { size, is_port: true, ..Self::registers(16, device) }
    }

    /// Tells `place` where the registers are, too, each time that they move.
    #[must_use]
    pub fn followed_by(self, place: Place) -> Self {
        Self { place: Some(place), ..self }
    }

    /// Memory, prefetchable, that `place` maps. Accesses that come here before the mapping took
    /// effect read all ones.
    pub fn memory(size: u32, place: Place) -> Self {
        let reserved = Arc::new(Mutex::new(Reserved));
        Self { is_prefetchable: true, place: Some(place), ..Self::registers(size, reserved) }
    }

    /// The register's bits that the guest can write: by them it learns the size.
    pub(super) fn writable(&self) -> u32 {
        !(self.size - 1)
    }

    /// The register's fixed bits.
    pub(super) fn kind(&self) -> u32 {
        match (self.is_port, self.is_prefetchable) {
            (true, _) => 1,
            (false, true) => 8,
            (false, false) => 0,
        }
    }

    /// Where the BAR wants to be, given its register and the command register.
    pub(super) fn wanted(&self, register: u32, command: u8, spaces: &Spaces) -> Option<u64> {
        let (decoding, window) = match self.is_port {
            true => (command & 1, &spaces.port_window),
            false => (command & 2, &spaces.memory_window),
        };
        let range = self.range(u64::from(register & self.writable()));
        (decoding != 0 && range.start >= window.start && range.end <= window.end)
            .then_some(range.start)
    }

    pub(super) fn mapped(&self) -> Option<u64> {
        self.mapped
    }

    /// Takes the BAR off its bus. Tells whether it was there.
    pub(super) fn unmap(&mut self, spaces: &Spaces) -> bool {
        let Some(address) = self.mapped.take() else { return false };
        if let Some(place) = &self.place {
            place(None);
        }
        if let Some(bus) = self.bus(spaces) {
            bus.remove(address);
        }
        true
    }

    /// Puts the BAR on its bus.
    ///
    /// # Errors
    /// When another one is there; it can be tried again when that has moved.
    pub(super) fn map(&mut self, address: u64, spaces: &Spaces) -> Outcome<()> {
        let Some(bus) = self.bus(spaces) else { return Ok(()) };
        bus.insert(self.range(address), Arc::clone(&self.device))?;
        if let Some(place) = &self.place {
            place(Some(address));
        }
        self.mapped = Some(address);
        Ok(())
    }

    /// `None` when the machine is being taken apart.
    fn bus(&self, spaces: &Spaces) -> Option<Arc<Bus>> {
        if self.is_port { spaces.ports.upgrade() } else { spaces.mmio.upgrade() }
    }

    fn range(&self, address: u64) -> Range<u64> {
        address..address.saturating_add(u64::from(self.size))
    }
}
