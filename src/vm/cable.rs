// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The other end of the guest's network cable: a process behind a UNIX socket, such as passt,
//! which is a network in user mode. Each frame comes after its length, 32 bits, big-endian, as in
//! QEMU's `stream` network.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::dev::virtio::{FrameHeader, Frames, Wake};
use crate::ui::{Failure, Outcome};

/// Frames that wait in either direction. Later ones of the guest are lost, as in a switch; the other
/// side waits, as it may be slow to send lost ones again.
const WAITING: usize = 256;
/// The largest frame that is taken from the other side.
const LARGEST: usize = 1 << 16;

/// A cable to a process.
pub struct StreamCable {
    out: SyncSender<Vec<u8>>,
    inbox: Arc<Inbox>,
    socket: UnixStream,
    /// Frames that the guest sent, and those that were lost because the other side was slow.
    sent: AtomicU64,
    lost: AtomicU64,
}

#[derive(Default)]
struct Inbox {
    frames: Mutex<VecDeque<Vec<u8>>>,
    /// A frame was taken out, or the cable is gone.
    room: Condvar,
    is_over: AtomicBool,
    received: AtomicU64,
    /// Of the interface that is plugged in; a machine that is reset gets another one.
    wake: Mutex<Option<Wake>>,
}

impl Inbox {
    fn frames(&self) -> MutexGuard<'_, VecDeque<Vec<u8>>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a frame when there is room; false when nobody wants it any more.
    fn push(&self, frame: Vec<u8>) -> bool {
        let is_full = |frames: &mut VecDeque<Vec<u8>>| {
            frames.len() >= WAITING && !self.is_over.load(Ordering::Relaxed)
        };
        let frames = self.room.wait_while(self.frames(), is_full);
        frames.unwrap_or_else(PoisonError::into_inner).push_back(frame);
        !self.is_over.load(Ordering::Relaxed)
    }

    fn pop(&self) -> Option<Vec<u8>> {
        let frame = self.frames().pop_front()?;
        self.room.notify_one();
        Some(frame)
    }

    /// Nobody takes frames any more.
    fn end(&self) {
        let frames = self.frames();
        self.is_over.store(true, Ordering::Relaxed);
        drop(frames);
        self.room.notify_all();
    }

    /// Takes frames until the other side leaves or sends what is none, or the cable is gone.
    fn fill(&self, mut socket: &UnixStream) -> io::Result<()> {
        loop {
            let mut length = [0; 4];
            socket.read_exact(&mut length)?;
            let length = u32::from_be_bytes(length) as usize;
            if length > LARGEST {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame too large"));
            }
            let mut frame = vec![0; length];
            socket.read_exact(&mut frame)?;
            self.received.fetch_add(1, Ordering::Relaxed);
            if !self.push(frame) {
                return Ok(());
            }
            let wake = self.wake.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(wake) = wake {
                wake();
            }
        }
    }
}

impl StreamCable {
    /// Connects to the process that listens at `path`.
    ///
    /// # Errors
    /// When nothing listens there, or the system has no threads.
    pub fn connect(path: &Path) -> Outcome<Arc<Self>> {
        let failed = |error: io::Error| {
            Failure::build("the machine's network is not there")
                .because(error)
                .fact("socket", path.display())
        };
        let socket = UnixStream::connect(path).map_err(failed)?;
        Self::over(socket).map_err(failed)
    }

    fn over(socket: UnixStream) -> io::Result<Arc<Self>> {
        let (out, frames) = sync_channel(WAITING);
        let inbox = Arc::new(Inbox::default());
        let (filled, reading) = (Arc::clone(&inbox), socket.try_clone()?);
        std::thread::Builder::new().name("cable-in".into()).spawn(move || {
            if let Err(error) = filled.fill(&reading) {
                tracing::debug!("the network has left: {error}");
            }
        })?;
        let writing = socket.try_clone()?;
        std::thread::Builder::new().name("cable-out".into()).spawn(move || {
            if let Err(error) = drain(&frames, &writing) {
                tracing::debug!("the network takes nothing any more: {error}");
            }
        })?;
        Ok(Arc::new(Self { out, inbox, socket, sent: AtomicU64::new(0), lost: AtomicU64::new(0) }))
    }
}

fn drain(frames: &Receiver<Vec<u8>>, mut socket: &UnixStream) -> io::Result<()> {
    for frame in frames {
        socket.write_all(&frame)?;
    }
    Ok(())
}

impl Drop for StreamCable {
    fn drop(&mut self) {
        let [sent, lost, received] = [&self.sent, &self.lost, &self.inbox.received]
            .map(|count| count.load(Ordering::Relaxed));
        tracing::debug!("network: {sent} frames sent, {lost} of them lost, {received} received");
        self.inbox.end();
        // Both threads leave their system calls by it. It may be closed already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl Frames for StreamCable {
    fn send(&self, _header: &FrameHeader, frame: &[u8]) {
        let Ok(length) = u32::try_from(frame.len()) else { return };
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend_from_slice(frame);
        if self.sent.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::debug!("network: the guest's first frame");
        }
        // Full, or the other side is gone: the frame is lost.
        if self.out.try_send(bytes).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn recv(&self, _header: &mut FrameHeader, frame: &mut [u8]) -> Option<usize> {
        let next = self.inbox.pop()?;
        let room = frame.get_mut(..next.len())?;
        room.copy_from_slice(&next);
        Some(next.len())
    }

    fn set_wake(&self, wake: Wake) {
        *self.inbox.wake.lock().unwrap_or_else(PoisonError::into_inner) = Some(wake);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::vm::dev::virtio::PLAIN;

    /// Plugs an interface in; each call of it comes out here.
    fn wakes_of(cable: &StreamCable) -> Receiver<()> {
        let (woken, wakes) = channel();
        cable.set_wake(Arc::new(move || woken.send(()).unwrap_or_default()));
        wakes
    }

    #[test]
    fn frames_pass_in_both_directions() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let cable = StreamCable::over(near).unwrap();
        let wakes = wakes_of(&cable);
        cable.send(&PLAIN, b"to the network");
        let mut bytes = [0; 18];
        far.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"\0\0\0\x0eto the network");
        far.write_all(b"\0\0\0\x05hello\0\0\0\x00").unwrap();
        for _ in 0..2 {
            wakes.recv_timeout(Duration::from_secs(20)).unwrap();
        }
        let mut frame = [0; 64];
        assert_eq!(cable.recv(&mut PLAIN.clone(), &mut frame), Some(5));
        assert_eq!(&frame[..5], b"hello");
        assert_eq!(cable.recv(&mut PLAIN.clone(), &mut frame), Some(0));
        assert_eq!(cable.recv(&mut PLAIN.clone(), &mut frame), None);
    }

    #[test]
    fn a_stalled_or_lost_network_blocks_nothing() {
        let (near, far) = UnixStream::pair().unwrap();
        let cable = StreamCable::over(near).unwrap();
        for _ in 0..4 * WAITING {
            cable.send(&PLAIN, &[0; 9000]);
        }
        drop(far);
        cable.send(&PLAIN, &[0; 9000]);
        assert_eq!(cable.recv(&mut PLAIN.clone(), &mut [0; 16]), None);
    }

    #[test]
    fn a_guest_that_is_slow_loses_nothing() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let cable = StreamCable::over(near).unwrap();
        let wakes = wakes_of(&cable);
        let count = 3 * WAITING as u32;
        let sender = std::thread::spawn(move || {
            for number in 0..count {
                far.write_all(&4u32.to_be_bytes()).unwrap();
                far.write_all(&number.to_be_bytes()).unwrap();
            }
            far
        });
        for _ in 0..WAITING {
            wakes.recv_timeout(Duration::from_secs(20)).unwrap();
        }
        let mut frame = [0; 4];
        for number in 0..count {
            while cable.recv(&mut PLAIN.clone(), &mut frame).is_none() {
                wakes.recv_timeout(Duration::from_secs(20)).unwrap();
            }
            assert_eq!(frame, number.to_be_bytes());
        }
        // A cable that goes while the other side waits leaves no thread behind.
        let far = sender.join().unwrap();
        drop((cable, far));
    }

    #[test]
    fn what_is_no_frame_ends_the_connection() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let inbox = Inbox::default();
        far.write_all(&[0xff; 8]).unwrap();
        let error = inbox.fill(&near).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
