// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The file of an image that is written: which cluster of it holds what, and the reference counts
//! that say so.
//!
//! The file grows in one direction. Every 2 GiB are a region whose reference counts fill one
//! cluster, the region's first (the second in the first region, after the header), so only the
//! counts of one region are held, and a region is finished before the next one begins.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::super::partial::cannot_write;
use super::header::header;
use super::{COPIED, SECTOR};
use crate::ui::Outcome;

/// Binary logarithm of the cluster size that is written; QEMU's default.
pub(super) const CLUSTER_BITS: u32 = 16;
/// Bytes per cluster.
pub(super) const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Clusters whose 16-bit reference counts fill one cluster.
const REGION: u64 = CLUSTER / 2;
/// Bytes that are put together before they are written.
const BUFFERED: usize = 1 << 20;

/// The file, from its start to the next free cluster.
pub(super) struct Layout<'a> {
    file: &'a File,
    to: &'a Path,
    /// Index of the next free cluster.
    next: u64,
    /// The reference counts of the last region.
    counts: Vec<u16>,
    /// Where the counts of each region are in the file.
    blocks: Vec<u64>,
    /// The free bytes, from and to, behind the compressed data written last.
    room: (u64, u64),
    /// Bytes still to be written, and where.
    pending: (u64, Vec<u8>),
    /// Bytes written.
    written: u64,
}

impl<'a> Layout<'a> {
    pub(super) fn new(file: &'a File, to: &'a Path) -> Self {
        let mut counts = vec![0; REGION as usize];
        // The header and the counts themselves.
        counts[..2].fill(1);
        let pending = (0, Vec::with_capacity(BUFFERED));
        Self { file, to, next: 2, counts, blocks: vec![CLUSTER], room: (0, 0), pending, written: 0 }
    }

    /// Bytes written so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// A free cluster's offset, for bytes that stand there alone.
    pub(super) fn take(&mut self) -> Outcome<u64> {
        self.take_row(1)
    }

    /// The offset of a row of free clusters.
    fn take_row(&mut self, count: u64) -> Outcome<u64> {
        let at = self.free(count)?;
        for cluster in 0..count {
            *self.count(at / CLUSTER + cluster) += 1;
        }
        Ok(at)
    }

    /// Finds place for clusters in a row without counting them. They lie in one region.
    fn free(&mut self, count: u64) -> Outcome<u64> {
        let end = self.blocks.len() as u64 * REGION;
        if self.next + count > end {
            self.finish_region()?;
            self.counts.fill(0);
            self.counts[0] = 1;
            self.blocks.push(end * CLUSTER);
            self.next = end + 1;
            self.room = (0, 0);
        }
        let at = self.next * CLUSTER;
        self.next += count;
        Ok(at)
    }

    fn count(&mut self, cluster: u64) -> &mut u16 {
        &mut self.counts[(cluster % REGION) as usize]
    }

    fn finish_region(&mut self) -> Outcome<()> {
        let bytes: Vec<u8> = self.counts.iter().flat_map(|count| count.to_be_bytes()).collect();
        match self.blocks.last() {
            Some(at) => self.write(*at, &bytes),
            None => Ok(()),
        }
    }

    /// Writes a compressed cluster behind the last one; returns its offset and the sectors that
    /// it touches beyond the first. It is shorter than a cluster.
    pub(super) fn pack(&mut self, packed: &[u8]) -> Outcome<(u64, u64)> {
        let length = packed.len() as u64;
        let (mut start, mut end) = self.room;
        if start + length > end {
            let last = end;
            let at = self.free(1)?;
            // Compressed data goes over the border where the next cluster of the file is free.
            if at != last || self.room.1 != last {
                start = at;
            }
            end = at + CLUSTER;
        }
        self.write(start, packed)?;
        self.room = (start + length, end);
        // A cluster has room for less than 2^15 of the shortest compressed clusters, so the
        // counts of 16 bits do not overflow.
        for cluster in start / CLUSTER..=(start + length - 1) / CLUSTER {
            *self.count(cluster) += 1;
        }
        Ok((start, (start + length - 1) / SECTOR - start / SECTOR))
    }

    /// Writes bytes; neighbours are put together.
    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) -> Outcome<()> {
        let (start, pending) = &mut self.pending;
        if *start + pending.len() as u64 != at || pending.len() + bytes.len() > BUFFERED {
            self.flush()?;
        }
        if bytes.len() >= BUFFERED / 4 {
            return self.write_now(at, bytes);
        }
        let (start, pending) = &mut self.pending;
        if pending.is_empty() {
            *start = at;
        }
        pending.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Outcome<()> {
        let (at, mut bytes) = std::mem::take(&mut self.pending);
        self.write_now(at, &bytes)?;
        bytes.clear();
        self.pending = (0, bytes);
        Ok(())
    }

    fn write_now(&mut self, at: u64, bytes: &[u8]) -> Outcome<()> {
        self.file
            .write_all_at(bytes, at)
            .map_err(|error| cannot_write(self.to, error, self.written))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Writes the tables at the end and the header at the start; returns the file's size. `l1`
    /// has the offsets of the L2 tables, `size` is the disk's.
    pub(super) fn finish(mut self, l1: &[u64], size: u64) -> Outcome<u64> {
        let l1_clusters = (l1.len() as u64 * 8).div_ceil(CLUSTER);
        let l1_at = if l1.is_empty() { 0 } else { self.take_row(l1_clusters)? };
        let bytes: Vec<u8> = l1
            .iter()
            .map(|at| if *at == 0 { 0 } else { at | COPIED })
            .flat_map(u64::to_be_bytes)
            .collect();
        self.write(l1_at, &bytes)?;
        // The table itself may begin one more region.
        let table_clusters = ((self.blocks.len() as u64 + 1) * 8).div_ceil(CLUSTER);
        let table_at = self.take_row(table_clusters)?;
        let bytes: Vec<u8> = self.blocks.iter().flat_map(|at| at.to_be_bytes()).collect();
        self.write(table_at, &bytes)?;
        self.finish_region()?;
        self.flush()?;
        let l1 = (l1_at, u32::try_from(l1.len()).unwrap_or(u32::MAX));
        let table = (table_at, u32::try_from(table_clusters).unwrap_or(u32::MAX));
        self.write_now(0, &header(CLUSTER_BITS, size, l1, table))?;
        let length = self.next * CLUSTER;
        self.file.set_len(length).map_err(|error| cannot_write(self.to, error, self.written))?;
        Ok(length)
    }
}
