// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The ZFS send stream of a volume, as SmartOS images are: made from any disk on any host, and
//! read back with every checksum verified. Nothing of ZFS is needed for either.

mod fletcher;
mod info;
mod payload;
mod properties;
mod reader;
mod record;
mod rules;
mod writer;

#[cfg(test)]
mod tests;

pub use info::StreamInfo;
pub use reader::{StreamReader, open_stream, read_stream};
pub use writer::{StreamOptions, VolumeStream};
