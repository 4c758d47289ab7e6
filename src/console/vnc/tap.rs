// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.
//! Sits between the RFB decoder and the socket and remembers what the decoder does not say:
//! how much was written, how the server greeted, and why the connection ended.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

/// Bytes of the server's greeting.
const GREETING: usize = 12;

/// What a [`Tap`] has seen.
#[derive(Debug)]
pub(super) struct Record {
    written: watch::Sender<u64>,
    greeting: Mutex<Vec<u8>>,
    end: Mutex<Option<String>>,
}

impl Default for Record {
    fn default() -> Self {
        let (written, _) = watch::channel(0);
        Self { written, greeting: Mutex::default(), end: Mutex::default() }
    }
}

impl Record {
    /// Bytes that the socket has taken.
    pub(super) fn written(&self) -> u64 {
        *self.written.borrow()
    }

    /// Returns once the socket has taken that many bytes in all.
    pub(super) async fn wait_written(&self, target: u64) {
        // Fails only when the sender is gone, and `self` is the sender.
        let _ = self.written.subscribe().wait_for(|written| *written >= target).await;
    }

    /// Why the socket ended, if it has.
    pub(super) fn end(&self) -> Option<String> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first bytes that the server sent, when they are no RFB greeting.
    pub(super) fn strange_greeting(&self) -> Option<String> {
        let greeting = self.greeting.lock().unwrap_or_else(PoisonError::into_inner);
        let is_rfb = greeting.is_empty() || greeting.starts_with(b"RFB ");
        (!is_rfb).then(|| greeting.escape_ascii().to_string())
    }

    fn read(&self, bytes: &[u8]) {
        let mut greeting = self.greeting.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = GREETING.saturating_sub(greeting.len());
        greeting.extend(bytes.iter().take(missing));
    }

    fn ended(&self, why: String) {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }
}

/// A stream that is watched.
#[derive(Debug)]
pub(super) struct Tap<S> {
    inner: S,
    record: Arc<Record>,
}

impl<S> Tap<S> {
    pub(super) fn new(inner: S, record: Arc<Record>) -> Self {
        Self { inner, record }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        if let Poll::Ready(result) = &polled {
            let bytes = buffer.filled().get(before..).unwrap_or_default();
            match result {
                Ok(()) if bytes.is_empty() && buffer.remaining() > 0 => {
                    self.record.ended("the VNC server closed the connection".into());
                }
                Ok(()) => self.record.read(bytes),
                Err(error) => self.record.ended(format!("reading failed: {error}")),
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(context, bytes);
        match &polled {
            Poll::Ready(Ok(count)) => {
                let count = *count as u64;
                self.record.written.send_modify(|written| *written += count);
            }
            Poll::Ready(Err(error)) => self.record.ended(format!("writing failed: {error}")),
            Poll::Pending => {}
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
