// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Which vector a ring's interrupt goes to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};

use crate::vm::dev::pci::Msix;

/// No vector: no interrupt.
pub(super) const NO_VECTOR: u16 = 0xffff;

/// The interrupts of one virtio device. Its registers write it, its thread reads it.
pub(super) struct Interrupts {
    msix: Arc<Msix>,
    status: AtomicU8,
    config: AtomicU16,
    queues: Vec<AtomicU16>,
    is_broken: AtomicBool,
}

impl Interrupts {
    pub(super) fn new(msix: Arc<Msix>, queues: usize) -> Arc<Self> {
        Arc::new(Self {
            msix,
            status: AtomicU8::new(0),
            config: AtomicU16::new(NO_VECTOR),
            queues: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
            is_broken: AtomicBool::new(false),
        })
    }

    /// The place of the configuration vector (`None`) or that of a ring.
    fn place(&self, queue: Option<usize>) -> Option<&AtomicU16> {
        queue.map_or(Some(&self.config), |queue| self.queues.get(queue))
    }

    pub(super) fn vector(&self, queue: Option<usize>) -> u16 {
        self.place(queue).map_or(NO_VECTOR, |place| place.load(Ordering::Relaxed))
    }

    /// Assigns a vector. One that does not exist reads back as none.
    pub(super) fn set_vector(&self, queue: Option<usize>, vector: u16) {
        let vector = if vector < self.msix.vectors() { vector } else { NO_VECTOR };
        if let Some(place) = self.place(queue) {
            place.store(vector, Ordering::Relaxed);
        }
    }

    /// The message that a ring's interrupt is at present.
    pub(super) fn message(&self, queue: usize) -> Option<(u64, u32)> {
        self.msix.message(self.vector(Some(queue)))
    }

    /// Buffers were used.
    pub(super) fn ring(&self, queue: usize) {
        self.status.fetch_or(1, Ordering::SeqCst);
        self.msix.trigger(self.vector(Some(queue)));
    }

    /// The driver did what cannot be: it must reset the device.
    pub(super) fn break_down(&self) {
        self.is_broken.store(true, Ordering::SeqCst);
        self.status.fetch_or(2, Ordering::SeqCst);
        self.msix.trigger(self.vector(None));
    }

    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::SeqCst)
    }

    /// The interrupt status, which reading clears.
    pub(super) fn take_status(&self) -> u8 {
        self.status.swap(0, Ordering::SeqCst)
    }

    pub(super) fn reset(&self) {
        self.config.store(NO_VECTOR, Ordering::Relaxed);
        for vector in &self.queues {
            vector.store(NO_VECTOR, Ordering::Relaxed);
        }
        self.status.store(0, Ordering::SeqCst);
        self.is_broken.store(false, Ordering::SeqCst);
    }
}
