// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The finished disk as files with digests and a manifest.

mod check;
mod compress;
mod disk;
mod format;
mod forward;
mod gunzip;
mod gzip;
mod manifest;
mod partial;
mod partitions;
mod pipeline;
mod qcow2;
mod raw;
mod requirements;
mod rules;
mod source;
mod stream;

pub use check::{FileFacts, check_manifest};
pub use compress::{Compressed, DEFAULT_LEVEL, Options, compress};
pub use disk::{CompressedVolume, compress_disk, compress_volume, move_disk, write_qcow2_disk};
pub use format::{ImageFormat, Place, SinkOptions, check_content, open_source, write_sink};
pub use forward::RawStream;
pub use gunzip::GunzipDisk;
pub use manifest::{
    ImageFile, Manifest, ManifestInput, Network, Requirements, User, image_version, validate,
};
pub use qcow2::{Qcow2Disk, Qcow2Options, Qcow2Written, write_qcow2};
pub use raw::{Placement, copy_raw};
pub use rules::{Finding, Severity};
pub use source::{Chunk, RawDisk, Source};
pub use stream::{StreamInfo, StreamOptions, StreamReader, VolumeStream, open_stream, read_stream};
