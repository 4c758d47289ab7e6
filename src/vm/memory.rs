// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Guest memory: mapped into this process by the hypervisor, reached only through bounds-checked
//! access.

use std::sync::Arc;

use vm_memory::{GuestMemoryMmap, MmapRegion};

/// The end of RAM below 4 GiB; what is more begins at 4 GiB. Both firmwares place PCI above it.
pub const LOW_LIMIT: u64 = 3 << 30;
/// Where RAM goes on.
pub const HIGH_BASE: u64 = 4 << 30;

/// The guest's RAM. Cheap to clone; every access names guest-physical addresses and fails outside
/// RAM.
pub type Memory = Arc<GuestMemoryMmap>;

/// Memory of a device, such as a frame buffer, that the guest may see at a place of its choice.
#[derive(Debug, Clone)]
pub struct DeviceMemory {
    /// The hypervisor's number for it.
    pub slot: u32,
    /// The bytes, as this process sees them.
    pub region: Arc<MmapRegion>,
}

/// RAM as ranges of guest-physical addresses, `(start, bytes)`: the one source for the map, for
/// CMOS and for e820.
pub fn layout(bytes: u64) -> Vec<(u64, u64)> {
    let low = bytes.min(LOW_LIMIT);
    let high = bytes - low;
    let mut ranges = vec![(0, low)];
    if high > 0 {
        ranges.push((HIGH_BASE, high));
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_leaves_room_for_pci() {
        assert_eq!(layout(1 << 30), [(0, 1 << 30)]);
        assert_eq!(layout(3 << 30), [(0, 3 << 30)]);
        assert_eq!(layout(5 << 30), [(0, 3 << 30), (4 << 30, 2 << 30)]);
    }
}
