// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `libdladm`: the translation of a link's name to its number. On illumos it is a library; here
//! these functions are found where a program looks for those of the libraries it has.

use std::ffi::{CStr, c_char, c_int, c_void};

use super::wire::entries;
use crate::log;

const OK: c_int = 0;
/// `DLADM_STATUS_NOTFOUND`.
const NOT_FOUND: c_int = 4;
/// `DATALINK_CLASS_VNIC`.
const VNIC: u32 = 8;
/// `DL_ETHER`.
const ETHERNET: u32 = 4;

#[unsafe(no_mangle)]
extern "C" fn dladm_open(handle: *mut *mut c_void) -> c_int {
    if !handle.is_null() {
        // SAFETY: C's function takes a place for a pointer here. Any pointer is a handle.
        unsafe { *handle = std::ptr::dangling_mut::<u64>().cast() };
    }
    OK
}

#[unsafe(no_mangle)]
extern "C" fn dladm_close(_: *mut c_void) {}

#[unsafe(no_mangle)]
extern "C" fn dladm_name2info(
    _: *mut c_void,
    name: *const c_char,
    id: *mut u32,
    flags: *mut u32,
    class: *mut u32,
    media: *mut u32,
) -> c_int {
    if name.is_null() {
        return NOT_FOUND;
    }
    // SAFETY: C's function takes a string that ends with NUL here.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    let found = entries().into_iter().find(|entry| entry.name == name);
    log::line(&format!("dladm_name2info {name} -> {:?}", found.as_ref().map(|entry| entry.id)));
    let Some(entry) = found else { return NOT_FOUND };
    for (place, value) in [(id, entry.id), (flags, 1), (class, VNIC), (media, ETHERNET)] {
        if !place.is_null() {
            // SAFETY: what is not null is a place for 32 bits.
            unsafe { *place = value };
        }
    }
    OK
}
