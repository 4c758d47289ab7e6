// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

#![allow(clippy::unwrap_used)]

use std::sync::OnceLock;

use super::super::{Message, OffloadedNet, Signal, plug};
use super::*;
use crate::vm::dev::pci::mock::Board;
use crate::vm::memory::Memory;

const PLACE: (u8, u8) = (6, 0);
const BASE: u16 = 0x2000;

/// A kernel before modern rings, that remembers what it is told.
#[derive(Default)]
struct Kernel {
    told: Mutex<Vec<String>>,
    signal: OnceLock<Signal>,
}

impl Kernel {
    fn tell(&self, what: String) -> bool {
        self.told.lock().unwrap().push(what);
        true
    }

    fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

impl Offload for Kernel {
    fn is_modern(&self) -> bool {
        false
    }

    fn features(&self) -> u64 {
        1 << 0 | 1 << 15 | 1 << 28
    }

    fn mtu(&self) -> u16 {
        1500
    }

    fn set_features(&self, accepted: u64) -> bool {
        self.tell(format!("features {accepted:#x}"))
    }

    fn attach(&self, queue: u16, size: u16, addresses: [u64; 3]) -> bool {
        self.tell(format!("ring {queue} {size} {addresses:x?}"))
    }

    fn detach(&self, queue: u16) {
        self.tell(format!("no ring {queue}"));
    }

    fn notify(&self, queue: u16) {
        self.tell(format!("notify {queue}"));
    }

    fn set_message(&self, queue: u16, current: &dyn Fn() -> Option<Message>) {
        self.tell(format!("message {queue} {:x?}", current()));
    }

    fn set_signal(&self, signal: Signal) {
        assert!(self.signal.set(signal).is_ok());
    }

    fn place(&self, address: Option<u64>, bytes: u32) {
        self.tell(format!("place {address:x?} {bytes}"));
    }

    fn reset(&self) {
        self.tell("reset".into());
    }
}

struct Driver {
    board: Board,
    kernel: Arc<Kernel>,
    table: u64,
}

impl Driver {
    fn new() -> Self {
        let mut board = Board::new();
        let kernel = Arc::new(Kernel::default());
        let rings = Arc::clone(&kernel) as Arc<dyn Offload>;
        let net = OffloadedNet::new([2, 8, 0x20, 1, 2, 3], rings);
        let memory: Memory = Arc::new(vm_memory::GuestMemoryMmap::new());
        let function = plug(net, memory, Arc::clone(&board.sink), &board.spaces).unwrap();
        board.plug(PLACE.0, function);
        let table = board.assign(PLACE)[1].unwrap();
        board.set_config(PLACE, 0x10, u32::from(BASE).to_le_bytes());
        Self { board, kernel, table }
    }

    fn get<const N: usize>(&self, register: u64) -> [u8; N] {
        let mut data = [0; N];
        self.board.ports.read(u64::from(BASE) + register, &mut data);
        data
    }

    fn set<const N: usize>(&self, register: u64, data: [u8; N]) {
        self.board.ports.write(u64::from(BASE) + register, &data);
    }

    fn enable_msix(&self) {
        let at = self.board.config::<1>(PLACE, 0x34)[0];
        assert_eq!(self.board.config::<1>(PLACE, at), [0x11]);
        for vector in 0..3 {
            let entry = self.table + 16 * vector;
            self.board.mmio.write(entry, &0xfee0_1000u64.to_le_bytes());
            self.board.mmio.write(entry + 8, &vector.to_le_bytes());
        }
        self.board.set_config(PLACE, at + 2, [0, 0x80]);
    }
}

#[test]
fn it_is_the_device_that_old_drivers_look_for() {
    let driver = Driver::new();
    let config32 = |register| driver.board.config32(PLACE, register);
    assert_eq!(config32(0), 0x1000_1af4);
    assert_eq!(config32(8), 0x0200_0000);
    assert_eq!(config32(0x2c), 0x0001_1af4);
    // MTU, MAC and STATUS are ours, the others the kernel's.
    let offered = 1 | 1 << 3 | 1 << 5 | 1 << 15 | 1 << 16 | 1 << 28;
    assert_eq!(u32::from_le_bytes(driver.get(0)), offered);
    assert!(driver.kernel.told().contains(&"place Some(2010) 2".to_owned()));
    // The configuration moves when vectors are in use.
    let configuration = [2, 8, 0x20, 1, 2, 3, 1, 0, 1, 0, 0xdc, 5];
    assert_eq!(driver.get::<12>(20), configuration);
    driver.enable_msix();
    assert_eq!(driver.get::<12>(24), configuration);
    assert_eq!(driver.get::<2>(20), [0xff, 0xff]);
}

#[test]
fn rings_are_pages_with_their_parts_where_the_layout_says() {
    let driver = Driver::new();
    driver.enable_msix();
    driver.set(18, [3]);
    driver.set(4, 0xffff_ffffu32.to_le_bytes());
    driver.kernel.told();
    driver.set(14, [1, 0]);
    assert_eq!(driver.get::<2>(12), 1024u16.to_le_bytes());
    driver.set(8, 0x80u32.to_le_bytes());
    driver.set(22, [2, 0]);
    driver.set(18, [7]);
    driver.set(16, [1, 0]);
    driver.set(16, [2, 0]);
    let expected = [
        "ring 1 1024 [80000, 84000, 85000]",
        "message 1 None",
        "message 1 Some((fee01000, 2))",
        "notify 1",
    ];
    assert_eq!(driver.kernel.told(), expected);
    // A ring that has not changed is not taken again; one without a page is let go.
    driver.set(8, 0x80u32.to_le_bytes());
    driver.set(8, [0; 4]);
    assert_eq!(driver.kernel.told(), ["no ring 1"]);
    assert_eq!(driver.get::<4>(8), [0; 4]);
}

#[test]
fn features_are_told_at_once_and_only_those_offered() {
    let driver = Driver::new();
    driver.kernel.told();
    driver.set(4, (1u32 | 1 << 7 | 1 << 15).to_le_bytes());
    assert_eq!(driver.kernel.told(), ["features 0x8001"]);
    assert_eq!(u32::from_le_bytes(driver.get(4)), 0x8001);
}

#[test]
fn a_reset_and_an_interrupt_that_waits() {
    let driver = Driver::new();
    driver.enable_msix();
    driver.set(14, [0, 0]);
    driver.set(8, 5u32.to_le_bytes());
    driver.set(22, [1, 0]);
    (driver.kernel.signal.get().unwrap())(0);
    assert_eq!(driver.board.message(), (0xfee0_1000, 1));
    assert_eq!((driver.get::<1>(19), driver.get::<1>(19)), ([1], [0]));
    driver.set(18, [0]);
    assert!(driver.kernel.told().contains(&"reset".to_owned()));
    assert_eq!((driver.get::<4>(8), driver.get::<2>(22)), ([0; 4], [0xff, 0xff]));
}

#[test]
fn accesses_of_any_width_anywhere_harm_nobody() {
    let driver = Driver::new();
    for register in 0..u64::from(PORTS) {
        driver.get::<1>(register);
        driver.get::<2>(register);
        driver.get::<4>(register);
        driver.set(register, [0xff]);
        driver.set(register, [0xff; 2]);
        driver.set(register, [0xff; 4]);
    }
    driver.set(18, [0]);
    assert_eq!(driver.get::<1>(18), [0]);
}
