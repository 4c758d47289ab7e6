// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A disk as the send stream of a volume's snapshot: one forward pass, no temporary copy.

use sha2::{Digest, Sha256};

use super::fletcher::Fletcher4;
use super::properties;
use super::record::{
    DATA, FLAG_FREE_RECORDS, Kind, MAGIC, NAME, OBJSET_ZVOL, Object, PROPERTIES, PROPERTIES_BLOCK,
    Record, SUBSTREAM, TO_THE_END,
};
use crate::export::source::{CHUNK, Chunk, Source, is_zero};
use crate::ui::{Failure, Outcome};

/// SmartOS counts volumes in MiB.
const UNIT: u64 = 1 << 20;
/// The flag of senders since 2019 that the spill flags mean something.
const FLAG_SPILL: u32 = 8;

/// What a stream says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamOptions {
    /// The snapshot's name, `POOL/DATASET@SNAPSHOT`; `zones/UUID@final` of a new UUID if not given.
    pub name: Option<String>,
    /// The volume's block size in bytes: a power of two from 512 to 131072.
    pub volblocksize: u32,
    /// The snapshot's `guid`, not 0; made up if not given.
    pub guid: Option<u64>,
    /// The snapshot's creation in seconds since 1970; now if not given. When given, what is made
    /// up otherwise follows from name and size, so that the same disk gives the same bytes.
    pub epoch: Option<i64>,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { name: None, volblocksize: 8192, guid: None, epoch: None }
    }
}

/// A disk [`Source`] as the bytes of a full send stream. Zero blocks become holes.
pub struct VolumeStream<'a> {
    disk: &'a mut dyn Source,
    name: String,
    guid: u64,
    block: usize,
    volume_size: u64,
    sum: Fletcher4,
    /// Made, but not yet handed out.
    out: Vec<u8>,
    /// Data of the disk at `position`, used up to `used`.
    input: Vec<u8>,
    used: usize,
    position: u64,
    disk_size: u64,
    /// A block of which only the beginning has come.
    partial: Vec<u8>,
    /// Start of the zeros before `position` that no FREE record has named yet.
    hole: Option<u64>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Data,
    Tail,
    Done,
}

impl<'a> VolumeStream<'a> {
    /// Starts the stream of a disk.
    ///
    /// # Errors
    /// When the options are wrong, or the disk is empty, too large, or of unknown size.
    pub fn new(disk: &'a mut dyn Source, options: &StreamOptions) -> Outcome<Self> {
        let block = block_size(options.volblocksize)?;
        let disk_size = disk_size(disk)?;
        let volume_size = disk_size.next_multiple_of(UNIT);
        let seed = options.epoch.map(|epoch| seed(options, &disk.name(), volume_size, epoch));
        let name = name(options, seed.as_ref())?;
        let guid = guid(options, seed.as_ref())?;
        let mut stream = Self {
            disk,
            name,
            guid,
            block,
            volume_size,
            sum: Fletcher4::default(),
            out: Vec::new(),
            input: Vec::new(),
            used: 0,
            position: 0,
            disk_size,
            partial: Vec::new(),
            hole: None,
            stage: Stage::Data,
        };
        stream.head(options.epoch.unwrap_or_else(|| jiff::Timestamp::now().as_second()));
        Ok(stream)
    }

    /// The snapshot's name.
    pub fn snapshot(&self) -> &str {
        &self.name
    }

    /// The snapshot's `guid`.
    pub fn guid(&self) -> u64 {
        self.guid
    }

    /// The volume's size in bytes: the disk's, rounded up to a MiB.
    pub fn volume_size(&self) -> u64 {
        self.volume_size
    }

    fn head(&mut self, created: i64) {
        let mut begin = Record::new(Kind::Begin);
        begin
            .set_u64(8, MAGIC)
            .set_u64(16, SUBSTREAM)
            .set_u64(24, created.cast_unsigned())
            .set_u32(32, OBJSET_ZVOL)
            .set_u32(36, FLAG_FREE_RECORDS | FLAG_SPILL)
            .set_u64(40, self.guid)
            .set(NAME.start, self.name.as_bytes());
        self.record(begin);
        self.free_objects(0, 1);
        self.object(DATA, u32::try_from(self.block).unwrap_or(0));
        self.free(DATA, self.volume_size, TO_THE_END);
        self.object(PROPERTIES, PROPERTIES_BLOCK);
        self.free(PROPERTIES, u64::from(PROPERTIES_BLOCK), TO_THE_END);
        // Objects come in blocks of 32.
        self.free_objects(3, 29);
    }

    fn record(&mut self, mut record: Record) {
        record.seal(&mut self.sum);
        self.out.extend_from_slice(&record.0);
    }

    fn free_objects(&mut self, first: u64, count: u64) {
        let mut record = Record::new(Kind::FreeObjects);
        record.set_u64(8, first).set_u64(16, count).set_u64(24, self.guid);
        self.record(record);
    }

    fn object(&mut self, object: Object, block: u32) {
        let mut record = Record::new(Kind::Object);
        record
            .set_u64(8, object.number)
            .set_u32(16, object.kind)
            .set_u32(24, block)
            .set(34, &[1])
            .set_u64(40, self.guid);
        self.record(record);
    }

    fn free(&mut self, object: Object, offset: u64, length: u64) {
        let mut record = Record::new(Kind::Free);
        record
            .set_u64(8, object.number)
            .set_u64(16, offset)
            .set_u64(24, length)
            .set_u64(32, self.guid);
        self.record(record);
    }

    fn write(&mut self, object: Object, offset: u64, data: &[u8]) {
        let mut record = Record::new(Kind::Write);
        record
            .set_u64(8, object.number)
            .set_u32(16, object.kind)
            .set_u64(24, offset)
            .set_u64(32, data.len() as u64)
            .set_u64(40, self.guid);
        self.record(record);
        self.sum.update(data);
        self.out.extend_from_slice(data);
    }

    /// One whole block at `position`.
    fn block(&mut self, data: &[u8]) {
        if is_zero(data) {
            self.hole.get_or_insert(self.position);
        } else {
            self.end_hole();
            self.write(DATA, self.position, data);
        }
        self.position += self.block as u64;
    }

    fn end_hole(&mut self) {
        if let Some(start) = self.hole.take() {
            self.free(DATA, start, self.position - start);
        }
    }

    /// Turns what is left of `input` into records, until a chunk is full.
    fn pack(&mut self) {
        let input = std::mem::take(&mut self.input);
        while self.used < input.len() && self.out.len() < CHUNK {
            let rest = input.get(self.used..).unwrap_or_default();
            let wanted = self.block - self.partial.len();
            let piece = rest.get(..wanted).unwrap_or(rest);
            self.used += piece.len();
            if piece.len() == self.block {
                self.block(piece);
                continue;
            }
            self.partial.extend_from_slice(piece);
            if self.partial.len() == self.block {
                let block = std::mem::take(&mut self.partial);
                self.block(&block);
                self.partial = block;
                self.partial.clear();
            }
        }
        self.input = input;
    }

    /// Zeros of the disk, in any number.
    fn zeros(&mut self, mut count: u64) {
        if !self.partial.is_empty() {
            let room = (self.block - self.partial.len()) as u64;
            let fill = count.min(room);
            let length = self.partial.len() + usize::try_from(fill).unwrap_or(0);
            self.partial.resize(length, 0);
            count -= fill;
            if self.partial.len() < self.block {
                return;
            }
            let block = std::mem::take(&mut self.partial);
            self.block(&block);
        }
        let rest = count % self.block as u64;
        if count > rest {
            self.hole.get_or_insert(self.position);
            self.position += count - rest;
        }
        self.partial.resize(usize::try_from(rest).unwrap_or(0), 0);
    }

    /// The last, short block, the hole at the end, the properties and END.
    fn tail(&mut self) -> Outcome<()> {
        let read = self.position + self.partial.len() as u64;
        if read != self.disk_size {
            return Err(Failure::build(format!(
                "the disk {} changed while read",
                self.disk.name()
            ))
            .fact("size at first", format!("{} bytes", self.disk_size))
            .fact("bytes read", read)
            .hint("stop what writes to it, then try again"));
        }
        if !self.partial.is_empty() {
            let mut block = std::mem::take(&mut self.partial);
            block.resize(self.block, 0);
            self.block(&block);
        }
        if self.position < self.volume_size {
            self.hole.get_or_insert(self.position);
            self.position = self.volume_size;
        }
        self.end_hole();
        self.write(PROPERTIES, 0, &properties::block(self.volume_size, self.guid));
        let mut end = Record::new(Kind::End);
        end.set(8, &self.sum.to_bytes()).set_u64(40, self.guid);
        self.record(end);
        Ok(())
    }

    /// Hands out at most a chunk, and keeps what is over.
    fn chunk(&mut self, mut buffer: Vec<u8>) -> Chunk {
        buffer.clear();
        if self.out.len() > CHUNK {
            buffer.extend_from_slice(self.out.get(CHUNK..).unwrap_or_default());
            self.out.truncate(CHUNK);
        }
        Chunk::Data(std::mem::replace(&mut self.out, buffer))
    }
}

impl Source for VolumeStream<'_> {
    fn name(&self) -> String {
        self.disk.name()
    }

    /// Unknown: it depends on the holes.
    fn total(&self) -> Option<u64> {
        None
    }

    fn progress(&self) -> Option<(u64, Option<u64>)> {
        Some((self.position, Some(self.volume_size)))
    }

    fn next(&mut self, buffer: Vec<u8>) -> Outcome<Option<Chunk>> {
        loop {
            self.pack();
            if self.out.len() >= CHUNK {
                return Ok(Some(self.chunk(buffer)));
            }
            match self.stage {
                Stage::Data => match self.disk.next(std::mem::take(&mut self.input))? {
                    Some(Chunk::Data(data)) => (self.input, self.used) = (data, 0),
                    Some(Chunk::Zeros(count)) => {
                        self.used = 0;
                        self.zeros(count);
                    }
                    None => self.stage = Stage::Tail,
                },
                Stage::Tail => {
                    self.tail()?;
                    self.stage = Stage::Done;
                }
                Stage::Done if self.out.is_empty() => return Ok(None),
                Stage::Done => return Ok(Some(self.chunk(buffer))),
            }
        }
    }
}

fn block_size(bytes: u32) -> Outcome<usize> {
    if bytes.is_power_of_two() && (512..=131_072).contains(&bytes) {
        return Ok(bytes as usize);
    }
    Err(Failure::input(format!("a volume cannot have blocks of {bytes} bytes"))
        .because("a volume's block size is a power of two from 512 to 131072")
        .hint("leave it at SmartOS' default, 8192, or try 16384 or 32768"))
}

fn disk_size(disk: &dyn Source) -> Outcome<u64> {
    let named =
        |why: &str| Failure::input(format!("no volume can be made of {}: {why}", disk.name()));
    match disk.total() {
        None => Err(named("its size is not known before its end")
            .hint("a stream says sizes first: give `--size`, or a file instead of a pipe")),
        Some(0) => Err(named("it is empty")),
        Some(size) if size > i64::MAX as u64 - UNIT => {
            Err(named("it has 8 EiB or more, and ZFS counts to less").fact("size", size))
        }
        Some(size) => Ok(size),
    }
}

/// From what the made-up parts of a reproducible stream follow.
fn seed(options: &StreamOptions, disk: &str, size: u64, epoch: i64) -> [u8; 32] {
    let mut hash = Sha256::new();
    let file = std::path::Path::new(disk).file_name().map(|name| name.to_string_lossy());
    hash.update(options.name.as_deref().or(file.as_deref()).unwrap_or(disk));
    hash.update([0]);
    hash.update(size.to_le_bytes());
    hash.update(options.volblocksize.to_le_bytes());
    hash.update(epoch.to_le_bytes());
    hash.finalize().into()
}

fn name(options: &StreamOptions, seed: Option<&[u8; 32]>) -> Outcome<String> {
    let Some(name) = &options.name else {
        let uuid = match seed.and_then(|seed| seed.first_chunk()) {
            Some(bytes) => uuid::Builder::from_custom_bytes(*bytes).into_uuid(),
            None => uuid::Uuid::new_v4(),
        };
        return Ok(format!("zones/{uuid}@final"));
    };
    let parts = name.split_once('@');
    let is_right = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:/ ".contains(c);
        !part.is_empty() && part.chars().all(allowed)
    };
    let is_name =
        parts.is_some_and(|(set, snap)| is_right(set) && is_right(snap) && !snap.contains('/'));
    if is_name && name.len() < NAME.len() {
        return Ok(name.clone());
    }
    Err(Failure::input(format!("{name:?} is no snapshot's name"))
        .because("it is DATASET@SNAPSHOT, shorter than 256 bytes, of letters, digits and `-_.:/`")
        .hint("SmartOS images are called `zones/UUID@final`"))
}

fn guid(options: &StreamOptions, seed: Option<&[u8; 32]>) -> Outcome<u64> {
    match (options.guid, seed.and_then(|seed| seed.last_chunk())) {
        (Some(0), _) => Err(Failure::input("a snapshot's guid is not 0")),
        (Some(guid), _) => Ok(guid),
        (None, Some(bytes)) => Ok(u64::from_le_bytes(*bytes).max(1)),
        (None, None) => Ok(rand::random_range(1..=u64::MAX)),
    }
}
