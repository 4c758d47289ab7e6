// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A machine of this process: what its calls share.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use crate::board::Board;
use crate::config::config;
use crate::irq::Lines;
use crate::kvm::Kvm;
use crate::life::Life;
use crate::memory::Space;
use crate::vcpu::{Hold, Vcpu};
use crate::{Answer, Errno, lock, real, zone};

/// A machine.
pub(crate) struct Vm {
    pub(crate) path: PathBuf,
    flags: Flags,
    pub(crate) topology: Mutex<[u8; 8]>,
    pub(crate) space: Mutex<Space>,
    kvm: Mutex<Option<Arc<Kvm>>>,
    vcpus: Vec<Vcpu>,
    pub(crate) life: Life,
    pub(crate) lines: Mutex<Lines>,
    pub(crate) board: Board,
    /// Writers are alone; readers are those calls that a writer holds up.
    pub(crate) gate: RwLock<()>,
}

/// The first byte of a machine's file, as it is now. Another process may change it.
struct Flags(*const AtomicU8);

// SAFETY: the pointer is to a shared mapping that lasts, and what is there is atomic.
unsafe impl Send for Flags {}
// SAFETY: as for `Send`.
unsafe impl Sync for Flags {}

impl Flags {
    fn new(path: &PathBuf) -> Self {
        let map = |file: File| {
            let fd = file.as_raw_fd();
            real::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, fd, 0)
        };
        let at = zone::inside(|| File::open(path).map_or(libc::MAP_FAILED, map));
        let at = if at == libc::MAP_FAILED { std::ptr::null_mut() } else { at };
        Self(at.cast_const().cast())
    }

    fn get(&self) -> Option<u8> {
        // SAFETY: not null, so it is the begin of our mapping of a file of at least one byte.
        (!self.0.is_null()).then(|| unsafe { &*self.0 }.load(Ordering::Relaxed))
    }
}

impl Drop for Flags {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the mapping is ours, and nobody else knows of it.
            unsafe { libc::munmap(self.0.cast_mut().cast(), 4096) };
        }
    }
}

impl Vm {
    fn new(path: PathBuf) -> Self {
        Self {
            flags: Flags::new(&path),
            path,
            topology: Mutex::default(),
            space: Mutex::default(),
            kvm: Mutex::default(),
            vcpus: (0..ceiling()).map(Vcpu::new).collect(),
            life: Life::default(),
            lines: Mutex::default(),
            board: Board::default(),
            gate: RwLock::default(),
        }
    }

    /// Whether destruction has begun, or is over.
    pub(crate) fn is_ending(&self) -> bool {
        self.flags.get().is_none_or(|flags| flags & zone::DESTROYING != 0)
    }

    /// The vCPU of a number.
    ///
    /// # Errors
    /// `EINVAL` when there is none.
    pub(crate) fn vcpu(&self, id: u32) -> Answer<&Vcpu> {
        self.vcpus.get(id as usize).ok_or(Errno(libc::EINVAL))
    }

    /// KVM's machine, which is made when it is first needed.
    ///
    /// # Errors
    /// `ENXIO` where KVM does not work.
    pub(crate) fn kvm(&self) -> Answer<Arc<Kvm>> {
        let mut slot = lock(&self.kvm);
        if let Some(kvm) = &*slot {
            return Ok(Arc::clone(kvm));
        }
        let kvm = Arc::new(Kvm::new()?);
        lock(&self.space).attach(Some(Arc::clone(&kvm)))?;
        *slot = Some(Arc::clone(&kvm));
        drop(slot);
        lock(&self.lines).replay(&kvm);
        Ok(kvm)
    }

    /// KVM's machine, if it has been made.
    pub(crate) fn made_kvm(&self) -> Option<Arc<Kvm>> {
        lock(&self.kvm).clone()
    }

    /// Makes every vCPU leave the guest, and holds it.
    pub(crate) fn hold_all(&self) -> Vec<Hold<'_>> {
        self.vcpus.iter().map(Vcpu::hold).collect()
    }

    /// Makes every vCPU that is in `VM_RUN` look at its state.
    pub(crate) fn kick_all(&self) {
        self.vcpus.iter().for_each(Vcpu::kick);
    }

    /// `VM_REINIT`, after the checks, with every vCPU held.
    pub(crate) fn reinit(&self, holds: &mut [Hold<'_>]) -> Answer {
        self.life.reinit();
        for hold in holds {
            hold.forget();
        }
        *lock(&self.lines) = Lines::default();
        self.board.reinit();
        *lock(&self.kvm) = None;
        let mut space = lock(&self.space);
        space.reinit();
        space.attach(None)
    }
}

/// `VM_MAXCPU`: how many vCPUs a machine may have.
pub(crate) fn ceiling() -> u32 {
    if config().version >= 18 { 64 } else { 32 }
}

/// The machine behind a descriptor.
///
/// # Errors
/// When it is gone.
pub(crate) fn of(fd: i32, number: u64) -> Answer<Arc<Vm>> {
    if let Some(vm) = lock(all()).get(&number) {
        return Ok(Arc::clone(vm));
    }
    let path = std::fs::read_link(format!("/proc/self/fd/{fd}"));
    path.map(|path| find(number, path)).map_err(|_| Errno(libc::EBADF))
}

/// Bytes of memory that machines of this process have.
pub(crate) fn allocated() -> u64 {
    everyone().iter().map(|vm| lock(&vm.space).allocated()).sum()
}

/// The machines that this process has met.
pub(crate) fn everyone() -> Vec<Arc<Vm>> {
    lock(all()).values().map(Arc::clone).collect()
}

fn all() -> &'static Mutex<HashMap<u64, Arc<Vm>>> {
    static ALL: OnceLock<Mutex<HashMap<u64, Arc<Vm>>>> = OnceLock::new();
    ALL.get_or_init(Mutex::default)
}

/// Notes a machine that this process has made.
pub(crate) fn made(number: u64, name: &str) {
    lock(all()).insert(number, Arc::new(Vm::new(zone::machine(name))));
}

/// Whether this process has made the machine.
pub(crate) fn is_known(number: u64) -> bool {
    lock(all()).contains_key(&number)
}

/// The machine of a number. One that another process made is met here for the first time: its
/// life can be ended, while its insides stay with its maker.
fn find(number: u64, path: PathBuf) -> Arc<Vm> {
    Arc::clone(lock(all()).entry(number).or_insert_with(|| Arc::new(Vm::new(path))))
}

/// Lets go of machines that no longer exist.
pub(crate) fn forget_gone() {
    let is_gone = |number: u64, vm: &Vm| {
        std::fs::metadata(&vm.path).map_or(true, |file| file.ino() != number)
    };
    let gone: Vec<Arc<Vm>> = {
        let mut all = lock(all());
        let numbers: Vec<u64> = all
            .iter()
            .filter(|(number, vm)| is_gone(**number, vm))
            .map(|(number, _)| *number)
            .collect();
        numbers.iter().filter_map(|number| all.remove(number)).collect()
    };
    for vm in gone {
        lock(&vm.space).invalidate();
    }
}

/// Runs `fork` while no other thread holds the list, so that the child finds it whole.
pub(crate) fn across_fork(fork: impl FnOnce() -> i32) -> i32 {
    let list = lock(all());
    let result = fork();
    drop(list);
    if result == 0 {
        let _guard = zone::guard();
        crate::viona::forget_in_child();
    }
    result
}
