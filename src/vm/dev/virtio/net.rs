// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A network interface (VIRTIO 1.2, section 5.1) with the offloads that its cable carries.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::{Chain, Kind, Ring, VirtioDevice, Wake};
use crate::vm::dev::lanes;

const MAC: u64 = 1 << 5;
const STATUS: u64 = 1 << 16;
const QUEUE_SIZE: u16 = 256;
const RECEIVE: usize = 0;

/// Bytes of the largest packet that the interface says it takes.
pub const MTU: u16 = 1500;
const MIN_FRAME: u64 = 14;
/// The largest packet that is left to be cut, and an Ethernet header with a VLAN.
const MAX_FRAME: usize = (1 << 16) + 18;

/// Before each frame, in both directions: what of its checksum and of cutting it is left to do
/// (VIRTIO 1.2 §5.1.6).
pub type FrameHeader = [u8; 12];

/// The header of a frame with which nothing is left to do.
pub const PLAIN: FrameHeader = [0; 12];
/// Where the header has the number of buffers of a received frame.
const BUFFERS: usize = 10;

/// What may be left to do: feature bits (VIRTIO 1.2 §5.1.3).
pub mod offloads {
    /// By the host: a frame's checksum.
    pub const CSUM: u64 = 1 << 0;
    /// By the guest: a frame's checksum, which may not even be looked at.
    pub const GUEST_CSUM: u64 = 1 << 1;
    /// By the guest: packets of TCP over IPv4 come uncut.
    pub const GUEST_TSO4: u64 = 1 << 7;
    /// By the guest: packets of TCP over IPv6 come uncut.
    pub const GUEST_TSO6: u64 = 1 << 8;
    /// By the host: cutting packets of TCP over IPv4.
    pub const HOST_TSO4: u64 = 1 << 11;
    /// By the host: cutting packets of TCP over IPv6.
    pub const HOST_TSO6: u64 = 1 << 12;
    /// Those of the host, without which a frame's header means nothing.
    pub(super) const OF_HOST: u64 = CSUM | HOST_TSO4 | HOST_TSO6;
    /// All of them.
    pub const ALL: u64 = OF_HOST | GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6;
}

/// The other end of the cable: Ethernet frames without their checksum.
pub trait Frames: Send + Sync {
    /// Offloads that it carries, of [`offloads`].
    fn offloads(&self) -> u64 {
        0
    }

    /// Of those, the guest's driver accepts these from now on.
    fn set_offloads(&self, _accepted: u64) {}

    /// Takes a frame of the guest; drops it when there is no room. Never blocks.
    fn send(&self, header: &FrameHeader, frame: &[u8]);

    /// Puts the next frame for the guest into `frame`, which holds the largest one, and what it
    /// leaves to the guest into `header`, which is [`PLAIN`] before; gives its length. `None` when
    /// there is none for now. Never blocks.
    fn recv(&self, header: &mut FrameHeader, frame: &mut [u8]) -> Option<usize>;

    /// Takes what is to be called when [`Frames::recv`] has something again.
    fn set_wake(&self, wake: Wake);
}

/// A virtio network interface.
pub struct Net {
    mac: [u8; 6],
    frames: Arc<dyn Frames>,
    wake: OnceLock<Wake>,
    /// Features that the driver accepts.
    accepted: AtomicU64,
    received: Mutex<Received>,
}

/// Room for a frame, which may wait for a buffer of the guest.
struct Received {
    header: FrameHeader,
    bytes: Vec<u8>,
    waiting: Option<usize>,
}

impl Net {
    /// An interface of this address at the end of a cable.
    pub fn new(mac: [u8; 6], frames: Arc<dyn Frames>) -> Arc<Self> {
        let received = Received { header: PLAIN, bytes: vec![0; MAX_FRAME], waiting: None };
        let (wake, accepted) = (OnceLock::new(), AtomicU64::new(0));
        Arc::new(Self { mac, frames, wake, accepted, received: Mutex::new(received) })
    }

    fn accept(&self, features: u64) {
        self.accepted.store(features, Ordering::Relaxed);
        self.frames.set_offloads(features & offloads::ALL);
    }

    fn receive(&self, ring: &mut Ring) {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        let Received { header, bytes, waiting } = &mut *received;
        loop {
            let next = || {
                *header = PLAIN;
                self.frames.recv(header, bytes)
            };
            let Some(length) = waiting.take().or_else(next) else { return };
            let Some(mut chain) = ring.take() else {
                *waiting = Some(length);
                return;
            };
            let Some(content) = bytes.get(..length) else { return };
            if chain.writable.left() < (header.len() + length) as u64 {
                // Too large for what the guest expects: lost, as on a wire.
                ring.put_back(chain);
                continue;
            }
            lanes::put(header, BUFFERS, 1u16.to_le_bytes());
            let written = chain.writable.write(header).and_then(|()| chain.writable.write(content));
            if written.is_err() {
                tracing::debug!("a buffer for frames is outside RAM");
            }
            ring.done(&chain);
        }
    }

    fn transmit(&self, ring: &mut Ring) {
        let mut bytes = Vec::new();
        let is_plain = self.accepted.load(Ordering::Relaxed) & offloads::OF_HOST == 0;
        for _ in 0..QUEUE_SIZE {
            let Some(mut chain) = ring.take() else { return };
            if let Some(header) = Self::gather(&mut chain, &mut bytes) {
                self.frames.send(if is_plain { &PLAIN } else { &header }, &bytes);
            }
            ring.done(&chain);
        }
        // A guest that sends without end must not keep what it receives waiting.
        if let Some(wake) = self.wake.get() {
            wake();
        }
    }

    /// Collects a frame, and gives its header. `None` when it is no frame.
    fn gather(chain: &mut Chain, bytes: &mut Vec<u8>) -> Option<FrameHeader> {
        let mut header = PLAIN;
        chain.readable.read(&mut header).ok()?;
        let length = chain.readable.left();
        if !(MIN_FRAME..=MAX_FRAME as u64).contains(&length) {
            return None;
        }
        bytes.resize(length as usize, 0);
        chain.readable.read(bytes).ok()?;
        Some(header)
    }
}

impl VirtioDevice for Net {
    fn kind(&self) -> Kind {
        Kind::Net
    }

    fn features(&self) -> u64 {
        MAC | STATUS | self.frames.offloads() & offloads::ALL
    }

    fn activate(&self, features: u64) {
        self.accept(features);
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 2]
    }

    fn config(&self) -> Vec<u8> {
        let mut config = vec![0; 12];
        lanes::put(&mut config, 0, self.mac);
        // The link is up; one pair of rings; the MTU is not announced, but said.
        lanes::put(&mut config, 6, [1, 0, 1, 0]);
        lanes::put(&mut config, 10, MTU.to_le_bytes());
        config
    }

    fn serve(&self, queue: usize, ring: &mut Ring) {
        match queue {
            RECEIVE => self.receive(ring),
            _ => self.transmit(ring),
        }
    }

    fn set_wake(&self, wake: Wake) {
        self.frames.set_wake(Arc::clone(&wake));
        if self.wake.set(wake).is_err() {
            tracing::debug!("a network interface was plugged in twice");
        }
    }

    fn reset(&self) {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).waiting = None;
        self.accept(0);
    }
}

#[cfg(test)]
#[path = "net_tests.rs"]
mod tests;
