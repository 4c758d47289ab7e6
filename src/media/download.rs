// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! One medium from one web address into one `.part` file, with resume, retries and a stall limit.
//!
//! Resume follows RFC 9110 §13.1.5 and §14: a strong entity tag or a modification date goes into
//! `If-Range`; a server that ignores the range starts the file anew. Where a digest is known, a
//! part may also be continued at another mirror: the digest tells whether the whole is right.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, LAST_MODIFIED, RANGE, RETRY_AFTER,
};
use reqwest::{Client, Response, StatusCode, Url};
use tokio::fs::OpenOptions;
use tokio::io::{AsyncWriteExt, BufWriter};

use super::Limits;
use super::cache::{Watch, part_state_path, unusable};
use super::digest::name_of;
use super::iso::named_content;
use super::progress::Meter;
use super::record::{PartState, load, save};
use super::source::shown;
use crate::ui::{Event, Failure};

/// Attempts at one address in all, however much progress each makes.
const MAX_ATTEMPTS: u32 = 64;
/// Fewer new bytes than this are no progress.
const PROGRESS: u64 = 64 * 1024;
/// Longest wait that a server can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);
/// Bytes looked at to recognise a web page.
const HEAD: usize = 512;

/// Why a download ended without its file.
#[derive(Debug)]
pub(super) enum Stop {
    /// This address does not give it; the next one may.
    Address(Failure),
    /// No address can: the disk is full, the run is cancelled.
    Run(Failure),
}

enum Trouble {
    Retry(Failure, Option<Duration>),
    Stop(Stop),
}

impl From<Stop> for Trouble {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// What to download, where to, and how patiently.
pub(super) struct Job<'a> {
    pub(super) client: &'a Client,
    pub(super) url: &'a Url,
    pub(super) part: &'a Path,
    pub(super) limits: &'a Limits,
    pub(super) watch: Watch<'a>,
    /// A digest will tell whether the file is right.
    pub(super) digest_known: bool,
}

impl Job<'_> {
    /// Downloads until the part is the whole file.
    pub(super) async fn run(&self) -> Result<(), Stop> {
        let (mut in_a_row, mut most) = (0, self.part_length());
        for attempt in 1.. {
            let (failure, asked) = match self.attempt().await {
                Ok(()) => return Ok(()),
                Err(Trouble::Stop(stop)) => return Err(stop),
                Err(Trouble::Retry(failure, asked)) => (failure, asked),
            };
            let have = self.part_length();
            in_a_row = if have >= most.saturating_add(PROGRESS) { 1 } else { in_a_row + 1 };
            most = most.max(have);
            if in_a_row >= self.limits.attempts || attempt >= MAX_ATTEMPTS {
                return Err(Stop::Address(failure.fact("attempts", attempt)));
            }
            let pause = self.limits.backoff.saturating_mul(1 << (in_a_row - 1).min(6));
            self.pause(asked.map_or(pause, |asked| asked.max(pause)).min(MAX_RETRY_AFTER)).await?;
        }
        Err(Stop::Address(Failure::build("no attempt was made")))
    }

    fn part_length(&self) -> u64 {
        std::fs::metadata(self.part).map_or(0, |metadata| metadata.len())
    }

    async fn pause(&self, time: Duration) -> Result<(), Stop> {
        let host = self.url.host_str().unwrap_or_default();
        self.watch.events.emit(Event::Waiting {
            what: format!("{host} to answer again"),
            deadline_seconds: Some(time.as_secs_f64()),
        });
        tokio::select! {
            () = self.watch.cancel.cancelled() => Err(Stop::Run(self.watch.interrupted())),
            () = tokio::time::sleep(time) => Ok(()),
        }
    }

    async fn attempt(&self) -> Result<(), Trouble> {
        let state = load::<PartState>(&part_state_path(self.part)).unwrap_or_default();
        let (offset, if_range) = self.resume_point(&state);
        let mut request = self.client.get(self.url.clone()).header(ACCEPT_ENCODING, "identity");
        if offset > 0 {
            request = request.header(RANGE, format!("bytes={offset}-"));
        }
        if let Some(validator) = if_range {
            request = request.header(IF_RANGE, validator);
        }
        let sent = self.patiently(request.send()).await?;
        let response = sent.map_err(|error| self.network(error))?;
        let (offset, total) = match response.status() {
            StatusCode::OK => (0, response.content_length()),
            StatusCode::PARTIAL_CONTENT if offset > 0 => {
                self.continued(offset, &state, response.headers())?
            }
            StatusCode::RANGE_NOT_SATISFIABLE if offset > 0 => {
                let range = content_range(response.headers());
                if range.is_some_and(|range| range.start.is_none() && range.total == Some(offset)) {
                    return Ok(());
                }
                return Err(self.start_anew("the server has no such range"));
            }
            status => return Err(self.refused(status, response.headers())),
        };
        self.check_room(offset, total)?;
        self.receive(response, offset, total).await
    }

    /// How many bytes to keep, and the validator that makes the server agree.
    fn resume_point(&self, state: &PartState) -> (u64, Option<String>) {
        let have = self.part_length();
        let same_address = state.url == name_of(self.url.as_str());
        let validator = state.etag.clone().or_else(|| state.last_modified.clone());
        match (same_address, validator, self.digest_known) {
            (true, Some(validator), _) if have > 0 => (have, Some(validator)),
            (_, _, true) if have > 0 => (have, None),
            _ => (0, None),
        }
    }

    /// Checks that a 206 answer continues the part at hand.
    fn continued(
        &self,
        offset: u64,
        state: &PartState,
        headers: &HeaderMap,
    ) -> Result<(u64, Option<u64>), Trouble> {
        let Some(range) = content_range(headers).filter(|range| range.start == Some(offset)) else {
            return Err(self.start_anew("the server sent another range than asked for"));
        };
        match (state.total, range.total) {
            (Some(before), Some(now)) if before != now => {
                Err(self.start_anew("the file's size changed on the server"))
            }
            (before, now) => Ok((offset, now.or(before))),
        }
    }

    fn start_anew(&self, why: &str) -> Trouble {
        let _ = std::fs::remove_file(self.part);
        let _ = std::fs::remove_file(part_state_path(self.part));
        Trouble::Retry(self.failure(format!("{why}; the download starts anew")), None)
    }

    fn refused(&self, status: StatusCode, headers: &HeaderMap) -> Trouble {
        let failure = self.failure(format!("the server answered {status}"));
        let passing = status.is_server_error()
            || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        if passing {
            let after = header(headers, &RETRY_AFTER).and_then(|text| text.parse().ok());
            return Trouble::Retry(failure, after.map(Duration::from_secs));
        }
        let failure = match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => failure.hint(
                "distributors move old releases: open the folder in a browser and set the \
                 target's media url to what is there",
            ),
            _ => failure,
        };
        Stop::Address(failure).into()
    }

    /// Refuses what cannot be right or cannot fit before a byte is written.
    fn check_room(&self, offset: u64, total: Option<u64>) -> Result<(), Trouble> {
        let Some(total) = total else { return Ok(()) };
        if total == 0 {
            return Err(Stop::Address(self.failure("the server sent an empty file")).into());
        }
        self.check_size(total)?;
        let folder = self.part.parent().unwrap_or(Path::new("."));
        // Where the file system does not tell its room, writing will.
        let Ok(room) = nix::sys::statvfs::statvfs(folder) else { return Ok(()) };
        let blocks: u128 = room.blocks_available().into();
        let free = blocks.saturating_mul(u128::from(room.fragment_size()));
        let reused = if offset > 0 { offset } else { self.part_length() };
        if u128::from(total.saturating_sub(reused)) > free {
            return Err(Stop::Run(self.no_room(offset, Some(total)).fact("free", mib(free))).into());
        }
        Ok(())
    }

    fn check_size(&self, bytes: u64) -> Result<(), Trouble> {
        let limit = self.limits.max_bytes;
        if bytes <= limit {
            return Ok(());
        }
        let failure = self.failure("the file is too large for an installer medium");
        Err(Stop::Address(failure.fact("size", mib(bytes.into())).fact("limit", mib(limit.into())))
            .into())
    }

    async fn receive(
        &self,
        mut response: Response,
        offset: u64,
        total: Option<u64>,
    ) -> Result<(), Trouble> {
        // A web page in place of a medium must not take the place of a good part.
        let head = if offset == 0 { self.head(&mut response).await? } else { Vec::new() };
        let fresh = PartState {
            url: name_of(self.url.as_str()),
            etag: header(response.headers(), &ETAG).filter(|tag| !tag.starts_with("W/")),
            last_modified: header(response.headers(), &LAST_MODIFIED),
            total,
        };
        save(&part_state_path(self.part), &fresh).map_err(|e| self.disk(e, offset, total))?;
        let mut options = OpenOptions::new();
        options.create(true).write(true).append(offset > 0).truncate(offset == 0);
        let file = options.open(self.part).await.map_err(|e| self.disk(e, offset, total))?;
        let mut writer = BufWriter::with_capacity(1 << 20, file);
        let received = self.copy(&mut writer, &head, &mut response, offset, total).await;
        // What has come is kept for the next attempt, whatever ended this one.
        let flushed = writer.flush().await;
        let done = received?;
        flushed.map_err(|error| self.disk(error, done, total))?;
        if total.is_some_and(|total| done < total) {
            return Err(Trouble::Retry(self.failure("the server ended the file early"), None));
        }
        writer.get_ref().sync_all().await.map_err(|error| self.disk(error, done, total))?;
        Ok(())
    }

    /// The first bytes of a new file, once they are known not to be a web page.
    async fn head(&self, response: &mut Response) -> Result<Vec<u8>, Trouble> {
        let mut head = Vec::new();
        while head.len() < HEAD
            && let Some(chunk) =
                self.patiently(response.chunk()).await?.map_err(|e| self.network(e))?
        {
            head.extend_from_slice(&chunk);
        }
        match named_content(&head) {
            Some(what) if head.is_empty() || what.starts_with("a web page") => {
                let failure = self.failure(format!("the server sent {what}, not a medium"));
                let failure = match page_title(&head) {
                    Some(title) => failure.fact("title", title),
                    None => failure,
                };
                Err(Stop::Address(failure.hint(
                    "open the address in a browser: it may need another path or a proxy's login",
                ))
                .into())
            }
            _ => Ok(head),
        }
    }

    async fn copy(
        &self,
        writer: &mut BufWriter<tokio::fs::File>,
        head: &[u8],
        response: &mut Response,
        offset: u64,
        total: Option<u64>,
    ) -> Result<u64, Trouble> {
        let what = format!("downloading {}", self.watch.name);
        let mut meter = Meter::start(self.watch.events, what, offset, total);
        let mut done = offset.saturating_add(head.len() as u64);
        writer.write_all(head).await.map_err(|error| self.disk(error, done, total))?;
        loop {
            self.check_size(done)?;
            match self.patiently(response.chunk()).await? {
                Ok(Some(chunk)) => {
                    done = done.saturating_add(chunk.len() as u64);
                    writer.write_all(&chunk).await.map_err(|e| self.disk(e, done, total))?;
                    meter.advance(done);
                }
                Ok(None) => {
                    meter.finish(done);
                    return Ok(done);
                }
                Err(error) => return Err(self.network(error)),
            }
        }
    }

    /// Waits for the next answer or bytes, but neither longer than the stall limit nor beyond a
    /// cancellation.
    async fn patiently<T>(&self, work: impl Future<Output = T>) -> Result<T, Trouble> {
        let stall = self.limits.stall;
        tokio::select! {
            biased;
            () = self.watch.cancel.cancelled() => Err(Stop::Run(self.watch.interrupted()).into()),
            waited = tokio::time::timeout(stall, work) => waited.map_err(|_| {
                let seconds = stall.as_secs_f64();
                Trouble::Retry(self.failure(format!("the server sent nothing for {seconds} s")), None)
            }),
        }
    }

    fn network(&self, error: reqwest::Error) -> Trouble {
        let permanent = error.is_redirect() || error.is_builder();
        let what = if error.is_connect() {
            "cannot reach the server"
        } else if error.is_redirect() {
            "the server's redirect is not followed"
        } else {
            "the transfer broke off"
        };
        let connect = error.is_connect();
        let mut failure = self.failure(what).because(error.without_url());
        if failure.causes().iter().any(|cause| cause.contains("certificate")) {
            failure = failure.hint(
                "check this host's clock and its certificate authorities \
                 (`apt-get install ca-certificates`)",
            );
        } else if connect {
            failure = failure.hint(
                "check the network and http_proxy/https_proxy, or give another mirror's address",
            );
        }
        match permanent {
            true => Stop::Address(failure).into(),
            false => Trouble::Retry(failure, None),
        }
    }

    fn disk(&self, error: std::io::Error, done: u64, total: Option<u64>) -> Trouble {
        let full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        let failure = match full {
            true => self.no_room(done, total).because(error),
            false => unusable(self.part, "write", error),
        };
        Stop::Run(failure).into()
    }

    fn no_room(&self, done: u64, total: Option<u64>) -> Failure {
        let folder = self.part.parent().unwrap_or(Path::new("."));
        let failure = Failure::build(format!("no room for {} in the media cache", self.watch.name))
            .fact("path", folder.display());
        match total {
            Some(total) => failure.fact("needed", mib(total.saturating_sub(done).into())),
            None => failure.fact("written", mib(done.into())),
        }
        .hint("free some space, or pass `--cache-dir DIR` on a larger file system")
    }

    fn failure(&self, what: impl Into<String>) -> Failure {
        Failure::build(what).fact("url", shown(self.url))
    }
}

fn mib(bytes: u128) -> String {
    format!("{} MiB ({bytes} bytes)", bytes >> 20)
}

fn header(headers: &HeaderMap, name: &reqwest::header::HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// A page's `<title>`, for people: one short line without control characters.
fn page_title(head: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(head);
    let start = text.to_ascii_lowercase().find("<title>")? + "<title>".len();
    let title: String =
        text.get(start..)?.chars().take_while(|c| *c != '<').filter(|c| !c.is_control()).collect();
    let title = title.trim();
    (!title.is_empty()).then(|| title.chars().take(100).collect())
}

/// The numbers of `Content-Range: bytes START-END/TOTAL` (RFC 9110 §14.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ContentRange {
    start: Option<u64>,
    total: Option<u64>,
}

fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.trim();
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let start = match range.trim() {
        "*" => None,
        range => Some(range.split_once('-')?.0.trim().parse().ok()?),
    };
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    Some(ContentRange { start, total })
}

/// A small text from the web, such as a sums file.
pub(super) async fn small(job: &Job<'_>, max_bytes: u64) -> Result<Vec<u8>, Stop> {
    for attempt in 1.. {
        match small_attempt(job, max_bytes).await {
            Ok(bytes) => return Ok(bytes),
            Err(Trouble::Stop(stop)) => return Err(stop),
            Err(Trouble::Retry(failure, _)) if attempt >= job.limits.attempts => {
                return Err(Stop::Address(failure.fact("attempts", attempt)));
            }
            Err(Trouble::Retry(_, asked)) => {
                let pause = job.limits.backoff.saturating_mul(1 << (attempt - 1).min(6));
                job.pause(asked.map_or(pause, |a| a.max(pause)).min(MAX_RETRY_AFTER)).await?;
            }
        }
    }
    Err(Stop::Address(job.failure("no attempt was made")))
}

async fn small_attempt(job: &Job<'_>, max_bytes: u64) -> Result<Vec<u8>, Trouble> {
    let sent = job.patiently(job.client.get(job.url.clone()).send()).await?;
    let mut response = sent.map_err(|error| job.network(error))?;
    if response.status() != StatusCode::OK {
        return Err(job.refused(response.status(), response.headers()));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) =
        job.patiently(response.chunk()).await?.map_err(|error| job.network(error))?
    {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > max_bytes {
            let limit = max_bytes >> 20;
            let failure = job.failure(format!("the answer is longer than {limit} MiB"));
            return Err(Stop::Address(failure).into());
        }
    }
    Ok(bytes)
}
