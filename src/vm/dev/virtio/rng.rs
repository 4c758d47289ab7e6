// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A source of entropy (VIRTIO 1.2, section 5.4).

use std::sync::Arc;

use rand::RngCore;

use super::{Kind, Ring, VirtioDevice};

/// The most that one request gets: whoever wants more asks again.
const MOST: u64 = 4096;

/// Random bytes from the host.
#[derive(Debug, Default)]
pub struct Rng;

impl Rng {
    /// One source.
    pub fn new() -> Arc<Self> {
        Arc::new(Self)
    }
}

impl VirtioDevice for Rng {
    fn kind(&self) -> Kind {
        Kind::Rng
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![64]
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn serve(&self, _queue: usize, ring: &mut Ring) {
        while let Some(mut chain) = ring.take() {
            let mut bytes = vec![0; chain.writable.left().min(MOST) as usize];
            rand::rng().fill_bytes(&mut bytes);
            if chain.writable.write(&bytes).is_err() {
                tracing::debug!("a buffer for random bytes is outside RAM");
            }
            ring.done(&chain);
        }
    }
}
