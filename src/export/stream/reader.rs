// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A volume's send stream as the disk that it holds: one forward pass, from a pipe too, in memory
//! of a few blocks. Every checksum is verified, and whatever a receiver would reject or, worse,
//! accept to its harm, is refused.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use super::fletcher::Fletcher4;
use super::info::StreamInfo;
use super::record::{CHECKSUM, DATA, Kind, LENGTH, PROPERTIES, Record};
use super::rules::{self, Begin, Block};
use super::{payload, properties};
use crate::export::forward::fill;
use crate::export::source::{CHUNK, Chunk, Source};
use crate::ui::{Failure, Outcome};

/// Opens the stream in a file, compressed by gzip or not.
///
/// # Errors
/// When the file cannot be read, or holds no such stream.
pub fn open_stream(path: &Path) -> Outcome<StreamReader> {
    let file = File::open(path).map_err(|error| {
        Failure::input(format!("cannot open {}", path.display()))
            .because(error)
            .fact("file", path.display())
    })?;
    read_stream(Box::new(file), &path.display().to_string())
}

/// Reads a stream from anything, compressed by gzip or not. `name` is for messages.
///
/// # Errors
/// When nothing can be read, or it is no such stream.
pub fn read_stream(input: Box<dyn Read + Send>, name: &str) -> Outcome<StreamReader> {
    let mut input = BufReader::with_capacity(CHUNK, input);
    let start = io::BufRead::fill_buf(&mut input)
        .map_err(|error| Failure::build(format!("cannot read {name}")).because(error))?;
    let input: Box<dyn Read + Send> = if start.starts_with(&[0x1f, 0x8b]) {
        let plain = flate2::bufread::MultiGzDecoder::new(input);
        Box::new(BufReader::with_capacity(CHUNK, plain))
    } else {
        Box::new(input)
    };
    StreamReader::new(input, name.to_owned())
}

/// A stream as a disk [`Source`]. What comes out is to be trusted only after the end was reached
/// without an error.
pub struct StreamReader {
    input: Box<dyn Read + Send>,
    name: String,
    sum: Fletcher4,
    info: StreamInfo,
    guid: u64,
    /// Bytes of the stream before the current record, and its number from 1.
    record_offset: u64,
    record_number: u64,
    record_kind: Option<Kind>,
    has_properties_object: bool,
    size: Option<u64>,
    /// The end of what was written so far.
    position: u64,
    /// Data that ends at `position` and is not handed out yet.
    out: Vec<u8>,
    packed: Vec<u8>,
    ready: VecDeque<Chunk>,
    is_done: bool,
}

impl StreamReader {
    fn new(input: Box<dyn Read + Send>, name: String) -> Outcome<Self> {
        let mut reader = Self {
            input,
            name,
            sum: Fletcher4::default(),
            info: StreamInfo { record_checksums: true, ..StreamInfo::default() },
            guid: 0,
            record_offset: 0,
            record_number: 0,
            record_kind: None,
            has_properties_object: false,
            size: None,
            position: 0,
            out: Vec::new(),
            packed: Vec::new(),
            ready: VecDeque::new(),
            is_done: false,
        };
        reader.head()?;
        Ok(reader)
    }

    /// What the stream is; counts are complete at the end.
    pub fn info(&self) -> &StreamInfo {
        &self.info
    }

    /// Reads the rest of the stream, verifying it.
    ///
    /// # Errors
    /// As for [`Source::next`].
    pub fn verify(&mut self) -> Outcome<&StreamInfo> {
        let mut buffer = Vec::new();
        while let Some(chunk) = self.next(std::mem::take(&mut buffer))? {
            if let Chunk::Data(data) = chunk {
                buffer = data;
            }
        }
        Ok(&self.info)
    }

    /// The way to the BEGIN of the volume's stream, through that of a package if there is one.
    fn head(&mut self) -> Outcome<()> {
        let mut begin = self.begin()?;
        if begin.is_package {
            self.info.package = true;
            self.skip(begin.payload)?;
            let end = self.record()?;
            if end.kind() != Some(Kind::End) {
                return Err(self.bad("the package's header has no END"));
            }
            self.end(&end, 0)?;
            begin = self.begin()?;
        }
        if begin.is_package {
            return Err(self.bad("a package lies within a package"));
        }
        self.info.features.extend(begin.features);
        self.info.features.dedup();
        self.guid = begin.guid;
        self.info.guid = begin.guid.to_string();
        self.skip(begin.payload)
    }

    fn begin(&mut self) -> Outcome<Begin> {
        self.sum = Fletcher4::default();
        let record = self.record()?;
        if record.kind() != Some(Kind::Begin) {
            return Err(self.bad("it does not begin as a ZFS stream does"));
        }
        let begin = rules::begin(&record).map_err(|why| self.bad(&why))?;
        self.info.name = record.name();
        self.info.creation = record.u64(24).cast_signed();
        Ok(begin)
    }

    /// Reads one record and verifies its checksum, but not that inside END.
    fn record(&mut self) -> Outcome<Record> {
        self.record_offset = self.info.stream_bytes;
        self.record_number += 1;
        self.record_kind = None;
        let mut bytes = [0; LENGTH];
        read_exact(&mut self.input, &mut bytes).map_err(|problem| self.cut(problem))?;
        self.info.stream_bytes += LENGTH as u64;
        let record = Record(bytes);
        let Some(kind) = record.kind() else {
            return Err(self.bad(&format!("record type {} does not exist", record.u32(0))));
        };
        self.record_kind = Some(kind);
        if kind == Kind::End {
            // Both of its checksums are verified by `end`.
            return Ok(record);
        }
        if !record.verify(&mut self.sum) {
            return Err(self.bad("the checksum is wrong: it or what is before it is damaged"));
        }
        if kind != Kind::Begin && record.bytes::<32>(CHECKSUM) == [0; 32] {
            self.info.record_checksums = false;
        }
        *self.info.records.entry(kind.name()).or_default() += 1;
        Ok(record)
    }

    fn end(&mut self, record: &Record, guid: u64) -> Outcome<()> {
        if record.bytes::<32>(8) != self.sum.to_bytes() {
            return Err(self.bad("the checksum of the whole stream is wrong"));
        }
        if record.u64(40) != guid {
            return Err(self.bad("it belongs to another snapshot"));
        }
        if !record.verify(&mut self.sum) {
            return Err(self.bad("the checksum is wrong"));
        }
        *self.info.records.entry(Kind::End.name()).or_default() += 1;
        Ok(())
    }

    /// Sums bytes that do not matter.
    fn skip(&mut self, mut count: u64) -> Outcome<()> {
        if !count.is_multiple_of(4) {
            return Err(self.bad("its payload is of odd length"));
        }
        while count > 0 {
            let piece = usize::try_from(count).unwrap_or(CHUNK).min(CHUNK);
            self.read_packed(piece)?;
            count -= piece as u64;
        }
        Ok(())
    }

    fn read_packed(&mut self, length: usize) -> Outcome<()> {
        self.packed.resize(length, 0);
        let result = read_exact(&mut self.input, &mut self.packed);
        result.map_err(|problem| self.cut(problem))?;
        self.sum.update(&self.packed);
        self.info.stream_bytes += length as u64;
        Ok(())
    }

    fn step(&mut self) -> Outcome<()> {
        let record = self.record()?;
        match self.record_kind {
            Some(Kind::Object) => self.object(&record),
            Some(Kind::FreeObjects) => Ok(()),
            Some(Kind::Free) => self.free(&record),
            Some(Kind::Write | Kind::WriteEmbedded) => {
                let block = Block::of(&record, self.guid).map_err(|why| self.bad(&why))?;
                self.write(&block)
            }
            Some(Kind::End) => {
                self.end(&record, self.guid)?;
                self.finish()
            }
            Some(Kind::Begin) => Err(self.bad("a stream begins before the last one ended")),
            Some(kind) => Err(self.bad(&format!("{} is not supported", kind.name()))),
            None => Err(self.bad("a record of no kind")),
        }
    }

    fn object(&mut self, record: &Record) -> Outcome<()> {
        let checked =
            |reader: &Self, which| rules::object(record, which).map_err(|why| reader.bad(&why));
        match record.u64(8) {
            number if number == DATA.number => {
                let block = checked(self, DATA)?;
                if self.info.volblocksize != 0 && self.info.volblocksize != block {
                    return Err(self.bad("the volume changes its block size"));
                }
                self.info.volblocksize = block;
            }
            number if number == PROPERTIES.number => {
                checked(self, PROPERTIES)?;
                self.has_properties_object = true;
            }
            // Nothing of the disk is elsewhere.
            _ => {}
        }
        self.skip(rules::bonus(record))
    }

    fn free(&mut self, record: &Record) -> Outcome<()> {
        let (object, offset, length) = (record.u64(8), record.u64(16), record.u64(24));
        if object == DATA.number && length > 0 && offset < self.position {
            return Err(self.bad("it frees what was written before"));
        }
        Ok(())
    }

    fn write(&mut self, block: &Block) -> Outcome<()> {
        match block.object {
            number if number == DATA.number => self.write_data(block),
            number if number == PROPERTIES.number => self.write_properties(block),
            _ => self.skip(block.payload),
        }
    }

    fn write_data(&mut self, block: &Block) -> Outcome<()> {
        let size = self.info.volblocksize;
        let end = block.offset.checked_add(block.length).filter(|end| *end <= i64::MAX as u64);
        let why = match end {
            _ if size == 0 => "no OBJECT came before it",
            _ if block.length != size => "it is not as long as the volume's blocks",
            _ if !block.offset.is_multiple_of(size) => "it does not lie where blocks do",
            _ if block.offset < self.position => "it lies before the one before it",
            None => "it lies beyond what a disk can have",
            Some(_) if self.size.is_some_and(|size| end > Some(size)) => BEYOND,
            Some(end) => {
                self.gap(block.offset);
                self.position = end;
                self.info.data_bytes += size;
                return self.fill(block);
            }
        };
        Err(self.bad(why))
    }

    /// Hands out what there is, then the hole up to `offset`.
    fn gap(&mut self, offset: u64) {
        if offset > self.position {
            self.flush();
            let length = offset - self.position;
            self.info.holes += 1;
            self.info.hole_bytes += length;
            self.ready.push_back(Chunk::Zeros(length));
            self.position = offset;
        }
    }

    /// Appends a block's bytes to `out`.
    fn fill(&mut self, block: &Block) -> Outcome<()> {
        let start = self.out.len();
        let length = usize::try_from(block.length).unwrap_or(0);
        if block.compression == 0 && block.payload == block.length {
            // Read in place: the usual case.
            self.out.resize(start + length, 0);
            let room = self.out.get_mut(start..).unwrap_or_default();
            let result = read_exact(&mut self.input, room);
            self.sum.update(room);
            result.map_err(|problem| self.cut(problem))?;
            self.info.stream_bytes += block.length;
        } else {
            let data = self.unpack(block)?;
            self.out.extend_from_slice(&data);
        }
        if self.out.len() >= CHUNK {
            self.flush();
        }
        Ok(())
    }

    fn unpack(&mut self, block: &Block) -> Outcome<Vec<u8>> {
        self.read_packed(usize::try_from(block.payload).unwrap_or(0))?;
        let mut data = vec![0; usize::try_from(block.length).unwrap_or(0)];
        let unpacked = usize::try_from(block.unpacked).unwrap_or(0);
        let room = data.get_mut(..unpacked).unwrap_or_default();
        payload::unpack(block.compression, &self.packed, room).map_err(|why| self.bad(&why))?;
        Ok(data)
    }

    fn write_properties(&mut self, block: &Block) -> Outcome<()> {
        if !self.has_properties_object {
            return Err(self.bad("no OBJECT came before it"));
        }
        if block.length > rules::LARGEST_PROPERTIES {
            return Err(self.bad("the volume's properties are too large"));
        }
        let data = self.unpack(block)?;
        if block.offset != 0 {
            return Ok(());
        }
        self.size = properties::size(&data).map_err(|why| self.bad(why))?;
        if self.size.is_some_and(|size| size < self.position) {
            return Err(self.bad(BEYOND));
        }
        Ok(())
    }

    /// After the volume's END: is all there, and nothing more?
    fn finish(&mut self) -> Outcome<()> {
        let block = self.info.volblocksize;
        let size = match self.size {
            _ if block == 0 => return Err(self.bad("it has no volume's data")),
            None => {
                return Err(self.bad("the volume's size is missing; a receiver's kernel panics"));
            }
            Some(0) => return Err(self.bad("the volume's size is 0")),
            Some(size) if size > i64::MAX as u64 => {
                return Err(self.bad("the volume's size is out of range"));
            }
            Some(size) if !size.is_multiple_of(block) => {
                return Err(self.bad("the volume's size is no multiple of its block size"));
            }
            Some(size) => size,
        };
        self.info.volsize = size;
        self.gap(size);
        self.flush();
        self.is_done = true;
        if self.info.package {
            self.package_end()?;
        }
        let mut more = [0];
        match fill(&mut self.input, &mut more) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.bad("bytes follow it, which imgadm takes for an error")),
            Err(error) => Err(self.cut(Some(error))),
        }
    }

    fn package_end(&mut self) -> Outcome<()> {
        self.sum = Fletcher4::default();
        let record = self.record()?;
        match record.kind() {
            Some(Kind::End) => {
                *self.info.records.entry(Kind::End.name()).or_default() += 1;
                Ok(())
            }
            Some(Kind::Begin) => Err(self.bad(&format!(
                "the package holds a further stream, of {}; only one can be read",
                record.name()
            ))),
            _ => Err(self.bad("the package has no END")),
        }
    }

    fn flush(&mut self) {
        let mut data = std::mem::take(&mut self.out);
        while data.len() > CHUNK {
            let rest = data.split_off(CHUNK);
            self.ready.push_back(Chunk::Data(std::mem::replace(&mut data, rest)));
        }
        if !data.is_empty() {
            self.ready.push_back(Chunk::Data(data));
        }
    }

    fn bad(&self, why: &str) -> Failure {
        self.place(Failure::build(format!("{} is no sound ZFS stream: {why}", self.name)))
            .hint("compare the file with its manifest, `imgforge manifest check MANIFEST --file IMAGE`, and fetch it again")
    }

    fn cut(&self, problem: Option<io::Error>) -> Failure {
        match problem {
            None => self.bad("it ends too early, without END"),
            Some(error) => {
                self.place(Failure::build(format!("cannot read {}", self.name)).because(error))
            }
        }
    }

    fn place(&self, failure: Failure) -> Failure {
        let kind = self.record_kind.map_or("unknown", Kind::name);
        failure
            .fact("record", format!("{} ({kind})", self.record_number))
            .fact("offset", self.record_offset)
    }
}

const BEYOND: &str = "blocks lie beyond the volume's size";

impl Source for StreamReader {
    fn name(&self) -> String {
        self.name.clone()
    }

    /// Unknown before the end: a stream says the volume's size after its data.
    fn total(&self) -> Option<u64> {
        self.is_done.then_some(self.info.volsize)
    }

    fn next(&mut self, mut buffer: Vec<u8>) -> Outcome<Option<Chunk>> {
        if self.out.is_empty() && self.out.capacity() < buffer.capacity() {
            buffer.clear();
            self.out = buffer;
        }
        while self.ready.is_empty() && !self.is_done {
            self.step()?;
        }
        Ok(self.ready.pop_front())
    }
}

/// Fills `buffer`; the error is `None` at an early end.
fn read_exact(input: &mut dyn Read, buffer: &mut [u8]) -> Result<(), Option<io::Error>> {
    match fill(input, buffer) {
        Ok(count) if count == buffer.len() => Ok(()),
        Ok(_) => Err(None),
        Err(error) => Err(Some(error)),
    }
}
