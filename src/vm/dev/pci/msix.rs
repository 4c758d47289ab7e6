// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! MSI-X: the vectors of a function, their masks and pending bits.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::vm::bus::BusDevice;
use crate::vm::dev::{MsiSink, lanes};

const ENTRY: usize = 16;
/// Where the pending bits begin in the page.
const PENDING: u64 = 0x800;
const MAX_VECTORS: u16 = 128;
const ENABLE: u16 = 0x8000;
const MASK: u16 = 0x4000;

/// The message-signalled interrupts of one function.
pub struct Msix {
    sink: Arc<dyn MsiSink>,
    vectors: u16,
    state: Mutex<State>,
    on_change: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

struct State {
    control: u16,
    /// Per entry: address (8 bytes), data (4), vector control (4; bit 0 masks it).
    table: Vec<u8>,
    pending: u128,
}

impl Msix {
    /// As many vectors as asked for, from 1 to 128.
    pub fn new(vectors: u16, sink: Arc<dyn MsiSink>) -> Arc<Self> {
        let vectors = vectors.clamp(1, MAX_VECTORS);
        let state = Mutex::new(State::new(vectors));
        Arc::new(Self { sink, vectors, state, on_change: OnceLock::new() })
    }

    /// How many vectors there are.
    pub fn vectors(&self) -> u16 {
        self.vectors
    }

    /// Whether the driver uses vectors at all.
    pub fn is_enabled(&self) -> bool {
        self.state().control & ENABLE != 0
    }

    /// Sends a vector's message, or holds it back while it is masked. Without MSI-X enabled, and
    /// for vectors that do not exist, nothing happens.
    pub fn trigger(&self, vector: u16) {
        let mut state = self.state();
        if vector < self.vectors && state.control & ENABLE != 0 {
            state.pending |= 1 << vector;
            state.fire(&*self.sink);
        }
    }

    /// All vectors masked, nothing pending, disabled.
    pub fn reset(&self) {
        *self.state() = State::new(self.vectors);
        self.changed();
    }

    /// What a vector sends, as address and data: nothing while it is masked or MSI-X is disabled.
    /// For one who delivers messages in our place.
    pub fn message(&self, vector: u16) -> Option<(u64, u32)> {
        let state = self.state();
        let is_free = state.control & (ENABLE | MASK) == ENABLE && vector < self.vectors;
        let (address, data, is_masked) = state.entry(usize::from(vector));
        (is_free && !is_masked && address >> 20 == 0xfee).then_some((address, data))
    }

    /// Calls `hook` whenever [`Msix::message`] may answer otherwise than before. The first hook
    /// stays.
    pub fn on_change(&self, hook: impl Fn() + Send + Sync + 'static) {
        if self.on_change.set(Box::new(hook)).is_err() {
            tracing::debug!("the vectors of a function are watched already");
        }
    }

    fn changed(&self) {
        if let Some(hook) = self.on_change.get() {
            hook();
        }
    }

    /// The message control word that the guest wrote.
    pub(super) fn set_control(&self, control: u16) {
        let mut state = self.state();
        if state.control == control {
            return;
        }
        state.control = control;
        if control & ENABLE == 0 {
            state.pending = 0;
        }
        state.fire(&*self.sink);
        drop(state);
        self.changed();
    }

    /// The capability's bytes behind the link.
    pub(super) fn capability(&self, bar: u8) -> [u8; 10] {
        let mut body = [0; 10];
        lanes::put(&mut body, 0, (self.vectors - 1).to_le_bytes());
        lanes::put(&mut body, 2, u32::from(bar).to_le_bytes());
        lanes::put(&mut body, 6, (PENDING as u32 | u32::from(bar)).to_le_bytes());
        body
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(vectors: u16) -> Self {
        let masked = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
        Self { control: 0, table: masked.repeat(usize::from(vectors)), pending: 0 }
    }

    /// Address, data and mask of a vector.
    fn entry(&self, vector: usize) -> (u64, u32, bool) {
        let entry = self.table.get(ENTRY * vector..).unwrap_or_default();
        let [address, data, control] =
            [0..8, 8..12, 12..16].map(|field| lanes::number(entry.get(field).unwrap_or_default()));
        (address, data as u32, control & 1 != 0)
    }

    /// Sends what is pending and not masked.
    fn fire(&mut self, sink: &dyn MsiSink) {
        if self.control & (ENABLE | MASK) != ENABLE {
            return;
        }
        let mut left = self.pending;
        while left != 0 {
            let vector = left.trailing_zeros() as usize;
            left &= left - 1;
            let (address, data, is_masked) = self.entry(vector);
            if is_masked {
                continue;
            }
            self.pending &= !(1 << vector);
            // Anything else is no message to a local APIC.
            if address >> 20 == 0xfee {
                sink.send(address, data);
            }
        }
    }
}

/// The page of 4 KiB with the table at its start and the pending bits at 0x800.
pub struct MsixPage(pub Arc<Msix>);

impl BusDevice for MsixPage {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let state = self.0.state();
        match offset.checked_sub(PENDING) {
            Some(offset) => lanes::read(&state.pending.to_le_bytes(), offset, data),
            None => lanes::read(&state.table, offset, data),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut state = self.0.state();
        for (offset, byte) in (offset..).zip(data) {
            let Some(to) = usize::try_from(offset).ok().and_then(|at| state.table.get_mut(at))
            else {
                break;
            };
            // Of the vector control word only the mask bit is kept.
            match offset % ENTRY as u64 {
                0..12 => *to = *byte,
                12 => *to = byte & 1,
                _ => {}
            }
        }
        state.fire(&*self.0.sink);
        drop(state);
        self.0.changed();
    }
}
