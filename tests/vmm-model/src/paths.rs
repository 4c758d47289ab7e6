// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The C functions that look at paths: a program that asks whether a node exists, or lists
//! `/dev/vmm`, sees the zone.

use std::ffi::{CStr, CString};
use std::path::PathBuf;

use libc::{c_char, c_int, c_uint, c_void};

use crate::{real, viona, zone};

/// Which node a program means.
pub(crate) enum Target {
    Ctl,
    Machine(PathBuf),
    Viona,
    /// `/dev/vmm` itself.
    Directory,
}

/// The node that a path means, if it is ours.
pub(crate) fn target(path: *const c_char) -> Option<Target> {
    if path.is_null() {
        return None;
    }
    // SAFETY: C's functions take a string that ends with NUL here, and so do the hooks.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    if path == b"/dev/viona" {
        return Some(Target::Viona);
    }
    let rest = path.strip_prefix(b"/dev/vmm")?;
    match rest {
        b"ctl" => return Some(Target::Ctl),
        b"" | b"/" => return Some(Target::Directory),
        _ => {}
    }
    let name = std::str::from_utf8(rest.strip_prefix(b"/")?).ok()?;
    let is_name = !name.is_empty() && !name.contains('/') && name != "." && name != "..";
    is_name.then(|| Target::Machine(zone::machine(name)))
}

impl Target {
    /// The file that stands for it.
    fn stand_in(&self) -> CString {
        let path = {
            let guard = zone::guard();
            let gone = zone::sweep_viona();
            drop(guard);
            viona::forget(&gone);
            let _guard = zone::guard();
            zone::sweep();
            match self {
                Self::Ctl | Self::Viona => zone::ctl(),
                Self::Machine(path) => path.clone(),
                Self::Directory => zone::directory().join("vm"),
            }
        };
        CString::new(path.into_os_string().into_encoded_bytes()).unwrap_or_default()
    }

    /// The type and permissions of the node.
    fn mode(&self) -> libc::mode_t {
        match self {
            Self::Directory => libc::S_IFDIR | 0o755,
            _ => libc::S_IFCHR | 0o600,
        }
    }

    fn correct(&self, result: c_int, buffer: *mut libc::stat64) -> c_int {
        if result == 0 && !buffer.is_null() {
            // SAFETY: the function before has filled the structure.
            unsafe { (*buffer).st_mode = self.mode() };
        }
        result
    }
}

macro_rules! stats {
    ($($name:ident => $next:ident),*) => { $(
        #[unsafe(no_mangle)]
        extern "C" fn $name(path: *const c_char, buffer: *mut libc::stat64) -> c_int {
            match target(path) {
                Some(target) => {
                    let file = target.stand_in();
                    target.correct(real::$next(file.as_ptr(), buffer), buffer)
                }
                None => real::$next(path, buffer),
            }
        }
    )* };
}

stats!(stat => stat, stat64 => stat, lstat => lstat, lstat64 => lstat);

macro_rules! stats_at {
    ($($name:ident),*) => { $(
        #[unsafe(no_mangle)]
        extern "C" fn $name(
            at: c_int,
            path: *const c_char,
            buffer: *mut libc::stat64,
            flags: c_int,
        ) -> c_int {
            match target(path) {
                Some(target) => {
                    let file = target.stand_in();
                    target.correct(real::fstatat(at, file.as_ptr(), buffer, flags), buffer)
                }
                None => real::fstatat(at, path, buffer, flags),
            }
        }
    )* };
}

stats_at!(fstatat, fstatat64);

#[unsafe(no_mangle)]
extern "C" fn statx(
    at: c_int,
    path: *const c_char,
    flags: c_int,
    mask: c_uint,
    buffer: *mut libc::statx,
) -> c_int {
    let Some(target) = target(path) else { return real::statx(at, path, flags, mask, buffer) };
    let file = target.stand_in();
    let result = real::statx(at, file.as_ptr(), flags, mask, buffer);
    if result == 0 && !buffer.is_null() {
        // SAFETY: the function before has filled the structure.
        unsafe { (*buffer).stx_mode = target.mode() as u16 };
    }
    result
}

#[unsafe(no_mangle)]
extern "C" fn access(path: *const c_char, mode: c_int) -> c_int {
    match target(path) {
        Some(target) => real::access(target.stand_in().as_ptr(), mode),
        None => real::access(path, mode),
    }
}

#[unsafe(no_mangle)]
extern "C" fn faccessat(at: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int {
    match target(path) {
        Some(target) => real::faccessat(at, target.stand_in().as_ptr(), mode, flags),
        None => real::faccessat(at, path, mode, flags),
    }
}

/// `readdir` needs nothing: it lists the zone's directory.
#[unsafe(no_mangle)]
extern "C" fn opendir(path: *const c_char) -> *mut c_void {
    match target(path) {
        Some(target) => real::opendir(target.stand_in().as_ptr()),
        None => real::opendir(path),
    }
}
