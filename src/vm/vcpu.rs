// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! One thread per vCPU: enter, decode the exit, dispatch, enter again.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::bus::Bus;
use super::dev::{Request, Requests};
use super::hv::{Vcpu, VcpuExit, Vm};
use crate::ui::{Failure, Outcome};

/// Places without a device that are reported, at most: guests probe many.
const REPORTED: usize = 256;
/// How long the vCPUs may take to leave the guest. A device that blocks longer is broken.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between one kick and the next of a vCPU that has not left yet.
const AGAIN: Duration = Duration::from_millis(5);

/// The address spaces that vCPUs share.
#[derive(Default)]
pub struct Buses {
    /// I/O ports.
    pub ports: Arc<Bus>,
    /// Guest-physical addresses without memory.
    pub mmio: Arc<Bus>,
}

/// Why the guest's run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Somebody asked for it: the guest, or whoever watches it.
    Asked(Request),
    /// A triple fault, with the registers.
    TripleFault(String),
    /// The kernel or the processor cannot run the guest; what it said, with the registers.
    Broken(String),
}

/// A guest's run, shared by its vCPU threads and whoever waits for its end.
pub struct Run {
    buses: Arc<Buses>,
    stopping: AtomicBool,
    end: Mutex<Option<End>>,
    ended: Condvar,
    exits: AtomicU64,
    unclaimed: Mutex<BTreeSet<String>>,
}

impl Requests for Run {
    fn request(&self, request: Request) {
        self.finish(End::Asked(request));
    }
}

impl Run {
    /// A run that has not begun.
    pub fn new(buses: Arc<Buses>) -> Arc<Self> {
        Arc::new(Self {
            buses,
            stopping: AtomicBool::new(false),
            end: Mutex::new(None),
            ended: Condvar::new(),
            exits: AtomicU64::new(0),
            unclaimed: Mutex::default(),
        })
    }

    /// Exits that needed a device, so far.
    pub fn exits(&self) -> u64 {
        self.exits.load(Ordering::Relaxed)
    }

    /// Accesses to places without a device, as text: what a guest that hangs looks for.
    pub fn unclaimed(&self) -> Vec<String> {
        let unclaimed = self.unclaimed.lock().unwrap_or_else(PoisonError::into_inner);
        unclaimed.iter().cloned().collect()
    }

    /// The end, if it has come.
    pub fn end(&self) -> Option<End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the end; `None` when it has not come in `time`.
    pub fn wait(&self, time: Duration) -> Option<End> {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.ended.wait_timeout_while(end, time, |end| end.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// The first end counts.
    fn finish(&self, reason: End) {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        end.get_or_insert(reason);
        self.stopping.store(true, Ordering::SeqCst);
        self.ended.notify_all();
    }

    fn execute(&self, mut vcpu: Box<dyn Vcpu>) {
        while !self.stopping.load(Ordering::SeqCst) {
            match vcpu.run() {
                Ok(exit) => self.dispatch(vcpu.as_mut(), exit),
                Err(problem) => self.finish(End::Broken(problem.to_string())),
            }
        }
    }

    fn dispatch(&self, vcpu: &mut dyn Vcpu, exit: VcpuExit) {
        self.exits.fetch_add(1, Ordering::Relaxed);
        let mut data = [0; 8];
        match exit {
            VcpuExit::PortRead { port, size } => {
                let data = data.get_mut(..usize::from(size)).unwrap_or_default();
                self.note(self.buses.ports.read(u64::from(port), data), "read of port", port, size);
                vcpu.answer(data);
            }
            VcpuExit::PortWrite { port, data } => {
                let data = data.as_slice();
                let claimed = self.buses.ports.write(u64::from(port), data);
                self.note(claimed, "write to port", port, data.len() as u8);
            }
            VcpuExit::MmioRead { address, size } => {
                let data = data.get_mut(..usize::from(size)).unwrap_or_default();
                self.note(
                    self.buses.mmio.read(address, data),
                    "read of",
                    address >> 12 << 12,
                    size,
                );
                vcpu.answer(data);
            }
            VcpuExit::MmioWrite { address, data } => {
                let data = data.as_slice();
                let claimed = self.buses.mmio.write(address, data);
                self.note(claimed, "write to", address >> 12 << 12, data.len() as u8);
            }
            VcpuExit::Again => {}
            VcpuExit::TripleFault => self.finish(End::TripleFault(vcpu.registers())),
            VcpuExit::Asked(request) => self.finish(End::Asked(request)),
            VcpuExit::Broken(reason) => {
                self.finish(End::Broken(format!("{reason}\n{}", vcpu.registers())));
            }
        }
    }

    fn note(&self, claimed: bool, what: &str, place: impl std::fmt::LowerHex, size: u8) {
        if claimed {
            return;
        }
        let mut unclaimed = self.unclaimed.lock().unwrap_or_else(PoisonError::into_inner);
        if unclaimed.len() < REPORTED {
            unclaimed.insert(format!("{what} {place:#x}, {size} bytes"));
        }
    }
}

/// The vCPU threads. Dropping them ends the run and waits for them.
pub struct Threads {
    run: Arc<Run>,
    vm: Arc<dyn Vm>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts `cpus` vCPUs; the first one begins at the reset vector.
    ///
    /// # Errors
    /// When the kernel makes no vCPU, or the system no thread.
    pub fn start(run: &Arc<Run>, vm: &Arc<dyn Vm>, cpus: u32) -> Outcome<Self> {
        let vcpus: Vec<Box<dyn Vcpu>> =
            (0..cpus).map(|number| vm.vcpu(number)).collect::<Outcome<_>>()?;
        let mut all = Self { run: Arc::clone(run), vm: Arc::clone(vm), threads: Vec::new() };
        // Others first: firmware starts them as soon as it runs.
        for (number, vcpu) in vcpus.into_iter().enumerate().rev() {
            let run = Arc::clone(run);
            let thread = std::thread::Builder::new()
                .name(format!("vcpu{number}"))
                .spawn(move || run.execute(vcpu))
                .map_err(|error| Failure::build("no thread for a vCPU").because(error))?;
            all.threads.push(thread);
        }
        Ok(all)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.run.request(Request::PowerOff);
        let deadline = Instant::now() + PATIENCE;
        let count = self.threads.len() as u32;
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            if Instant::now() > deadline {
                // It holds what it uses; the process ends without it.
                return;
            }
            (0..count).for_each(|number| self.vm.kick(number));
            std::thread::park_timeout(AGAIN);
        }
        for thread in self.threads.drain(..) {
            // A panic was reported by its hook already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
#[path = "vcpu_tests.rs"]
mod tests;
