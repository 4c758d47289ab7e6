// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

#![allow(clippy::unwrap_used)]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::super::mock::{Driver, EVENT_IDX, PLACE, Part, VERSION_1};
use super::super::{Kind, Rng, Wake};
use super::*;
use crate::vm::dev::pci::mock::DEADLINE;

/// Stops in the middle of each request until the device is being reset and it is told to go on.
struct Stopping {
    began: Mutex<Sender<()>>,
    go_on: Mutex<Receiver<()>>,
    resets: Mutex<Sender<()>>,
}

impl VirtioDevice for Stopping {
    fn kind(&self) -> Kind {
        Kind::Block
    }

    fn features(&self) -> u64 {
        1
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![16]
    }

    fn config(&self) -> Vec<u8> {
        vec![1, 2, 3]
    }

    fn serve(&self, _queue: usize, ring: &mut Ring) {
        while let Some(mut chain) = ring.take() {
            self.began.lock().unwrap().send(()).unwrap();
            let end = Instant::now() + DEADLINE;
            while !ring.is_cancelled() {
                assert!(Instant::now() < end, "no reset");
                std::thread::yield_now();
            }
            self.began.lock().unwrap().send(()).unwrap();
            self.go_on.lock().unwrap().recv_timeout(DEADLINE).unwrap();
            chain.writable.write(b"late").unwrap();
            ring.done(&chain);
        }
    }

    fn reset(&self) {
        self.resets.lock().unwrap().send(()).unwrap();
    }

    fn set_wake(&self, wake: Wake) {
        // Before the driver is ready there is nothing to serve.
        wake();
    }
}

#[test]
fn a_modern_function_is_found_by_its_capabilities() {
    let driver = Driver::new(Rng::new());
    let config = |register| driver.board.config32(PLACE, register);
    assert_eq!((config(0), config(8)), (0x1044_1af4, 0x00ff_0001));
    assert_eq!(config(0x2c), 0x1100_1af4);
    let mut at = driver.board.config::<1>(PLACE, 0x34)[0];
    let mut found = Vec::new();
    while at != 0 {
        let [id, next, length, kind] = driver.board.config(PLACE, at);
        found.push(match id {
            9 => {
                assert_eq!(length, if kind == 2 { 20 } else { 16 });
                assert_eq!(driver.board.config::<1>(PLACE, at + 4), [0]);
                (kind, config(at + 8), config(at + 12))
            }
            _ => (id, config(at + 4), config(at + 8)),
        });
        at = next;
    }
    let expected =
        [(1, 0, 0x38), (2, 0x3000, 0x1000), (3, 0x1000, 4), (4, 0x2000, 0x1000), (0x11, 1, 0x801)];
    assert_eq!(found, expected);
    assert_eq!(config(0x60), 4, "notification multiplier");
}

#[test]
fn features_are_refused_when_they_were_not_offered() {
    let driver = Driver::new(Rng::new());
    let offered = driver.offered();
    assert_eq!(offered, 0x1_3000_0000);
    for bad in [0, 1 << 28, VERSION_1 | 1, VERSION_1 | 1 << 33] {
        driver.set(0x14, [0]);
        driver.set(0x14, [3]);
        driver.accept(bad);
        driver.set(0x14, [0xb]);
        assert_eq!(driver.status(), 3, "{bad:x}");
        // A driver that goes on all the same gets nothing.
        driver.set(0x14, [0xf]);
        assert_eq!(driver.status() & 4, 0);
    }
    driver.set(0x14, [0]);
    driver.set(0x14, [3]);
    driver.accept(offered);
    driver.set(8, 2u32.to_le_bytes());
    driver.set(0xc, [0; 4]);
    driver.set(0x14, [0xb]);
    assert_eq!(driver.status(), 0xb);
    driver.accept(0);
    driver.set(8, [1, 0, 0, 0]);
    assert_eq!(driver.get(0xc), [1, 0, 0, 0], "they are fixed now");
}

#[test]
fn ring_registers_keep_only_what_can_be() {
    let driver = Driver::new(Rng::new());
    assert_eq!(driver.get::<2>(0x12), [1, 0]);
    assert_eq!(driver.get::<2>(0x18), [64, 0]);
    assert_eq!(driver.get::<2>(0x1a), [0xff, 0xff]);
    for bad in [0u16, 3, 128, 0xffff] {
        driver.set(0x18, bad.to_le_bytes());
        assert_eq!(driver.get::<2>(0x18), [64, 0]);
    }
    driver.set(0x18, [16, 0]);
    assert_eq!(driver.get::<2>(0x18), [16, 0]);
    driver.set(0x1a, [2, 0]);
    assert_eq!(driver.get::<2>(0x1a), [0xff, 0xff], "there are two vectors");
    driver.set(0x1a, [1, 0]);
    assert_eq!(driver.get::<2>(0x1a), [1, 0]);
    driver.set(0x20, 0x1234_5678_9abc_def0u64.to_le_bytes());
    driver.set(0x24, [1, 0, 0, 0]);
    assert_eq!(driver.get::<8>(0x20), 0x1_9abc_def0u64.to_le_bytes());
    driver.set(0x1c, [1, 0]);
    driver.set(0x20, [0; 8]);
    driver.set(0x18, [8, 0]);
    assert_eq!(
        (driver.get::<8>(0x20), driver.get(0x18)),
        (0x1_9abc_def0u64.to_le_bytes(), [16, 0])
    );
    // A ring that does not exist.
    driver.set(0x16, [1, 0]);
    assert_eq!((driver.get::<2>(0x18), driver.get::<2>(0x1c)), ([0; 2], [0; 2]));
    driver.set(0x1c, [1, 0]);
    driver.set(0x14, [0]);
    driver.set(0x16, [0, 0]);
    assert_eq!((driver.get::<2>(0x18), driver.get::<2>(0x1c)), ([64, 0], [0; 2]));
    assert_eq!(driver.get::<8>(0x20), [0; 8]);
}

#[test]
fn a_request_goes_through_and_interrupts() {
    let mut driver = Driver::new(Rng::new());
    driver.start(VERSION_1);
    for _ in 0..20 {
        let (written, content) = driver.request(0, &[Part::In(40), Part::In(24)]);
        assert_eq!(written, 64);
        assert_ne!(content, vec![0; 64]);
    }
    assert_eq!(driver.get::<1>(0x1000), [1]);
    assert_eq!(driver.get::<4>(0x1000), [0; 4]);
    // More than anyone needs: only the beginning is filled.
    assert_eq!(driver.request(0, &[Part::In(1 << 20)]).0, 4096);
}

#[test]
fn a_driver_that_polls_is_not_interrupted() {
    let mut driver = Driver::new(Rng::new());
    driver.start(VERSION_1);
    driver.set_no_interrupt(0, 1);
    driver.offer(0, &[Part::In(64)], true);
    driver.notify(0);
    assert_eq!(driver.poll(0), 64);
    // The device looks at the flag after the driver has seen the answer; a reset waits for that.
    driver.set(0x14, [0]);
    assert!(driver.board.messages.try_recv().is_err(), "no interrupt");
    driver.start(VERSION_1);
    driver.request(0, &[Part::In(8)]);
    assert!(driver.board.messages.try_recv().is_err(), "one interrupt only");
}

#[test]
fn event_index_asks_for_an_interrupt_when_it_is_due() {
    let mut driver = Driver::new(Rng::new());
    driver.start(VERSION_1 | EVENT_IDX);
    // Tell when the third is used.
    driver.set_used_event(0, 2);
    for _ in 0..4 {
        driver.offer(0, &[Part::In(16)], false);
    }
    driver.notify(0);
    for _ in 0..4 {
        assert_eq!(driver.poll(0), 16);
    }
    driver.interrupt(0);
    assert!(driver.board.messages.try_recv().is_err());
    // The device sleeps: the driver must find that it wants to be notified.
    driver.set_used_event(0, 4);
    driver.request(0, &[Part::In(16)]);
}

#[test]
fn a_reset_waits_for_what_is_in_flight() {
    let (began, has_begun) = channel();
    let (go, go_on) = channel();
    let (resets, was_reset) = channel();
    let device =
        Stopping { began: Mutex::new(began), go_on: Mutex::new(go_on), resets: Mutex::new(resets) };
    let mut driver = Driver::new(Arc::new(device));
    assert_eq!(driver.get::<4>(0x2001), [2, 3, 0, 0]);
    driver.start(VERSION_1);
    was_reset.recv_timeout(DEADLINE).unwrap();
    let first = driver.offer(0, &[Part::In(4)], false);
    let second = driver.offer(0, &[Part::In(4)], false);
    driver.notify(0);
    has_begun.recv_timeout(DEADLINE).unwrap();
    let mmio = Arc::clone(&driver.board.mmio);
    let bar = driver.bar;
    let resetting = std::thread::spawn(move || mmio.write(bar + 0x14, &[0]));
    has_begun.recv_timeout(DEADLINE).unwrap();
    assert!(was_reset.try_recv().is_err(), "a request is being worked on");
    assert!(!resetting.is_finished());
    go.send(()).unwrap();
    resetting.join().unwrap();
    was_reset.try_recv().unwrap();
    assert_eq!(driver.status(), 0);
    assert_eq!(driver.collect(&first), b"late");
    assert!(has_begun.try_recv().is_err(), "the second request is not begun any more");
    assert_eq!(driver.collect(&second), [0; 4]);
    driver.memory.write_slice(&[0; 4], GuestAddress(first[0].0)).unwrap();
    driver.notify(0);
    driver.start(VERSION_1);
    assert_eq!(driver.collect(&first), [0; 4], "nothing is left of the old rings");
}

#[test]
fn a_ring_of_nonsense_breaks_the_device_until_its_reset() {
    let mut driver = Driver::new(Rng::new());
    driver.start(VERSION_1);
    // More chains than the ring has places.
    driver.memory.write_obj(9u16, GuestAddress(0x1_0402)).unwrap();
    driver.notify(0);
    assert_eq!(driver.board.message(), (0xfee0_0000, 0), "a configuration interrupt");
    assert_eq!(driver.status(), 0x4f);
    driver.start(VERSION_1);
    driver.request(0, &[Part::In(8)]);
    // Buffers outside RAM are used up without a byte.
    assert_eq!(driver.request(0, &[Part::Out(b"x"), Part::Out(b"y")]), (0, Vec::new()));
    driver.offer(0, &[Part::At(u64::MAX - 8, 64, true)], false);
    driver.notify(0);
    assert_eq!(driver.poll(0), 0);
    // Rings outside RAM.
    driver.set(0x14, [0]);
    driver.set(0x14, [3]);
    driver.accept(VERSION_1);
    driver.set(0x14, [0xb]);
    driver.set(0x28, [0, 0, 0, 0xf0]);
    driver.set(0x1c, [1, 0]);
    driver.set(0x14, [0xf]);
    assert_eq!(driver.status(), 0x4f);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_register_access_is_too_odd(
        accesses in prop::collection::vec((0u64..0x4010, 0usize..4, any::<u64>()), 1..100),
        common in prop::collection::vec((0u64..0x38, 0usize..4, any::<u64>()), 1..100),
        ram in prop::collection::vec(any::<u16>(), 64),
    ) {
        let mut driver = Driver::new(Rng::new());
        driver.start(VERSION_1 | EVENT_IDX);
        for (index, word) in ram.iter().enumerate() {
            driver.memory.write_obj(*word, GuestAddress(0x1_0000 + 0x19 * index as u64)).unwrap();
        }
        for (offset, size, value) in accesses.into_iter().chain(common) {
            let data = &value.to_le_bytes()[..1 << size];
            driver.board.mmio.write(driver.bar + offset, data);
            driver.board.mmio.read(driver.bar + offset, &mut [0; 8][..1 << size]);
            driver.notify(0);
        }
        driver.start(VERSION_1);
        while driver.board.messages.try_recv().is_ok() {}
        driver.request(0, &[Part::In(8)]);
    }
}
