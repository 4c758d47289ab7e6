// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A ring: where it is, and in which state.

use super::queue::Queue;
use crate::abi::{u32_at, u64_at};
use crate::config::config;
use crate::memory::Space;
use crate::{Answer, Errno};

/// Rings of one pair: receive and transmit.
pub(super) const RINGS: usize = 2;
pub(super) const RECEIVE: usize = 0;
pub(super) const TRANSMIT: usize = 1;
const PAGE: u64 = 4096;
const LARGEST: u16 = 32768;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Reset,
    Init,
    Run,
}

/// What a ring is.
#[derive(Default)]
pub(super) struct Ring {
    pub(super) state: State,
    pub(super) queue: Queue,
    /// Address and data of its message; address 0 is none.
    pub(super) message: (u64, u64),
    /// It was kicked since it was last looked at.
    pub(super) is_kicked: bool,
}

/// Where the three parts of a ring are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    size: u16,
    descriptors: u64,
    available: u64,
    used: u64,
}

impl Layout {
    /// `vioc_ring_init`: one address.
    pub(super) fn legacy(bytes: &[u8]) -> Self {
        let (size, at) = ((u32_at(bytes, 0) >> 16) as u16, u64_at(bytes, 8));
        let available = at.wrapping_add(16 * u64::from(size));
        let end = available.wrapping_add(6 + 2 * u64::from(size));
        let used = end.wrapping_add(PAGE - 1) & !(PAGE - 1);
        Self { size, descriptors: at, available, used }
    }

    /// `vioc_ring_init_modern`: three.
    pub(super) fn modern(bytes: &[u8]) -> Self {
        Self {
            size: (u32_at(bytes, 0) >> 16) as u16,
            descriptors: u64_at(bytes, 8),
            available: u64_at(bytes, 16),
            used: u64_at(bytes, 24),
        }
    }

    /// The ring's queue, where all of this is as it must be.
    pub(super) fn queue(&self, is_modern: bool, space: &Space) -> Answer<Queue> {
        let invalid = Err(Errno(libc::EINVAL));
        if !self.size.is_power_of_two() || self.size > LARGEST || self.descriptors == 0 {
            return invalid;
        }
        let aligned = |at: u64, to: u64| at.is_multiple_of(to);
        let is_aligned = match (config().viona >= 6, is_modern) {
            (false, _) => aligned(self.descriptors, PAGE),
            (true, true) => {
                aligned(self.descriptors, 16) && aligned(self.available, 2) && aligned(self.used, 4)
            }
            // Each part, so that a small ring at one address is refused.
            (true, false) => {
                [self.descriptors, self.available, self.used].iter().all(|at| aligned(*at, PAGE))
            }
        };
        let size = usize::from(self.size);
        let parts = [
            (self.descriptors, 16 * size),
            (self.available, 6 + 2 * size),
            (self.used, 6 + 8 * size),
        ];
        if !is_aligned || !parts.iter().all(|(at, len)| space.is_ram(*at, *len)) {
            return invalid;
        }
        Ok(Queue::new(self.size, self.descriptors, self.available, self.used))
    }
}
