// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! QEMU's disk format, read (versions 2 and 3) and written (version 3, standalone). The facts are
//! those of `docs/interop/qcow2` in QEMU's documentation.
//!
//! Reading trusts nothing: an offset is held against the file before it is used, no allocation
//! follows a number in the file beyond one cluster, and tables that overlap or point at each
//! other only ever give bytes of the file.

mod clusters;
mod deflate;
mod header;
mod layout;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

pub(super) use header::MAGIC;
pub use reader::Qcow2Disk;
pub(super) use writer::write_into;
pub use writer::{Qcow2Options, Qcow2Written, write_qcow2};

/// Of an L1 or L2 entry: the cluster's reference count is exactly one.
const COPIED: u64 = 1 << 63;
/// Of an L2 entry: a compressed cluster.
const COMPRESSED: u64 = 1 << 62;
/// Of an L2 entry: reads as zeros (version 3).
const ZERO: u64 = 1;
/// The offset in an L1 entry or in the L2 entry of an ordinary cluster.
const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
/// Largest L1 table in bytes, as QEMU limits it.
const LARGEST_L1: u64 = 32 << 20;
/// The unit in which the length of compressed data is written.
const SECTOR: u64 = 512;
