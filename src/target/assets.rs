// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Where the files that a target names come from.

use crate::ui::Outcome;

/// A source of files by their `/`-separated path: the working directory, or the tree embedded
/// in the binary.
pub trait Assets: Send + Sync {
    /// The bytes of one file. Fails when there is none, or when the path is a directory.
    fn read(&self, path: &str) -> Outcome<Vec<u8>>;

    /// Every file below a directory, sorted by path. Fails when there is no such directory.
    fn tree(&self, path: &str) -> Outcome<Vec<AssetFile>>;
}

/// One file of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetFile {
    /// Path relative to the tree's root, `/`-separated.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Content.
    pub bytes: Vec<u8>,
}
