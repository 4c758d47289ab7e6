// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A network interface (VIRTIO 1.2, section 5.1) whose rings a kernel serves.

use std::sync::Arc;

use super::{Kind, Offload, Ring, VirtioDevice};
use crate::vm::dev::lanes;

const MTU: u64 = 1 << 3;
const MAC: u64 = 1 << 5;
const STATUS: u64 = 1 << 16;
/// Features with a ring for control, which nobody serves, or that belong to the transport.
const NOT_OURS: u64 = 1 << 17 | 1 << 18 | 1 << 22 | 1 << 27 | 1 << 29 | 1 << 32;
const QUEUE_SIZE: u16 = 1024;

/// The registers of the interface; frames pass elsewhere.
pub struct OffloadedNet {
    mac: [u8; 6],
    rings: Arc<dyn Offload>,
}

impl OffloadedNet {
    /// An interface of this address, whose rings `rings` serves.
    pub fn new(mac: [u8; 6], rings: Arc<dyn Offload>) -> Arc<Self> {
        Arc::new(Self { mac, rings })
    }
}

impl VirtioDevice for OffloadedNet {
    fn kind(&self) -> Kind {
        Kind::Net
    }

    fn features(&self) -> u64 {
        self.rings.features() & !NOT_OURS | MAC | STATUS | MTU
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 2]
    }

    fn config(&self) -> Vec<u8> {
        let mut config = vec![0; 12];
        lanes::put(&mut config, 0, self.mac);
        // The link is up; one pair of rings.
        lanes::put(&mut config, 6, [1, 0, 1, 0]);
        lanes::put(&mut config, 10, self.rings.mtu().to_le_bytes());
        config
    }

    fn serve(&self, _queue: usize, _ring: &mut Ring) {}

    fn offload(&self) -> Option<Arc<dyn Offload>> {
        Some(Arc::clone(&self.rings))
    }
}

#[cfg(test)]
#[path = "net_offload_tests.rs"]
mod tests;
