// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! One request's answer: which status, which headers, which bytes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap,
    HeaderName, HeaderValue, IF_RANGE, RANGE, USER_AGENT,
};
use hyper::{Method, Response, StatusCode, http};
use tokio::io::{AsyncReadExt, AsyncSeekExt, ReadBuf, Take};

use super::content::{Content, Found, content_type, open_below};
use super::log::{Log, Request};
use super::path::{join, segments};

/// Bytes read from a file at once.
const PIECE: usize = 64 * 1024;

enum Source {
    Bytes(Bytes),
    File(Take<tokio::fs::File>),
}

/// A body that tells the log when it is over, however it ends.
pub(super) struct Answer {
    source: Source,
    left: u64,
    request: Option<Request>,
    log: Log,
    moved: Arc<AtomicU64>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let piece = match &mut self.source {
            Source::Bytes(bytes) => bytes.split_to(bytes.len().min(PIECE)),
            Source::File(file) => {
                let mut buffer = vec![0; PIECE];
                let mut read = ReadBuf::new(&mut buffer);
                ready!(tokio::io::AsyncRead::poll_read(Pin::new(file), context, &mut read))?;
                let count = read.filled().len();
                buffer.truncate(count);
                Bytes::from(buffer)
            }
        };
        if piece.is_empty() {
            return Poll::Ready(Some(Err(io::Error::other("the file became shorter"))));
        }
        let count = piece.len() as u64;
        self.left = self.left.saturating_sub(count);
        self.moved.fetch_add(1, Ordering::Relaxed);
        if let Some(request) = &mut self.request {
            request.bytes = request.bytes.saturating_add(count);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(mut request) = self.request.take() {
            request.at = Instant::now();
            self.log.add(request);
        }
    }
}

/// What is needed to answer the requests of one connection.
#[derive(Clone)]
pub(super) struct Responder {
    pub(super) content: Arc<Content>,
    pub(super) log: Log,
    pub(super) peer: String,
    /// Counts each sign of life of the connection.
    pub(super) moved: Arc<AtomicU64>,
}

/// An answer before it is one.
struct Draft {
    status: StatusCode,
    headers: HeaderMap,
    source: Source,
    length: u64,
}

impl Responder {
    /// Answers one request; its body, if it has one, is not read.
    pub(super) async fn answer<B>(&self, request: http::Request<B>) -> Response<Answer> {
        self.moved.fetch_add(1, Ordering::Relaxed);
        let raw = request.uri().path();
        let names = segments(raw);
        let path = names.as_ref().map_or_else(|| raw.to_owned(), |names| join(names));
        let head = request.method() == Method::HEAD;
        let draft = if !head && request.method() != Method::GET {
            let mut draft = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".into());
            draft.headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            draft
        } else if let Some(names) = names {
            self.find(&names, request.headers()).await
        } else {
            text(StatusCode::BAD_REQUEST, "this path is not accepted\n".into())
        };
        let agent = request.headers().get(USER_AGENT).map_or(&b""[..], HeaderValue::as_bytes);
        let entry = Request {
            at: Instant::now(),
            peer: self.peer.clone(),
            method: request.method().to_string(),
            path,
            status: draft.status.as_u16(),
            bytes: 0,
            length: draft.length,
            agent: String::from_utf8_lossy(agent).into_owned(),
        };
        let mut response = Response::new(Answer {
            source: draft.source,
            left: if head { 0 } else { draft.length },
            request: Some(entry),
            log: self.log.clone(),
            moved: Arc::clone(&self.moved),
        });
        *response.status_mut() = draft.status;
        *response.headers_mut() = draft.headers;
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(draft.length));
        // An installer must not meet a proxy's copy of another build's answers.
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    async fn find(&self, names: &[String], headers: &HeaderMap) -> Draft {
        match self.content.find(names) {
            Found::Page(page) => {
                let kind = HeaderValue::from_str(&page.content_type);
                let kind = kind.unwrap_or(HeaderValue::from_static("application/octet-stream"));
                let range = range_of(headers, page.body.len() as u64);
                match range {
                    Wanted::Whole => {
                        whole(Source::Bytes(page.body.clone()), page.body.len() as u64, kind)
                    }
                    Wanted::Part(start, end) => {
                        let part = usize::try_from(start).ok().zip(usize::try_from(end).ok());
                        let bytes = part.and_then(|(start, end)| page.body.get(start..=end));
                        let bytes =
                            bytes.map(|bytes| page.body.slice_ref(bytes)).unwrap_or_default();
                        partial(Source::Bytes(bytes), start, end, page.body.len() as u64, kind)
                    }
                    Wanted::Nothing => unsatisfiable(page.body.len() as u64),
                }
            }
            Found::Below(root, below) => self.file(root, below, names, headers).await,
            Found::Nothing => self.missing(names),
        }
    }

    fn missing(&self, names: &[String]) -> Draft {
        let path = join(names);
        let mut said = format!("nothing is served at {path}\n");
        if let Some(nearest) = self.content.nearest(&path) {
            said.push_str(&format!("did you mean {nearest}?\n"));
        }
        text(StatusCode::NOT_FOUND, said)
    }

    async fn file(
        &self,
        root: std::path::PathBuf,
        below: Vec<String>,
        names: &[String],
        headers: &HeaderMap,
    ) -> Draft {
        let kind = content_type(below.last().map_or("", String::as_str));
        let opened = tokio::task::spawn_blocking(move || open_below(&root, &below)).await;
        let Ok(Ok((file, length))) = opened else {
            // The reason would tell the guest about the host's files.
            return self.missing(names);
        };
        let (kind, mut file) = (HeaderValue::from_static(kind), tokio::fs::File::from_std(file));
        match range_of(headers, length) {
            Wanted::Whole => whole(Source::File(file.take(length)), length, kind),
            Wanted::Part(start, end) => match file.seek(io::SeekFrom::Start(start)).await {
                Ok(_) => {
                    let count = (end - start).saturating_add(1);
                    partial(Source::File(file.take(count)), start, end, length, kind)
                }
                Err(_) => self.missing(names),
            },
            Wanted::Nothing => unsatisfiable(length),
        }
    }
}

fn draft(
    status: StatusCode,
    source: Source,
    length: u64,
    headers: &[(HeaderName, HeaderValue)],
) -> Draft {
    Draft { status, source, length, headers: headers.iter().cloned().collect() }
}

fn text(status: StatusCode, text: String) -> Draft {
    let length = text.len() as u64;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    draft(status, Source::Bytes(text.into()), length, &[(CONTENT_TYPE, kind)])
}

fn whole(source: Source, length: u64, kind: HeaderValue) -> Draft {
    let ranges = HeaderValue::from_static("bytes");
    draft(StatusCode::OK, source, length, &[(CONTENT_TYPE, kind), (ACCEPT_RANGES, ranges)])
}

fn partial(source: Source, start: u64, end: u64, length: u64, kind: HeaderValue) -> Draft {
    let headers = [(CONTENT_TYPE, kind), content_range(format!("bytes {start}-{end}/{length}"))];
    draft(StatusCode::PARTIAL_CONTENT, source, (end - start).saturating_add(1), &headers)
}

fn unsatisfiable(length: u64) -> Draft {
    let mut draft = text(StatusCode::RANGE_NOT_SATISFIABLE, "no such range\n".into());
    draft.headers.extend([content_range(format!("bytes */{length}"))].map(|(n, v)| (Some(n), v)));
    draft
}

fn content_range(text: String) -> (HeaderName, HeaderValue) {
    let value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("bytes */*"));
    (CONTENT_RANGE, value)
}

/// What a `Range` header asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Whole,
    /// First and last byte.
    Part(u64, u64),
    Nothing,
}

/// RFC 9110 §14: one range of bytes; anything else in the header is ignored, as it may be.
fn range_of(headers: &HeaderMap, length: u64) -> Wanted {
    let header = headers.get(RANGE).and_then(|value| value.to_str().ok());
    // There is no validator that If-Range could name.
    let Some(range) = header.filter(|_| !headers.contains_key(IF_RANGE)) else {
        return Wanted::Whole;
    };
    let Some((start, end)) = range.strip_prefix("bytes=").and_then(|r| r.split_once('-')) else {
        return Wanted::Whole;
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    match (start, number(start), end, number(end)) {
        ("", _, _, Some(0)) => Wanted::Nothing,
        ("", _, _, Some(_)) if length == 0 => Wanted::Nothing,
        ("", _, _, Some(count)) => Wanted::Part(length.saturating_sub(count), length - 1),
        (_, Some(start), "", _) if start < length => Wanted::Part(start, length - 1),
        (_, Some(start), _, Some(end)) if start > end => Wanted::Whole,
        (_, Some(start), _, Some(end)) if start < length => {
            Wanted::Part(start, end.min(length - 1))
        }
        (_, Some(_), "", _) | (_, Some(_), _, Some(_)) => Wanted::Nothing,
        _ => Wanted::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wanted(range: &str, length: u64) -> Wanted {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_str(range) {
            headers.insert(RANGE, value);
        }
        range_of(&headers, length)
    }

    #[test]
    fn ranges() {
        for (range, expected) in [
            ("bytes=0-", Wanted::Part(0, 9)),
            ("bytes=3-5", Wanted::Part(3, 5)),
            ("bytes=3-99999999999999999999999", Wanted::Part(3, 9)),
            ("bytes=-4", Wanted::Part(6, 9)),
            ("bytes=-40", Wanted::Part(0, 9)),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=5-3", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
        ] {
            assert_eq!(wanted(range, 10), expected, "{range}");
        }
        assert_eq!(wanted("bytes=0-", 0), Wanted::Nothing);
        assert_eq!(wanted("bytes=-1", 0), Wanted::Nothing);
    }

    proptest! {
        #[test]
        fn parts_lie_in_the_file(range in "bytes=[0-9]{0,22}-[0-9]{0,22}", length in any::<u64>()) {
            if let Wanted::Part(start, end) = wanted(&range, length) {
                prop_assert!(start <= end && end < length);
            }
        }
    }
}
