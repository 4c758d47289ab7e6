// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A driver: it finds a virtio function, brings it up as Linux does, and sends requests.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{Transport, VirtioDevice};
use crate::vm::dev::pci::mock::{Board, DEADLINE};
use crate::vm::memory::Memory;

pub(super) const PLACE: (u8, u8) = (4, 0);
pub(super) const RAM: u64 = 16 << 20;
pub(super) const EVENT_IDX: u64 = 1 << 29;
pub(super) const VERSION_1: u64 = 1 << 32;
const SIZE: u16 = 8;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Guest memory, a board, and one device in it.
pub(super) struct Driver {
    pub(super) board: Board,
    pub(super) memory: Memory,
    pub(super) bar: u64,
    pub(super) table: u64,
    rings: Vec<MockRing>,
    buffers: u64,
}

#[derive(Clone, Copy)]
struct MockRing {
    base: u64,
    sent: u16,
    seen: u16,
    next: u16,
}

impl MockRing {
    fn descriptor(&self, index: u16) -> GuestAddress {
        GuestAddress(self.base + 16 * u64::from(index))
    }

    fn available(&self) -> u64 {
        self.base + 0x400
    }

    fn used(&self) -> u64 {
        self.base + 0x800
    }
}

/// One part of a request.
pub(super) enum Part<'a> {
    Out(&'a [u8]),
    In(u32),
    At(u64, u32, bool),
}

impl Driver {
    /// Plugs the device in and assigns its BARs.
    pub(super) fn new(device: Arc<dyn VirtioDevice>) -> Self {
        let mut board = Board::new();
        let memory: GuestMemoryMmap =
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap();
        let memory = Arc::new(memory);
        let sink = Arc::clone(&board.sink);
        let function =
            Transport::function(device, Arc::clone(&memory), sink, &board.spaces).unwrap();
        board.plug(PLACE.0, function);
        let bars = board.assign(PLACE);
        let (bar, table) = (bars[0].unwrap(), bars[1].unwrap());
        Self { board, memory, bar, table, rings: Vec::new(), buffers: 0x10_0000 }
    }

    pub(super) fn get<const N: usize>(&self, offset: u64) -> [u8; N] {
        self.board.read(self.bar + offset)
    }

    pub(super) fn set<const N: usize>(&self, offset: u64, data: [u8; N]) {
        self.board.mmio.write(self.bar + offset, &data);
    }

    pub(super) fn status(&self) -> u8 {
        self.get::<1>(0x14)[0]
    }

    pub(super) fn offered(&self) -> u64 {
        let half = |select: u32| {
            self.set(0, select.to_le_bytes());
            u64::from(u32::from_le_bytes(self.get(4)))
        };
        half(0) | half(1) << 32
    }

    pub(super) fn accept(&self, features: u64) {
        for (select, half) in [(0u32, features as u32), (1, (features >> 32) as u32)] {
            self.set(8, select.to_le_bytes());
            self.set(0xc, half.to_le_bytes());
        }
    }

    /// Everything up to DRIVER_OK, with these features accepted and one vector per ring.
    pub(super) fn start(&mut self, features: u64) {
        self.set(0x14, [0]);
        self.set(0x14, [1]);
        self.set(0x14, [3]);
        self.accept(features);
        self.set(0x14, [0xb]);
        assert_eq!(self.status(), 0xb);
        let count = u16::from_le_bytes(self.get(0x12));
        self.program_vectors(count);
        self.rings = (0..count).map(|queue| self.set_up(queue)).collect();
        self.set(0x14, [0xf]);
        assert_eq!(self.status(), 0xf);
    }

    /// MSI-X on, vector 0 for configuration, vector n + 1 for ring n; data = the vector.
    fn program_vectors(&self, queues: u16) {
        self.board.set_config(PLACE, 0x86, [0, 0xc0]);
        for vector in 0..=queues {
            let entry = self.table + 16 * u64::from(vector);
            self.board.mmio.write(entry, &0xfee0_0000u64.to_le_bytes());
            self.board.mmio.write(entry + 8, &u64::from(vector).to_le_bytes());
        }
        self.board.set_config(PLACE, 0x86, [0, 0x80]);
        self.set(0x10, [0, 0]);
        assert_eq!(self.get(0x10), [0, 0]);
    }

    fn set_up(&self, queue: u16) -> MockRing {
        let base = 0x1_0000 + 0x1000 * u64::from(queue);
        let ring = MockRing { base, sent: 0, seen: 0, next: 0 };
        self.memory.write_slice(&[0; 0x1000], GuestAddress(base)).unwrap();
        self.set(0x16, queue.to_le_bytes());
        assert!(u16::from_le_bytes(self.get(0x18)) >= 4);
        assert_eq!(self.get::<2>(0x1c), [0, 0]);
        self.set(0x18, SIZE.to_le_bytes());
        self.set(0x1a, (queue + 1).to_le_bytes());
        assert_eq!(self.get(0x1a), (queue + 1).to_le_bytes());
        for (register, address) in [(0x20, base), (0x28, ring.available()), (0x30, ring.used())] {
            self.set(register, (address as u32).to_le_bytes());
            self.set(register + 4, [0; 4]);
        }
        self.set(0x1c, [1, 0]);
        ring
    }

    /// Guest memory for a buffer.
    pub(super) fn room(&mut self, bytes: u32) -> u64 {
        if self.buffers + u64::from(bytes) > RAM {
            self.buffers = 0x10_0000;
        }
        let at = self.buffers;
        self.buffers += u64::from(bytes).next_multiple_of(64);
        at
    }

    /// Makes a chain available without a notification; gives where its writable parts are.
    pub(super) fn offer(
        &mut self,
        queue: u16,
        parts: &[Part<'_>],
        indirect: bool,
    ) -> Vec<(u64, u32)> {
        let mut writable = Vec::new();
        let mut descriptors = Vec::new();
        for part in parts {
            let (address, length, is_in) = match *part {
                Part::Out(bytes) => {
                    let at = self.room(bytes.len() as u32);
                    self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
                    (at, bytes.len() as u32, false)
                }
                Part::In(length) => (self.room(length), length, true),
                Part::At(address, length, is_in) => (address, length, is_in),
            };
            if is_in {
                writable.push((address, length));
            }
            descriptors.push((address, length, if is_in { WRITE } else { 0 }));
        }
        if indirect {
            let table = self.room(16 * descriptors.len() as u32);
            self.write_descriptors(
                &descriptors,
                |index| GuestAddress(table + 16 * u64::from(index)),
                0,
            );
            descriptors = vec![(table, 16 * descriptors.len() as u32, INDIRECT)];
        }
        let ring = self.rings[usize::from(queue)];
        let head = ring.next;
        self.write_descriptors(&descriptors, |index| ring.descriptor(index % SIZE), head);
        let ring = &mut self.rings[usize::from(queue)];
        ring.next = (head + descriptors.len() as u16) % SIZE;
        let slot = GuestAddress(ring.available() + 4 + 2 * u64::from(ring.sent % SIZE));
        ring.sent = ring.sent.wrapping_add(1);
        let index = GuestAddress(ring.available() + 2);
        self.memory.write_obj(head, slot).unwrap();
        self.memory.store(ring.sent, index, Ordering::Release).unwrap();
        writable
    }

    fn write_descriptors(
        &self,
        descriptors: &[(u64, u32, u16)],
        place: impl Fn(u16) -> GuestAddress,
        head: u16,
    ) {
        for (index, (address, length, flags)) in descriptors.iter().enumerate() {
            let is_last = index + 1 == descriptors.len();
            let at = head + index as u16;
            let next = if head == 0 && is_last {
                0
            } else {
                (at + 1) % SIZE.max(descriptors.len() as u16)
            };
            let flags = flags | if is_last { 0 } else { NEXT };
            let mut bytes = address.to_le_bytes().to_vec();
            bytes.extend(length.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
            bytes.extend(next.to_le_bytes());
            self.memory.write_slice(&bytes, place(at)).unwrap();
        }
    }

    pub(super) fn notify(&self, queue: u16) {
        self.set(0x3000 + 4 * u64::from(queue), queue.to_le_bytes());
    }

    /// Whether the device asks for notifications (without EVENT_IDX).
    pub(super) fn set_no_interrupt(&self, queue: u16, flags: u16) {
        let ring = self.rings[usize::from(queue)];
        self.memory.store(flags, GuestAddress(ring.available()), Ordering::Release).unwrap();
    }

    pub(super) fn set_used_event(&self, queue: u16, index: u16) {
        let ring = self.rings[usize::from(queue)];
        let at = GuestAddress(ring.available() + 4 + 2 * u64::from(SIZE));
        self.memory.store(index, at, Ordering::SeqCst).unwrap();
    }

    pub(super) fn used_index(&self, queue: u16) -> u16 {
        let ring = self.rings[usize::from(queue)];
        self.memory.load(GuestAddress(ring.used() + 2), Ordering::Acquire).unwrap()
    }

    /// Waits for the next used chain by polling, as firmware does; gives the bytes written.
    pub(super) fn poll(&mut self, queue: u16) -> u32 {
        let end = Instant::now() + DEADLINE;
        while self.used_index(queue) == self.rings[usize::from(queue)].seen {
            assert!(Instant::now() < end, "the device does not answer");
            std::thread::yield_now();
        }
        let ring = &mut self.rings[usize::from(queue)];
        let element = ring.used() + 4 + 8 * u64::from(ring.seen % SIZE);
        ring.seen = ring.seen.wrapping_add(1);
        self.memory.read_obj(GuestAddress(element + 4)).unwrap()
    }

    /// Waits for the interrupt of a ring.
    pub(super) fn interrupt(&self, queue: u16) {
        assert_eq!(self.board.message(), (0xfee0_0000, u32::from(queue) + 1));
    }

    /// A whole request; gives the bytes written, and what the writable parts hold.
    pub(super) fn request(&mut self, queue: u16, parts: &[Part<'_>]) -> (u32, Vec<u8>) {
        let writable = self.offer(queue, parts, false);
        self.notify(queue);
        self.interrupt(queue);
        let written = self.poll(queue);
        (written, self.collect(&writable))
    }

    pub(super) fn collect(&self, writable: &[(u64, u32)]) -> Vec<u8> {
        let mut content = Vec::new();
        for (address, length) in writable {
            let mut part = vec![0; *length as usize];
            self.memory.read_slice(&mut part, GuestAddress(*address)).unwrap();
            content.extend(part);
        }
        content
    }
}
