// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A guest's driver, by hand, on rings that viona serves: a frame there, one back, and another one.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::code::{Code, code};
use super::zone::{MAC, Zone, has_kvm};

/// Versions of viona that there are, and one that nobody has seen yet.
const VERSIONS: [u32; 8] = [0, 1, 2, 3, 4, 6, 7, 8];
const SLOT: u8 = 6;
const PORTS: u16 = 0x3000;
const REGISTERS: u32 = 0xc000_0000;
const VECTORS: u32 = 0xc001_0000;
const SIZE: u32 = 1024;
/// Where the rings are, receive and transmit; and their buffers.
const RINGS: [u32; 2] = [0x10_0000, 0x12_0000];
const AVAILABLE: u32 = 16 * SIZE;
const USED: u32 = AVAILABLE + 0x1000;
const BUFFERS: [u32; 2] = [0x14_0000, 0x15_0000];
/// Counters of interrupts.
const COUNTERS: [u32; 2] = [0x6010, 0x6014];
const LAPIC: u32 = 0xfee0_0000;

/// The driver for one kind of registers.
#[derive(Clone, Copy)]
struct Driver {
    is_modern: bool,
    has_messages: bool,
}

impl Driver {
    fn program(self) -> Code {
        code(|code| {
            self.find(code);
            if self.has_messages {
                self.set_up_messages(code);
            }
            if self.is_modern {
                self.begin_modern(code)
            } else {
                self.begin_legacy(code)
            }
            self.send(code, b"ping", 1);
            self.offer(code, 0, BUFFERS[0], 2048, 2, 1);
            // What comes without room for it is lost.
            code.say("ready ");
            self.receive(code);
            self.send(code, b"pang", 2);
            code.say("done");
        })
    }

    fn find(self, code: &mut Code) {
        let id = if self.is_modern { 0x1041_1af4 } else { 0x1000_1af4 };
        code.pci(SLOT, 0, 0);
        code.expect(id, "the network interface");
        let base = if self.is_modern { REGISTERS } else { PORTS.into() };
        code.set_pci(SLOT, 0, 0x10, base);
        code.set_pci(SLOT, 0, 0x14, VECTORS);
        code.set_pci(SLOT, 0, 0x04, 7);
    }

    /// MSI-X, with a message for each ring.
    fn set_up_messages(self, code: &mut Code) {
        let capability = if self.is_modern { 0x84 } else { 0x40 };
        code.pci(SLOT, 0, capability);
        code.and(0xff);
        code.expect(0x11, "MSI-X");
        code.set_pci(SLOT, 0, capability, 1 << 31);
        for (ring, entry) in [(0, VECTORS + 16), (1, VECTORS + 32)] {
            code.store32(entry, LAPIC);
            code.store32(entry + 4, 0);
            code.store32(entry + 8, 0x51 + ring);
            code.store32(entry + 12, 0);
        }
        code.store32(LAPIC + 0xf0, 0x1ff);
    }

    fn begin_legacy(self, code: &mut Code) {
        for status in [0, 1, 3] {
            code.out8(PORTS + 18, status);
        }
        code.in32(PORTS);
        code.expect_some("features");
        code.out32(PORTS + 4, 0);
        for (queue, ring) in (0..).zip(RINGS) {
            code.out16(PORTS + 14, queue);
            code.in16(PORTS + 12);
            code.expect(SIZE, "a ring's size");
            code.out32(PORTS + 8, ring >> 12);
            if self.has_messages {
                code.out16(PORTS + 22, queue + 1);
            }
        }
        code.out8(PORTS + 18, 7);
    }

    fn begin_modern(self, code: &mut Code) {
        for status in [0, 1, 3] {
            code.store8(REGISTERS + 0x14, status);
        }
        // VERSION_1 alone.
        for half in [1, 0] {
            code.store32(REGISTERS + 8, half);
            code.store32(REGISTERS + 12, half);
        }
        code.store8(REGISTERS + 0x14, 11);
        code.load8(REGISTERS + 0x14);
        code.expect(11, "features that are accepted");
        for (queue, ring) in (0..).zip(RINGS) {
            code.store16(REGISTERS + 0x16, queue);
            code.load16(REGISTERS + 0x18);
            code.expect(SIZE, "a ring's size");
            for (register, part) in [(0x20, 0), (0x28, AVAILABLE), (0x30, USED)] {
                code.store32(REGISTERS + register, ring + part);
                code.store32(REGISTERS + register + 4, 0);
            }
            if self.has_messages {
                code.store16(REGISTERS + 0x1a, queue + 1);
            }
            code.store16(REGISTERS + 0x1c, 1);
        }
        code.store8(REGISTERS + 0x14, 15);
    }

    /// Makes buffer 0 of a ring available for the `count`th time.
    fn offer(self, code: &mut Code, ring: u32, at: u32, bytes: u32, flags: u16, count: u16) {
        let base = RINGS[ring as usize];
        code.store32(base, at);
        code.store32(base + 8, bytes);
        code.store16(base + 12, flags);
        code.store16(base + AVAILABLE + 2, count);
        if self.is_modern {
            code.store16(REGISTERS + 0x3000 + 4 * ring, ring as u16);
        } else {
            code.out16(PORTS + 16, ring as u16);
        }
    }

    /// Bytes before a frame.
    fn header(self) -> u32 {
        if self.is_modern { 12 } else { 10 }
    }

    fn send(self, code: &mut Code, words: &[u8], count: u16) {
        code.store(BUFFERS[1] + self.header(), &frame([0xff; 6], MAC, words));
        self.offer(code, 1, BUFFERS[1], self.header() + 64, 0, count);
        code.wait(count.into(), |code| code.load16(RINGS[1] + USED + 2));
        self.await_interrupt(code, 1, count);
    }

    fn receive(self, code: &mut Code) {
        code.wait(1, |code| code.load16(RINGS[0] + USED + 2));
        code.load32(BUFFERS[0] + self.header() + 14);
        code.expect(u32::from_le_bytes(*b"pong"), "the frame that came");
        self.await_interrupt(code, 0, 1);
    }

    /// By message, or in the register, where the monitor puts what viona has it poll.
    fn await_interrupt(self, code: &mut Code, ring: usize, count: u16) {
        if self.has_messages {
            return code.halt_until(COUNTERS[ring], count.into());
        }
        code.wait(1, |code| {
            if self.is_modern {
                code.load8(REGISTERS + 0x1000)
            } else {
                code.in8(PORTS + 19)
            }
            code.and(1);
        });
    }
}

/// Counts an interrupt of a ring.
fn handler(ring: usize) -> Code {
    code(|code| {
        code.emit(&[0xff, 0x05], COUNTERS[ring]);
        code.store32(LAPIC + 0xb0, 0);
    })
}

fn frame(to: [u8; 6], from: [u8; 6], words: &[u8]) -> Vec<u8> {
    // Of a type for experiments.
    [&to[..], &from, &[0x88, 0xb5], words].concat()
}

/// The other end of the wire.
struct Peer(UnixDatagram, std::path::PathBuf);

impl Peer {
    fn new(zone: &Zone) -> Self {
        let wire = UnixDatagram::bind(zone.path("wire")).unwrap();
        wire.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self(wire, zone.path("wire.guest"))
    }

    #[track_caller]
    fn hears(&self, zone: &Zone, words: &[u8]) {
        let mut bytes = [0; 2048];
        let length = self.0.recv(&mut bytes).unwrap_or_else(|_| panic!("{}", zone.story()));
        assert_eq!(length, 64);
        let expected = frame([0xff; 6], MAC, words);
        assert_eq!(bytes[..expected.len()], expected, "{}", zone.story());
    }

    fn says(&self, words: &[u8]) {
        let mut bytes = frame(MAC, [2, 0, 0, 0, 0, 9], words);
        bytes.resize(64, 0);
        self.0.send_to(&bytes, &self.1).unwrap();
    }
}

/// A zone whose guest has a network interface.
fn zone(version: u32, viona: u32, program: &Code) -> Zone {
    let mut zone = Zone::new(version, viona);
    zone.link = Some("vm0");
    zone.install(program, &[(0x51, handler(0)), (0x52, handler(1))]);
    zone
}

/// The guest's conversation, so many times.
fn converse(zone: &Zone, times: usize) {
    let peer = Peer::new(zone);
    let mut monitor = zone.start();
    monitor.begin();
    for round in 0..times {
        peer.hears(zone, b"ping");
        monitor.hears(&("ready done".repeat(round) + "ready"));
        peer.says(b"pong");
        peer.hears(zone, b"pang");
    }
    let ended = monitor.end();
    assert_eq!(ended.serial, "ready done".repeat(times), "{}", zone.story());
    assert_eq!(ended.code, Some(0), "{}", zone.story());
    assert!(zone.machines().is_empty(), "{}", zone.story());
    let is_warned = zone.text("log").contains("viona has version 8");
    assert_eq!(is_warned, zone.viona == 8, "{}", zone.story());
    // The first notification of each ring; then the kernel takes them.
    assert!(zone.text("log").contains("vm0 had 2 notifications"), "{}", zone.story());
}

#[test]
fn frames_pass_in_both_directions() {
    if !has_kvm("frames_pass_in_both_directions") {
        return;
    }
    for viona in VERSIONS {
        for has_messages in [false, true] {
            let driver = Driver { is_modern: viona >= 6, has_messages };
            let mut program = driver.program();
            program.power_off();
            for version in [1, 15, 18] {
                converse(&zone(version, viona, &program), 1);
            }
        }
    }
}

#[test]
fn the_link_is_taken_again_after_a_reset() {
    if !has_kvm("the_link_is_taken_again_after_a_reset") {
        return;
    }
    for (version, viona) in [(1, 0), (4, 2), (15, 4), (16, 6), (18, 7)] {
        let driver = Driver { is_modern: viona >= 6, has_messages: true };
        let program = super::ends::twice(
            |code| {
                code.0.extend(driver.program().0);
                code.reset();
            },
            |code| {
                code.0.extend(driver.program().0);
                code.power_off();
            },
        );
        converse(&zone(version, viona, &program), 2);
    }
}

#[test]
fn what_viona_interrupts_or_refuses_does_not_end_the_guest() {
    if !has_kvm("what_viona_interrupts_or_refuses_does_not_end_the_guest") {
        return;
    }
    for viona in [1, 6] {
        let driver = Driver { is_modern: viona >= 6, has_messages: false };
        let mut program = driver.program();
        program.power_off();
        let mut zone = zone(18, viona, &program);
        let faults = "VNA_IOC_RING_RESET@1=EINTR,VNA_IOC_RING_PAUSE@1=EINTR,VNA_IOC_SET_MTU=EINVAL,\
                      VNA_IOC_DELETE=EIO";
        zone.fault(faults);
        converse(&zone, 1);
    }
}
