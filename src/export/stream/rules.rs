// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What a stream must be: the checks on single records.

use super::record::{COMPOUND, Kind, MAGIC, OBJSET_ZVOL, Object, Record, SUBSTREAM};

/// The largest block that `zfs send -L` makes.
const LARGEST_BLOCK: u64 = 16 << 20;
/// The largest block of properties.
pub(super) const LARGEST_PROPERTIES: u64 = 1 << 20;

/// Feature flags by bit; those we can read are marked.
const FEATURES: [(u32, &str, bool); 16] = [
    (0, "dedup", false),
    (1, "dedupprops", false),
    (2, "sa_spill", false),
    (16, "embed_data", true),
    (17, "lz4", true),
    (19, "large_blocks", true),
    (20, "resuming", false),
    (21, "redacted", false),
    (22, "compressed", true),
    (23, "large_dnode", true),
    (24, "raw", false),
    (25, "zstd", false),
    (26, "holds", true),
    (27, "switch_to_large_blocks", true),
    (28, "longname", false),
    (29, "large_microzap", false),
];

/// What BEGIN says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Begin {
    pub(super) is_package: bool,
    pub(super) features: Vec<&'static str>,
    pub(super) guid: u64,
    /// Bytes that follow the record.
    pub(super) payload: u64,
}

/// Checks BEGIN.
pub(super) fn begin(record: &Record) -> Result<Begin, String> {
    match record.u64(8) {
        MAGIC => {}
        magic if magic == MAGIC.swap_bytes() => {
            return Err("it was sent by a big-endian machine, which is not supported".into());
        }
        _ => return Err("it does not begin as a ZFS stream does".into()),
    }
    let version = record.u64(16);
    let is_package = match version & 3 {
        SUBSTREAM => false,
        COMPOUND => true,
        other => return Err(format!("header type {other} does not exist")),
    };
    if !is_package {
        match record.u32(32) {
            OBJSET_ZVOL => {}
            2 => return Err("it is the stream of a file system, not of a volume".into()),
            other => return Err(format!("it is no volume's stream (object set type {other})")),
        }
        if record.u64(48) != 0 {
            return Err("it is an incremental stream; only a full one holds a whole disk".into());
        }
        if record.u64(40) == 0 {
            return Err("the snapshot's guid is 0".into());
        }
        if !record.name().contains('@') {
            return Err(format!("{:?} is no snapshot's name", record.name()));
        }
    }
    // After the kind: a file system's has features that a volume's never has.
    let features = features(version >> 2)?;
    Ok(Begin { is_package, features, guid: record.u64(40), payload: u64::from(record.u32(4)) })
}

fn features(flags: u64) -> Result<Vec<&'static str>, String> {
    let mut names = Vec::new();
    for bit in (0..62).filter(|bit| flags >> bit & 1 == 1) {
        match FEATURES.iter().find(|(number, ..)| *number == bit) {
            Some((_, name, true)) => names.push(*name),
            Some((_, name, false)) => return Err(format!("its feature {name} is not supported")),
            None => return Err(format!("it needs the unknown feature of bit {bit}")),
        }
    }
    Ok(names)
}

/// Checks an OBJECT record of the data or the properties; returns its block size.
pub(super) fn object(record: &Record, object: Object) -> Result<u64, String> {
    let (kind, block) = (record.u32(16), u64::from(record.u32(24)));
    if kind != object.kind {
        return Err(format!("object {} has type {kind}, not {}", object.number, object.kind));
    }
    if record.bytes::<3>(48) != [0; 3] {
        return Err("the object is of a raw stream".into());
    }
    if !block.is_power_of_two() || !(512..=LARGEST_BLOCK).contains(&block) {
        return Err(format!("a block size of {block} does not exist"));
    }
    Ok(block)
}

/// Bytes that follow an OBJECT record.
pub(super) fn bonus(record: &Record) -> u64 {
    u64::from(record.u32(28)).next_multiple_of(8)
}

/// What WRITE and WRITE_EMBEDDED have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub(super) object: u64,
    pub(super) offset: u64,
    /// Bytes of the volume.
    pub(super) length: u64,
    /// Bytes that follow the record.
    pub(super) payload: u64,
    pub(super) compression: u8,
    /// What compression gives, the rest of the block being zero.
    pub(super) unpacked: u64,
}

impl Block {
    /// Checks a record that carries data; `guid` is that of BEGIN.
    pub(super) fn of(record: &Record, guid: u64) -> Result<Self, String> {
        let (block, to) = if record.kind() == Some(Kind::WriteEmbedded) {
            (Self::embedded(record)?, record.u64(32))
        } else {
            (Self::plain(record)?, record.u64(40))
        };
        if to != guid {
            return Err(format!("the record belongs to the snapshot of guid {to}"));
        }
        if block.length == 0 || block.length > LARGEST_BLOCK {
            return Err(format!("a block of {} bytes does not exist", block.length));
        }
        if block.payload > block.length.max(128) || block.payload % 8 != 0 {
            return Err(format!("a payload of {} bytes is impossible", block.payload));
        }
        Ok(block)
    }

    fn plain(record: &Record) -> Result<Self, String> {
        let (length, compression) = (record.u64(32), record.u8(50));
        if record.u64(88) >> 39 & 1 == 1 {
            return Err("the block is encrypted".into());
        }
        let payload = if compression == 0 { length } else { record.u64(96) };
        if compression != 0 && payload == 0 {
            return Err("a compressed block is empty".into());
        }
        Ok(Self {
            object: record.u64(8),
            offset: record.u64(24),
            length,
            payload,
            compression,
            unpacked: length,
        })
    }

    fn embedded(record: &Record) -> Result<Self, String> {
        let kind = record.u8(41);
        if kind != 0 {
            return Err(format!("embedded data of type {kind} is not supported"));
        }
        let (length, unpacked, packed) = (record.u64(24), record.u32(48), record.u32(52));
        if packed > 112 || u64::from(unpacked) > length {
            return Err("the embedded block is larger than such blocks can be".into());
        }
        Ok(Self {
            object: record.u64(8),
            offset: record.u64(16),
            length,
            payload: u64::from(packed).next_multiple_of(8),
            compression: record.u8(40),
            unpacked: u64::from(unpacked),
        })
    }
}
