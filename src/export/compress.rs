// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! One pass from disk to compressed file: chunks → threads that deflate → digests → file.
//!
//! A reader thread cuts the source into chunks, any number of threads turn each into a gzip
//! member, and the caller's thread puts the members in order, hashes and writes them. All queues
//! are short, so memory stays within a few MiB per thread, and a slow disk slows the reader.
//! Chunks of zeros all share one member that is made once.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sha1::{Digest, Sha1};
use sha2::Sha256;
use tokio_util::sync::CancellationToken;

use super::gzip::Encoder;
use super::partial::{Partial, cannot_write};
use super::qcow2::{Qcow2Options, write_qcow2};
use super::source::{CHUNK, Chunk, RawDisk, Source};
use super::stream::{StreamOptions, VolumeStream};
use crate::ui::{Event, Events, Failure, Outcome};

/// How to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Gzip level, 1 to 9.
    pub level: u32,
    /// Threads that compress; 0 means one per processor.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { level: 6, threads: 0 }
    }
}

/// A finished compressed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compressed {
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// Bytes before compression.
    pub source_bytes: u64,
    /// SHA-1 of the file in lower-case hex, which IMGAPI wants.
    pub sha1: String,
    /// SHA-256 of the file in lower-case hex.
    pub sha256: String,
}

/// Compresses the raw disk at `disk` into the gzip file `to`, off the async threads.
///
/// # Errors
/// As [`compress`].
pub async fn compress_disk(
    disk: &Path,
    to: &Path,
    options: Options,
    events: &Events,
    cancel: &CancellationToken,
) -> Outcome<Compressed> {
    let (disk, to) = (disk.to_owned(), to.to_owned());
    let (events, cancel) = (events.clone(), cancel.clone());
    let work = move || compress(&mut RawDisk::open(&disk)?, &to, options, &events, &cancel);
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::build("the compression ended unexpectedly").because(error))?
}

/// A volume's stream, compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompressedVolume {
    /// The file.
    pub file: Compressed,
    /// The volume's size in bytes.
    pub volume_size: u64,
    /// The snapshot's guid.
    pub guid: u64,
}

/// Turns the raw disk at `disk` into the send stream of a volume and that into the gzip file
/// `to`, in one pass, off the async threads.
///
/// # Errors
/// As [`compress`] and [`VolumeStream::new`]; also when the disk is shorter than its partition
/// table says.
pub async fn compress_volume(
    disk: &Path,
    to: &Path,
    stream: StreamOptions,
    options: Options,
    events: &Events,
    cancel: &CancellationToken,
) -> Outcome<CompressedVolume> {
    let (disk, to) = (disk.to_owned(), to.to_owned());
    let (events, cancel) = (events.clone(), cancel.clone());
    let work = move || {
        let mut disk = RawDisk::open(&disk)?;
        disk.check_partitions()?;
        let mut stream = VolumeStream::new(&mut disk, &stream)?;
        let file = compress(&mut stream, &to, options, &events, &cancel)?;
        Ok(CompressedVolume { file, volume_size: stream.volume_size(), guid: stream.guid() })
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::build("the export ended unexpectedly").because(error))?
}

/// Writes the raw disk at `disk` as the qcow2 image `to`, off the async threads; returns its size in
/// bytes.
///
/// # Errors
/// As [`write_qcow2`].
pub async fn write_qcow2_disk(
    disk: &Path,
    to: &Path,
    options: Qcow2Options,
    events: &Events,
    cancel: &CancellationToken,
) -> Outcome<u64> {
    let (disk, to) = (disk.to_owned(), to.to_owned());
    let (events, cancel) = (events.clone(), cancel.clone());
    let work = move || {
        let mut disk = RawDisk::open(&disk)?;
        write_qcow2(&mut disk, &to, options, &events, &cancel).map(|done| done.bytes)
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::build("the export ended unexpectedly").because(error))?
}

/// Compresses a source into the gzip file `to`. The file has that name only when it is whole
/// and durable; whatever fails, nothing stays behind. Blocks.
///
/// # Errors
/// When the level is not 1 to 9, `to` exists, the source cannot be read, the file cannot be
/// written, or `cancel` is cancelled.
pub fn compress(
    source: &mut dyn Source,
    to: &Path,
    options: Options,
    events: &Events,
    cancel: &CancellationToken,
) -> Outcome<Compressed> {
    let mut partial = Partial::create(to)?;
    let done = pump(source, partial.file(), to, options, events, cancel)?;
    partial.publish(done.bytes)?;
    Ok(done)
}

/// What the writer takes from the ordered queue.
enum Slot {
    Member(Receiver<Result<Member, String>>),
    Zeros(u64),
    Failed(Failure),
}

/// A chunk on its way to a compressing thread, with the way back.
struct Job {
    data: Vec<u8>,
    reply: SyncSender<Result<Member, String>>,
}

/// A compressed chunk, with the chunk's buffer to use again.
struct Member {
    packed: Vec<u8>,
    data: Vec<u8>,
}

/// As [`compress`], into anything. `to` is its name for messages.
pub(super) fn pump(
    source: &mut dyn Source,
    sink: impl Write,
    to: &Path,
    options: Options,
    events: &Events,
    cancel: &CancellationToken,
) -> Outcome<Compressed> {
    check_level(options.level)?;
    let threads = thread_count(options.threads);
    let total = source.progress().map_or_else(|| source.total(), |(_, total)| total);
    let what = format!("compressing {}", source.name());
    let (jobs, queue) = sync_channel::<Job>(threads);
    let (slots, ordered) = sync_channel::<(Slot, Option<u64>)>(2 * threads + 2);
    let (spare, buffers) = sync_channel::<Vec<u8>>(4 * threads + 4);
    let queue = Mutex::new(queue);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(&queue, options.level));
        }
        scope.spawn(move || read(source, &jobs, &slots, &buffers, cancel));
        let mut writer = Writer::new(sink, to, options.level)?;
        let mut meter = Meter::new(events, what, total);
        // `ordered` is dropped on every way out, which ends the reader and then the workers.
        for (slot, at) in ordered {
            if cancel.is_cancelled() {
                return Err(interrupted(to));
            }
            match slot {
                Slot::Failed(failure) => return Err(failure),
                Slot::Zeros(count) => writer.zeros(count, cancel)?,
                Slot::Member(member) => {
                    let member = member
                        .recv()
                        .map_err(|error| error.to_string())
                        .and_then(|member| member)
                        .map_err(|why| Failure::build(format!("cannot compress: {why}")))?;
                    writer.member(&member.packed, member.data.len() as u64)?;
                    let _ = spare.try_send(member.data);
                }
            }
            meter.at(at.unwrap_or(writer.source_bytes));
        }
        if cancel.is_cancelled() {
            return Err(interrupted(to));
        }
        let done = writer.finish()?;
        meter.end(total.unwrap_or(done.source_bytes));
        Ok(done)
    })
}

/// Refuses a level that deflate does not have.
pub(super) fn check_level(level: u32) -> Outcome<()> {
    if (1..=9).contains(&level) {
        return Ok(());
    }
    Err(Failure::input(format!("compression level {level} does not exist"))
        .hint("use a level from 1 (fast) to 9 (small)"))
}

/// The threads to compress with when `asked`; 0 means one per processor.
pub(super) fn thread_count(asked: usize) -> usize {
    match asked {
        0 => thread::available_parallelism().map_or(1, std::num::NonZero::get),
        asked => asked,
    }
}

pub(super) fn interrupted(to: &Path) -> Failure {
    Failure::interrupted(format!("interrupted while writing {}", to.display()))
}

/// The reader's thread: source to queues, until the end, an error, or nobody listens any more.
fn read(
    source: &mut dyn Source,
    jobs: &SyncSender<Job>,
    slots: &SyncSender<(Slot, Option<u64>)>,
    buffers: &Receiver<Vec<u8>>,
    cancel: &CancellationToken,
) {
    while !cancel.is_cancelled() {
        let (slot, job) = match source.next(buffers.try_recv().unwrap_or_default()) {
            Ok(None) => return,
            Ok(Some(Chunk::Zeros(count))) => (Slot::Zeros(count), None),
            Ok(Some(Chunk::Data(data))) => {
                let (reply, member) = sync_channel(1);
                (Slot::Member(member), Some(Job { data, reply }))
            }
            Err(failure) => (Slot::Failed(failure), None),
        };
        let failed = matches!(slot, Slot::Failed(_));
        let at = source.progress().map(|(done, _)| done);
        if slots.send((slot, at)).is_err() || failed {
            return;
        }
        if job.is_some_and(|job| jobs.send(job).is_err()) {
            return;
        }
    }
}

/// A compressing thread.
fn work(queue: &Mutex<Receiver<Job>>, level: u32) {
    let mut encoder = Encoder::new(level);
    loop {
        // The lock is held while waiting, which only means that the threads wait in line.
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { data, reply }) = job else { return };
        let packed = encoder.member(&data);
        // The receiver is gone when the writer has failed.
        let _ = reply.send(packed.map(|packed| Member { packed, data }));
    }
}

/// The end of the pipe: digests and file.
struct Writer<'a, W: Write> {
    sink: BufWriter<W>,
    to: &'a Path,
    encoder: Encoder,
    /// The member of one whole chunk of zeros.
    zero_member: Vec<u8>,
    sha1: Sha1,
    sha256: Sha256,
    bytes: u64,
    source_bytes: u64,
}

impl<'a, W: Write> Writer<'a, W> {
    fn new(sink: W, to: &'a Path, level: u32) -> Outcome<Self> {
        let mut encoder = Encoder::new(level);
        let zero_member = zero_member(&mut encoder, CHUNK)?;
        Ok(Self {
            sink: BufWriter::with_capacity(1 << 18, sink),
            to,
            encoder,
            zero_member,
            sha1: Sha1::new(),
            sha256: Sha256::new(),
            bytes: 0,
            source_bytes: 0,
        })
    }

    fn member(&mut self, packed: &[u8], source_bytes: u64) -> Outcome<()> {
        self.sha1.update(packed);
        self.sha256.update(packed);
        self.sink.write_all(packed).map_err(|error| cannot_write(self.to, error, self.bytes))?;
        self.bytes += packed.len() as u64;
        self.source_bytes += source_bytes;
        Ok(())
    }

    fn zeros(&mut self, count: u64, cancel: &CancellationToken) -> Outcome<()> {
        let whole = std::mem::take(&mut self.zero_member);
        for _ in 0..count / CHUNK as u64 {
            if cancel.is_cancelled() {
                return Err(interrupted(self.to));
            }
            self.member(&whole, CHUNK as u64)?;
        }
        self.zero_member = whole;
        let rest = count % CHUNK as u64;
        if rest > 0 {
            let packed = zero_member(&mut self.encoder, usize::try_from(rest).unwrap_or(0))?;
            self.member(&packed, rest)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Outcome<Compressed> {
        if self.bytes == 0 {
            // An empty source still is a valid gzip file.
            let packed = zero_member(&mut self.encoder, 0)?;
            self.member(&packed, 0)?;
        }
        self.sink.flush().map_err(|error| cannot_write(self.to, error, self.bytes))?;
        Ok(Compressed {
            path: self.to.to_owned(),
            bytes: self.bytes,
            source_bytes: self.source_bytes,
            sha1: hex::encode(self.sha1.finalize()),
            sha256: hex::encode(self.sha256.finalize()),
        })
    }
}

fn zero_member(encoder: &mut Encoder, length: usize) -> Outcome<Vec<u8>> {
    encoder
        .member(&vec![0; length])
        .map_err(|why| Failure::build(format!("cannot compress: {why}")))
}

/// Says how far a transfer is, a few times a second.
pub(super) struct Meter<'a> {
    events: &'a Events,
    what: String,
    total: Option<u64>,
    /// Start of the window over which the rate is measured, and the bytes done then.
    window: (Instant, u64),
    rate: f64,
    said: Instant,
}

/// How often progress is said.
const PACE: Duration = Duration::from_millis(250);

impl<'a> Meter<'a> {
    pub(super) fn new(events: &'a Events, what: String, total: Option<u64>) -> Self {
        let now = Instant::now();
        Self { events, what, total, window: (now, 0), rate: 0.0, said: now }
    }

    pub(super) fn at(&mut self, done: u64) {
        let now = Instant::now();
        if now.duration_since(self.said) < PACE {
            return;
        }
        let (start, before) = self.window;
        let seconds = now.duration_since(start).as_secs_f64();
        self.rate = done.saturating_sub(before) as f64 / seconds;
        if seconds > 2.0 {
            self.window = (now, done);
        }
        self.say(done, now);
    }

    /// Says that all is done.
    pub(super) fn end(mut self, done: u64) {
        self.say(done, Instant::now());
    }

    fn say(&mut self, done: u64, now: Instant) {
        self.said = now;
        self.events.emit(Event::Progress {
            what: self.what.clone(),
            done,
            total: self.total,
            rate: self.rate,
        });
    }
}

#[cfg(test)]
#[path = "compress_tests.rs"]
mod tests;
