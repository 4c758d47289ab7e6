// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Follows a loader script as OVMF does, more strictly where it forgives.

use std::collections::BTreeMap;

use crate::vm::firmware::acpi::{self, AcpiFiles, Board};

/// A file in guest memory.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) address: u64,
    pub(super) bytes: Vec<u8>,
}

/// What the firmware made of the files.
pub(super) struct Patched {
    pub(super) files: BTreeMap<String, Placed>,
    /// Addresses of tables that pointers lead to.
    pub(super) targets: Vec<u64>,
}

impl Patched {
    /// The bytes at an address, to the end of the file that holds it.
    pub(super) fn at(&self, address: u64) -> &[u8] {
        self.files
            .values()
            .find_map(|file| {
                let offset = usize::try_from(address.checked_sub(file.address)?).unwrap();
                file.bytes.get(offset..)
            })
            .unwrap()
    }

    /// The table at an address: its header must be whole and its sum 0.
    pub(super) fn table(&self, address: u64) -> &[u8] {
        let bytes = self.at(address);
        let length = number(&bytes[4..8]);
        let table = &bytes[..usize::try_from(length).unwrap()];
        if &table[..4] != b"FACS" {
            assert_eq!(sum(table), 0, "{:?}", String::from_utf8_lossy(&table[..4]));
        }
        table
    }

    pub(super) fn find(&self, signature: &[u8; 4]) -> Option<&[u8]> {
        let found = self.targets.iter().find(|target| self.at(**target).starts_with(signature));
        found.map(|target| self.table(*target))
    }
}

pub(super) fn board(cpus: u8, memory_bytes: u64, has_hpet: bool) -> Board {
    Board { cpus, memory_bytes, has_hpet }
}

pub(super) fn patched(board: &Board) -> Patched {
    follow(&acpi::files(board).unwrap())
}

pub(super) fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

pub(super) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap();
    assert!(field[end..].iter().all(|byte| *byte == 0));
    String::from_utf8(field[..end].to_vec()).unwrap()
}

pub(super) fn follow(files: &AcpiFiles) -> Patched {
    let given = BTreeMap::from([
        (acpi::TABLES_FILE.to_owned(), files.tables.clone()),
        (acpi::RSDP_FILE.to_owned(), files.rsdp.clone()),
    ]);
    let mut memory: BTreeMap<String, Placed> = BTreeMap::new();
    let mut targets = Vec::new();
    assert_eq!(files.loader.len() % 128, 0);
    for entry in files.loader.chunks(128) {
        match number(&entry[..4]) {
            1 => {
                let name = text(&entry[4..60]);
                let align = number(&entry[60..64]);
                assert!(align.is_power_of_two() && align <= 4096);
                assert!(entry[65..].iter().all(|byte| *byte == 0));
                let base: u64 = match entry[64] {
                    1 => 0x7fe1_2340,
                    2 => 0xf_5670,
                    zone => panic!("zone {zone}"),
                };
                let address = base.next_multiple_of(align);
                let placed = Placed { address, bytes: given[&name].clone() };
                assert!(memory.insert(name, placed).is_none());
            }
            2 => {
                let target = memory[&text(&entry[60..116])].clone();
                let file = memory.get_mut(&text(&entry[4..60])).unwrap();
                let offset = usize::try_from(number(&entry[116..120])).unwrap();
                let size = usize::from(entry[120]);
                assert!([4, 8].contains(&size));
                let field = &mut file.bytes[offset..offset + size];
                let within = number(field);
                assert!(within < target.bytes.len() as u64, "a pointer past the target's end");
                let value = target.address + within;
                field.copy_from_slice(&value.to_le_bytes()[..size]);
                targets.push(value);
            }
            3 => {
                let file = memory.get_mut(&text(&entry[4..60])).unwrap();
                let field = |at: usize| usize::try_from(number(&entry[at..at + 4])).unwrap();
                let (at, start, length) = (field(60), field(64), field(68));
                assert!((start..start + length).contains(&at));
                assert_eq!(file.bytes[at], 0, "the old checksum would be summed");
                file.bytes[at] = 0_u8.wrapping_sub(sum(&file.bytes[start..start + length]));
            }
            command => panic!("command {command}"),
        }
    }
    targets.sort_unstable();
    targets.dedup();
    Patched { files: memory, targets }
}
