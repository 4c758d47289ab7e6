// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! From an intercepted `ioctl` to the call that answers it, and back.

use std::cell::Cell;

use crate::abi::{self, Arg, find};
use crate::config::config;
use crate::zone::Node;
use crate::{Answer, Errno, ctl, fault, log, machine, viona, vm};

/// Answers an ioctl on one of our descriptors.
///
/// # Errors
/// Those of the kernel.
pub(crate) fn ioctl(fd: i32, node: &Node, number: u32, argument: usize) -> Answer {
    let (version, viona) = (config().version, config().viona);
    let is_viona = matches!(node, Node::Viona(_));
    let found = find(number, if is_viona { viona } else { version });
    let Some(call) = found.filter(|_| is_viona == (number >> 8 == 0x5643)) else {
        let error = unknown(node);
        log::call(fd, &format!("{number:#x}"), argument, &[], Err(error));
        return Err(error);
    };
    let mut bytes = Vec::new();
    let arg = call.argument(version, viona);
    let answer = copy_in(arg, argument, &mut bytes)
        .and_then(|()| fault::strike(call.name))
        .and_then(|()| match node {
            Node::Ctl => ctl::call(fd, number, &mut bytes),
            Node::Vm(id) => machine::call(&*vm::of(fd, *id)?, number, argument, &mut bytes),
            Node::Viona(id) => viona::call(&viona::of(*id), number, argument, &mut bytes),
        })
        .and_then(|value| copy_out(arg, argument, &bytes).map(|()| value));
    if answer.is_err() && number == abi::VM_GET_CPUID {
        // The number of entries that are needed goes back also then.
        let _ = copy_out(arg, argument, &bytes);
    }
    log::call(fd, call.name, argument, &bytes, answer);
    answer
}

/// The error of a number that nobody knows.
fn unknown(node: &Node) -> Errno {
    match node {
        Node::Viona(id) if viona::of(*id).waiting().is_err() => Errno(libc::ENXIO),
        _ => Errno(libc::ENOTTY),
    }
}

fn copy_in(arg: Arg, from: usize, bytes: &mut Vec<u8>) -> Answer<()> {
    match arg {
        Arg::MaybeIn(_) if from == 0 => Ok(()),
        Arg::In(size) | Arg::InOut(size) | Arg::MaybeIn(size) => {
            bytes.resize(size, 0);
            transfer(libc::SYS_process_vm_readv, bytes.as_mut_ptr() as usize, from, size)
        }
        Arg::Out(size) => {
            bytes.resize(size, 0);
            Ok(())
        }
        Arg::None | Arg::Scalar => Ok(()),
    }
}

fn copy_out(arg: Arg, to: usize, bytes: &[u8]) -> Answer<()> {
    match arg {
        Arg::Out(size) | Arg::InOut(size) => {
            transfer(libc::SYS_process_vm_writev, bytes.as_ptr() as usize, to, size)
        }
        _ => Ok(()),
    }
}

/// Reads what a program's pointer points to.
///
/// # Errors
/// `EFAULT` when the pointer is bad.
pub(crate) fn read_user(from: u64, bytes: &mut [u8]) -> Answer<()> {
    let size = bytes.len();
    transfer(libc::SYS_process_vm_readv, bytes.as_mut_ptr() as usize, from as usize, size)
}

/// Writes where a program's pointer points to.
///
/// # Errors
/// `EFAULT` when the pointer is bad.
pub(crate) fn write_user(to: u64, bytes: &[u8]) -> Answer<()> {
    transfer(libc::SYS_process_vm_writev, bytes.as_ptr() as usize, to as usize, bytes.len())
}

thread_local! {
    /// The places of this thread's last two transfers that the kernel has found good: a vCPU comes
    /// with the same ones each time, and asking costs as much as entering the guest.
    static GOOD: Cell<[(libc::c_long, usize, usize); 2]> = const { Cell::new([(0, 0, 0); 2]) };
}

/// Copies between our memory and a program's pointer, which may be bad.
fn transfer(call: libc::c_long, ours: usize, theirs: usize, size: usize) -> Answer<()> {
    let place = (call, theirs, size);
    if GOOD.get().contains(&place) {
        let (from, to) =
            if call == libc::SYS_process_vm_readv { (theirs, ours) } else { (ours, theirs) };
        // SAFETY: `ours` is a buffer of `size` bytes. Theirs was one, for this very call of this
        // very thread: a program that has taken it away since loses more than an error number.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, size) };
        return Ok(());
    }
    checked(call, ours, theirs, size)?;
    let [_, last] = GOOD.get();
    GOOD.set([last, place]);
    Ok(())
}

fn checked(call: libc::c_long, ours: usize, theirs: usize, size: usize) -> Answer<()> {
    let part = |base: usize| libc::iovec { iov_base: base as *mut libc::c_void, iov_len: size };
    let (ours, theirs) = (part(ours), part(theirs));
    // SAFETY: `ours` is a buffer of `size` bytes; the kernel checks `theirs` and writes only
    // there or, when it reads, into `ours`, which the caller borrows.
    let done = unsafe {
        libc::syscall(
            call,
            libc::getpid(),
            &raw const ours,
            1usize,
            &raw const theirs,
            1usize,
            0usize,
        )
    };
    if usize::try_from(done) == Ok(size) { Ok(()) } else { Err(Errno(libc::EFAULT)) }
}
