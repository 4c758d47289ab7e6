// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The first bytes of a connection, which tell an SSH server from a closed port and from others.
//!
//! The client does not wait for them before it sends its own banner: a network between the two
//! may complete the connection only when somebody sends something.

use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::attempt::Stage;

/// Bytes that are remembered.
const HEAD: usize = 64;

/// What came first.
#[derive(Debug, Default)]
pub(super) struct Heard {
    head: Mutex<Vec<u8>>,
    came: Notify,
}

impl Heard {
    fn hear(&self, bytes: &[u8]) {
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = HEAD.saturating_sub(head.len());
        if missing > 0 {
            head.extend(bytes.iter().take(missing));
            self.came.notify_one();
        }
    }

    /// What is there when it is not SSH; `None` when it is.
    pub(super) fn other(&self) -> Option<Stage> {
        let head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        if head.is_empty() {
            return Some(Stage::PortClosed);
        }
        let ssh = b"SSH-";
        let length = head.len().min(ssh.len());
        (head.get(..length) != ssh.get(..length)).then(|| {
            let text = String::from_utf8_lossy(&head);
            Stage::NotSsh(text.lines().next().unwrap_or_default().trim().to_owned())
        })
    }

    /// Waits until it is known that this is no SSH server, at the latest at `until`; for ever when
    /// it is one. Called once.
    pub(super) async fn is_other(&self, until: Instant) -> Stage {
        // Out of time is the same as nothing.
        let _ = timeout_at(until, self.came.notified()).await;
        match self.other() {
            Some(stage) => stage,
            None => pending().await,
        }
    }
}

/// A stream whose first bytes are remembered.
pub(super) struct Opening<S> {
    inner: S,
    heard: Arc<Heard>,
}

impl<S> Opening<S> {
    pub(super) fn new(inner: S, heard: Arc<Heard>) -> Self {
        Self { inner, heard }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        if let Some(bytes) = buffer.filled().get(before..).filter(|bytes| !bytes.is_empty()) {
            self.heard.hear(bytes);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opening<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
