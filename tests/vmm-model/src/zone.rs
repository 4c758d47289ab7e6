// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The zone: machines that exist, in a directory that outlives each process.
//!
//! `vm/NAME` is a machine. Its descriptors are descriptors of this file that hold a shared
//! `flock`, which belongs to the open file description: copies by `dup` and `fork` keep it, the
//! last close and the end of a process drop it. So anyone can ask whether a machine is still held.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::config::config;
use crate::{Answer, Errno, errno, log};

/// What the first byte of a machine's file says.
pub(crate) const AUTODESTRUCT: u8 = 1;
/// Destruction has begun and completes with the last close.
pub(crate) const DESTROYING: u8 = 2;

/// What an intercepted descriptor is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Ctl,
    /// A machine, by the number of its file.
    Vm(u64),
    /// An instance of viona, by the number of its file.
    Viona(u64),
}

/// The directory's parts, made at first use.
pub(crate) fn directory() -> &'static Path {
    let state = &config().state;
    let _ = std::fs::create_dir_all(state.join("vm"));
    let _ = std::fs::create_dir_all(state.join("viona"));
    state
}

/// The file of a machine.
pub(crate) fn machine(name: &str) -> PathBuf {
    directory().join("vm").join(name)
}

/// The file that stands for `/dev/vmmctl`.
pub(crate) fn ctl() -> PathBuf {
    let path = directory().join("vmmctl");
    let _ = File::options().append(true).create(true).open(&path);
    path
}

/// Nobody else changes the zone while this lives.
pub(crate) struct Guard {
    _file: Option<File>,
}

thread_local! {
    /// This thread holds the zone, so that what it closes is the model's own.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether the descriptors that this thread handles are the model's own.
pub(crate) fn is_inside() -> bool {
    INSIDE.try_with(Cell::get).unwrap_or(false)
}

impl Drop for Guard {
    fn drop(&mut self) {
        self._file = None;
        let _ = INSIDE.try_with(|inside| inside.set(false));
    }
}

/// Locks the zone against every process.
pub(crate) fn guard() -> Guard {
    let _ = INSIDE.try_with(|inside| inside.set(true));
    let path = directory().join("lock");
    let file = File::options().append(true).create(true).open(path).ok();
    if let Some(file) = &file {
        flock(file.as_raw_fd(), libc::LOCK_EX);
    }
    Guard { _file: file }
}

/// Takes a lock of a whole file; false when it was not to be had.
pub(crate) fn flock(fd: i32, how: i32) -> bool {
    loop {
        // SAFETY: takes two numbers.
        if unsafe { libc::flock(fd, how) } == 0 {
            return true;
        }
        if errno() != Errno(libc::EINTR) {
            return false;
        }
    }
}

/// Has the model handle descriptors of its own, none of which is the program's.
pub(crate) fn inside<T>(work: impl FnOnce() -> T) -> T {
    let was = INSIDE.try_with(|inside| inside.replace(true));
    let result = work();
    if let Ok(was) = was {
        let _ = INSIDE.try_with(|inside| inside.set(was));
    }
    result
}

/// The flags of a machine; `None` when it is gone.
pub(crate) fn flags(path: &Path) -> Option<u8> {
    let mut byte = [0];
    let read = inside(|| File::open(path).and_then(|file| file.read_exact_at(&mut byte, 0)));
    read.ok().map(|()| byte[0])
}

/// Sets flags of a machine and clears others. The zone must be locked.
pub(crate) fn change(path: &Path, set: u8, clear: u8) -> Answer<()> {
    let gone = Errno(libc::ENXIO);
    let now = flags(path).ok_or(gone)?;
    let file = File::options().write(true).open(path).map_err(|_| gone)?;
    file.write_all_at(&[(now | set) & !clear], 0).map_err(|_| gone)
}

/// Makes a machine. The zone must be locked.
pub(crate) fn create(name: &str) -> Answer<u64> {
    sweep();
    let path = machine(name);
    if path.exists() {
        return Err(Errno(libc::EEXIST));
    }
    if !config().is_global && !names().is_empty() {
        return Err(Errno(libc::EINVAL));
    }
    let file = File::create_new(&path).map_err(|_| Errno(libc::ENOMEM))?;
    file.write_all_at(&[0], 0).map_err(|_| Errno(libc::ENOMEM))?;
    Ok(file.metadata().map_err(|_| Errno(libc::EIO))?.ino())
}

/// The machines that exist.
pub(crate) fn names() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory().join("vm")) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Whether a descriptor of the machine is open anywhere. The zone must be locked.
fn is_held(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    !flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB)
}

/// Completes the destruction of every machine whose time has come. The zone must be locked.
pub(crate) fn sweep() {
    for name in names() {
        let path = machine(&name);
        let is_due = flags(&path).is_some_and(|flags| flags & (AUTODESTRUCT | DESTROYING) != 0);
        if is_due && !is_held(&path) {
            log::line(&format!("destroyed {name}"));
            let _ = std::fs::remove_file(&path);
        }
    }
    crate::vm::forget_gone();
}

/// Removes the files of viona's instances whose last descriptor is closed; their numbers. The
/// zone must be locked.
pub(crate) fn sweep_viona() -> Vec<u64> {
    let mut gone = Vec::new();
    let Ok(entries) = std::fs::read_dir(directory().join("viona")) else { return gone };
    for entry in entries.flatten() {
        if !is_held(&entry.path()) {
            gone.extend(entry.metadata().map(|file| file.ino()));
            let _ = std::fs::remove_file(entry.path());
        }
    }
    gone
}

/// What stands behind a descriptor; `None` for everything that is not ours.
pub(crate) fn node(fd: i32) -> Option<Node> {
    // SAFETY: a zeroed `stat64` is a value of that type.
    let mut stat: libc::stat64 = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills the structure, which outlives the call.
    if unsafe { libc::syscall(libc::SYS_fstat, fd, &raw mut stat) } != 0 {
        return None;
    }
    if crate::vm::is_known(stat.st_ino) {
        return Some(Node::Vm(stat.st_ino));
    }
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return None;
    }
    let path = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    let state = directory().canonicalize().ok()?;
    let rest = path.strip_prefix(state).ok()?;
    if rest == Path::new("vmmctl") {
        return Some(Node::Ctl);
    }
    if rest.starts_with("viona") {
        return Some(Node::Viona(stat.st_ino));
    }
    rest.starts_with("vm").then_some(Node::Vm(stat.st_ino))
}
