// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The thread that serves a device's rings.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::{Ring, VirtioDevice, Wake};
use crate::ui::{Failure, Outcome};

/// Serves rings when they are notified; sleeps otherwise. Ends when dropped.
pub(super) struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Something is to be done.
    work: Condvar,
    /// Nothing is being done.
    idle: Condvar,
    is_cancelled: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    /// The rings that are in use; empty while they are being served.
    rings: Vec<(usize, Ring)>,
    /// One bit per ring.
    notified: u64,
    is_serving: bool,
    is_ending: bool,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has none.
    pub(super) fn new(name: &str, device: Arc<dyn VirtioDevice>) -> Outcome<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || of_thread.run(&*device))
            .map_err(|error| Failure::build("no thread for a device").fact("error", error))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The flag by which rings learn that they are cancelled.
    pub(super) fn cancel_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.shared.is_cancelled)
    }

    /// Takes rings into use. They are served at once: the driver may have filled them already.
    pub(super) fn attach(&self, rings: Vec<(usize, Ring)>) {
        let mut state = self.shared.lock();
        for (index, ring) in rings {
            state.notified |= bit(index);
            state.rings.push((index, ring));
        }
        self.shared.work.notify_one();
    }

    /// Has a ring served.
    pub(super) fn notify(&self, ring: usize) {
        self.shared.notify(bit(ring));
    }

    /// The same for all rings, by one who may outlive the device.
    pub(super) fn wake(&self) -> Wake {
        let shared = Arc::downgrade(&self.shared);
        Arc::new(move || {
            if let Some(shared) = shared.upgrade() {
                shared.notify(u64::MAX);
            }
        })
    }

    /// Takes all rings out of use. When it returns, nothing touches guest memory any more.
    pub(super) fn detach(&self) {
        self.shared.is_cancelled.store(true, Ordering::SeqCst);
        let mut state = self.shared.lock();
        while state.is_serving {
            state = self.shared.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.rings.clear();
        state.notified = 0;
        self.shared.is_cancelled.store(false, Ordering::SeqCst);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.is_cancelled.store(true, Ordering::SeqCst);
        self.shared.lock().is_ending = true;
        self.shared.work.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a device's thread has failed");
        }
    }
}

fn bit(ring: usize) -> u64 {
    u32::try_from(ring).ok().and_then(|ring| 1u64.checked_shl(ring)).unwrap_or(0)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self, rings: u64) {
        self.lock().notified |= rings;
        self.work.notify_one();
    }

    fn run(&self, device: &dyn VirtioDevice) {
        while let Some((notified, mut rings)) = self.wait() {
            let serving = Serving(self);
            for (index, ring) in &mut rings {
                if notified & bit(*index) != 0 {
                    ring.begin();
                    device.serve(*index, ring);
                }
            }
            // Rings that were attached meanwhile stay behind these.
            let mut state = self.lock();
            rings.append(&mut state.rings);
            state.rings = rings;
            drop(state);
            drop(serving);
        }
    }

    /// Waits for work and takes it.
    fn wait(&self) -> Option<(u64, Vec<(usize, Ring)>)> {
        let mut state = self.lock();
        loop {
            if state.is_ending {
                return None;
            }
            if state.notified != 0 && !state.rings.is_empty() {
                state.is_serving = true;
                let notified = std::mem::take(&mut state.notified);
                return Some((notified, std::mem::take(&mut state.rings)));
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Tells those who wait for it that serving has ended, however it did.
struct Serving<'a>(&'a Shared);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.0.lock().is_serving = false;
        self.0.idle.notify_all();
    }
}
