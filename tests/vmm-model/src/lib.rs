// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Plays `/dev/vmmctl`, `/dev/vmm/*` and `/dev/viona` of illumos, with KVM underneath, for a
//! program on Linux that is started with this library in `LD_PRELOAD`.
//!
//! * [`hooks`], [`paths`]: the C functions that are intercepted, and nothing else. [`real`]: the
//!   functions they stand before.
//! * [`zone`]: what outlives a process, in the directory `VMM_MODEL_STATE`: which machines exist,
//!   who holds them. Locks of open file descriptions say so, and those end with their process.
//! * [`abi`]: numbers and sizes of the interface. [`dispatch`] copies arguments in and out.
//! * [`ctl`], [`machine`]: what the calls do. [`vm`] is a machine, [`memory`] what it has of that,
//!   [`life`] what its vCPUs share, [`vcpu`] one of them, [`irq`] its lines, [`board`] the rest
//!   with [`rtc`] and [`hpet`]. [`kvm`] is underneath; [`signal`] and [`ticker`] make a vCPU leave
//!   it.
//! * [`viona`]: the network.
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
mod paths;
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
