// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Disks as sparse raw files in one directory.

use std::fs::{File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::copy_sparse;
use super::space::{mebibytes, require_space};
use crate::ui::{Failure, Outcome};

/// A directory of raw disks. Files appear under their names only when they are complete; what
/// fails half way is removed again.
#[derive(Debug, Clone)]
pub struct FileStore {
    root: PathBuf,
}

impl FileStore {
    /// Opens the store in `root`, which is made (mode 0700) when it is missing.
    pub fn open(root: impl Into<PathBuf>) -> Outcome<Self> {
        let root = root.into();
        let existed = root.is_dir();
        let made = std::fs::create_dir_all(&root).and_then(|()| {
            if existed {
                Ok(())
            } else {
                std::fs::set_permissions(&root, Permissions::from_mode(0o700))
            }
        });
        made.map_err(|error| {
            Failure::build("cannot make the directory for disks")
                .because(error)
                .fact("path", root.display())
        })?;
        Ok(Self { root })
    }

    /// Where the disk `name` is, or would be.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}.raw"))
    }

    /// Makes an empty disk of `bytes` (a multiple of 512) that takes no room yet.
    ///
    /// # Errors
    /// The name is taken, or the file system cannot hold a file of that size.
    pub fn create(&self, name: &str, bytes: u64) -> Outcome<PathBuf> {
        let path = self.named(name)?;
        if bytes == 0 || !bytes.is_multiple_of(512) {
            return Err(Failure::input("a disk's size must be a positive multiple of 512 bytes")
                .fact("disk", name)
                .fact("bytes", bytes));
        }
        let file = new_file(&path)?;
        file.set_len(bytes).map_err(|error| {
            // The half-made file is ours; its removal can only fail as the file system did.
            let _ = std::fs::remove_file(&path);
            broken("cannot make the disk", &path, error).fact("size", mebibytes(bytes))
        })?;
        Ok(path)
    }

    /// Keeps the state of a disk that no machine uses any more under `name`, read-only and
    /// durable. Holes stay holes.
    ///
    /// # Errors
    /// The name is taken, the file system is full, or the disk cannot be read.
    pub fn freeze(&self, disk: &Path, name: &str) -> Outcome<PathBuf> {
        let path = self.named(name)?;
        self.place(disk, &path, 0o400)?;
        Ok(path)
    }

    /// Makes a writable disk `name` with the content of a frozen one.
    ///
    /// # Errors
    /// As [`FileStore::freeze`].
    pub fn clone_disk(&self, frozen: &Path, name: &str) -> Outcome<PathBuf> {
        let path = self.named(name)?;
        self.place(frozen, &path, 0o600)?;
        Ok(path)
    }

    /// Removes a disk; one that is not there is no error.
    pub fn remove(&self, name: &str) -> Outcome<()> {
        let path = self.named(name)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(broken("cannot remove the disk", &path, error))
            }
            _ => Ok(()),
        }
    }

    fn named(&self, name: &str) -> Outcome<PathBuf> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            return Err(Failure::input("a disk's name may have letters, digits, `.`, `_` and `-`")
                .fact("disk", name));
        }
        Ok(self.path(name))
    }

    /// Copies by way of a temporary file in the same directory, so that `to` is whole or absent.
    fn place(&self, from: &Path, to: &Path, mode: u32) -> Outcome<()> {
        let source = File::open(from).map_err(|e| broken("cannot read the disk", from, e))?;
        require_space(&self.root, super::allocated(from)?, "a copy of the disk")?;
        let copy = tempfile::Builder::new()
            .prefix(".copying-")
            .tempfile_in(&self.root)
            .map_err(|e| broken("cannot make a disk file", &self.root, e))?;
        let failed = |error| broken("cannot copy the disk", to, error).fact("from", from.display());
        copy_sparse(&source, copy.as_file()).map_err(failed)?;
        copy.as_file().set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
        copy.as_file().sync_all().map_err(failed)?;
        copy.persist_noclobber(to).map_err(|error| taken_or_broken(to, error.error))?;
        File::open(&self.root).and_then(|dir| dir.sync_all()).map_err(failed)
    }
}

fn new_file(path: &Path) -> Outcome<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(path).map_err(|error| taken_or_broken(path, error))
}

fn taken_or_broken(path: &Path, error: std::io::Error) -> Failure {
    if error.kind() == ErrorKind::AlreadyExists {
        return Failure::build("there is a disk of that name already")
            .fact("file", path.display())
            .hint("another build of this target may be running; if not, run `imgforge clean`");
    }
    broken("cannot make the disk", path, error)
}

fn broken(what: &str, path: &Path, error: std::io::Error) -> Failure {
    let failure = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Failure::build(format!("{what}: the file system is full"))
                .hint("free some space, or choose another directory with `--output`")
        }
        ErrorKind::PermissionDenied => Failure::build(format!("{what}: permission denied"))
            .hint("choose a directory that you may write to"),
        _ => Failure::build(what),
    };
    failure.because(error).fact("file", path.display())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn store() -> (tempfile::TempDir, FileStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path().join("disks")).unwrap();
        (dir, store)
    }

    fn names(store: &FileStore) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(&store.root)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn frozen_disks_keep_their_content_while_clones_change() {
        let (_dir, store) = store();
        let disk = store.create("build", 64 << 20).unwrap();
        assert!(super::super::allocated(&disk).unwrap() < 1 << 20);
        let file = OpenOptions::new().write(true).open(&disk).unwrap();
        file.write_all_at(b"installed", 10 << 20).unwrap();
        let frozen = store.freeze(&disk, "installed").unwrap();
        let clone = store.clone_disk(&frozen, "provision").unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&clone).unwrap();
        file.write_all_at(b"changed!!", 10 << 20).unwrap();
        let mut kept = [0; 9];
        File::open(&frozen).unwrap().read_exact_at(&mut kept, 10 << 20).unwrap();
        assert_eq!(&kept, b"installed");
        assert_eq!(std::fs::metadata(&frozen).unwrap().len(), 64 << 20);
        assert!(super::super::allocated(&frozen).unwrap() < 1 << 20);
        assert_eq!(std::fs::metadata(&frozen).unwrap().permissions().mode() & 0o777, 0o400);
        store.remove("provision").unwrap();
        store.remove("provision").unwrap();
        assert_eq!(names(&store), ["build.raw", "installed.raw"]);
    }

    #[test]
    fn names_that_are_taken_are_kept() {
        let (_dir, store) = store();
        let disk = store.create("a", 512).unwrap();
        std::fs::write(&disk, [7; 512]).unwrap();
        let text = store.create("a", 512).unwrap_err().to_string();
        assert!(text.contains("already") && text.contains("a.raw"), "{text}");
        let text = store.freeze(&disk, "a").unwrap_err().to_string();
        assert!(text.contains("already"), "{text}");
        assert_eq!(std::fs::read(&disk).unwrap(), [7; 512]);
        assert_eq!(names(&store), ["a.raw"]);
    }

    #[test]
    fn failures_leave_nothing_behind() {
        let (dir, store) = store();
        // More than any file system holds in one file.
        assert!(store.create("big", (i64::MAX as u64 / 512) * 512).is_err());
        assert!(store.create("odd", 513).is_err());
        assert!(store.create("../escape", 512).is_err());
        assert!(store.create(".hidden", 512).is_err());
        let text = store.freeze(&dir.path().join("no-disk"), "x").unwrap_err().to_string();
        assert!(text.contains("no-disk"), "{text}");
        // A directory opens but cannot be copied.
        assert!(store.freeze(dir.path(), "x").is_err());
        assert_eq!(names(&store), Vec::<String>::new());
    }

    #[test]
    fn a_full_file_system_is_named() {
        // /dev/full answers every write with "no space left".
        let Ok(full) = OpenOptions::new().write(true).open("/dev/full") else { return };
        let error = std::io::Write::write(&mut &full, b"x").unwrap_err();
        let text = broken("cannot copy the disk", Path::new("/out/disk.raw"), error).to_string();
        assert!(text.contains("file system is full") && text.contains("/out/disk.raw"), "{text}");
    }
}
