// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What the cache remembers as small JSON files, each replaced in one step.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::target::Algorithm;

use super::digest::algorithm_name;

/// Longest record read, in bytes.
const MAX_RECORD: u64 = 64 * 1024;

/// What tells whether a file is still the one that was hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fingerprint {
    device: u64,
    inode: u64,
    pub(super) size: u64,
    modified: (i64, i64),
    // Tells a file that was rewritten and had its modification time set back.
    changed: (i64, i64),
}

impl Fingerprint {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The record's file name.
    pub(super) fn file_name(&self) -> String {
        format!("{:x}-{:x}.json", self.device, self.inode)
    }
}

/// A file hashed before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Verified {
    pub(super) fingerprint: Fingerprint,
    pub(super) path: String,
    digests: BTreeMap<String, String>,
}

impl Verified {
    pub(super) fn new(fingerprint: Fingerprint, path: &Path, digests: &Digests) -> Self {
        let path = path.display().to_string();
        let digests = digests.0.iter().map(|(a, hex)| (algorithm_name(*a).into(), hex.clone()));
        Self { fingerprint, path, digests: digests.collect() }
    }

    /// The remembered digests, when all of `algorithms` are among them.
    pub(super) fn digests(&self, algorithms: &[Algorithm]) -> Option<Digests> {
        let of = |algorithm: &Algorithm| {
            let hex = self.digests.get(algorithm_name(*algorithm))?.clone();
            Some((*algorithm, hex))
        };
        algorithms.iter().map(of).collect::<Option<Vec<_>>>().map(Digests)
    }
}

/// Digests of one file by several algorithms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Digests(pub(super) Vec<(Algorithm, String)>);

impl Digests {
    /// The digest by `algorithm`; empty when it was not computed.
    pub(super) fn of(&self, algorithm: Algorithm) -> &str {
        self.0.iter().find(|(a, _)| *a == algorithm).map_or("", |(_, hex)| hex)
    }
}

/// Which content a declared digest or an address stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// SHA-256 of the content.
    pub(super) sha256: String,
    /// The address it came from, without credentials.
    pub(super) url: String,
}

/// How to go on with a part of a medium.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartState {
    /// Digest of the address's text: the text itself may hold a password.
    pub(super) url: String,
    /// Strong entity tag.
    pub(super) etag: Option<String>,
    /// `Last-Modified` as it was sent.
    pub(super) last_modified: Option<String>,
    /// Size of the whole, when the server told it.
    pub(super) total: Option<u64>,
}

/// A digest once read from a sums file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RememberedSum {
    pub(super) name: String,
    pub(super) algorithm: String,
    pub(super) hex: String,
}

/// Reads a record; a missing, overlong or malformed one counts as not there.
pub(super) fn load<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let mut text = String::new();
    File::open(path).ok()?.take(MAX_RECORD).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Writes a record beside its place and renames it there.
pub(super) fn save(path: &Path, record: &impl Serialize) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.persist(path)?;
    Ok(())
}
