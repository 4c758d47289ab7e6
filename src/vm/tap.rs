// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A tap of the host as the other end of the guest's network cable.
//!
//! Frames pass from the device's thread to the kernel and back without another thread or a copy
//! between them; the one thread here only waits until there is something to fetch.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::dev::virtio::{FrameHeader, Frames, Wake, offloads};
use super::hv::tap::{TapNode, leave};
use crate::ui::{Failure, Outcome};

/// Tells the tap what frames may leave to do, of [`leave`].
type SetOffload = Box<dyn Fn(usize) -> io::Result<()> + Send + Sync>;

/// A cable to a tap.
pub struct TapCable {
    file: Arc<File>,
    set_offload: SetOffload,
    shared: Arc<Shared>,
    /// Its end makes the waiting thread end.
    end: UnixStream,
    waiter: Option<JoinHandle<()>>,
    sent: AtomicU64,
    lost: AtomicU64,
    received: AtomicU64,
}

/// What the waiting thread and the device's have in common.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Of the interface that is plugged in; a machine that is reset gets another one.
    wake: Option<Wake>,
    /// Nothing is left to fetch: the thread shall wait for more.
    is_empty: bool,
    is_over: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// Wakes the device whenever there is something after it had fetched everything.
    fn wait(&self, file: &File, end: &UnixStream) -> io::Result<()> {
        loop {
            let state = self.state();
            let mut state = self
                .changed
                .wait_while(state, |state| !state.is_empty && !state.is_over)
                .unwrap_or_else(PoisonError::into_inner);
            if state.is_over {
                return Ok(());
            }
            state.is_empty = false;
            drop(state);
            await_frame(file, end)?;
            let wake = self.state().wake.clone();
            if let Some(wake) = wake {
                wake();
            }
        }
    }
}

/// Waits until there is a frame or the end has come.
fn await_frame(file: &File, end: &UnixStream) -> io::Result<()> {
    loop {
        let mut awaited = [file.as_fd(), end.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut awaited, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => {
                let events = awaited[0].revents().unwrap_or(PollFlags::empty());
                let gone = PollFlags::POLLERR | PollFlags::POLLNVAL;
                if events.intersects(gone) && !events.contains(PollFlags::POLLIN) {
                    return Err(io::Error::new(ErrorKind::BrokenPipe, "the interface is gone"));
                }
                return Ok(());
            }
        }
    }
}

impl TapCable {
    /// Opens the tap of that name, or makes it for as long as it is open.
    ///
    /// # Errors
    /// As [`TapNode::open`]; or when the system has no threads.
    pub fn open(name: &str) -> Outcome<Arc<Self>> {
        let node = TapNode::open(name)?;
        let file = Arc::clone(node.file());
        Self::over(file, Box::new(move |leave| node.set_offload(leave))).map_err(|error| {
            Failure::build("the machine's tap cannot be served").because(error).fact("link", name)
        })
    }

    /// A cable to whatever takes and gives one frame, after its header, at a time without blocking.
    fn over(file: Arc<File>, set_offload: SetOffload) -> io::Result<Arc<Self>> {
        let shared = Arc::new(Shared::default());
        shared.state().is_empty = true;
        let (end, ends) = UnixStream::pair()?;
        let (waiting, waited) = (Arc::clone(&shared), Arc::clone(&file));
        let waiter = std::thread::Builder::new().name("tap-in".into()).spawn(move || {
            if let Err(error) = waiting.wait(&waited, &ends) {
                tracing::warn!(%error, "nothing comes from the tap any more");
            }
        })?;
        let [sent, lost, received] = [0; 3].map(AtomicU64::new);
        let waiter = Some(waiter);
        Ok(Arc::new(Self { file, set_offload, shared, end, waiter, sent, lost, received }))
    }
}

impl Drop for TapCable {
    fn drop(&mut self) {
        self.shared.change(|state| state.is_over = true);
        // It ends the wait for a frame; that it is shut already is as good.
        let _ = self.end.shutdown(Shutdown::Both);
        if let Some(waiter) = self.waiter.take() {
            // A panic was reported by its hook already.
            let _ = waiter.join();
        }
        let [sent, lost, received] =
            [&self.sent, &self.lost, &self.received].map(|count| count.load(Ordering::Relaxed));
        tracing::debug!("network: {sent} frames sent, {lost} of them lost, {received} received");
    }
}

impl Frames for TapCable {
    fn offloads(&self) -> u64 {
        offloads::ALL
    }

    fn set_offloads(&self, accepted: u64) {
        let leaves = [
            (offloads::GUEST_CSUM, leave::CHECKSUM),
            (offloads::GUEST_CSUM | offloads::GUEST_TSO4, leave::TCP4),
            (offloads::GUEST_CSUM | offloads::GUEST_TSO6, leave::TCP6),
        ];
        let all = leaves.iter().filter(|(needed, _)| accepted & needed == *needed);
        let sum = all.fold(0, |sum, (_, leave)| sum | leave);
        if let Err(error) = (self.set_offload)(sum) {
            // Frames come whole, as they would without the driver's consent.
            tracing::warn!(%error, "the tap leaves nothing to do with frames");
        }
    }

    fn send(&self, header: &FrameHeader, frame: &[u8]) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let parts = [IoSlice::new(header), IoSlice::new(frame)];
        loop {
            match (&*self.file).write_vectored(&parts) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) => return,
                // No room, the interface is down, or a header that makes no sense.
                Err(_) => {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
        }
    }

    fn recv(&self, header: &mut FrameHeader, frame: &mut [u8]) -> Option<usize> {
        loop {
            let mut parts = [IoSliceMut::new(header), IoSliceMut::new(frame)];
            match (&*self.file).read_vectored(&mut parts) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(length) if length > header.len() => {
                    self.received.fetch_add(1, Ordering::Relaxed);
                    return Some(length - header.len());
                }
                Err(error) if error.kind() != ErrorKind::WouldBlock => {
                    tracing::debug!("nothing can be read from the tap: {error}");
                    return None;
                }
                _ => {
                    self.shared.change(|state| state.is_empty = true);
                    return None;
                }
            }
        }
    }

    fn set_wake(&self, wake: Wake) {
        self.shared.change(|state| state.wake = Some(wake));
    }
}

#[cfg(test)]
#[path = "tap_tests.rs"]
mod tests;
