// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A network interface (VIRTIO 1.2, section 5.1) without offloads.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::{Chain, Kind, Ring, VirtioDevice, Wake};
use crate::vm::dev::lanes;

const MAC: u64 = 1 << 5;
const STATUS: u64 = 1 << 16;
const QUEUE_SIZE: u16 = 256;
const RECEIVE: usize = 0;

/// Before each frame, in both directions.
const HEADER: usize = 12;
/// The number of buffers that a received frame takes: one.
const ONE_BUFFER: [u8; HEADER] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const MIN_FRAME: u64 = 14;
const MAX_FRAME: usize = 1 << 16;

/// The other end of the cable: Ethernet frames without their checksum.
pub trait Frames: Send + Sync {
    /// Takes a frame of the guest; drops it when there is no room. Never blocks.
    fn send(&self, frame: &[u8]);

    /// Puts the next frame for the guest into `frame`, which holds the largest one, and gives its
    /// length. `None` when there is none for now. Never blocks.
    fn recv(&self, frame: &mut [u8]) -> Option<usize>;

    /// Takes what is to be called when [`Frames::recv`] has something again.
    fn set_wake(&self, wake: Wake);
}

/// A virtio network interface.
pub struct Net {
    mac: [u8; 6],
    frames: Arc<dyn Frames>,
    wake: OnceLock<Wake>,
    /// A frame that waits for a buffer of the guest, and room for one that is being sent.
    frame: Mutex<(Option<usize>, Vec<u8>)>,
}

impl Net {
    /// An interface of this address at the end of a cable.
    pub fn new(mac: [u8; 6], frames: Arc<dyn Frames>) -> Arc<Self> {
        let frame = Mutex::new((None, vec![0; MAX_FRAME]));
        Arc::new(Self { mac, frames, wake: OnceLock::new(), frame })
    }

    fn receive(&self, ring: &mut Ring) {
        let mut frame = self.frame.lock().unwrap_or_else(PoisonError::into_inner);
        let (waiting, bytes) = &mut *frame;
        loop {
            let Some(length) = waiting.take().or_else(|| self.frames.recv(bytes)) else { return };
            let Some(mut chain) = ring.take() else {
                *waiting = Some(length);
                return;
            };
            let Some(content) = bytes.get(..length) else { return };
            if chain.writable.left() < (HEADER + length) as u64 {
                // Too large for what the guest expects: lost, as on a wire.
                ring.put_back(chain);
                continue;
            }
            let written =
                chain.writable.write(&ONE_BUFFER).and_then(|()| chain.writable.write(content));
            if written.is_err() {
                tracing::debug!("a buffer for frames is outside RAM");
            }
            ring.done(&chain);
        }
    }

    fn transmit(&self, ring: &mut Ring) {
        let mut bytes = Vec::new();
        for _ in 0..QUEUE_SIZE {
            let Some(mut chain) = ring.take() else { return };
            if Self::gather(&mut chain, &mut bytes) {
                self.frames.send(&bytes);
            }
            ring.done(&chain);
        }
        // A guest that sends without end must not keep what it receives waiting.
        if let Some(wake) = self.wake.get() {
            wake();
        }
    }

    /// Collects a frame. `false` when it is none.
    fn gather(chain: &mut Chain, bytes: &mut Vec<u8>) -> bool {
        let mut header = [0; HEADER];
        if chain.readable.read(&mut header).is_err() {
            return false;
        }
        let length = chain.readable.left();
        if !(MIN_FRAME..=MAX_FRAME as u64).contains(&length) {
            return false;
        }
        bytes.resize(length as usize, 0);
        chain.readable.read(bytes).is_ok()
    }
}

impl VirtioDevice for Net {
    fn kind(&self) -> Kind {
        Kind::Net
    }

    fn features(&self) -> u64 {
        MAC | STATUS
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 2]
    }

    fn config(&self) -> Vec<u8> {
        let mut config = vec![0; 12];
        lanes::put(&mut config, 0, self.mac);
        // The link is up; one pair of rings; the MTU is not announced, but said.
        lanes::put(&mut config, 6, [1, 0, 1, 0]);
        lanes::put(&mut config, 10, 1500u16.to_le_bytes());
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
        self.frame.lock().unwrap_or_else(PoisonError::into_inner).0 = None;
    }
}

#[cfg(test)]
#[path = "net_tests.rs"]
mod tests;
