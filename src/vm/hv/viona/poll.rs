// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The thread that takes interrupts which the kernel cannot deliver: those of rings without a
//! message, because the driver has masked it or set up none.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::handle::Nic;
use crate::vm::dev::virtio::Signal;

/// How often the thread looks whether it shall end.
const LOOKING: u8 = 100;

/// The running thread. Dropping it ends the thread.
pub(super) struct Poller {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Poller {
    /// Starts the thread.
    pub(super) fn start(nic: Arc<Nic>, rings: u16, signal: Signal) -> io::Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = std::thread::Builder::new().name("viona-poll".into()).spawn(move || {
            while !over.load(Ordering::SeqCst) {
                if let Err(error) = wait(&nic).and_then(|()| deliver(&nic, rings, &signal)) {
                    tracing::debug!("viona's interrupts end: {error}");
                    return;
                }
            }
        })?;
        Ok(Self { is_over, thread: Some(thread) })
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A panic was reported by its hook already.
            let _ = thread.join();
        }
    }
}

/// Waits until an interrupt waits, or a while.
fn wait(nic: &Nic) -> io::Result<()> {
    let descriptor = nic.descriptor();
    let mut waiting = [PollFd::new(descriptor.as_fd(), PollFlags::POLLRDBAND)];
    match poll(&mut waiting, PollTimeout::from(LOOKING)) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let events = waiting.first().and_then(PollFd::revents).unwrap_or(PollFlags::empty());
    let gone = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
    if events.intersects(gone) {
        return Err(io::Error::from(io::ErrorKind::BrokenPipe));
    }
    Ok(())
}

/// Delivers what waits, then says so: the other way round a new one could be lost.
fn deliver(nic: &Nic, rings: u16, signal: &Signal) -> io::Result<()> {
    for (ring, is_waiting) in (0..rings).zip(nic.waiting()?) {
        if is_waiting {
            signal(ring);
            nic.clear(ring)?;
        }
    }
    Ok(())
}
