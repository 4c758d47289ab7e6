// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The raw disk itself as an artefact: moved where possible, else copied without its holes.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::compress::Meter;
use super::partial::{Partial, cannot_write, sync_parent};
use super::pipeline::interrupted;
use super::source::{Chunk, RawDisk, Source};
use crate::ui::{Events, Failure, Outcome};

/// What becomes of the original disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// It is not needed any more.
    Move,
    /// It stays.
    Copy,
}

/// Puts the raw disk at `to`, sparse, under that name only when it is whole and durable.
/// Returns its size in bytes. Blocks.
///
/// # Errors
/// When `to` exists, a file cannot be read or written, or `cancel` is cancelled.
pub fn copy_raw(
    disk: &Path,
    to: &Path,
    placement: Placement,
    events: &Events,
    cancel: &CancellationToken,
) -> Outcome<u64> {
    let mut partial = Partial::create(to)?;
    let mut source = RawDisk::open(disk)?;
    let size = source.size();
    let is_file = fs::symlink_metadata(disk).is_ok_and(|meta| meta.is_file());
    let moves = placement == Placement::Move && is_file;
    if moves && rename(disk, to)? {
        return Ok(size);
    }
    let meter = Meter::new(events, format!("copying {}", disk.display()), Some(size));
    let written = write_sparse(&mut source, partial.file(), to, meter, cancel)?;
    partial.publish(written)?;
    if moves {
        fs::remove_file(disk).map_err(|error| {
            Failure::build(format!("cannot remove the disk {} after copying it", disk.display()))
                .because(error)
                .fact("file", disk.display())
        })?;
    }
    Ok(written)
}

/// Writes a source into an empty file, without its zeros. Returns its size in bytes. `to` is the
/// file's name for messages.
pub(super) fn write_sparse(
    source: &mut dyn Source,
    file: &fs::File,
    to: &Path,
    mut meter: Meter<'_>,
    cancel: &CancellationToken,
) -> Outcome<u64> {
    let mut at: u64 = 0;
    let mut buffer = Vec::new();
    while let Some(chunk) = source.next(std::mem::take(&mut buffer))? {
        if cancel.is_cancelled() {
            return Err(interrupted(to));
        }
        match chunk {
            Chunk::Zeros(count) => at = at.saturating_add(count),
            Chunk::Data(data) => {
                file.write_all_at(&data, at).map_err(|error| cannot_write(to, error, at))?;
                at += data.len() as u64;
                buffer = data;
            }
        }
        meter.at(source.done(at));
    }
    if cancel.is_cancelled() {
        return Err(interrupted(to));
    }
    file.set_len(at).map_err(|error| cannot_write(to, error, at))?;
    meter.end(source.done(at));
    Ok(at)
}

/// Renames within one file system; false when the two lie on different ones.
fn rename(disk: &Path, to: &Path) -> Outcome<bool> {
    let synced = fs::File::open(disk).and_then(|file| file.sync_all());
    match synced.and_then(|()| fs::rename(disk, to)) {
        Ok(()) => sync_parent(to).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => Ok(false),
        Err(error) => Err(cannot_write(to, error, 0)),
    }
}
