// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A machine of this process: what its calls share.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use crate::config::config;
use crate::memory::Space;
use crate::{Answer, Errno, lock, zone};

/// A machine.
pub(crate) struct Vm {
    pub(crate) path: PathBuf,
    pub(crate) topology: Mutex<[u8; 8]>,
    pub(crate) space: Mutex<Space>,
}

impl Vm {
    fn new(path: PathBuf) -> Self {
        Self { path, topology: Mutex::default(), space: Mutex::default() }
    }

    /// Whether destruction has begun, or is over.
    pub(crate) fn is_ending(&self) -> bool {
        zone::flags(&self.path).is_none_or(|flags| flags & zone::DESTROYING != 0)
    }
}

/// `VM_MAXCPU`: how many vCPUs a machine may have.
pub(crate) fn ceiling() -> u64 {
    if config().version >= 18 { 64 } else { 32 }
}

/// The machine behind a descriptor.
///
/// # Errors
/// When it is gone.
pub(crate) fn of(fd: i32, number: u64) -> Answer<Arc<Vm>> {
    let path = std::fs::read_link(format!("/proc/self/fd/{fd}"));
    path.map(|path| find(number, path)).map_err(|_| Errno(libc::EBADF))
}

/// Bytes of memory that machines of this process have.
pub(crate) fn allocated() -> u64 {
    let all: Vec<Arc<Vm>> = lock(all()).values().map(Arc::clone).collect();
    all.iter().map(|vm| lock(&vm.space).allocated()).sum()
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
    let gone: Vec<Arc<Vm>> = {
        let mut all = lock(all());
        let numbers: Vec<u64> =
            all.iter().filter(|(_, vm)| !vm.path.exists()).map(|(number, _)| *number).collect();
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
    result
}
