// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

#![allow(clippy::unwrap_used)]

use std::sync::{Mutex, OnceLock};

use super::super::mock::{Driver, PLACE, VERSION_1};
use super::super::{Message, Signal};
use super::*;

const CSUM: u64 = 1;
const CTRL_VQ: u64 = 1 << 17;
const INDIRECT: u64 = 1 << 28;

/// A kernel that remembers what it is told, in order.
#[derive(Default)]
struct Kernel {
    told: Mutex<Vec<String>>,
    signal: OnceLock<Signal>,
    refuses: bool,
}

impl Kernel {
    fn tell(&self, what: String) {
        self.told.lock().unwrap().push(what);
    }

    fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

impl Offload for Kernel {
    fn features(&self) -> u64 {
        CSUM | CTRL_VQ | INDIRECT
    }

    fn mtu(&self) -> u16 {
        9000
    }

    fn set_features(&self, accepted: u64) -> bool {
        self.tell(format!("features {accepted:#x}"));
        true
    }

    fn attach(&self, queue: u16, size: u16, addresses: [u64; 3]) -> bool {
        self.tell(format!("ring {queue} {size} {addresses:x?}"));
        !self.refuses
    }

    fn detach(&self, queue: u16) {
        self.tell(format!("no ring {queue}"));
    }

    fn notify(&self, queue: u16) {
        self.tell(format!("notify {queue}"));
    }

    fn set_message(&self, queue: u16, current: &dyn Fn() -> Option<Message>) {
        let data = current().map(|(address, data)| {
            assert_eq!(address, 0xfee0_0000);
            data
        });
        self.tell(format!("message {queue} {data:?}"));
    }

    fn set_signal(&self, signal: Signal) {
        assert!(self.signal.set(signal).is_ok());
    }

    fn place(&self, address: Option<u64>, bytes: u32) {
        self.tell(format!("place {} {bytes}", address.is_some()));
    }

    fn reset(&self) {
        self.tell("reset".into());
    }
}

fn driver(refuses: bool) -> (Driver, Arc<Kernel>) {
    let kernel = Arc::new(Kernel { refuses, ..Kernel::default() });
    let net = OffloadedNet::new([2, 8, 0x20, 1, 2, 3], Arc::clone(&kernel) as Arc<dyn Offload>);
    (Driver::new(net), kernel)
}

#[test]
fn it_offers_what_the_kernel_can_and_no_ring_that_nobody_serves() {
    let (driver, kernel) = driver(false);
    assert_eq!(driver.offered(), CSUM | MAC | STATUS | MTU | INDIRECT | VERSION_1);
    assert_eq!(driver.get::<12>(0x2000), [2, 8, 0x20, 1, 2, 3, 1, 0, 1, 0, 0x28, 0x23]);
    assert!(kernel.told().contains(&"place true 8".to_owned()));
}

#[test]
fn rings_come_after_features_and_messages_after_rings() {
    let (mut driver, kernel) = driver(false);
    driver.start(CSUM | MAC | VERSION_1);
    let told = kernel.told();
    let tail: Vec<&str> = told.iter().rev().take(5).rev().map(String::as_str).collect();
    let expected = [
        "features 0x100000021",
        "ring 0 8 [10000, 10400, 10800]",
        "message 0 Some(1)",
        "ring 1 8 [11000, 11400, 11800]",
        "message 1 Some(2)",
    ];
    assert_eq!(tail, expected);
}

#[test]
fn notifications_masks_and_resets_reach_the_kernel() {
    let (mut driver, kernel) = driver(false);
    driver.start(VERSION_1);
    kernel.told();
    driver.set(0x3004, [1, 0]);
    driver.set(0x3008, [2, 0]);
    assert_eq!(kernel.told(), ["notify 1"]);
    // The function's mask, then that of one vector.
    driver.board.set_config(PLACE, 0x86, [0, 0xc0]);
    assert_eq!(kernel.told(), ["message 0 None", "message 1 None"]);
    driver.board.mmio.write(driver.table + 16 + 12, &[1, 0, 0, 0]);
    driver.board.set_config(PLACE, 0x86, [0, 0x80]);
    assert_eq!(kernel.told()[2..], ["message 0 None", "message 1 Some(2)"]);
    // What the kernel cannot deliver is pending here, and sent when the mask goes.
    (kernel.signal.get().unwrap())(0);
    driver.board.mmio.write(driver.table + 16 + 12, &[0; 4]);
    assert_eq!(driver.board.message(), (0xfee0_0000, 1));
    assert_eq!(driver.get::<1>(0x1000), [1]);
    kernel.told();
    driver.set(0x14, [0]);
    assert!(kernel.told().contains(&"reset".to_owned()));
}

#[test]
fn a_ring_that_the_kernel_refuses_breaks_the_device() {
    let (driver, _) = driver(true);
    driver.set(0x14, [1]);
    driver.set(0x14, [3]);
    driver.accept(VERSION_1);
    driver.set(0x14, [0xb]);
    driver.set(0x1c, [1, 0]);
    driver.set(0x14, [0xf]);
    assert_eq!(driver.status() & 0x40, 0x40);
}
