// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! One pass from disk to compressed file: chunks → threads that deflate → digests → file.
//!
//! Each chunk becomes a gzip member on one of many threads (see [`pipeline`]); the caller's thread
//! hashes and writes them in order. Chunks of zeros all share one member that is made once.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha1::{Digest, Sha1};
use sha2::Sha256;
use tokio_util::sync::CancellationToken;

use super::gzip::Encoder;
use super::partial::{Partial, cannot_write};
use super::pipeline::{self, Feed, Made, Piece, interrupted};
use super::source::{CHUNK, Chunk, Source};
use crate::ui::{Event, Events, Failure, Outcome};

/// The level when none is asked for: smaller than what `gzip -6` makes, and cheaper than level 6.
pub const DEFAULT_LEVEL: u32 = 5;

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
        Self { level: DEFAULT_LEVEL, threads: 0 }
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
    let total = source.span();
    let mut meter = Meter::new(events, format!("compressing {}", source.name()), total);
    let mut writer = Writer::new(sink, to, options.level)?;
    let worker = || {
        let mut encoder = Encoder::new(options.level);
        move |data: &[u8]| encoder.member(data)
    };
    pipeline::ordered(Chunks(source), options.threads, worker, to, cancel, |made, at| {
        match made {
            Made::Zeros(count) => writer.zeros(count, cancel)?,
            Made::Data(packed, data) => writer.member(&packed, data.len() as u64)?,
        }
        meter.at(at.unwrap_or(writer.source_bytes));
        Ok(())
    })?;
    let done = writer.finish()?;
    meter.end(total.unwrap_or(done.source_bytes));
    Ok(done)
}

/// A source as the pipeline wants it.
struct Chunks<'a>(&'a mut dyn Source);

impl Feed for Chunks<'_> {
    fn next(&mut self, buffer: Vec<u8>) -> Outcome<Option<Piece>> {
        Ok(self.0.next(buffer)?.map(|chunk| match chunk {
            Chunk::Data(data) => Piece::Data(data),
            Chunk::Zeros(count) => Piece::Zeros(count),
        }))
    }

    fn at(&self) -> Option<u64> {
        self.0.progress().map(|(done, _)| done)
    }
}

/// Refuses a level that deflate does not have.
pub(super) fn check_level(level: u32) -> Outcome<()> {
    if (1..=9).contains(&level) {
        return Ok(());
    }
    Err(Failure::input(format!("compression level {level} does not exist"))
        .hint("use a level from 1 (fast) to 9 (small)"))
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
