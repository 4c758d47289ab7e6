// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A board without a processor: tests do what firmware and kernels do to it.

#![allow(clippy::unwrap_used)]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::{Function, Pci, Spaces, bridges};
use crate::vm::bus::{Bus, BusDevice};
use crate::vm::dev::MsiSink;

/// A test that waits longer has failed.
pub(in crate::vm::dev) const DEADLINE: Duration = Duration::from_secs(20);
pub(in crate::vm::dev) const WINDOW: u64 = 0xc000_0000;

pub(in crate::vm::dev) struct Board {
    pub(in crate::vm::dev) ports: Arc<Bus>,
    pub(in crate::vm::dev) mmio: Arc<Bus>,
    pub(in crate::vm::dev) spaces: Arc<Spaces>,
    pub(in crate::vm::dev) pci: Arc<Mutex<Pci>>,
    pub(in crate::vm::dev) resets: Arc<Mutex<Stored>>,
    pub(in crate::vm::dev) messages: Receiver<(u64, u32)>,
    pub(in crate::vm::dev) sink: Arc<dyn MsiSink>,
    next: u64,
}

struct Sink(Mutex<Sender<(u64, u32)>>);

impl MsiSink for Sink {
    fn send(&self, address: u64, data: u32) {
        self.0.lock().unwrap().send((address, data)).unwrap();
    }
}

/// A register of one byte.
#[derive(Default)]
pub(in crate::vm::dev) struct Stored(pub(in crate::vm::dev) Vec<u8>);

impl BusDevice for Stored {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        assert_eq!((offset, data.len()), (0, 1));
        data[0] = self.0.last().copied().unwrap_or(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        assert_eq!((offset, data.len()), (0, 1));
        self.0.push(data[0]);
    }
}

impl Board {
    pub(in crate::vm::dev) fn new() -> Self {
        let (ports, mmio) = (Arc::default(), Arc::default());
        let spaces = Spaces::new(&ports, &mmio, WINDOW..0xfc00_0000, 0x2000..0x1_0000);
        let (sender, messages) = channel();
        let resets = Arc::new(Mutex::new(Stored::default()));
        let pci = Arc::new(Mutex::new(Pci::new(Arc::clone(&resets) as Arc<Mutex<dyn BusDevice>>)));
        {
            let mut pci = pci.lock().unwrap();
            pci.insert(0, 0, bridges::host(&spaces)).unwrap();
            pci.insert(1, 0, bridges::isa(&spaces)).unwrap();
            pci.insert(1, 3, bridges::power_management(&spaces)).unwrap();
        }
        ports.insert(0xcf8..0xd00, Arc::clone(&pci) as _).unwrap();
        let sink = Arc::new(Sink(Mutex::new(sender)));
        Self { ports, mmio, spaces, pci, resets, messages, sink, next: WINDOW }
    }

    pub(in crate::vm::dev) fn plug(&self, slot: u8, function: Function) {
        self.pci().insert(slot, 0, function).unwrap();
    }

    pub(in crate::vm::dev) fn pci(&self) -> MutexGuard<'_, Pci> {
        self.pci.lock().unwrap()
    }

    fn select(&self, place: (u8, u8), register: u8) {
        let place = u32::from(place.0) << 11 | u32::from(place.1) << 8;
        let address = 0x8000_0000 | place | u32::from(register & 0xfc);
        self.ports.write(0xcf8, &address.to_le_bytes());
    }

    pub(in crate::vm::dev) fn config<const N: usize>(
        &self,
        place: (u8, u8),
        register: u8,
    ) -> [u8; N] {
        self.select(place, register);
        let mut data = [0; N];
        self.ports.read(0xcfc + u64::from(register & 3), &mut data);
        data
    }

    pub(in crate::vm::dev) fn set_config<const N: usize>(
        &self,
        place: (u8, u8),
        register: u8,
        data: [u8; N],
    ) {
        self.select(place, register);
        self.ports.write(0xcfc + u64::from(register & 3), &data);
    }

    pub(in crate::vm::dev) fn config32(&self, place: (u8, u8), register: u8) -> u32 {
        u32::from_le_bytes(self.config(place, register))
    }

    /// Sizes the BARs with decoding off, places them, and turns decoding on: as firmware does.
    /// Gives their addresses.
    pub(in crate::vm::dev) fn assign(&mut self, place: (u8, u8)) -> [Option<u64>; 6] {
        self.set_config(place, 4, [0, 0]);
        let bars = [0, 1, 2, 3, 4, 5].map(|index| {
            let register = 0x10 + 4 * index;
            self.set_config(place, register, [0xff; 4]);
            let mask = self.config32(place, register);
            if mask == 0 {
                return None;
            }
            let size = u64::from(!(mask & !0xf) + 1);
            let address = self.next.next_multiple_of(size);
            self.next = address + size;
            self.set_config(place, register, (address as u32).to_le_bytes());
            Some(address)
        });
        self.set_config(place, 4, [7, 4]);
        bars
    }

    pub(in crate::vm::dev) fn read<const N: usize>(&self, address: u64) -> [u8; N] {
        let mut data = [0; N];
        self.mmio.read(address, &mut data);
        data
    }

    pub(in crate::vm::dev) fn message(&self) -> (u64, u32) {
        self.messages.recv_timeout(DEADLINE).unwrap()
    }
}
