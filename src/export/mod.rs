// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The finished disk as files with digests and a manifest.

mod check;
mod compress;
mod gzip;
mod manifest;
mod partial;
mod partitions;
mod raw;
mod requirements;
mod rules;
mod source;
mod stream;

pub use check::{FileFacts, check_manifest};
pub use compress::{
    Compressed, CompressedVolume, Options, compress, compress_disk, compress_volume,
};
pub use manifest::{
    ImageFile, Manifest, ManifestInput, Network, Requirements, User, image_version, validate,
};
pub use raw::{Placement, copy_raw};
pub use rules::{Finding, Severity};
pub use source::{Chunk, RawDisk, Source};
pub use stream::{StreamInfo, StreamOptions, StreamReader, VolumeStream, open_stream, read_stream};
