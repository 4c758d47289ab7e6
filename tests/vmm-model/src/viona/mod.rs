// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `/dev/viona`: illumos `usr/src/uts/intel/io/viona/viona_main.c`. Two rings of one pair; their
//! data path is in [`link`], the ways to the host in [`wire`].

mod calls;
mod ladm;
mod link;
mod queue;
mod ring;
mod wire;

use std::collections::HashMap;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, Weak};

pub(crate) use calls::call;
use link::Link;

use crate::{Answer, Errno, lock, zone};

/// An open instance.
#[derive(Default)]
pub(crate) struct Viona {
    link: Mutex<Option<Arc<Link>>>,
}

/// What a hook leads to.
pub(crate) struct Doorbell(Weak<Link>);

impl Doorbell {
    /// Notifies a queue; false when it is left to the program, as before a ring runs.
    pub(crate) fn ring(&self, queue: u32) -> bool {
        self.0.upgrade().is_some_and(|link| link.notify(queue))
    }
}

fn all() -> &'static Mutex<HashMap<u64, Arc<Viona>>> {
    static ALL: OnceLock<Mutex<HashMap<u64, Arc<Viona>>>> = OnceLock::new();
    ALL.get_or_init(Mutex::default)
}

/// The instance of a number.
pub(crate) fn of(number: u64) -> Arc<Viona> {
    Arc::clone(lock(all()).entry(number).or_default())
}

impl Viona {
    fn link(&self) -> Answer<Arc<Link>> {
        lock(&self.link).clone().ok_or(Errno(libc::ENXIO))
    }

    /// `VNA_IOC_DELETE`, and what the last close does.
    pub(crate) fn delete(&self) {
        let link = lock(&self.link).take();
        if let Some(link) = link {
            link.end();
        }
    }

    /// The descriptor that becomes readable when an interrupt waits.
    ///
    /// # Errors
    /// `ENXIO` when nothing is attached.
    pub(crate) fn waiting(&self) -> Answer<i32> {
        self.link().map(|link| link.event.as_raw_fd())
    }
}

/// Deletes instances whose files are gone: their last descriptor was closed.
pub(crate) fn forget(numbers: &[u64]) {
    let gone: Vec<_> = {
        let mut all = lock(all());
        numbers.iter().filter_map(|number| all.remove(number)).collect()
    };
    for viona in gone {
        viona.delete();
    }
}

/// Lets go of what a child of `fork` has inherited: the threads are the parent's.
pub(crate) fn forget_in_child() {
    for viona in std::mem::take(&mut *lock(all())).into_values() {
        if let Some(link) = lock(&viona.link).take() {
            link.abandon();
            // The parent's threads do not exist here, and nobody must wait for them.
            std::mem::forget(link);
        }
    }
}

/// The file of a new instance.
pub(crate) fn file() -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    zone::directory().join("viona").join(format!("{}-{number}", std::process::id()))
}
