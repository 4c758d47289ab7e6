// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The C functions that are intercepted. Everything that is not ours goes to the next library
//! with the arguments it came with.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{c_char, c_int, c_uint, c_ulong, c_void, off_t, size_t};

use crate::paths::{Target, target};
use crate::zone::Node;
use crate::{Answer, Errno, dispatch, fault, lock, log, real, viona, vm, zone};

/// A descriptor of ours has been opened in this process.
static ACTIVE: AtomicBool = AtomicBool::new(false);

fn answer(result: Answer) -> c_int {
    result.unwrap_or_else(|error| {
        // SAFETY: the C library gives the address of this thread's error number.
        unsafe { *libc::__errno_location() = error.0 };
        -1
    })
}

fn open_ours(target: &Target, flags: c_int) -> Answer {
    ACTIVE.store(true, Ordering::Relaxed);
    fault::strike("open")?;
    let how = flags & (libc::O_ACCMODE | libc::O_CLOEXEC);
    match target {
        Target::Ctl if flags & libc::O_EXCL == 0 => Err(Errno(libc::EINVAL)),
        Target::Ctl => open_file(zone::ctl(), how),
        Target::Directory => open_file(zone::directory().join("vm"), flags),
        Target::Viona => {
            let _guard = zone::guard();
            let path = viona::file();
            std::fs::File::create_new(&path).map_err(|_| Errno(libc::ENOMEM))?;
            let fd = open_file(path, how)?;
            zone::flock(fd, libc::LOCK_SH);
            Ok(fd)
        }
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
        Target::Viona => "open /dev/viona",
        Target::Directory => "open /dev/vmm",
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

/// What follows when descriptors of ours may have been closed for the last time.
fn closed() {
    let gone = {
        let _guard = zone::guard();
        zone::sweep_viona()
    };
    viona::forget(&gone);
    let _guard = zone::guard();
    zone::sweep();
}

/// Does `close` to a descriptor of that number, and what follows from it when it was ours.
fn closing(fd: c_int, close: impl FnOnce() -> c_int) -> c_int {
    let is_ours = ACTIVE.load(Ordering::Relaxed) && !zone::is_inside() && zone::node(fd).is_some();
    let result = close();
    if is_ours {
        let error = crate::errno();
        closed();
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
extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    let result = real::close_range(first, last, flags);
    if ACTIVE.load(Ordering::Relaxed) && result == 0 {
        closed();
    }
    result
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
    fault::strike("mmap")?;
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

/// Puts the descriptors that tell of interrupts in the place of viona's; which ones those were.
fn substitute(list: &mut [libc::pollfd]) -> Answer<Vec<(usize, libc::pollfd)>> {
    let mut replaced = Vec::new();
    for (index, entry) in list.iter_mut().enumerate() {
        if let Some(Node::Viona(id)) = zone::node(entry.fd) {
            let fd = viona::of(id).waiting()?;
            replaced.push((index, *entry));
            let events = if entry.events & libc::POLLRDBAND != 0 { libc::POLLIN } else { 0 };
            *entry = libc::pollfd { fd, events, revents: 0 };
        }
    }
    Ok(replaced)
}

/// Does `poll` to a list in which viona may be.
fn polling(
    list: *mut libc::pollfd,
    count: libc::nfds_t,
    poll: impl FnOnce(*mut libc::pollfd) -> c_int,
) -> c_int {
    if !ACTIVE.load(Ordering::Relaxed) || list.is_null() || count == 0 {
        return poll(list);
    }
    // SAFETY: C's function takes so many structures there, which are the caller's to change.
    let entries = unsafe { std::slice::from_raw_parts_mut(list, count as usize) };
    let original = entries.to_vec();
    let replaced = match substitute(entries) {
        Ok(replaced) => replaced,
        Err(error) => {
            entries.copy_from_slice(&original);
            return answer(Err(error));
        }
    };
    let result = poll(list);
    for (index, mut entry) in replaced {
        let is_ready = entries[index].revents & libc::POLLIN != 0;
        entry.revents = if is_ready { libc::POLLRDBAND } else { 0 };
        entries[index] = entry;
    }
    result
}

#[unsafe(no_mangle)]
extern "C" fn poll(list: *mut libc::pollfd, count: libc::nfds_t, timeout: c_int) -> c_int {
    polling(list, count, |list| real::poll(list, count, timeout))
}

#[unsafe(no_mangle)]
extern "C" fn __poll_chk(
    list: *mut libc::pollfd,
    count: libc::nfds_t,
    timeout: c_int,
    _: size_t,
) -> c_int {
    poll(list, count, timeout)
}

#[unsafe(no_mangle)]
extern "C" fn ppoll(
    list: *mut libc::pollfd,
    count: libc::nfds_t,
    timeout: *const libc::timespec,
    mask: *const libc::sigset_t,
) -> c_int {
    polling(list, count, |list| real::ppoll(list, count, timeout, mask))
}
