// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A mirror for tests: a real HTTP server on loopback that can break in the ways mirrors break.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// How a body ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Whole,
    Breaks,
    Stalls,
}

/// A body of some pieces and an end.
pub(super) struct Script {
    pieces: VecDeque<Bytes>,
    end: End,
}

impl Body for Script {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match (self.pieces.pop_front(), self.end) {
            (Some(piece), _) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            (None, End::Whole) => Poll::Ready(None),
            (None, End::Breaks) => Poll::Ready(Some(Err(io::Error::other("cable cut")))),
            (None, End::Stalls) => Poll::Pending,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// What the mirror answers.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
    pub(super) end: End,
}

impl Answer {
    pub(super) fn whole(body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let headers = vec![("content-length", body.len().to_string())];
        Self { status: 200, headers, body, end: End::Whole }
    }

    pub(super) fn status(status: u16) -> Self {
        Self { status, ..Self::whole("no\n") }
    }

    pub(super) fn redirect(to: &str) -> Self {
        Self::status(302).with("location", to)
    }

    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Announces all of `body` and sends its first `count` bytes.
    pub(super) fn cut(mut self, count: usize, end: End) -> Self {
        self.body.truncate(count);
        self.end = end;
        self
    }

    /// `body` as a server with range support answers `asked`.
    pub(super) fn ranged(body: &Bytes, asked: &Asked) -> Self {
        let start = asked.range.as_deref().and_then(|range| {
            range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()
        });
        match start {
            None => Self::whole(body.clone()),
            Some(start) if start >= body.len() => {
                Self::status(416).with("content-range", &format!("bytes */{}", body.len()))
            }
            Some(start) => Self { status: 206, ..Self::whole(body.slice(start..)) }
                .with("content-range", &format!("bytes {start}-{}/{}", body.len() - 1, body.len())),
        }
    }
}

/// What a client asked.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// How many requests came before.
    pub(super) number: usize,
    pub(super) path: String,
    pub(super) range: Option<String>,
    pub(super) if_range: Option<String>,
}

/// A running mirror; it ends with the test's runtime.
pub(super) struct Mirror {
    pub(super) base: String,
    pub(super) asked: Arc<Mutex<Vec<Asked>>>,
}

impl Mirror {
    pub(super) async fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, list, count) =
            (Arc::new(answer), asked.clone(), Arc::new(AtomicUsize::new(0)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, list, count) = (answer.clone(), list.clone(), count.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let header = |name| {
                        let value = request.headers().get(name)?;
                        Some(value.to_str().unwrap().to_owned())
                    };
                    let asked = Asked {
                        number: count.fetch_add(1, Ordering::SeqCst),
                        path: request.uri().to_string(),
                        range: header("range"),
                        if_range: header("if-range"),
                    };
                    list.lock().unwrap().push(asked.clone());
                    let answer = answer(&asked);
                    async move { Ok::<_, Infallible>(respond(answer)) }
                });
                let serving = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move { drop(serving.await) });
            }
        });
        Self { base, asked }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    pub(super) fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn respond(answer: Answer) -> Response<Script> {
    let pieces = answer.body.chunks(16 * 1024).map(Bytes::copy_from_slice).collect();
    let mut response = Response::new(Script { pieces, end: answer.end });
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap();
    for (name, value) in answer.headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}
