// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What a device is connected to when there is no machine: lines, requests, and a guest that does
//! anything.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;

use super::clock::FakeClock;
use super::{IrqLine, MsiSink, Request, Requests};
use crate::vm::bus::BusDevice;

/// An interrupt line that counts its rising edges.
#[derive(Default)]
pub(super) struct Line {
    high: AtomicBool,
    edges: AtomicU32,
}

impl Line {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn is_high(&self) -> bool {
        self.high.load(Ordering::Relaxed)
    }

    /// Rising edges since the last call.
    pub(super) fn edges(&self) -> u32 {
        self.edges.swap(0, Ordering::Relaxed)
    }
}

impl IrqLine for Line {
    fn set(&self, high: bool) {
        if !self.high.swap(high, Ordering::Relaxed) && high {
            self.edges.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Remembers what the guest asked for.
#[derive(Default)]
pub(super) struct Asked(Mutex<Vec<Request>>);

impl Asked {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn take(&self) -> Vec<Request> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Requests for Asked {
    fn request(&self, request: Request) {
        self.0.lock().unwrap().push(request);
    }
}

/// Remembers messages.
#[derive(Default)]
pub(super) struct Messages(Mutex<Vec<(u64, u32)>>);

impl Messages {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn take(&self) -> Vec<(u64, u32)> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl MsiSink for Messages {
    fn send(&self, address: u64, data: u32) {
        self.0.lock().unwrap().push((address, data));
    }
}

/// Reads one byte.
pub(super) fn inb(device: &mut dyn BusDevice, offset: u64) -> u8 {
    let mut data = [0xff];
    device.read(offset, &mut data);
    data[0]
}

/// Writes one byte.
pub(super) fn outb(device: &mut dyn BusDevice, offset: u64, value: u8) {
    device.write(offset, &[value]);
}

/// Reads some bytes.
pub(super) fn read<const N: usize>(device: &mut dyn BusDevice, offset: u64) -> [u8; N] {
    let mut data = [0xff; N];
    device.read(offset, &mut data);
    data
}

/// What a guest that means no good may do.
#[derive(Debug, Clone)]
pub(super) enum Act {
    Read(u64, usize),
    Write(u64, usize, u64),
    Wait(u64),
}

impl Act {
    /// Does it. Time passes by `clock`.
    pub(super) fn apply(&self, device: &mut dyn BusDevice, clock: &FakeClock) {
        match *self {
            Self::Read(offset, width) => device.read(offset, &mut [0xff; 8][..width]),
            Self::Write(offset, width, value) => {
                device.write(offset, &value.to_le_bytes()[..width]);
            }
            Self::Wait(nanos) => clock.advance(Duration::from_nanos(nanos)),
        }
    }
}

/// Accesses within `size` bytes of registers, of any width and with values small and large.
pub(super) fn acts(size: u64) -> impl Strategy<Value = Vec<Act>> {
    let place = move || (0..size, prop::sample::select(vec![1_usize, 2, 4, 8]));
    let value = prop_oneof![0..256_u64, any::<u64>()];
    let act = prop_oneof![
        2 => place().prop_map(|(offset, width)| Act::Read(offset, width)),
        4 => (place(), value).prop_map(|((offset, width), v)| Act::Write(offset, width, v)),
        1 => (0..40_u32).prop_map(|shift| Act::Wait(1 << shift)),
    ];
    prop::collection::vec(act, 1..200)
}
