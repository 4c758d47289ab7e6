// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A link's number by its name. Only illumos' libdladm knows it (`libdladm.h`); the library is
//! loaded when it is needed, so that this program starts on systems that have none.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::null_mut;

const LIBRARY: &CStr = c"libdladm.so.1";
/// `DLADM_STATUS_OK`.
const OK: c_int = 0;

/// Why a name has no number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LinkError {
    /// This system has no libdladm.
    NoLibrary(String),
    /// It does not reach its daemon or device; its status.
    NoDoor(c_int),
    /// There is no such link; its status.
    Missing(c_int),
}

type Open = unsafe extern "C" fn(*mut *mut c_void) -> c_int;
type Close = unsafe extern "C" fn(*mut c_void);
type Info = unsafe extern "C" fn(
    *mut c_void,
    *const c_char,
    *mut u32,
    *mut u32,
    *mut u32,
    *mut u32,
) -> c_int;

/// The three functions.
struct Library {
    open: Open,
    close: Close,
    info: Info,
}

impl Library {
    fn load() -> Result<Self, LinkError> {
        // SAFETY: the name is a C string; the library is never unloaded, so that functions in it
        // stay. Where there is none, a null handle asks for what this process has already.
        let handle = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW) };
        let handle = if handle.is_null() { libc::RTLD_DEFAULT } else { handle };
        let [open, close, info] =
            [c"dladm_open", c"dladm_close", c"dladm_name2info"].map(|name| find(handle, name));
        // SAFETY: by `libdladm.h` these functions have these types: a handle is an opaque pointer,
        // `datalink_id_t`, flags and media are 32 bits wide, as is the enumeration of classes.
        unsafe {
            Ok(Self {
                open: std::mem::transmute::<*mut c_void, Open>(open?),
                close: std::mem::transmute::<*mut c_void, Close>(close?),
                info: std::mem::transmute::<*mut c_void, Info>(info?),
            })
        }
    }
}

fn find(handle: *mut c_void, name: &CStr) -> Result<*mut c_void, LinkError> {
    // SAFETY: the handle is a library's or RTLD_DEFAULT, and the name is a C string.
    let symbol = unsafe { libc::dlsym(handle, name.as_ptr()) };
    if symbol.is_null() {
        return Err(LinkError::NoLibrary(format!(
            "this system has no {}",
            LIBRARY.to_string_lossy()
        )));
    }
    Ok(symbol)
}

/// The number of a link.
pub(super) fn id(name: &str) -> Result<u32, LinkError> {
    let library = Library::load()?;
    let Ok(name) = CString::new(name) else { return Err(LinkError::Missing(OK)) };
    let mut handle = null_mut();
    // SAFETY: the function fills one pointer.
    let status = unsafe { (library.open)(&raw mut handle) };
    if status != OK {
        return Err(LinkError::NoDoor(status));
    }
    let mut id = 0;
    // SAFETY: the handle is open, the name a C string, the number's place valid; the others may be
    // null.
    let status = unsafe {
        (library.info)(handle, name.as_ptr(), &raw mut id, null_mut(), null_mut(), null_mut())
    };
    // SAFETY: the handle is open and not used again.
    unsafe { (library.close)(handle) };
    if status == OK { Ok(id) } else { Err(LinkError::Missing(status)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_link_is_no_number() {
        assert!(id("no-such-link-0").is_err());
    }
}
