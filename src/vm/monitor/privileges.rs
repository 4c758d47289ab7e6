// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Privileges of illumos (privileges(7)) that a monitor gives up for good, root or not: whatever it
//! makes later, the next board included, needs none of them. Their functions are looked for when the
//! monitor runs, in the C library; a system without them has no such privileges.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;

/// Starting programs, looking at other processes, linking other people's files, and network
/// endpoints: the guest's frames take another way.
const GIVEN_UP: [&CStr; 6] =
    [c"proc_fork", c"proc_exec", c"proc_info", c"proc_session", c"file_link_any", c"net_access"];
/// The sets that bound what this process, and one that it started, can have.
const SETS: [&CStr; 2] = [c"Permitted", c"Limit"];
/// `PRIV_OFF` of `sys/priv.h`.
const OFF: c_int = 1;

type Parse = unsafe extern "C" fn(*const c_char, *const c_char, *mut *const c_char) -> *mut c_void;
type Set = unsafe extern "C" fn(c_int, *const c_char, *const c_void) -> c_int;
type Free = unsafe extern "C" fn(*mut c_void);

/// The functions, where the C library has them.
struct Functions {
    parse: Parse,
    set: Set,
    free: Free,
}

impl Functions {
    fn find() -> Option<Self> {
        let [parse, set, free] = [c"priv_str_to_set", c"setppriv", c"priv_freeset"].map(|name| {
            // SAFETY: the handle is RTLD_DEFAULT and the name a C string.
            unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
        });
        if parse.is_null() || set.is_null() || free.is_null() {
            return None;
        }
        // SAFETY: by `priv.h` the functions have these types: sets are opaque pointers, names and
        // kinds of sets are strings, the operation is an enumeration.
        unsafe {
            Some(Self {
                parse: std::mem::transmute::<*mut c_void, Parse>(parse),
                set: std::mem::transmute::<*mut c_void, Set>(set),
                free: std::mem::transmute::<*mut c_void, Free>(free),
            })
        }
    }
}

/// Gives up what is never needed again. What does not work is logged: it is a second line of
/// defence.
pub(super) fn give_up() {
    let Some(functions) = Functions::find() else { return };
    for name in GIVEN_UP {
        // SAFETY: two C strings; no place for the end is wanted.
        let privilege = unsafe { (functions.parse)(name.as_ptr(), c",".as_ptr(), null_mut()) };
        if privilege.is_null() {
            tracing::debug!("this system has no privilege {name:?}");
            continue;
        }
        for set in SETS {
            // SAFETY: a C string, and a set that is not freed yet.
            if unsafe { (functions.set)(OFF, set.as_ptr(), privilege) } != 0 {
                let error = std::io::Error::last_os_error();
                tracing::debug!("the privilege {name:?} is not given up ({set:?}): {error}");
            }
        }
        // SAFETY: the set is one of `priv_str_to_set`, and not used again.
        unsafe { (functions.free)(privilege) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_either_has_all_of_it_or_none() {
        let names = [c"priv_str_to_set", c"setppriv", c"priv_freeset"];
        let there = names.map(|name| {
            // SAFETY: the handle is RTLD_DEFAULT and the name a C string.
            !unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }.is_null()
        });
        assert_eq!(Functions::find().is_some(), there == [true; 3]);
        assert!(there == [true; 3] || there == [false; 3], "{there:?}");
    }
}
