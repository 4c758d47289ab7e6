// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A disk into an image: one pass forward, nothing held but one L2 table, the L1 table and what is
//! on its way.

use std::fs::File;
use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::super::compress::{Meter, check_level};
use super::super::partial::Partial;
use super::super::pipeline::{self, Feed, Made, Piece, interrupted};
use super::super::source::{Source, is_zero};
use super::clusters::Clusters;
use super::deflate::Packer;
use super::layout::{CLUSTER, CLUSTER_BITS, Layout};
use super::{COMPRESSED, COPIED, LARGEST_L1, SECTOR};
use crate::ui::{Events, Failure, Outcome};

/// Entries of an L2 table.
const L2_ENTRIES: u64 = CLUSTER / 8;
/// Where the sectors stand in the entry of a compressed cluster; below them is the offset.
const SECTORS_SHIFT: u32 = 62 - (CLUSTER_BITS - 8);
/// Largest disk in clusters, which the largest L1 table describes: 2 PiB.
const LARGEST: u64 = LARGEST_L1 / 8 * L2_ENTRIES;

/// How an image is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qcow2Options {
    /// Compress the clusters (deflate); else they are stored as they are.
    pub compressed: bool,
    /// Deflate level, 1 to 9.
    pub level: u32,
    /// Threads that compress; 0 means one per processor.
    pub threads: usize,
}

impl Default for Qcow2Options {
    fn default() -> Self {
        Self { compressed: false, level: 6, threads: 0 }
    }
}

/// A finished image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qcow2Written {
    /// Size of the file in bytes; holes are few.
    pub bytes: u64,
    /// Size of the disk in bytes: the source's, rounded up to a sector.
    pub virtual_size: u64,
}

/// Writes a source as a qcow2 image: version 3, clusters of 64 KiB, standalone, zeros left out.
/// The same bytes and options give the same image, whatever the threads. The file has its name
/// only when it is whole and durable. Blocks.
///
/// # Errors
/// When the level is not 1 to 9, `to` exists, the source cannot be read or is larger than 2 PiB,
/// the file cannot be written, or `cancel` is cancelled.
pub fn write_qcow2(
    source: &mut dyn Source,
    to: &Path,
    options: Qcow2Options,
    events: &Events,
    cancel: &CancellationToken,
) -> Outcome<Qcow2Written> {
    let mut partial = Partial::create(to)?;
    let done = write_into(source, partial.file(), to, options, events, cancel)?;
    partial.publish(done.bytes)?;
    Ok(done)
}

/// As [`write_qcow2`], into an empty file. `to` is its name for messages.
pub(in super::super) fn write_into(
    source: &mut dyn Source,
    file: &File,
    to: &Path,
    options: Qcow2Options,
    events: &Events,
    cancel: &CancellationToken,
) -> Outcome<Qcow2Written> {
    check_level(options.level)?;
    let meter = Meter::new(events, format!("writing {}", to.display()), source.total());
    let mut image = Image::new(file, to);
    if source.total().is_some_and(|total| total > LARGEST * CLUSTER) {
        return Err(image.too_large());
    }
    let clusters = Clusters::new(source, CLUSTER as usize);
    let size = if options.compressed {
        compress(clusters, &mut image, options, meter, cancel)?
    } else {
        store(clusters, &mut image, meter, cancel)?
    };
    image.finish(size)
}

/// The disk's side of the image: what is where in the file.
pub(super) struct Image<'a> {
    layout: Layout<'a>,
    to: &'a Path,
    /// Offsets of the L2 tables; 0 where there is none.
    l1: Vec<u64>,
    /// The L2 table that is filled, and its index.
    l2: (u64, Vec<u64>),
    /// The next cluster of the disk.
    at: u64,
}

impl<'a> Image<'a> {
    pub(super) fn new(file: &'a File, to: &'a Path) -> Self {
        let l2 = (0, vec![0; L2_ENTRIES as usize]);
        Self { layout: Layout::new(file, to), to, l1: Vec::new(), l2, at: 0 }
    }

    /// Leaves clusters out.
    fn skip(&mut self, count: u64) -> Outcome<()> {
        self.at = self
            .at
            .checked_add(count)
            .filter(|at| *at <= LARGEST)
            .ok_or_else(|| self.too_large())?;
        Ok(())
    }

    /// Stores clusters as they are; zeros among them are left out.
    fn store(&mut self, data: &[u8]) -> Outcome<()> {
        let size = CLUSTER as usize;
        // Where a row of clusters began: in the file and in the data.
        let mut row: Option<(u64, usize)> = None;
        for (index, cluster) in data.chunks_exact(size).enumerate() {
            let from = index * size;
            if is_zero(cluster) {
                self.store_row(row.take(), &data[..from])?;
                self.skip(1)?;
                continue;
            }
            self.open_table()?;
            let host = self.layout.take()?;
            match row {
                Some((start, first)) if start + (from - first) as u64 == host => {}
                _ => {
                    self.store_row(row, &data[..from])?;
                    row = Some((host, from));
                }
            }
            self.map(host | COPIED)?;
        }
        self.store_row(row, data)
    }

    fn store_row(&mut self, row: Option<(u64, usize)>, data: &[u8]) -> Outcome<()> {
        row.map_or(Ok(()), |(host, from)| self.layout.write(host, &data[from..]))
    }

    /// Stores clusters as a compressing thread left them.
    fn store_packed(&mut self, packed: &Packed, data: &[u8]) -> Outcome<()> {
        let clusters = data.chunks_exact(CLUSTER as usize);
        let mut rest = packed.bytes.as_slice();
        for (cluster, form) in clusters.zip(&packed.forms) {
            match *form {
                Form::Zeros => self.skip(1)?,
                Form::Plain => self.store(cluster)?,
                Form::Packed(length) => {
                    let (bytes, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
                    rest = after;
                    self.open_table()?;
                    let (host, sectors) = self.layout.pack(bytes)?;
                    self.map(COMPRESSED | sectors << SECTORS_SHIFT | host)?;
                }
            }
        }
        Ok(())
    }

    /// Notes where the next cluster is.
    fn map(&mut self, entry: u64) -> Outcome<()> {
        self.l2.1[(self.at % L2_ENTRIES) as usize] = entry;
        self.skip(1)
    }

    /// Makes the L2 table of the next cluster the one that is filled.
    fn open_table(&mut self) -> Outcome<()> {
        let index = self.at / L2_ENTRIES;
        if self.at >= LARGEST {
            return Err(self.too_large());
        }
        if index != self.l2.0 {
            self.close_table()?;
            self.l2.0 = index;
        }
        Ok(())
    }

    /// Writes the L2 table, unless it is empty.
    fn close_table(&mut self) -> Outcome<()> {
        let (index, table) = &mut self.l2;
        if table.iter().all(|entry| *entry == 0) {
            return Ok(());
        }
        let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        table.fill(0);
        let index = *index as usize;
        let at = self.layout.take()?;
        self.l1.resize(index + 1, 0);
        self.l1[index] = at;
        self.layout.write(at, &bytes)
    }

    /// `size` is the source's.
    pub(super) fn finish(mut self, size: u64) -> Outcome<Qcow2Written> {
        self.close_table()?;
        let virtual_size = size.next_multiple_of(SECTOR);
        let tables = virtual_size.div_ceil(CLUSTER).div_ceil(L2_ENTRIES);
        self.l1.resize(tables as usize, 0);
        let bytes = self.layout.finish(&self.l1, virtual_size)?;
        Ok(Qcow2Written { bytes, virtual_size })
    }

    fn too_large(&self) -> Failure {
        Failure::input("the disk is larger than 2 PiB, too large for a qcow2 image")
            .fact("file", self.to.display())
            .fact("written", format!("{} bytes, removed again", self.layout.written()))
            .hint("write a raw disk instead")
    }
}

/// Without compression: this thread does it all. Returns the source's size.
fn store(
    mut clusters: Clusters<'_>,
    image: &mut Image<'_>,
    mut meter: Meter<'_>,
    cancel: &CancellationToken,
) -> Outcome<u64> {
    let mut buffer = Vec::new();
    while let Some(piece) = clusters.next(std::mem::take(&mut buffer))? {
        if cancel.is_cancelled() {
            return Err(interrupted(image.to));
        }
        match piece {
            Piece::Zeros(count) => image.skip(count)?,
            Piece::Data(data) => {
                image.store(&data)?;
                buffer = data;
            }
        }
        meter.at(clusters.size());
    }
    if cancel.is_cancelled() {
        return Err(interrupted(image.to));
    }
    meter.end(clusters.size());
    Ok(clusters.size())
}

/// Clusters after compression.
struct Packed {
    /// What each cluster has become.
    forms: Vec<Form>,
    /// The compressed clusters, one after the other.
    bytes: Vec<u8>,
}

enum Form {
    Zeros,
    /// It does not become smaller.
    Plain,
    Packed(usize),
}

/// With compression, by many threads (see [`pipeline`]). Returns the source's size.
fn compress(
    clusters: Clusters<'_>,
    image: &mut Image<'_>,
    options: Qcow2Options,
    mut meter: Meter<'_>,
    cancel: &CancellationToken,
) -> Outcome<u64> {
    let worker = || {
        let mut packer = Packer::new(options.level);
        move |data: &[u8]| pack(&mut packer, data)
    };
    let to = image.to;
    let end = pipeline::ordered(clusters, options.threads, worker, to, cancel, |made, _| {
        match made {
            Made::Zeros(count) => image.skip(count)?,
            Made::Data(packed, data) => image.store_packed(&packed, data)?,
        }
        meter.at(image.at * CLUSTER);
        Ok(())
    })?;
    let size = end.unwrap_or_default();
    meter.end(size);
    Ok(size)
}

fn pack(packer: &mut Packer, data: &[u8]) -> Result<Packed, String> {
    let mut bytes = Vec::with_capacity(data.len() / 2);
    let mut forms = Vec::with_capacity(data.len() / CLUSTER as usize);
    for cluster in data.chunks_exact(CLUSTER as usize) {
        let before = bytes.len();
        forms.push(if is_zero(cluster) {
            Form::Zeros
        } else if packer.pack(cluster, &mut bytes)? {
            Form::Packed(bytes.len() - before)
        } else {
            Form::Plain
        });
    }
    Ok(Packed { forms, bytes })
}

#[cfg(test)]
impl Image<'_> {
    /// Gives the next cluster a place in the file without writing to it, or a compressed cluster
    /// of no meaning.
    pub(super) fn place_for_test(&mut self, packed: bool) -> Outcome<()> {
        self.open_table()?;
        if packed {
            let (host, sectors) = self.layout.pack(&[0; 700])?;
            return self.map(COMPRESSED | sectors << SECTORS_SHIFT | host);
        }
        let host = self.layout.take()?;
        self.map(host | COPIED)
    }
}
