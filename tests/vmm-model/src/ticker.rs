// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A thread that has every vCPU in the guest look around from time to time, because KVM does not
//! tell of a halt nor of another process' wish, and that delivers the HPET's interrupts.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::vm::Vm;
use crate::{hpet, lock, vm};

/// How often vCPUs look around.
const PERIOD: Duration = Duration::from_millis(50);

static IS_WOKEN: Mutex<bool> = Mutex::new(false);
static WOKEN: Condvar = Condvar::new();

/// Starts the thread once in a process.
pub(crate) fn start() {
    static OWNER: AtomicU32 = AtomicU32::new(0);
    let process = std::process::id();
    if OWNER.swap(process, Ordering::Relaxed) != process {
        let _ = std::thread::Builder::new().name("vmm-ticker".into()).spawn(run);
    }
}

/// Says that the HPET has something new to wait for.
pub(crate) fn wake(_: &Vm) {
    *lock(&IS_WOKEN) = true;
    WOKEN.notify_all();
}

fn run() {
    crate::signal::block_all();
    let mut next = Instant::now() + PERIOD;
    loop {
        let all = vm::everyone();
        let due = all.iter().filter_map(|vm| lock(&vm.board.hpet).next()).min();
        wait(due.map_or(next, |due| due.min(next)));
        all.iter().for_each(|vm| hpet::deliver(vm));
        if Instant::now() >= next {
            next = Instant::now() + PERIOD;
            all.iter().for_each(|vm| vm.kick_all());
        }
    }
}

/// Waits until a time, or until somebody wakes us.
fn wait(until: Instant) {
    let mut is_woken = lock(&IS_WOKEN);
    while !std::mem::take(&mut *is_woken) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let waited = WOKEN.wait_timeout(is_woken, left);
        is_woken = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}
