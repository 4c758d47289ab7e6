// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A client of the interface that makes C's calls and nothing else.

use std::ffi::CString;

use super::number::*;
use super::version;

/// Sets a field of a structure.
pub fn put(bytes: &mut [u8], at: usize, value: u64, size: usize) {
    bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
}

/// A field of a structure.
pub fn get(bytes: &[u8], at: usize, size: usize) -> u64 {
    let mut field = [0; 8];
    field[..size].copy_from_slice(&bytes[at..at + size]);
    u64::from_le_bytes(field)
}

/// A structure of `N` bytes with these fields: offset, value, size.
pub fn pack<const N: usize>(fields: &[(usize, u64, usize)]) -> [u8; N] {
    let mut bytes = [0; N];
    for (at, value, size) in fields {
        put(&mut bytes, *at, *value, *size);
    }
    bytes
}

fn answer(result: i32) -> Result<i32, i32> {
    if result < 0 {
        Err(std::io::Error::last_os_error().raw_os_error().unwrap())
    } else {
        Ok(result)
    }
}

pub fn open(path: &str, flags: i32) -> Result<i32, i32> {
    let path = CString::new(path).unwrap();
    // SAFETY: the path is a C string.
    answer(unsafe { libc::open(path.as_ptr(), flags) })
}

pub fn close(fd: i32) -> Result<i32, i32> {
    // SAFETY: takes a number.
    answer(unsafe { libc::close(fd) })
}

/// An ioctl that takes a number.
pub fn scalar(fd: i32, number: u32, argument: usize) -> Result<i32, i32> {
    // SAFETY: for these requests the argument is a number, or an address that is checked.
    answer(unsafe { libc::ioctl(fd, number.into(), argument) })
}

/// An ioctl that takes a structure.
pub fn call<const N: usize>(fd: i32, number: u32, bytes: &mut [u8; N]) -> Result<i32, i32> {
    // SAFETY: the structure is as large as the request's largest.
    answer(unsafe { libc::ioctl(fd, number.into(), bytes.as_mut_ptr()) })
}

/// Ends a process.
pub fn kill(id: u32) {
    // SAFETY: takes two numbers.
    unsafe { libc::kill(id.cast_signed(), libc::SIGKILL) };
}

/// Maps memory of a machine.
pub fn map(fd: i32, offset: u64, len: usize) -> Result<*mut u8, i32> {
    let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: a new mapping where the kernel likes.
    let at =
        unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, fd, offset.cast_signed()) };
    if at == libc::MAP_FAILED {
        Err(std::io::Error::last_os_error().raw_os_error().unwrap())
    } else {
        Ok(at.cast())
    }
}

/// Opens the control node.
pub fn control() -> i32 {
    open("/dev/vmmctl", libc::O_RDWR | libc::O_EXCL | libc::O_CLOEXEC).unwrap()
}

/// The structure with a name at its begin.
pub fn named<const N: usize>(name: &str) -> [u8; N] {
    let mut bytes = [0; N];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes
}

pub fn create(control: i32, name: &str) -> Result<i32, i32> {
    call(control, VMM_CREATE_VM, &mut named::<136>(name))
}

pub fn open_machine(name: &str) -> Result<i32, i32> {
    open(&format!("/dev/vmm/{name}"), libc::O_RDWR | libc::O_CLOEXEC)
}

/// A machine that is created and open.
pub fn machine(name: &str) -> i32 {
    let control = control();
    create(control, name).unwrap();
    let fd = open_machine(name).unwrap();
    close(control).unwrap();
    if version() >= 4 {
        scalar(fd, VM_SET_AUTODESTRUCT, 1).unwrap();
    }
    fd
}

/// Allocates a segment; without a name it is system memory.
pub fn allocate(fd: i32, id: u64, len: u64, name: &str) -> Result<i32, i32> {
    let mut bytes = pack::<144>(&[(0, id, 4), (8, len, 8)]);
    bytes[16..16 + name.len()].copy_from_slice(name.as_bytes());
    call(fd, VM_ALLOC_MEMSEG, &mut bytes)
}

/// Shows a segment to the guest.
pub fn place(fd: i32, gpa: u64, id: u64, len: u64, prot: u64) -> Result<i32, i32> {
    let fields = [(0, gpa, 8), (8, id, 4), (24, len, 8), (32, prot, 4)];
    call(fd, VM_MMAP_MEMSEG, &mut pack::<40>(&fields))
}

/// A call with two 32-bit fields.
pub fn two(fd: i32, number: u32, first: u64, second: u64) -> Result<i32, i32> {
    call(fd, number, &mut pack::<8>(&[(0, first, 4), (4, second, 4)]))
}

/// A call with a pointer to one 32-bit number.
pub fn one(fd: i32, number: u32, value: u64) -> Result<i32, i32> {
    call(fd, number, &mut pack::<4>(&[(0, value, 4)]))
}

pub fn register(fd: i32, cpu: u64, number: u64) -> Result<u64, i32> {
    let mut bytes = pack::<16>(&[(0, cpu, 4), (4, number, 4)]);
    call(fd, VM_GET_REGISTER, &mut bytes).map(|_| get(&bytes, 8, 8))
}

pub fn set_register(fd: i32, cpu: u64, number: u64, value: u64) -> Result<i32, i32> {
    call(fd, VM_SET_REGISTER, &mut pack::<16>(&[(0, cpu, 4), (4, number, 4), (8, value, 8)]))
}

/// Suspends with the largest structure, as one does for every version.
pub fn suspend(fd: i32, how: u64) -> Result<i32, i32> {
    two(fd, VM_SUSPEND, how, u64::from(u32::MAX))
}

/// Reinitialises with the flags that a version wants.
pub fn reinit(fd: i32) -> Result<i32, i32> {
    let flags = if version() < 16 { 1 } else { 0 };
    call(fd, VM_REINIT, &mut pack::<8>(&[(0, flags, 8)]))
}
