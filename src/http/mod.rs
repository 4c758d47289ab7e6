// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The answer-file server: preseed, kickstart and autoinstall files for one build, and its log.
//!
//! It serves rendered pages from memory and declared directories of the host, nothing else: no
//! listing, no method but GET and HEAD, no way out of a directory by `..`, encoding or symbolic
//! link. It listens on one address and a port that the kernel chooses. Each request is an event
//! when its answer is over, so that a build knows whether its installer ever started; pages hold
//! password hashes and are never logged.

mod answer;
mod content;
mod log;
mod path;
mod serve;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use content::Content;
pub use log::Request;

use crate::ui::{Events, Failure, Outcome};
use log::Log;

/// Bounds that keep a confused or hostile guest from holding the server.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Connections served at once; more wait in the kernel's queue.
    pub connections: usize,
    /// Longest time for a request's head to arrive.
    pub head_time: Duration,
    /// Longest time in which a client takes no byte of its answer.
    pub stall: Duration,
    /// Longest time that [`Server::stop`] waits for answers under way.
    pub stop_time: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 64,
            head_time: Duration::from_secs(10),
            stall: Duration::from_secs(60),
            stop_time: Duration::from_secs(5),
        }
    }
}

/// A running answer-file server. Dropping it stops it at once.
pub struct Server {
    address: SocketAddr,
    content: Arc<Content>,
    log: Log,
    stopping: CancellationToken,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts to serve `content` on a free port of `bind_ip`; each request is told to `events`.
    ///
    /// # Errors
    ///
    /// The address is not one of this host.
    pub async fn start(bind_ip: IpAddr, content: Content, events: &Events) -> Outcome<Self> {
        Self::start_with(bind_ip, |_| Ok(content), events, Bounds::default()).await
    }

    /// [`Server::start`] with other bounds, and with content that is made once the port is
    /// known, since it may name it.
    ///
    /// # Errors
    ///
    /// The address is not one of this host, or `make` fails.
    pub async fn start_with(
        bind_ip: IpAddr,
        make: impl FnOnce(SocketAddr) -> Outcome<Content>,
        events: &Events,
        bounds: Bounds,
    ) -> Outcome<Self> {
        let unbound = |error: std::io::Error| {
            Failure::build("cannot start the answer-file server")
                .because(error)
                .fact("address", bind_ip)
                .hint("the address must belong to this host; run `imgforge doctor`")
        };
        let listener = TcpListener::bind((bind_ip, 0)).await.map_err(unbound)?;
        let address = listener.local_addr().map_err(unbound)?;
        let (content, log) = (Arc::new(make(address)?), Log::new(events.clone()));
        let stopping = CancellationToken::new();
        let state = serve::State {
            content: Arc::clone(&content),
            log: log.clone(),
            bounds,
            stopping: stopping.clone(),
        };
        let accepting = Some(tokio::spawn(serve::accept(listener, state)));
        Ok(Self { address, content, log, stopping, accepting })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The requests answered so far, oldest first; of very many only the latest are kept.
    pub fn requests(&self) -> Vec<Request> {
        self.log.requests()
    }

    /// Waits until an answer for which `wanted` holds was sent whole, also before this call;
    /// `None` when `deadline` passes first. `wanted` gets the decoded path (`/preseed.cfg`).
    pub async fn wait_for(
        &self,
        wanted: impl Fn(&str) -> bool,
        deadline: Duration,
    ) -> Option<Request> {
        let fetched = self.log.wait_for(|request| request.is_whole() && wanted(&request.path));
        tokio::time::timeout(deadline, fetched).await.ok()
    }

    /// A receiver of the number of requests answered so far, for waits on several events.
    pub fn watch(&self) -> tokio::sync::watch::Receiver<u64> {
        self.log.watch()
    }

    /// Paths of the pages that nobody has fetched whole yet.
    pub fn unfetched(&self) -> Vec<String> {
        let fetched = |path: &String| self.log.was_fetched(path);
        self.content.paths().filter(|path| !fetched(path)).cloned().collect()
    }

    /// Takes no more connections, lets answers under way end, and returns when all is closed.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.cancel();
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}
