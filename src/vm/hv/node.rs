// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A device node: opening it, and calls whose argument has a type.
//!
//! Only `open`, `ioctl` and `mmap` of the C library are used, so that this works wherever somebody
//! answers them.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::abi::{self, Plain};

/// A call that takes a pointer to a `T`.
pub(super) struct Call<T> {
    request: u32,
    takes: PhantomData<fn(T)>,
}

impl<T: Plain> Call<T> {
    /// # Safety
    /// For this request the kernel must read and write no more than one `T`, and must follow no
    /// pointer in it.
    pub(super) const unsafe fn new(request: u32) -> Self {
        Self { request, takes: PhantomData }
    }
}

/// A call that takes a number, or nothing.
pub(super) struct NumberCall(u32);

impl NumberCall {
    /// # Safety
    /// For this request the kernel must not take its argument for a pointer, unless it is 0.
    pub(super) const unsafe fn new(request: u32) -> Self {
        Self(request)
    }
}

/// Calls by name, each with what it takes by the system's headers.
macro_rules! calls {
    ($($name:ident: $type:ty = $request:expr;)*) => {
        $(
            const $name: crate::vm::hv::node::Call<$type> = {
                // SAFETY: the request takes a pointer to this structure, and the structure has the
                // size of the newest version; older kernels copy a part of it.
                unsafe { crate::vm::hv::node::Call::new($request) }
            };
        )*
    };
}

/// The same for those that take a number.
macro_rules! number_calls {
    ($($name:ident = $request:expr;)*) => {
        $(
            const $name: crate::vm::hv::node::NumberCall = {
                // SAFETY: the request takes a number, or ignores its argument.
                unsafe { crate::vm::hv::node::NumberCall::new($request) }
            };
        )*
    };
}

pub(super) use {calls, number_calls};

/// An open device node.
pub(super) struct Node(Arc<File>);

impl Node {
    /// Opens a node for reading and writing. A program that is started does not inherit it: it
    /// would keep the virtual machine and its memory.
    ///
    /// # Errors
    /// As the system says.
    pub(super) fn open(path: &str, flags: OFlag) -> io::Result<Self> {
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | flags;
        let result = open(path, flags, Mode::empty());
        match &result {
            Ok(opened) => tracing::trace!("open {path} = {}", opened.as_raw_fd()),
            Err(errno) => tracing::trace!("open {path} = {}", io::Error::from(*errno)),
        }
        Ok(Self(Arc::new(File::from(result?))))
    }

    /// Takes what is open already, such as a socket.
    pub(super) fn of(file: File) -> Self {
        Self(Arc::new(file))
    }

    /// The open file, for a mapping that holds on to it.
    pub(super) fn file(&self) -> &Arc<File> {
        &self.0
    }

    /// Its descriptor.
    pub(super) fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Any call.
    ///
    /// # Safety
    /// `argument` must be what the request takes: a pointer to memory that the kernel may read and
    /// write as far as it does for this request, or a number.
    pub(super) unsafe fn ioctl(&self, request: u32, argument: *mut c_void) -> io::Result<c_int> {
        // For a listener only: nobody listens while a guest runs.
        let begin = tracing::enabled!(tracing::Level::TRACE).then(Instant::now);
        if begin.is_some() {
            tracing::trace!("{} ...", abi::name(request));
        }
        // SAFETY: the caller's promise.
        let result = unsafe { libc::ioctl(self.descriptor(), request as _, argument) };
        let result = if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) };
        if let Some(begin) = begin {
            let (name, micros) = (abi::name(request), begin.elapsed().as_micros());
            match &result {
                Ok(value) => tracing::trace!("{name} = {value}, {micros} us"),
                Err(error) => tracing::trace!("{name} = {error}, {micros} us"),
            }
        }
        result
    }

    /// A call whose structure goes in, comes back, or both.
    ///
    /// # Errors
    /// As the system says.
    pub(super) fn exchange<T: Plain>(&self, call: &Call<T>, argument: &mut T) -> io::Result<c_int> {
        // SAFETY: the pointer is to one `T`, borrowed exclusively for the call, and the request
        // takes that by the contract of `Call::new`; whatever the kernel writes is a `T`.
        unsafe { self.ioctl(call.request, (&raw mut *argument).cast()) }
    }

    /// A call whose structure only goes in.
    ///
    /// # Errors
    /// As the system says.
    pub(super) fn send<T: Plain>(&self, call: &Call<T>, mut argument: T) -> io::Result<()> {
        self.exchange(call, &mut argument).map(drop)
    }

    /// A call with a number.
    ///
    /// # Errors
    /// As the system says.
    pub(super) fn number(&self, call: &NumberCall, argument: usize) -> io::Result<c_int> {
        // SAFETY: the request takes no pointer, by the contract of `NumberCall::new`.
        unsafe { self.ioctl(call.0, std::ptr::without_provenance_mut(argument)) }
    }
}

/// Whether a call failed with this errno.
pub(super) fn is(error: &io::Error, errno: c_int) -> bool {
    error.raw_os_error() == Some(errno)
}

/// A call that this kernel may not have, as a fact instead of an error.
///
/// # Errors
/// As the system says, unless it says that there is no such call.
pub(super) fn if_known<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if is(&error, libc::ENOTTY) => Ok(None),
        other => other.map(Some),
    }
}
