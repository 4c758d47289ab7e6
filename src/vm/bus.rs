// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Port and MMIO dispatch: which device answers at which address.
//!
//! Where no device is, reads give all ones and writes vanish, as on real hardware: firmware tells
//! by it that nothing is there.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::ui::{Failure, Outcome};

/// Something with registers. `offset` is relative to where it was put on the bus; accesses are
/// whole: they neither begin before nor end after the device's range.
pub trait BusDevice: Send {
    /// Reads `data.len()` bytes (1, 2, 4 or 8), little-endian. What the device does not set stays
    /// all ones.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// Writes `data.len()` bytes (1, 2, 4 or 8), little-endian.
    fn write(&mut self, offset: u64, data: &[u8]);
}

/// A device that several places of the bus, and its own threads, share.
pub type SharedDevice = Arc<Mutex<dyn BusDevice>>;

struct Place {
    range: Range<u64>,
    device: SharedDevice,
}

/// The ports, or the MMIO space. Devices come and go while vCPUs run: BARs move.
#[derive(Default)]
pub struct Bus {
    /// Sorted, without overlap.
    places: RwLock<Vec<Place>>,
}

impl Bus {
    /// Puts a device at a range of addresses.
    ///
    /// # Errors
    /// When the range is empty or another device is there.
    pub fn insert(&self, range: Range<u64>, device: SharedDevice) -> Outcome<()> {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        let at = places.partition_point(|place| place.range.end <= range.start);
        let is_free = places.get(at).is_none_or(|next| range.end <= next.range.start);
        if range.is_empty() || !is_free {
            return Err(Failure::build("two devices at one address")
                .fact("range", format!("{:#x}..{:#x}", range.start, range.end)));
        }
        places.insert(at, Place { range, device });
        Ok(())
    }

    /// Takes away what starts at `start`.
    pub fn remove(&self, start: u64) {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        places.retain(|place| place.range.start != start);
    }

    /// Reads from whatever device is there; false when none is.
    pub fn read(&self, address: u64, data: &mut [u8]) -> bool {
        data.fill(0xff);
        let Some((device, offset)) = self.find(address, data.len()) else { return false };
        device.lock().unwrap_or_else(PoisonError::into_inner).read(offset, data);
        true
    }

    /// Writes to whatever device is there; false when none is.
    pub fn write(&self, address: u64, data: &[u8]) -> bool {
        let Some((device, offset)) = self.find(address, data.len()) else { return false };
        device.lock().unwrap_or_else(PoisonError::into_inner).write(offset, data);
        true
    }

    fn find(&self, address: u64, length: usize) -> Option<(SharedDevice, u64)> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        let at = places.partition_point(|place| place.range.end <= address);
        let place = places.get(at).filter(|place| place.range.start <= address)?;
        let end = address.checked_add(length as u64)?;
        (end <= place.range.end).then(|| (Arc::clone(&place.device), address - place.range.start))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    struct Cell([u8; 4]);

    impl BusDevice for Cell {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            let at = usize::try_from(offset).unwrap();
            data.copy_from_slice(&self.0[at..at + data.len()]);
        }

        fn write(&mut self, offset: u64, data: &[u8]) {
            let at = usize::try_from(offset).unwrap();
            self.0[at..at + data.len()].copy_from_slice(data);
        }
    }

    fn read(bus: &Bus, address: u64) -> [u8; 2] {
        let mut data = [0; 2];
        bus.read(address, &mut data);
        data
    }

    #[test]
    fn accesses_reach_the_device_that_holds_them_whole() {
        let bus = Bus::default();
        bus.insert(16..20, Arc::new(Mutex::new(Cell([1, 2, 3, 4])))).unwrap();
        bus.insert(20..24, Arc::new(Mutex::new(Cell([5, 6, 7, 8])))).unwrap();
        assert!(bus.insert(12..17, Arc::new(Mutex::new(Cell([0; 4])))).is_err());
        assert!(bus.insert(23..25, Arc::new(Mutex::new(Cell([0; 4])))).is_err());
        assert!(bus.insert(30..30, Arc::new(Mutex::new(Cell([0; 4])))).is_err());
        assert_eq!((read(&bus, 17), read(&bus, 20)), ([2, 3], [5, 6]));
        assert_eq!((read(&bus, 19), read(&bus, 15)), ([0xff; 2], [0xff; 2]));
        assert_eq!(read(&bus, u64::MAX), [0xff; 2]);
        bus.write(22, &[9, 9]);
        assert_eq!(read(&bus, 22), [9, 9]);
        bus.remove(20);
        assert_eq!(read(&bus, 22), [0xff; 2]);
    }
}
