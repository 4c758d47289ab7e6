// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Finished installations, kept by content key, so that a change of a role does not cost a new
//! installation.

use std::fs;
use std::path::{Path, PathBuf};

use super::context::Context;
use super::identity::Identity;
use crate::store;
use crate::ui::{Failure, Outcome};

/// Name of the disk in an entry; the store adds `.raw`.
const DISK: &str = "disk";
/// Digits of the key in a directory's name.
const SHORT: usize = 16;

/// The cached installations of all targets.
pub struct Installations {
    root: PathBuf,
}

impl Installations {
    /// Below the cache directory `cache`.
    pub fn new(cache: &Path) -> Self {
        Self { root: cache.join("installed") }
    }

    fn entry(&self, target: &str, key: &str) -> PathBuf {
        self.root.join(target).join(&key[..SHORT.min(key.len())])
    }

    /// The credentials and the disk of a finished installation, when there is one.
    pub(crate) fn find(&self, target: &str, key: &str) -> Outcome<Option<(Identity, PathBuf)>> {
        let entry = self.entry(target, key);
        let disk = disk_of(&entry);
        if !disk.is_file() {
            return Ok(None);
        }
        Ok(Some((Identity::load(&entry)?, disk)))
    }

    /// Keeps the disk of a finished installation, in place of the target's older ones.
    pub(crate) fn keep(&self, context: &Context, key: &str) -> Outcome<()> {
        let entry = self.entry(&context.target.name, key);
        let parent = self.root.join(&context.target.name);
        create_private(&parent)?;
        for old in entries(&parent) {
            remove(&old)?;
        }
        let fresh = tempfile::Builder::new()
            .prefix(".new-")
            .tempdir_in(&parent)
            .map_err(|error| problem("cannot write to the cache", &parent, error))?;
        store::FileStore::open(fresh.path())?.freeze(&context.disk(), DISK)?;
        context.identity.save(fresh.path())?;
        let fresh = fresh.keep();
        fs::rename(&fresh, &entry).map_err(|error| problem("cannot rename", &fresh, error))
    }

    /// Every cached installation as directory and allocated bytes.
    pub fn list(&self) -> Vec<(PathBuf, u64)> {
        let targets = entries(&self.root);
        let all = targets.iter().flat_map(|target| entries(target));
        all.map(|entry| {
            let bytes = store::allocated(&disk_of(&entry)).unwrap_or(0);
            (entry, bytes)
        })
        .collect()
    }

    /// Removes every cached installation.
    pub fn clear(&self) -> Outcome<()> {
        if self.root.exists() { remove(&self.root) } else { Ok(()) }
    }
}

fn disk_of(entry: &Path) -> PathBuf {
    entry.join(format!("{DISK}.raw"))
}

fn create_private(path: &Path) -> Outcome<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| problem("cannot create", path, error))
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    paths.sort();
    paths
}

fn remove(path: &Path) -> Outcome<()> {
    fs::remove_dir_all(path).map_err(|error| problem("cannot remove", path, error))
}

fn problem(what: &str, path: &Path, error: std::io::Error) -> Failure {
    Failure::build(format!("{what} {}", path.display()))
        .because(error)
        .hint("another cache directory can be named by `--cache-dir` or IMGFORGE_CACHE_DIR")
}
