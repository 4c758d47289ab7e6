// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The functions that the hooks stand before, as the next library has them.

use std::ffi::CStr;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{c_char, c_int, c_uint, c_ulong, c_void, off_t, size_t};

/// A function that is looked up once.
struct Next(&'static CStr, AtomicPtr<c_void>);

impl Next {
    const fn new(name: &'static CStr) -> Self {
        Self(name, AtomicPtr::new(std::ptr::null_mut()))
    }

    fn get(&self) -> *mut c_void {
        let known = self.1.load(Ordering::Relaxed);
        if !known.is_null() {
            return known;
        }
        // SAFETY: the name is a C string; the result is only an address.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.0.as_ptr()) };
        self.1.store(found, Ordering::Relaxed);
        found
    }
}

macro_rules! next {
    ($name:ident, $symbol:literal, ($($arg:ident: $ty:ty),*) -> $ret:ty) => {
        #[doc = concat!("The next `", $symbol, "`.")]
        pub(crate) fn $name($($arg: $ty),*) -> $ret {
            static NEXT: Next = Next::new(match CStr::from_bytes_with_nul(concat!($symbol, "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => panic!("a name has no NUL inside"),
            });
            let next = NEXT.get();
            assert!(!next.is_null(), concat!("there is no ", $symbol));
            // SAFETY: C's function of that name has this signature on x86-64 Linux, where
            // variable arguments are passed like others. What it does with the arguments is the
            // caller's matter, as without this library.
            unsafe {
                let function: unsafe extern "C" fn($($ty),*) -> $ret = std::mem::transmute(next);
                function($($arg),*)
            }
        }
    };
}

next!(open, "open64", (path: *const c_char, flags: c_int, mode: c_int) -> c_int);
next!(openat, "openat64", (at: c_int, path: *const c_char, flags: c_int, mode: c_int) -> c_int);
next!(close, "close", (fd: c_int) -> c_int);
next!(ioctl, "ioctl", (fd: c_int, request: c_ulong, argument: usize) -> c_int);
next!(mmap, "mmap64", (at: *mut c_void, len: size_t, prot: c_int, flags: c_int, fd: c_int, offset: off_t) -> *mut c_void);
next!(fork, "fork", () -> c_int);
next!(dup2, "dup2", (old: c_int, new: c_int) -> c_int);
next!(dup3, "dup3", (old: c_int, new: c_int, flags: c_int) -> c_int);
next!(poll, "poll", (list: *mut libc::pollfd, count: libc::nfds_t, timeout: c_int) -> c_int);
next!(ppoll, "ppoll", (list: *mut libc::pollfd, count: libc::nfds_t, timeout: *const libc::timespec, mask: *const libc::sigset_t) -> c_int);
next!(close_range, "close_range", (first: c_uint, last: c_uint, flags: c_int) -> c_int);
next!(stat, "stat64", (path: *const c_char, buffer: *mut libc::stat64) -> c_int);
next!(lstat, "lstat64", (path: *const c_char, buffer: *mut libc::stat64) -> c_int);
next!(fstatat, "fstatat64", (at: c_int, path: *const c_char, buffer: *mut libc::stat64, flags: c_int) -> c_int);
next!(statx, "statx", (at: c_int, path: *const c_char, flags: c_int, mask: c_uint, buffer: *mut libc::statx) -> c_int);
next!(access, "access", (path: *const c_char, mode: c_int) -> c_int);
next!(faccessat, "faccessat", (at: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int);
next!(opendir, "opendir", (path: *const c_char) -> *mut c_void);
