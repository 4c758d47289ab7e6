// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! viona, with the client in the place of the guest's driver: it writes the rings.

use std::os::unix::net::UnixDatagram;

use super::client::{self, call, get, pack};
use super::number::*;
use super::{Rule, rule};

pub const RAM: u64 = 1 << 20;
pub const LINK: u64 = 7;
pub const MAC: [u8; 6] = [2, 8, 0x20, 0, 0, 1];
pub const MRG_RXBUF: u64 = 1 << 15;
pub const VERSION_1: u64 = 1 << 32;
/// Where the rings are: descriptors of 256, the rest each in a page.
pub const RINGS: [u64; 2] = [0x1_0000, 0x2_0000];
pub const BUFFER: u64 = 0x8_0000;
pub const SIZE: u64 = 256;

/// A rule about viona of these versions. The link leads to a socket in the state's directory.
pub fn viona(name: &'static str, versions: &[u32]) -> Rule {
    let links = format!("net0,{LINK},02:08:20:00:00:01,unix:{{state}}/peer");
    rule(name, [18]).under_viona(versions).with("VMM_MODEL_LINKS", links)
}

/// Where the other end of the link is.
pub fn peer() -> String {
    std::env::var("VMM_MODEL_STATE").unwrap() + "/peer"
}

pub struct Nic {
    pub machine: i32,
    pub fd: i32,
    pub ram: *mut u8,
    pub peer: UnixDatagram,
}

impl Nic {
    pub fn new() -> Self {
        let machine = client::machine("net");
        Self::of(machine)
    }

    /// Of a machine that has no memory yet.
    pub fn of(machine: i32) -> Self {
        client::allocate(machine, 0, RAM, "").unwrap();
        client::place(machine, 0, 0, RAM, 7).unwrap();
        Self::with_memory(machine)
    }

    pub fn with_memory(machine: i32) -> Self {
        let peer = UnixDatagram::bind(peer()).unwrap();
        let fd = client::open("/dev/viona", libc::O_RDWR | libc::O_CLOEXEC).unwrap();
        attach(fd, LINK, machine).unwrap();
        let ram = client::map(machine, 0, RAM as usize).unwrap();
        Self { machine, fd, ram, peer }
    }

    pub fn write(&self, at: u64, bytes: &[u8]) {
        assert!(at + bytes.len() as u64 <= RAM);
        // SAFETY: the range is inside of the mapping.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.ram.add(at as usize), bytes.len());
        }
    }

    pub fn read(&self, at: u64, len: usize) -> Vec<u8> {
        assert!(at + len as u64 <= RAM);
        let mut bytes = vec![0; len];
        // SAFETY: the range is inside of the mapping.
        unsafe {
            std::ptr::copy_nonoverlapping(self.ram.add(at as usize), bytes.as_mut_ptr(), len);
        }
        bytes
    }

    pub fn init(&self, ring: u64) -> Result<i32, i32> {
        init(self.fd, ring, SIZE, RINGS[ring as usize])
    }

    /// Offers descriptor `index`, which is the whole chain, as the ring's next one.
    pub fn offer(&self, ring: u64, index: u64, len: u64, is_writable: bool) {
        let at = RINGS[ring as usize];
        let fields =
            [(0, BUFFER + index * 4096, 8), (8, len, 4), (12, if is_writable { 2 } else { 0 }, 2)];
        self.write(at + 16 * index, &pack::<16>(&fields));
        let available = at + 16 * SIZE;
        self.write(available + 4 + 2 * index, &(index as u16).to_le_bytes());
        self.write(available + 2, &(index as u16 + 1).to_le_bytes());
    }

    /// How many chains came back, and how long the first is.
    pub fn used(&self, ring: u64) -> (u64, u64) {
        let used = RINGS[ring as usize] + 0x2000;
        let bytes = self.read(used, 12);
        (get(&bytes, 2, 2), get(&bytes, 8, 4))
    }

    pub fn wait_used(&self, ring: u64, count: u64) {
        super::wait_for("chain that comes back", || self.used(ring).0 == count);
    }

    pub fn waits(&self, millis: i32) -> bool {
        let mut list = [libc::pollfd { fd: self.fd, events: libc::POLLRDBAND, revents: 0 }];
        // SAFETY: one structure is there.
        let count = unsafe { libc::poll(list.as_mut_ptr(), 1, millis) };
        assert_eq!(count == 1, list[0].revents == libc::POLLRDBAND);
        count == 1
    }
}

pub fn attach(fd: i32, link: u64, machine: i32) -> Result<i32, i32> {
    let machine = u64::from(machine.cast_unsigned());
    call(fd, VNA_IOC_CREATE, &mut pack::<8>(&[(0, link, 4), (4, machine, 4)]))
}

pub fn init(fd: i32, ring: u64, size: u64, at: u64) -> Result<i32, i32> {
    call(fd, VNA_IOC_RING_INIT, &mut pack::<16>(&[(0, ring, 2), (2, size, 2), (8, at, 8)]))
}

pub fn set_message(fd: i32, ring: u64, at: u64) {
    let fields = [(0, ring, 2), (8, at, 8), (16, 0x41, 8)];
    call(fd, VNA_IOC_RING_SET_MSI, &mut pack::<24>(&fields)).unwrap();
}
