// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Work on several threads, in order: a thread reads pieces, others turn each into something, and
//! the caller's takes the results in the order of the pieces.
//!
//! All queues are short, so memory stays within a few MiB per thread, and a slow taker slows the
//! reader.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use tokio_util::sync::CancellationToken;

use crate::ui::{Failure, Outcome};

/// What the reader gives.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Bytes to work on.
    Data(Vec<u8>),
    /// That many units of zeros, on which nobody works.
    Zeros(u64),
}

/// Where pieces come from.
pub(super) trait Feed: Send {
    /// The next piece, or `None` at the end. `buffer` is an old one to use again.
    fn next(&mut self, buffer: Vec<u8>) -> Outcome<Option<Piece>>;

    /// How far it is, if it knows.
    fn at(&self) -> Option<u64>;
}

/// What the caller takes.
pub(super) enum Made<'a, R> {
    /// The result for some bytes, and the bytes.
    Data(R, &'a [u8]),
    /// Zeros, as the feed gave them.
    Zeros(u64),
}

/// What a worker answers: its result, and the bytes to use their buffer again.
type Answer<R> = (Result<R, String>, Vec<u8>);

/// What waits for the caller, with how far the feed was.
struct Slot<R> {
    what: What<R>,
    at: Option<u64>,
}

enum What<R> {
    Data(Receiver<Answer<R>>),
    Zeros(u64),
    Failed(Failure),
    End,
}

/// Bytes on their way to a worker, with the way back.
struct Job<R> {
    data: Vec<u8>,
    reply: SyncSender<Answer<R>>,
}

/// Takes everything that `feed` gives, worked on by `threads` (0 means one per processor) that
/// each have a worker of their own. Returns how far the feed was at its end. `to` is the output's
/// name for messages.
///
/// # Errors
/// The first of the feed, of a worker or of `take`; or when `cancel` is cancelled.
pub(super) fn ordered<R: Send, W: FnMut(&[u8]) -> Result<R, String>>(
    feed: impl Feed,
    threads: usize,
    worker: impl Fn() -> W + Sync,
    to: &Path,
    cancel: &CancellationToken,
    mut take: impl FnMut(Made<'_, R>, Option<u64>) -> Outcome<()>,
) -> Outcome<Option<u64>> {
    let threads = match threads {
        0 => thread::available_parallelism().map_or(1, std::num::NonZero::get),
        threads => threads,
    };
    let (jobs, queue) = sync_channel::<Job<R>>(threads);
    let (slots, ready) = sync_channel::<Slot<R>>(2 * threads + 2);
    let (spare, buffers) = sync_channel::<Vec<u8>>(4 * threads + 4);
    let queue = Mutex::new(queue);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(&queue, worker()));
        }
        scope.spawn(move || read(feed, &jobs, &slots, &buffers, cancel));
        // `ready` is dropped on every way out, which ends the reader and then the workers.
        for Slot { what, at } in ready {
            if cancel.is_cancelled() {
                break;
            }
            match what {
                What::Failed(failure) => return Err(failure),
                What::Zeros(count) => take(Made::Zeros(count), at)?,
                What::Data(answer) => {
                    let lost = |error: std::sync::mpsc::RecvError| cannot(&error.to_string());
                    let (result, data) = answer.recv().map_err(lost)?;
                    take(Made::Data(result.map_err(|why| cannot(&why))?, &data), at)?;
                    let _ = spare.try_send(data);
                }
                What::End => return Ok(at),
            }
        }
        // The reader stops without an end only when the run is interrupted.
        Err(interrupted(to))
    })
}

fn cannot(why: &str) -> Failure {
    Failure::build(format!("cannot compress: {why}"))
}

/// The failure of an interrupted run.
pub(super) fn interrupted(to: &Path) -> Failure {
    Failure::interrupted(format!("interrupted while writing {}", to.display()))
}

/// The reader's thread: until the end, an error, or nobody listens any more.
fn read<R>(
    mut feed: impl Feed,
    jobs: &SyncSender<Job<R>>,
    slots: &SyncSender<Slot<R>>,
    buffers: &Receiver<Vec<u8>>,
    cancel: &CancellationToken,
) {
    while !cancel.is_cancelled() {
        let (what, job) = match feed.next(buffers.try_recv().unwrap_or_default()) {
            Ok(None) => (What::End, None),
            Ok(Some(Piece::Zeros(count))) => (What::Zeros(count), None),
            Ok(Some(Piece::Data(data))) => {
                let (reply, answer) = sync_channel(1);
                (What::Data(answer), Some(Job { data, reply }))
            }
            Err(failure) => (What::Failed(failure), None),
        };
        let is_last = matches!(what, What::Failed(_) | What::End);
        if slots.send(Slot { what, at: feed.at() }).is_err() || is_last {
            return;
        }
        if job.is_some_and(|job| jobs.send(job).is_err()) {
            return;
        }
    }
}

/// A worker's thread.
fn work<R>(queue: &Mutex<Receiver<Job<R>>>, mut worker: impl FnMut(&[u8]) -> Result<R, String>) {
    loop {
        // The lock is held while waiting, which only means that the threads wait in line.
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { data, reply }) = job else { return };
        // The receiver is gone when the caller has failed.
        let _ = reply.send((worker(&data), data));
    }
}
