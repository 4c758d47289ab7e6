// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Plays `/dev/vmmctl` and `/dev/vmm/*` of illumos, as far as a machine's life and memory go, for a program on Linux that is
//! started with this library in `LD_PRELOAD`.
//!
//! * [`hooks`]: the C functions that are intercepted, and nothing else.
//! * [`real`]: the functions they stand before.
//! * [`zone`]: what outlives a process, in the directory `VMM_MODEL_STATE`: which machines exist,
//!   who holds them. Locks of open file descriptions say so, and those end with their process.
//! * [`abi`]: numbers and sizes of the interface. [`dispatch`] copies arguments in and out.
//! * [`ctl`], [`vm`], [`memory`]: what the calls do.
//! * [`config`], [`fault`], [`log`]: what the variables `VMM_MODEL_*` ask for.
#![allow(unsafe_code)]

mod abi;
mod board;
mod config;
mod ctl;
mod dispatch;
mod fault;
mod hooks;
mod hpet;
mod irq;
mod kvm;
mod life;
mod log;
mod machine;
mod memory;
mod real;
mod rtc;
mod signal;
mod ticker;
mod vcpu;
mod viona;
mod vm;
mod zone;

/// An error number of Linux; `Err` of every call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Errno(i32);

type Answer<T = i32> = Result<T, Errno>;

/// The error number that the last C call left.
fn errno() -> Errno {
    Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// Locks also what a panicking thread has left.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
