// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! fw_cfg: what the machine tells its firmware (QEMU's docs/specs/fw_cfg.rst).
//!
//! Items are read byte after byte, or copied to memory at one stroke. Nothing can be written.

use std::collections::BTreeMap;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::lanes;
use crate::vm::bus::BusDevice;
use crate::vm::memory::Memory;

/// Ports that it takes, from 0x510 on.
pub const PORTS: u64 = 12;

/// Longest name of a file, in bytes.
pub const LONGEST_NAME: usize = 55;

const SELECTOR: u64 = 0;
const DATA: u64 = 1;
const DMA_HIGH: u64 = 4;
const DMA_LOW: u64 = 8;
/// What the DMA register reads as.
const DMA_SIGNATURE: &[u8] = b"QEMU CFG";

const SIGNATURE: u16 = 0x00;
const FEATURES: u16 = 0x01;
const UUID: u16 = 0x02;
const RAM_BYTES: u16 = 0x03;
const CPUS: u16 = 0x05;
const MOST_CPUS: u16 = 0x0f;
const DIRECTORY: u16 = 0x19;
const FIRST_FILE: u16 = 0x20;

/// Reading by ports and by DMA.
const FEATURE_BITS: u32 = 0b11;

/// Fields of a DMA block: control, length, address.
const BLOCK: usize = 16;
const ERROR: u32 = 1 << 0;
const READ: u32 = 1 << 1;
const SKIP: u32 = 1 << 2;
const SELECT: u32 = 1 << 3;
const WRITE: u32 = 1 << 4;

/// The most that one transfer may fill with zeros after an item's end.
const MOST_ZEROS: u64 = 1 << 20;

/// The device. Put it at [`PORTS`] ports from 0x510 on.
pub struct FwCfg {
    memory: Memory,
    /// Those with fixed numbers; the rest reads as zeros.
    items: BTreeMap<u16, Vec<u8>>,
    /// Sorted by name; their numbers count from 0x20.
    files: Vec<(String, Vec<u8>)>,
    selected: u16,
    offset: usize,
    /// The DMA block's address, as written up to now.
    address: u64,
}

impl FwCfg {
    /// A device without files, for a machine with so many bytes of memory and processors, and the
    /// UUID in the order in which it is written.
    pub fn new(memory: Memory, bytes: u64, cpus: u32, uuid: [u8; 16]) -> Self {
        let cpus = u16::try_from(cpus).unwrap_or(u16::MAX).to_le_bytes();
        let items = BTreeMap::from([
            (SIGNATURE, b"QEMU".to_vec()),
            (FEATURES, FEATURE_BITS.to_le_bytes().to_vec()),
            (UUID, uuid.to_vec()),
            (RAM_BYTES, bytes.to_le_bytes().to_vec()),
            (CPUS, cpus.to_vec()),
            (MOST_CPUS, cpus.to_vec()),
            (DIRECTORY, vec![0; 4]),
        ]);
        Self { memory, items, files: Vec::new(), selected: 0, offset: 0, address: 0 }
    }

    /// Adds a file, or replaces the one of that name. Names have at most [`LONGEST_NAME`] bytes:
    /// the rest is cut off.
    #[must_use]
    pub fn add_file(mut self, name: &str, content: Vec<u8>) -> Self {
        let at = self.files.binary_search_by(|(known, _)| known.as_str().cmp(name));
        match at {
            Ok(at) => {
                if let Some(file) = self.files.get_mut(at) {
                    file.1 = content;
                }
            }
            Err(at) => self.files.insert(at, (name.to_owned(), content)),
        }
        self.items.insert(DIRECTORY, directory(&self.files));
        self
    }

    /// What remains of the selected item.
    fn rest(&self) -> &[u8] {
        let file = self.selected.checked_sub(FIRST_FILE).map(usize::from);
        let item = match file.and_then(|index| self.files.get(index)) {
            Some((_, content)) => content,
            None => self.items.get(&self.selected).map_or(&[][..], Vec::as_slice),
        };
        item.get(self.offset..).unwrap_or(&[])
    }

    fn select(&mut self, item: u16) {
        self.selected = item;
        self.offset = 0;
    }

    fn next_byte(&mut self) -> u8 {
        let byte = self.rest().first().copied().unwrap_or(0);
        self.offset = self.offset.saturating_add(1);
        byte
    }

    /// Does what the block in memory asks for, and says so there.
    fn transfer(&mut self) {
        let place = GuestAddress(std::mem::take(&mut self.address));
        let mut block = [0; BLOCK];
        if self.memory.read_slice(&mut block, place).is_err() {
            tracing::debug!(address = place.0, "a DMA block of fw_cfg is outside RAM");
            return;
        }
        let [c0, c1, c2, c3, l0, l1, l2, l3, address @ ..] = block;
        let control = u32::from_be_bytes([c0, c1, c2, c3]);
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let address = GuestAddress(u64::from_be_bytes(address));
        let result = match self.execute(control, length, address) {
            Some(()) => 0,
            None => ERROR,
        };
        if self.memory.write_slice(&result.to_be_bytes(), place).is_err() {
            tracing::debug!(address = place.0, "a DMA block of fw_cfg cannot be answered");
        }
    }

    /// None when it cannot be done.
    fn execute(&mut self, control: u32, length: u32, address: GuestAddress) -> Option<()> {
        if control & SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        if control & READ != 0 {
            self.copy(length, address)?;
        } else if control & WRITE != 0 {
            // No item can be written.
            return None;
        } else if control & SKIP == 0 {
            return Some(());
        }
        self.offset = self.offset.saturating_add(length as usize);
        Some(())
    }

    fn copy(&self, length: u32, address: GuestAddress) -> Option<()> {
        let rest = self.rest();
        let length = length as usize;
        let bytes = rest.get(..length).unwrap_or(rest);
        let zeros = (length - bytes.len()) as u64;
        if zeros > MOST_ZEROS {
            return None;
        }
        self.memory.write_slice(bytes, address).ok()?;
        let end = address.0.checked_add(bytes.len() as u64)?;
        fill_zeros(&self.memory, GuestAddress(end), zeros)
    }
}

fn fill_zeros(memory: &GuestMemoryMmap, start: GuestAddress, count: u64) -> Option<()> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut done = 0;
    while done < count {
        let some = (count - done).min(ZEROS.len() as u64);
        let at = GuestAddress(start.0.checked_add(done)?);
        memory.write_slice(ZEROS.get(..some as usize)?, at).ok()?;
        done += some;
    }
    Some(())
}

/// Item 0x19: the count, then {size, number, 0, name} of each file, big-endian.
fn directory(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let count = u32::try_from(files.len()).unwrap_or(u32::MAX);
    let mut directory = count.to_be_bytes().to_vec();
    for (number, (name, content)) in (FIRST_FILE..).zip(files) {
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let mut field = [0; LONGEST_NAME + 1];
        for (to, byte) in field.iter_mut().take(LONGEST_NAME).zip(name.bytes()) {
            *to = byte;
        }
        directory.extend_from_slice(&size.to_be_bytes());
        directory.extend_from_slice(&number.to_be_bytes());
        directory.extend_from_slice(&[0; 2]);
        directory.extend_from_slice(&field);
    }
    directory
}

impl BusDevice for FwCfg {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match (offset, data) {
            (DATA, [byte]) => *byte = self.next_byte(),
            (DMA_HIGH..PORTS, data) => lanes::read(DMA_SIGNATURE, offset - DMA_HIGH, data),
            _ => {}
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset, data) {
            (SELECTOR, &[low, high]) => self.select(u16::from_le_bytes([low, high])),
            // The register is big-endian.
            (DMA_HIGH, &[a, b, c, d]) => {
                self.address = u64::from(u32::from_be_bytes([a, b, c, d])) << 32;
            }
            (DMA_LOW, &[a, b, c, d]) => {
                self.address |= u64::from(u32::from_be_bytes([a, b, c, d]));
                self.transfer();
            }
            (DMA_HIGH, &[a, b, c, d, e, f, g, h]) => {
                self.address = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
                self.transfer();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "fw_cfg_tests.rs"]
mod tests;
