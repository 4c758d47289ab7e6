// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;

use super::super::mock::{Driver, Part, VERSION_1};
use super::*;

const TRANSMIT: u16 = 1;
/// In a header's flags.
const NEEDS_CHECKSUM: u8 = 1;
/// The header of a received frame: nothing but the number of its buffers.
const ONE_BUFFER: FrameHeader = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// A cable whose other end is the test's.
#[derive(Default)]
struct Cable {
    sent: Mutex<Vec<Vec<u8>>>,
    coming: Mutex<VecDeque<Vec<u8>>>,
    carries: u64,
    accepted: Mutex<Vec<u64>>,
    headers: Mutex<Vec<FrameHeader>>,
    wake: OnceLock<Wake>,
}

impl Cable {
    fn arrive(&self, frame: &[u8]) {
        self.coming.lock().unwrap().push_back(frame.to_vec());
        (self.wake.get().unwrap())();
    }
}

impl Frames for Cable {
    fn offloads(&self) -> u64 {
        self.carries
    }

    fn set_offloads(&self, accepted: u64) {
        self.accepted.lock().unwrap().push(accepted);
    }

    fn send(&self, header: &FrameHeader, frame: &[u8]) {
        self.headers.lock().unwrap().push(*header);
        self.sent.lock().unwrap().push(frame.to_vec());
    }

    fn recv(&self, header: &mut FrameHeader, frame: &mut [u8]) -> Option<usize> {
        if self.carries != 0 {
            header[0] = NEEDS_CHECKSUM;
        }
        let next = self.coming.lock().unwrap().pop_front()?;
        frame[..next.len()].copy_from_slice(&next);
        Some(next.len())
    }

    fn set_wake(&self, wake: Wake) {
        assert!(self.wake.set(wake).is_ok());
    }
}

fn driver() -> (Driver, Arc<Cable>) {
    driver_of(Cable::default())
}

fn driver_of(cable: Cable) -> (Driver, Arc<Cable>) {
    let cable = Arc::new(cable);
    let net = Net::new([2, 8, 0x20, 1, 2, 3], Arc::clone(&cable) as Arc<dyn Frames>);
    (Driver::new(net), cable)
}

#[test]
fn it_has_an_address_and_its_link_is_up() {
    let (driver, _) = driver();
    assert_eq!(driver.offered() & 0xff_ffff, MAC | STATUS);
    assert_eq!(driver.get::<8>(0x2000), [2, 8, 0x20, 1, 2, 3, 1, 0]);
}

#[test]
fn frames_are_sent_without_their_header() {
    let (mut driver, cable) = driver();
    driver.start(VERSION_1 | MAC);
    let frame: Vec<u8> = (0..60).collect();
    assert_eq!(driver.request(TRANSMIT, &[Part::Out(&[0; 12]), Part::Out(&frame)]).0, 0);
    // Header and frame in one, and split anywhere.
    let all = [[0; 12].as_slice(), &frame].concat();
    driver.request(TRANSMIT, &[Part::Out(&all[..5]), Part::Out(&all[5..])]);
    // No frames at all.
    driver.request(TRANSMIT, &[Part::Out(&[0; 12]), Part::Out(&[1; 13])]);
    driver.request(TRANSMIT, &[Part::Out(&[0; 5])]);
    driver.request(TRANSMIT, &[Part::In(1000)]);
    driver.request(TRANSMIT, &[Part::Out(&vec![0; 12 + MAX_FRAME + 1])]);
    driver.request(TRANSMIT, &[Part::Out(&[0; 12]), Part::At(u64::MAX - 4096, 1000, false)]);
    assert_eq!(*cable.sent.lock().unwrap(), [frame.clone(), frame]);
}

#[test]
fn more_frames_than_a_ring_holds_are_all_sent() {
    let (mut driver, cable) = driver();
    driver.start(VERSION_1 | MAC);
    for _ in 0..600 {
        driver.request(TRANSMIT, &[Part::Out(&[0; 12]), Part::Out(&[7; 64])]);
    }
    assert_eq!(cable.sent.lock().unwrap().len(), 600);
}

#[test]
fn a_frame_waits_for_a_buffer() {
    let (mut driver, cable) = driver();
    // Before there is a driver.
    cable.arrive(&[1; 60]);
    driver.start(VERSION_1 | MAC);
    cable.arrive(&[2; 61]);
    for (length, byte) in [(60, 1u8), (61, 2)] {
        let (written, content) = driver.request(0, &[Part::In(12), Part::In(1514)]);
        assert_eq!(written, 12 + length);
        assert_eq!(content[..12], ONE_BUFFER);
        assert_eq!(content[12..12 + length as usize], vec![byte; length as usize]);
    }
    // A buffer waits for a frame.
    let writable = driver.offer(0, &[Part::In(1526)], false);
    driver.notify(0);
    cable.arrive(&[3; 1514]);
    driver.interrupt(0);
    assert_eq!(driver.poll(0), 1526);
    assert_eq!(driver.collect(&writable)[12..], [3; 1514]);
}

#[test]
fn what_is_too_large_for_the_buffer_is_lost_and_the_buffer_is_not() {
    let (mut driver, cable) = driver();
    driver.start(VERSION_1 | MAC);
    let writable = driver.offer(0, &[Part::In(100)], false);
    driver.notify(0);
    cable.arrive(&[1; 89]);
    cable.arrive(&[2; 88]);
    driver.interrupt(0);
    assert_eq!(driver.poll(0), 100);
    assert_eq!(driver.collect(&writable)[12..], [2; 88]);
}

#[test]
fn what_is_left_to_do_is_told_both_ways_once_the_driver_has_agreed() {
    let carries = offloads::CSUM | offloads::GUEST_CSUM | 1 << 22;
    let (mut driver, cable) = driver_of(Cable { carries, ..Cable::default() });
    assert_eq!(driver.offered() & 0xff_ffff, MAC | STATUS | offloads::CSUM | offloads::GUEST_CSUM);
    driver.start(VERSION_1 | MAC | offloads::CSUM);
    assert_eq!(cable.accepted.lock().unwrap().last(), Some(&offloads::CSUM));
    let mut header = PLAIN;
    header[0] = NEEDS_CHECKSUM;
    header[6] = 34;
    driver.request(TRANSMIT, &[Part::Out(&header), Part::Out(&[1; 60])]);
    assert_eq!(*cable.headers.lock().unwrap(), [header]);
    cable.arrive(&[2; 60]);
    let (_, content) = driver.request(0, &[Part::In(1526)]);
    assert_eq!(content[..12], [NEEDS_CHECKSUM, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    driver.board.pci().reset();
    assert_eq!(cable.accepted.lock().unwrap().last(), Some(&0));
}

#[test]
fn a_driver_that_agreed_to_nothing_leaves_nothing_to_do() {
    let (mut driver, cable) = driver_of(Cable { carries: offloads::ALL, ..Cable::default() });
    driver.start(VERSION_1 | MAC);
    driver.request(TRANSMIT, &[Part::Out(&[0xff; 12]), Part::Out(&[1; 60])]);
    assert_eq!(*cable.headers.lock().unwrap(), [PLAIN]);
}
