// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Signals around KVM's `KVM_RUN`. All are blocked while a thread is in `VM_RUN`, and only KVM
//! lets those in that the program lets in, and ours: so a signal that comes a moment too early
//! waits, and afterwards it can be told who has sent one.

use std::sync::Once;

use crate::{Answer, Errno};

/// The set of no signals.
fn none() -> libc::sigset_t {
    // SAFETY: a set of zeros is the empty set.
    unsafe { std::mem::zeroed() }
}

/// The signal that makes a vCPU leave the guest.
fn ours() -> libc::c_int {
    static INSTALLED: Once = Once::new();
    extern "C" fn ignore(_: libc::c_int) {}
    let signal = libc::SIGRTMAX() - 3;
    INSTALLED.call_once(|| {
        // SAFETY: zeros are an action of no flags.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = ignore as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // SAFETY: the handler does nothing; the structure outlives the call.
        unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    });
    signal
}

fn only_ours() -> libc::sigset_t {
    let mut set = none();
    // SAFETY: the set is ours, and the number is a signal's.
    unsafe { libc::sigaddset(&raw mut set, ours()) };
    set
}

/// Blocks every signal of this thread; what was blocked before.
pub(crate) fn block_all() -> libc::sigset_t {
    let (mut all, mut old) = (none(), none());
    // SAFETY: both sets are ours and outlive the calls.
    unsafe {
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old);
    }
    old
}

/// Blocks what `set` says.
pub(crate) fn restore(set: &libc::sigset_t) {
    // SAFETY: the set outlives the call.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, set, std::ptr::null_mut()) };
}

/// Sends ours to a thread of this process.
pub(crate) fn send(thread: libc::pid_t) {
    // SAFETY: takes three numbers.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, ours()) };
}

/// Takes ours away if it waits for this thread.
pub(crate) fn consume() {
    let set = only_ours();
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the set and the time outlive the calls; nobody asks whose signal it was.
    while unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const now) } > 0 {}
}

/// Whether a signal waits that the program does not block, and that is not ours.
pub(crate) fn is_pending(blocked: &libc::sigset_t) -> bool {
    let mut pending = none();
    // SAFETY: the set is ours and outlives the call.
    unsafe { libc::sigpending(&raw mut pending) };
    let ours = ours();
    (1..=libc::SIGRTMAX()).filter(|signal| *signal != ours).any(|signal| {
        // SAFETY: both sets are valid, and the number is a signal's.
        unsafe {
            libc::sigismember(&raw const pending, signal) == 1
                && libc::sigismember(blocked, signal) == 0
        }
    })
}

/// Has KVM block what the program blocks, but not ours.
pub(crate) fn set_for_kvm(vcpu: libc::c_int, blocked: &libc::sigset_t) -> Answer {
    /// `KVM_SET_SIGNAL_MASK`, `_IOW(KVMIO, 0x8b, struct kvm_signal_mask)`.
    const SET_SIGNAL_MASK: libc::c_ulong = 0x4004_ae8b;
    let mut set = *blocked;
    // SAFETY: the set is ours, and the number is a signal's.
    unsafe { libc::sigdelset(&raw mut set, ours()) };
    let mut mask = [8u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: C's set begins with the 64 bits that the kernel has.
    let bits = unsafe { std::ptr::read_unaligned((&raw const set).cast::<u64>()) };
    mask[4..].copy_from_slice(&bits.to_le_bytes());
    let result = crate::real::ioctl(vcpu, SET_SIGNAL_MASK, mask.as_ptr() as usize);
    if result == 0 { Ok(0) } else { Err(Errno(libc::EIO)) }
}
