// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Connections with deadlines. They wait with poll(2): on illumos, a UNIX socket takes the
//! options SO_RCVTIMEO and SO_SNDTIMEO, but not the time that they name (`sotpi_setsockopt`).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long a client may take to show who it is.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client may read nothing of what it is sent.
const READING: Duration = Duration::from_secs(10);

/// A connection. Its two threads use it at the same time. A read waits as long as it takes, a
/// write only while the client reads.
pub(in crate::vm) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    pub(in crate::vm) fn unix(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self::Unix(stream))
    }

    pub(in crate::vm) fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    /// Ends both threads' reads and writes.
    pub(in crate::vm) fn close(&self) {
        // What is closed already needs nothing.
        let _ = match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }

    /// Tries until it need not wait or the deadline has passed.
    fn until(
        &self,
        deadline: Option<Instant>,
        event: PollFlags,
        mut attempt: impl FnMut() -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            match attempt() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
            let mut time = PollTimeout::NONE;
            if let Some(deadline) = deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(ErrorKind::TimedOut.into());
                }
                // Never a moment too early, which would make this a busy wait.
                let whole = left.saturating_add(Duration::from_millis(1));
                time = PollTimeout::try_from(whole).unwrap_or(PollTimeout::MAX);
            }
            match poll(&mut [PollFd::new(self.fd(), event)], time) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends a whole message, which the client must have taken after this time.
    pub(in crate::vm) fn send(&self, mut bytes: &[u8], within: Duration) -> io::Result<()> {
        let deadline = Instant::now() + within;
        while !bytes.is_empty() {
            let sent = self.write_until(deadline, bytes)?;
            bytes = bytes.get(sent..).filter(|_| sent > 0).ok_or(ErrorKind::WriteZero)?;
        }
        Ok(())
    }

    fn write_until(&self, deadline: Instant, bytes: &[u8]) -> io::Result<usize> {
        self.until(Some(deadline), PollFlags::POLLOUT, || match self {
            Self::Unix(stream) => (&*stream).write(bytes),
            Self::Tcp(stream) => (&*stream).write(bytes),
        })
    }

    fn read_until(&self, deadline: Option<Instant>, into: &mut [u8]) -> io::Result<usize> {
        self.until(deadline, PollFlags::POLLIN, || match self {
            Self::Unix(stream) => (&*stream).read(into),
            Self::Tcp(stream) => (&*stream).read(into),
        })
    }
}

impl Read for &Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.read_until(None, into)
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_until(Instant::now() + READING, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection on which a client must have said everything before a deadline.
pub(in crate::vm) struct Timely<'a> {
    stream: &'a Stream,
    deadline: Instant,
}

impl<'a> Timely<'a> {
    pub(in crate::vm) fn new(stream: &'a Stream) -> Self {
        Self { stream, deadline: Instant::now() + HANDSHAKE }
    }
}

impl Read for Timely<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.read_until(Some(self.deadline), into)
    }
}

impl Write for Timely<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
