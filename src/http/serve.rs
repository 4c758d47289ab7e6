// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Connections: accepted up to a bound, given up when they stall, ended in order at a stop.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Bounds;
use super::answer::Responder;
use super::content::Content;
use super::log::{Log, Request};

/// Largest request head, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Longest time until accepting is tried again after it failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Most header lines of a request.
const MAX_HEADERS: usize = 64;

/// What all connections share.
#[derive(Clone)]
pub(super) struct State {
    pub(super) content: Arc<Content>,
    pub(super) log: Log,
    pub(super) bounds: Bounds,
    pub(super) stopping: CancellationToken,
}

/// Accepts until the stop, then lets the open connections end.
pub(super) async fn accept(listener: TcpListener, state: State) {
    let room = Arc::new(Semaphore::new(state.bounds.connections));
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        let next = async {
            let place = Arc::clone(&room).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = state.stopping.cancelled() => break,
            next = next => next,
        };
        match (place, accepted) {
            (Ok(place), Ok((stream, peer))) => {
                let state = state.clone();
                open.spawn(async move {
                    serve(stream, peer, state).await;
                    drop(place);
                });
            }
            // Out of descriptors, or a client that left before its turn: the next try comes when
            // a connection has ended, or a little later when none of ours is open.
            _ => {
                let freed = async {
                    if open.join_next().await.is_none() {
                        std::future::pending::<()>().await;
                    }
                };
                let _ = tokio::time::timeout(ACCEPT_PAUSE, freed).await;
            }
        }
    }
    drop(listener);
    let ended = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(state.bounds.stop_time, ended).await.is_err() {
        open.shutdown().await;
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, state: State) {
    let State { content, log, bounds, stopping } = state;
    let (peer, moved) = (peer.ip().to_string(), Arc::new(AtomicU64::new(0)));
    let responder =
        Responder { content, log: log.clone(), peer: peer.clone(), moved: Arc::clone(&moved) };
    let service = service_fn(move |request| {
        let responder = responder.clone();
        async move { Ok::<_, Infallible>(responder.answer(request).await) }
    });
    // One request for each connection: an idle one must not hold a place.
    let connection = http1::Builder::new()
        .keep_alive(false)
        .half_close(true)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_time)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut before = 0;
    let mut told = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended
                    && error.is_parse()
                {
                    log.add(malformed(peer));
                }
                return;
            }
            () = stopping.cancelled(), if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep(bounds.stall) => {
                let now = moved.load(Ordering::Relaxed);
                if now == before {
                    return;
                }
                before = now;
            }
        }
    }
}

fn malformed(peer: String) -> Request {
    Request {
        at: Instant::now(),
        peer,
        method: "-".to_owned(),
        path: "(a malformed request)".to_owned(),
        status: 400,
        bytes: 0,
        length: 0,
        agent: String::new(),
    }
}
