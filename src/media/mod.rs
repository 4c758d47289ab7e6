// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Installer media: download, checksum, cache, and a light check that a medium can boot.
//!
//! [`fetch`] gives a build the path of a whole, checked medium. Files on this host are used where
//! they lie. What comes over HTTP is kept in a cache shared by all builds and users of a host:
//!
//! ```text
//! CACHE/media/sha256-HEX.iso     a whole medium, named after its content
//! CACHE/media/KEY.part           a download under way, with KEY.part.json (how to resume it)
//! CACHE/media/KEY.lock           held while one process downloads; the others wait
//! CACHE/media/known/KEY.json     which content a declared digest or address stands for
//! CACHE/media/verified/*.json    files hashed before: not hashed again until they change
//! CACHE/media/sums/*.json        digests once read from sums files, for work without network
//! ```

mod cache;
mod checksum;
mod client;
mod digest;
mod download;
mod fetch;
mod iso;
mod progress;
mod record;
mod source;
#[cfg(test)]
mod tests;
mod wanted;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use checksum::{Sum, Sums};
pub use digest::{Digester, algorithm_name, hex_length};
pub use fetch::fetch;
pub use iso::{BootMedium, MediumKind, inspect};

use crate::target::Algorithm;
use crate::ui::{Failure, Outcome};

/// How media are fetched.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// The cache; made when it does not exist. See [`cache_dir`].
    pub cache_dir: PathBuf,
    /// Use files of this host and the cache only.
    pub offline: bool,
    /// Honour `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`.
    pub proxy: bool,
    /// Patience and bounds.
    pub limits: Limits,
}

impl FetchOptions {
    /// Online, by the environment's proxy, with the usual limits.
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        let cache_dir = cache_dir.into();
        Self { cache_dir, offline: false, proxy: true, limits: Limits::default() }
    }
}

/// Patience and bounds of downloads.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest time for a connection to come about.
    pub connect: Duration,
    /// Longest time without a byte.
    pub stall: Duration,
    /// How often in a row an address may fail without progress.
    pub attempts: u32,
    /// Pause before the second attempt; doubled for each further one.
    pub backoff: Duration,
    /// Largest medium in bytes.
    pub max_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            stall: Duration::from_secs(60),
            attempts: 4,
            backoff: Duration::from_millis(500),
            max_bytes: 64 << 30,
        }
    }
}

/// Where a medium's file came from in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A file of this host, used where it lies.
    InPlace,
    /// Downloaded by an earlier run or another build.
    Cached,
    /// Downloaded now.
    Downloaded,
}

/// A whole medium, ready for a CD drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Medium {
    /// The file; read it only.
    pub path: PathBuf,
    /// Base name of its address, for people.
    pub name: String,
    /// Algorithm of the declared digest; SHA-256 when none was declared.
    pub algorithm: Algorithm,
    /// Digest by that algorithm, lower-case hex.
    pub digest: String,
    /// SHA-256, lower-case hex: the identity of the content.
    pub sha256: String,
    /// Size in bytes.
    pub bytes: u64,
    /// The address it came from, without credentials.
    pub url: String,
    /// Where the file came from in this run.
    pub origin: Origin,
    /// It was compared with a declared digest, now or earlier.
    pub checked: bool,
}

/// The cache directory: `explicit` (the command line), `IMGFORGE_CACHE_DIR`, `PACKER_CACHE_DIR`,
/// `$XDG_CACHE_HOME/imgforge` or `$HOME/.cache/imgforge`, the first that is set. `environment`
/// reads a variable (`std::env::var_os`).
///
/// # Errors
///
/// None of them is set.
pub fn cache_dir(
    explicit: Option<&Path>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Outcome<PathBuf> {
    let set = |name: &str| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // The XDG base directory specification has relative paths ignored.
    let absolute = |name: &str| set(name).filter(|path| path.is_absolute());
    explicit
        .map(Path::to_path_buf)
        .or_else(|| set("IMGFORGE_CACHE_DIR"))
        .or_else(|| set("PACKER_CACHE_DIR"))
        .or_else(|| absolute("XDG_CACHE_HOME").map(|path| path.join("imgforge")))
        .or_else(|| absolute("HOME").map(|path| path.join(".cache/imgforge")))
        .ok_or_else(|| {
            Failure::input("no place for the media cache: HOME is not set")
                .hint("pass `--cache-dir DIR` or set IMGFORGE_CACHE_DIR")
        })
}
