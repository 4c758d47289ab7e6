// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Room on file systems: asked before a build, so that it does not end at the last percent.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::ui::{Failure, Outcome};

/// Bytes that an unprivileged process may still write to the file system of `path`; when `path`
/// does not exist yet, of its nearest existing parent.
pub fn free_space(path: &Path) -> Outcome<u64> {
    let place = nearest_existing(path);
    let stat = nix::sys::statvfs::statvfs(&place).map_err(|error| {
        Failure::build("cannot tell how much room a file system has")
            .because(error)
            .fact("path", place.display())
    })?;
    let (blocks, size) = (stat.blocks_available() as u64, stat.fragment_size() as u64);
    Ok(blocks.saturating_mul(size))
}

/// Fails when the file system of `path` has less than `needed` bytes left for `purpose`
/// (`the disk of debian-13`).
pub fn require_space(path: &Path, needed: u64, purpose: &str) -> Outcome<()> {
    let available = free_space(path)?;
    if available >= needed {
        return Ok(());
    }
    Err(Failure::build(format!("not enough room for {purpose}"))
        .fact("path", path.display())
        .fact("needed", mebibytes(needed))
        .fact("free", mebibytes(available))
        .hint("free some space, or choose another directory with `--output`")
        .hint("run `imgforge clean` to remove what earlier builds left"))
}

/// Bytes that a file really takes on its file system; holes take none.
pub fn allocated(path: &Path) -> Outcome<u64> {
    let metadata = std::fs::metadata(path).map_err(|error| {
        Failure::build("cannot read a disk file").because(error).fact("file", path.display())
    })?;
    Ok(metadata.blocks().saturating_mul(512))
}

/// A byte count for people.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes / (1 << 20))
}

fn nearest_existing(path: &Path) -> PathBuf {
    let mut place = path;
    loop {
        if place.as_os_str().is_empty() {
            return PathBuf::from(".");
        }
        if place.exists() {
            return place.to_owned();
        }
        match place.parent() {
            Some(parent) => place = parent,
            None => return PathBuf::from("/"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn asks_the_nearest_parent_that_exists() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(nearest_existing(&dir.path().join("a/b/c")), dir.path());
        assert_eq!(nearest_existing(Path::new("not-there/at-all")), Path::new("."));
        assert!(free_space(&dir.path().join("a/b")).unwrap() > 0);
    }

    #[test]
    fn lack_of_room_names_path_needed_and_free() {
        let dir = tempfile::tempdir().unwrap();
        require_space(dir.path(), 1, "nothing much").unwrap();
        let text =
            require_space(dir.path(), u64::MAX, "the disk of debian-13").unwrap_err().to_string();
        assert!(text.contains("not enough room for the disk of debian-13"), "{text}");
        assert!(text.contains(&dir.path().display().to_string()), "{text}");
        assert!(text.contains("needed   17592186044415 MiB"), "{text}");
        assert!(text.contains("free     "), "{text}");
    }
}
