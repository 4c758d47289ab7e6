// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What a build does with its disk, off the async threads.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::compress::{Compressed, Options, compress};
use super::qcow2::{Qcow2Options, write_qcow2};
use super::raw::{Placement, copy_raw};
use super::source::RawDisk;
use super::stream::{StreamOptions, VolumeStream};
use crate::ui::{Events, Failure, Outcome};

/// Runs blocking work with what all of it needs.
async fn off_thread<T: Send + 'static>(
    disk: &Path,
    to: &Path,
    events: &Events,
    cancel: &CancellationToken,
    work: impl FnOnce(&Path, &Path, &Events, &CancellationToken) -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    let (disk, to) = (disk.to_owned(), to.to_owned());
    let (events, cancel) = (events.clone(), cancel.clone());
    tokio::task::spawn_blocking(move || work(&disk, &to, &events, &cancel))
        .await
        .map_err(|error| Failure::build("the export ended unexpectedly").because(error))?
}

/// Compresses the raw disk at `disk` into the gzip file `to`.
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
    off_thread(disk, to, events, cancel, move |disk, to, events, cancel| {
        compress(&mut RawDisk::open(disk)?, to, options, events, cancel)
    })
    .await
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
/// `to`, in one pass.
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
    off_thread(disk, to, events, cancel, move |disk, to, events, cancel| {
        let mut disk = RawDisk::open(disk)?;
        disk.check_partitions()?;
        let mut stream = VolumeStream::new(&mut disk, &stream)?;
        let file = compress(&mut stream, to, options, events, cancel)?;
        Ok(CompressedVolume { file, volume_size: stream.volume_size(), guid: stream.guid() })
    })
    .await
}

/// Writes the raw disk at `disk` as the qcow2 image `to`; returns its size in bytes.
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
    off_thread(disk, to, events, cancel, move |disk, to, events, cancel| {
        write_qcow2(&mut RawDisk::open(disk)?, to, options, events, cancel).map(|done| done.bytes)
    })
    .await
}

/// Makes the raw disk at `disk` the file `to`; returns its size in bytes.
///
/// # Errors
/// As [`copy_raw`].
pub async fn move_disk(
    disk: &Path,
    to: &Path,
    events: &Events,
    cancel: &CancellationToken,
) -> Outcome<u64> {
    off_thread(disk, to, events, cancel, |disk, to, events, cancel| {
        copy_raw(disk, to, Placement::Move, events, cancel)
    })
    .await
}
