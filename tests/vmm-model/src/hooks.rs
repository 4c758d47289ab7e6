// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The C functions that are intercepted. Everything that is not ours goes to the next library
//! with the arguments it came with.

use std::ffi::CStr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{c_char, c_int, c_ulong, c_void, off_t, size_t};

use crate::zone::Node;
use crate::{Answer, Errno, dispatch, fault, lock, log, real, vm, zone};

/// A descriptor of ours has been opened in this process.
static ACTIVE: AtomicBool = AtomicBool::new(false);

fn answer(result: Answer) -> c_int {
    result.unwrap_or_else(|error| {
        // SAFETY: the C library gives the address of this thread's error number.
        unsafe { *libc::__errno_location() = error.0 };
        -1
    })
}

/// Which path a program means.
enum Target {
    Ctl,
    Machine(PathBuf),
}

fn target(path: *const c_char) -> Option<Target> {
    if path.is_null() {
        return None;
    }
    // SAFETY: C's functions take a string that ends with NUL here, and so do the hooks.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    let rest = path.strip_prefix(b"/dev/vmm")?;
    if rest == b"ctl" {
        return Some(Target::Ctl);
    }
    let name = std::str::from_utf8(rest.strip_prefix(b"/")?).ok()?;
    let is_name = !name.is_empty() && !name.contains('/') && name != "." && name != "..";
    is_name.then(|| Target::Machine(zone::machine(name)))
}

fn open_ours(target: &Target, flags: c_int) -> Answer {
    ACTIVE.store(true, Ordering::Relaxed);
    fault::strike("open")?;
    let how = flags & (libc::O_ACCMODE | libc::O_CLOEXEC);
    match target {
        Target::Ctl if flags & libc::O_EXCL == 0 => Err(Errno(libc::EINVAL)),
        Target::Ctl => open_file(zone::ctl(), how),
        Target::Machine(path) => {
            let _guard = zone::guard();
            zone::sweep();
            match zone::flags(path) {
                None => Err(Errno(libc::ENOENT)),
                Some(flags) if flags & zone::DESTROYING != 0 => Err(Errno(libc::ENXIO)),
                Some(_) => {
                    let fd = open_file(path.clone(), how)?;
                    zone::flock(fd, libc::LOCK_SH);
                    Ok(fd)
                }
            }
        }
    }
}

fn open_file(path: PathBuf, flags: c_int) -> Answer {
    let path = std::ffi::CString::new(path.into_os_string().into_encoded_bytes())
        .map_err(|_| Errno(libc::EINVAL))?;
    let fd = real::open(path.as_ptr(), flags, 0);
    if fd < 0 { Err(crate::errno()) } else { Ok(fd) }
}

fn opened(target: &Target, flags: c_int) -> c_int {
    let result = open_ours(target, flags);
    let what = match target {
        Target::Ctl => "open /dev/vmmctl",
        Target::Machine(_) => "open /dev/vmm/NAME",
    };
    log::call(-1, what, flags as usize, &[], result);
    answer(result)
}

macro_rules! opens {
    ($($name:ident($($at:ident)?) => $next:ident),*) => { $(
        #[unsafe(no_mangle)]
        extern "C" fn $name($($at: c_int,)? path: *const c_char, flags: c_int, mode: c_int) -> c_int {
            match target(path) {
                Some(target) => opened(&target, flags),
                None => real::$next($($at,)? path, flags, mode),
            }
        }
    )* };
}

opens!(open() => open, open64() => open, openat(at) => openat, openat64(at) => openat);

macro_rules! checked_opens {
    ($($name:ident => $next:ident),*) => { $(
        #[unsafe(no_mangle)]
        extern "C" fn $name(path: *const c_char, flags: c_int) -> c_int {
            match target(path) {
                Some(target) => opened(&target, flags),
                None => real::$next(path, flags, 0),
            }
        }
    )* };
}

checked_opens!(__open_2 => open, __open64_2 => open);

/// Does `close` to a descriptor of that number, and what follows from it when it was ours.
fn closing(fd: c_int, close: impl FnOnce() -> c_int) -> c_int {
    let is_ours = ACTIVE.load(Ordering::Relaxed) && !zone::is_inside() && zone::node(fd).is_some();
    let result = close();
    if is_ours {
        let error = crate::errno();
        let _guard = zone::guard();
        zone::sweep();
        log::line(&format!("fd {fd} close -> {result}"));
        if result < 0 {
            return answer(Err(error));
        }
    }
    result
}

#[unsafe(no_mangle)]
extern "C" fn close(fd: c_int) -> c_int {
    closing(fd, || real::close(fd))
}

#[unsafe(no_mangle)]
extern "C" fn dup2(old: c_int, new: c_int) -> c_int {
    if old == new { real::dup2(old, new) } else { closing(new, || real::dup2(old, new)) }
}

#[unsafe(no_mangle)]
extern "C" fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    closing(new, || real::dup3(old, new, flags))
}

#[unsafe(no_mangle)]
extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int {
    // C passes an `int` on illumos, whose upper half may be anything here.
    let number = request as u32;
    if crate::abi::is_ours(number.into())
        && let Some(node) = zone::node(fd)
    {
        return answer(dispatch::ioctl(fd, &node, number, argument));
    }
    real::ioctl(fd, request, argument)
}

fn map(fd: c_int, node: &Node, offset: off_t, len: size_t, prot: c_int) -> Answer<(i32, i64)> {
    let absent = Errno(libc::ENODEV);
    let Node::Vm(id) = node else { return Err(absent) };
    let vm = vm::of(fd, *id)?;
    if vm.is_ending() {
        return Err(Errno(libc::ENXIO));
    }
    let offset = u64::try_from(offset).map_err(|_| absent)?;
    lock(&vm.space).host(offset, len as u64, prot)
}

#[unsafe(no_mangle)]
extern "C" fn mmap(
    at: *mut c_void,
    len: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> *mut c_void {
    if fd < 0 || flags & libc::MAP_ANONYMOUS != 0 || !ACTIVE.load(Ordering::Relaxed) {
        return real::mmap(at, len, prot, flags, fd, offset);
    }
    let Some(node) = zone::node(fd) else {
        return real::mmap(at, len, prot, flags, fd, offset);
    };
    let place = map(fd, &node, offset, len, prot);
    log::call(fd, "mmap", offset as usize, &[], place.map(|_| 0));
    match place {
        Ok((memory, offset)) => real::mmap(at, len, prot, flags, memory, offset),
        Err(error) => {
            answer(Err(error));
            libc::MAP_FAILED
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn mmap64(
    at: *mut c_void,
    len: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> *mut c_void {
    mmap(at, len, prot, flags, fd, offset)
}

#[unsafe(no_mangle)]
extern "C" fn fork() -> c_int {
    vm::across_fork(real::fork)
}
