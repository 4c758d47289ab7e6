// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::super::mock::{Board, WINDOW};
use super::super::{Bar, Function, Identity, Msix, MsixPage, Place};
use super::*;
use crate::vm::bus::Bus;

const DEVICE: Identity = Identity {
    vendor: 0x1af4,
    device: 0x1041,
    class: 0x02_0000,
    revision: 1,
    subsystem: (0x1af4, 0x1100),
};

/// Answers with a letter.
struct Letter(u8);

impl BusDevice for Letter {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(self.0);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        self.0 = data[0];
    }
}

fn letter(letter: u8) -> Arc<Mutex<Letter>> {
    Arc::new(Mutex::new(Letter(letter)))
}

fn port(ports: &Bus, port: u64, size: usize) -> Vec<u8> {
    let mut data = vec![0x55; size];
    ports.read(port, &mut data);
    data
}

#[test]
fn mechanism_1_is_told_from_its_neighbours_by_width() {
    let board = Board::new();
    let ports = &board.ports;
    // Linux's check of mechanism #1.
    ports.write(0xcfb, &[1]);
    ports.write(0xcf8, &0x8000_0000u32.to_le_bytes());
    assert_eq!(port(ports, 0xcf8, 4), 0x8000_0000u32.to_le_bytes());
    ports.write(0xcfb, &[0]);
    assert_eq!(port(ports, 0xcfb, 1), [0xff]);
    assert_eq!(port(ports, 0xcfc, 4), 0x1237_8086u32.to_le_bytes());
    assert_eq!(port(ports, 0xcfe, 2), 0x1237u16.to_le_bytes());
    // The reset register does not disturb the address.
    ports.write(0xcf9, &[6]);
    assert_eq!(port(ports, 0xcf9, 1), [6]);
    assert_eq!(board.resets.lock().unwrap().0, [6]);
    ports.write(0xcf8, &[9]);
    ports.write(0xcf8, &[9, 9]);
    ports.write(0xcfa, &[9, 9]);
    assert_eq!(port(ports, 0xcf8, 4), 0x8000_0000u32.to_le_bytes());
    assert_eq!(port(ports, 0xcf8, 2), [0xff; 2]);
    // Not enabled, no such function, another bus.
    for address in [0u32, 0x8000_1000, 0x8001_0000, 0x8000_0700] {
        ports.write(0xcf8, &address.to_le_bytes());
        assert_eq!(port(ports, 0xcfc, 4), [0xff; 4], "{address:x}");
        ports.write(0xcfc, &[0; 4]);
    }
}

#[test]
fn bridges_are_what_both_firmwares_look_for() {
    let board = Board::new();
    let (host, isa, pm) = ((0, 0), (1, 0), (1, 3));
    assert_eq!(board.config32(host, 8) >> 8, 0x06_0000);
    assert_eq!((board.config32(isa, 0), board.config32(isa, 8) >> 8), (0x7000_8086, 0x06_0100));
    assert_eq!(board.config::<1>(isa, 0x0e), [0x80]);
    assert_eq!((board.config32(pm, 0), board.config32(pm, 8) >> 8), (0x7113_8086, 0x06_8000));
    assert_eq!((board.config32(pm, 0x40), board.config::<1>(pm, 0x80)), (0x401, [1]));
    // SioBusDxe wants to see what it enabled.
    for place in [host, isa, pm] {
        board.set_config(place, 4, [0xff, 0xff]);
        assert_eq!(board.config::<2>(place, 4), [0x07, 0x04]);
        board.set_config(place, 0x10, [0xff; 4]);
        board.set_config(place, 0x30, [0xff; 4]);
        assert_eq!((board.config32(place, 0x10), board.config32(place, 0x30)), (0, 0));
        board.set_config(place, 0, [0; 4]);
        assert_eq!(board.config::<2>(place, 0), [0x86, 0x80]);
        board.set_config(place, 0x3c, [10, 1]);
        assert_eq!(board.config::<2>(place, 0x3c), [10, 0]);
    }
    board.set_config(host, 0x5a, [0x33]);
    assert_eq!(board.config::<1>(host, 0x5a), [0x33]);
    assert_eq!(board.config32(isa, 0x60), 0x8080_8080);
    board.set_config(isa, 0x60, [11, 11, 10, 10]);
    assert_eq!(board.config::<4>(isa, 0x60), [11, 11, 10, 10]);
    // The PM base stays.
    board.set_config(pm, 0x40, [0, 0xb0]);
    assert_eq!(board.config32(pm, 0x40), 0x401);
    board.pci().reset();
    assert_eq!(board.config::<1>(host, 0x5a), [0]);
    assert_eq!(board.config32(isa, 0x60), 0x8080_8080);
}

#[test]
fn bars_are_sized_placed_and_moved() {
    let mut board = Board::new();
    let function = Function::new(&DEVICE, &board.spaces)
        .bar(0, Bar::registers(0x4000, letter(b'a')))
        .bar(1, Bar::registers(0x1000, letter(b'b')))
        .bar(2, Bar::ports(32, letter(b'p')));
    board.plug(4, function);
    let place = (4, 0);
    board.set_config(place, 0x10, [0xff; 4]);
    assert_eq!(board.config32(place, 0x10), 0xffff_c000);
    board.set_config(place, 0x18, [0xff; 4]);
    assert_eq!(board.config32(place, 0x18), 0xffff_ffe1);
    let bars = board.assign(place);
    let (a, b) = (bars[0].unwrap(), bars[1].unwrap());
    assert_eq!((board.read(a), board.read(b + 0xfff)), ([b'a'], [b'b']));
    // Ports, byte by byte.
    board.set_config(place, 0x18, [0x40]);
    board.set_config(place, 0x19, [0x20]);
    board.set_config(place, 0x1a, [0, 0]);
    assert_eq!(port(&board.ports, 0x205f, 1), b"p");
    // Sizing while decoding is on does not land on the local APICs.
    board.set_config(place, 0x10, [0xff; 4]);
    assert_eq!(board.read(a), [0xff]);
    assert_eq!(board.read(0xffff_c000), [0xff]);
    // Two BARs change places, one after the other.
    board.set_config(place, 0x10, (b as u32 & !0x3fff).to_le_bytes());
    assert_eq!(board.read(b), [b'b']);
    board.set_config(place, 0x14, (a as u32).to_le_bytes());
    assert_eq!((board.read(a), board.read(b)), ([b'b'], [b'a']));
    // Memory decoding off; ports stay.
    board.set_config(place, 4, [5, 0]);
    assert_eq!((board.read(a), board.read(b)), ([0xff], [0xff]));
    assert_eq!(port(&board.ports, 0x2040, 1), b"p");
    board.pci().reset();
    assert_eq!(port(&board.ports, 0x2040, 1), [0xff]);
    assert_eq!(board.config32(place, 0x18), 1);
}

#[test]
fn a_bar_that_waits_for_another_function_gets_its_place() {
    let mut board = Board::new();
    for (slot, name) in [(4, b'x'), (5, b'y')] {
        let function = Function::new(&DEVICE, &board.spaces);
        board.plug(slot, function.bar(0, Bar::registers(4096, letter(name))));
    }
    let old = board.assign((4, 0))[0].unwrap();
    board.assign((5, 0));
    board.set_config((5, 0), 0x10, (old as u32).to_le_bytes());
    assert_eq!(board.read(old), [b'x']);
    board.set_config((4, 0), 0x10, (old as u32 + 0x10_0000).to_le_bytes());
    assert_eq!((board.read(old), board.read(old + 0x10_0000)), ([b'y'], [b'x']));
}

#[test]
fn memory_is_hidden_before_it_is_shown_elsewhere() {
    let mut board = Board::new();
    let places = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&places);
    let place: Place = Arc::new(move |address| seen.lock().unwrap().push(address));
    let function = Function::new(&DEVICE, &board.spaces).bar(1, Bar::memory(1 << 24, place));
    board.plug(30, function);
    let first = board.assign((30, 0))[1].unwrap();
    assert_eq!(board.config32((30, 0), 0x14), first as u32 | 8);
    let second = first + (1 << 24);
    board.set_config((30, 0), 0x14, (second as u32).to_le_bytes());
    board.set_config((30, 0), 4, [0]);
    board.set_config((30, 0), 4, [2]);
    board.pci().reset();
    let expected = [Some(first), None, Some(second), None, Some(second), None];
    assert_eq!(*places.lock().unwrap(), expected);
    // Beyond the window: never.
    board.set_config((30, 0), 0x14, 0xfc00_0000u32.to_le_bytes());
    board.set_config((30, 0), 4, [2]);
    board.set_config((30, 0), 0x14, 0x8000_0000u32.to_le_bytes());
    assert_eq!(places.lock().unwrap().len(), expected.len());
}

fn msix_board() -> (Board, Arc<Msix>, u64) {
    let mut board = Board::new();
    let msix = Msix::new(3, Arc::clone(&board.sink));
    let page = Arc::new(Mutex::new(MsixPage(Arc::clone(&msix))));
    let function = Function::new(&DEVICE, &board.spaces)
        .bar(1, Bar::registers(4096, page))
        .capability(9, &[16, 1])
        .msix(1, Arc::clone(&msix));
    board.plug(4, function);
    let page = board.assign((4, 0))[1].unwrap();
    (board, msix, page)
}

#[test]
fn msix_holds_masked_messages_back() {
    let (board, msix, page) = msix_board();
    let place = (4, 0);
    assert_eq!(board.config::<1>(place, 6), [0x10]);
    assert_eq!(board.config::<4>(place, 0x34), [0x40, 0, 0, 0]);
    assert_eq!(board.config::<4>(place, 0x40), [9, 0x44, 16, 1]);
    assert_eq!(board.config32(place, 0x44), 0x0002_0011);
    assert_eq!((board.config32(place, 0x48), board.config32(place, 0x4c)), (1, 0x801));
    assert_eq!(board.read::<4>(page + 12), [1, 0, 0, 0]);
    // Disabled: lost.
    msix.trigger(1);
    let entry = page + 16;
    board.mmio.write(entry, &0xfee0_1000u64.to_le_bytes());
    board.mmio.write(entry + 8, &0x4021u32.to_le_bytes());
    board.set_config(place, 0x46, [0, 0xc0]);
    msix.trigger(1);
    assert_eq!(board.read::<4>(page + 0x800), [2, 0, 0, 0]);
    board.mmio.write(entry + 12, &[0; 4]);
    assert!(board.messages.try_recv().is_err(), "the function is masked");
    board.set_config(place, 0x46, [0, 0x80]);
    assert_eq!(board.message(), (0xfee0_1000, 0x4021));
    assert_eq!(board.read::<8>(page + 0x800), [0; 8]);
    msix.trigger(1);
    assert_eq!(board.message(), (0xfee0_1000, 0x4021));
    // Masked by its own bit, then unmasked.
    board.mmio.write(entry + 12, &[0xff; 4]);
    assert_eq!(board.read::<4>(entry + 12), [1, 0, 0, 0]);
    msix.trigger(1);
    msix.trigger(1);
    assert!(board.messages.try_recv().is_err());
    board.mmio.write(entry + 8, &0x22u64.to_le_bytes());
    assert_eq!(board.message(), (0xfee0_1000, 0x22));
    assert!(board.messages.try_recv().is_err(), "one message for one pending bit");
    // A vector that does not exist; an address that is no local APIC.
    msix.trigger(3);
    msix.trigger(u16::MAX);
    board.mmio.write(entry, &0x1000u64.to_le_bytes());
    msix.trigger(1);
    assert!(board.messages.try_recv().is_err());
    board.pci().reset();
    msix.trigger(1);
    assert_eq!(board.config::<2>(place, 0x46), [2, 0]);
    assert!(board.messages.try_recv().is_err());
}

#[test]
fn places_are_taken_once() {
    let board = Board::new();
    for (slot, number) in [(0, 0), (1, 3), (32, 0), (2, 8)] {
        let function = Function::new(&DEVICE, &board.spaces);
        assert!(board.pci().insert(slot, number, function).is_err(), "{slot}.{number}");
    }
}

proptest! {
    #[test]
    fn no_access_is_too_odd(
        accesses in prop::collection::vec(
            (any::<bool>(), 0u64..8, 0u32..0x10_0000, prop::sample::select(vec![1usize, 2, 4, 8]), any::<u64>()),
            1..200,
        ),
    ) {
        let (board, msix, page) = msix_board();
        for (is_write, offset, address, size, value) in accesses {
            let data = &value.to_le_bytes()[..size];
            let mut answer = vec![0; size];
            // Straight to the device too: the bus would refuse what crosses its end.
            let mut pci = board.pci();
            pci.write(0, &(0x8000_0000 | address).to_le_bytes());
            if is_write { pci.write(offset, data) } else { pci.read(offset, &mut answer) }
            drop(pci);
            let mut direct = MsixPage(Arc::clone(&msix));
            direct.write(value % 0x1010, data);
            direct.read(value % 0x1010, &mut answer);
            direct.read(u64::from(address) << 44, &mut answer);
            board.mmio.write(page + u64::from(address & 0xfff), data);
            msix.trigger(value as u16);
        }
        prop_assert!(board.read::<1>(WINDOW - 1) == [0xff]);
    }
}
