// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use proptest::prelude::*;

use super::super::clock::FakeClock;
use super::super::mock::{acts, inb, outb, read};
use super::*;

const RAM: usize = 4 << 20;
const PLACE: u64 = 0x1000;
const TARGET: u64 = 0x2000;

fn device() -> FwCfg {
    let ranges = [(GuestAddress(0), RAM)];
    let memory = Arc::new(GuestMemoryMmap::from_ranges(&ranges).unwrap());
    FwCfg::new(memory, 5 << 30, 3, *b"0123456789abcdef")
        .add_file("etc/table-loader", b"script".to_vec())
        .add_file("bootorder", b"/pci\0".to_vec())
        .add_file("etc/acpi/tables", vec![1; 300])
}

fn select(device: &mut FwCfg, item: u16) {
    device.write(SELECTOR, &item.to_le_bytes());
}

fn item(device: &mut FwCfg, number: u16, length: usize) -> Vec<u8> {
    select(device, number);
    (0..length).map(|_| inb(device, DATA)).collect()
}

/// Runs a transfer; returns the control word that it leaves.
fn transfer(device: &mut FwCfg, control: u32, length: u32, address: u64) -> u32 {
    let mut block = control.to_be_bytes().to_vec();
    block.extend_from_slice(&length.to_be_bytes());
    block.extend_from_slice(&address.to_be_bytes());
    device.memory.write_slice(&block, GuestAddress(PLACE)).unwrap();
    device.write(DMA_HIGH, &[0; 4]);
    device.write(DMA_LOW, &(PLACE as u32).to_be_bytes());
    let mut left = [0; 4];
    device.memory.read_slice(&mut left, GuestAddress(PLACE)).unwrap();
    u32::from_be_bytes(left)
}

fn at_target<const N: usize>(device: &FwCfg) -> [u8; N] {
    let mut bytes = [0; N];
    device.memory.read_slice(&mut bytes, GuestAddress(TARGET)).unwrap();
    bytes
}

#[test]
fn firmware_finds_the_device_and_its_items() {
    let mut device = device();
    assert_eq!(item(&mut device, 0, 6), b"QEMU\0\0");
    assert_eq!(item(&mut device, 1, 4), [3, 0, 0, 0]);
    assert_eq!(item(&mut device, 2, 16), b"0123456789abcdef");
    assert_eq!(item(&mut device, 3, 8), (5_u64 << 30).to_le_bytes());
    assert_eq!((item(&mut device, 5, 2), item(&mut device, 0x0f, 2)), (vec![3, 0], vec![3, 0]));
    // Kernel, menu, and what does not exist.
    for number in [0x08, 0x0e, 0x17, 0x23, 0x8000, 0xffff] {
        assert_eq!(item(&mut device, number, 4), [0; 4]);
    }
    assert_eq!(u32::from_le_bytes(read(&mut device, DMA_HIGH)), 0x554d_4551);
    assert_eq!(u32::from_le_bytes(read(&mut device, DMA_LOW)), 0x4746_4320);
    // Neither a selector of 8 bits nor data is taken.
    select(&mut device, 0);
    outb(&mut device, SELECTOR, 1);
    outb(&mut device, DATA, 0);
    assert_eq!((inb(&mut device, DATA), inb(&mut device, SELECTOR)), (b'Q', 0xff));
}

#[test]
fn the_directory_is_sorted() {
    let mut device = device();
    let directory = item(&mut device, 0x19, 4 + 3 * 64);
    assert_eq!(directory[..4], [0, 0, 0, 3]);
    let entries: Vec<_> = directory[4..].chunks(64).collect();
    assert!(entries[0].starts_with(b"\0\0\0\x05\0\x20\0\0bootorder\0"));
    assert!(entries[1].starts_with(b"\0\0\x01\x2c\0\x21\0\0etc/acpi/tables\0"));
    assert!(entries[2].starts_with(b"\0\0\0\x06\0\x22\0\0etc/table-loader\0"));
    assert_eq!(item(&mut device, 0x22, 7), b"script\0");
    let mut device = device.add_file("bootorder", vec![7]).add_file(&"x".repeat(99), vec![]);
    let directory = item(&mut device, 0x19, 4 + 4 * 64);
    assert_eq!((directory[3], directory[7], directory[4 + 4 * 64 - 1]), (4, 1, 0));
    assert_eq!(item(&mut device, 0x20, 1), [7]);
}

#[test]
fn transfers_copy_select_and_skip() {
    let mut device = device();
    device.memory.write_slice(&[0xee; 16], GuestAddress(TARGET)).unwrap();
    assert_eq!(transfer(&mut device, 0x22 << 16 | SELECT | READ, 8, TARGET), 0);
    assert_eq!(at_target(&device), *b"script\0\0\xee");
    // On from where it was.
    assert_eq!(transfer(&mut device, SELECT | 0x20 << 16, 0, 0), 0);
    assert_eq!(transfer(&mut device, SKIP, 1, 0), 0);
    assert_eq!(transfer(&mut device, READ, 3, TARGET), 0);
    assert_eq!((at_target(&device), inb(&mut device, DATA)), (*b"pci", 0));
    // In one write of 64 bits.
    device.memory.write_slice(&[0, 0, 0, 8], GuestAddress(PLACE)).unwrap();
    device.write(DMA_HIGH, &PLACE.to_be_bytes());
    assert_eq!(inb(&mut device, DATA), b'Q');
}

#[test]
fn bad_transfers_fail() {
    let mut device = device();
    let read_all = READ | SELECT | 0x21 << 16;
    assert_eq!(transfer(&mut device, WRITE, 4, TARGET), ERROR);
    assert_eq!(transfer(&mut device, read_all, 4, RAM as u64 - 2), ERROR);
    assert_eq!(transfer(&mut device, read_all, 4, u64::MAX), ERROR);
    assert_eq!(transfer(&mut device, read_all, u32::MAX, TARGET), ERROR);
    assert_eq!(transfer(&mut device, read_all, 300 + (1 << 20), TARGET), 0);
    // Blocks where nothing is.
    device.write(DMA_LOW, &[0xff; 4]);
    device.write(DMA_HIGH, &[0xff; 8]);
    assert_eq!(item(&mut device, 0, 4), b"QEMU");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn nothing_breaks_it(
        acts in acts(PORTS),
        blocks in prop::collection::vec((any::<u32>(), 0..0x20_0000_u32, 0..8_u64 << 20), 1..10),
    ) {
        let (mut device, clock) = (device(), FakeClock::at(0));
        for act in acts {
            act.apply(&mut device, &clock);
        }
        for (control, length, address) in blocks {
            prop_assert!(transfer(&mut device, control, length, address) <= ERROR);
        }
    }
}
