// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A file that has its final name only once it is whole and on the disk.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::ui::{Failure, Outcome};

/// The name of standard input and output; a file of that name is `./-`.
pub(super) const STANDARD: &str = "-";

/// A file under a temporary name beside its final one. Dropped unpublished, it is removed.
#[derive(Debug)]
pub(super) struct Partial {
    file: NamedTempFile,
    to: PathBuf,
}

impl Partial {
    /// Starts the file that will be called `to`, which must not exist yet.
    pub(super) fn create(to: &Path) -> Outcome<Self> {
        if fs::symlink_metadata(to).is_ok() {
            return Err(Failure::input(format!("{} exists already", to.display()))
                .fact("file", to.display())
                .hint("remove it, or replace it with `--force`"));
        }
        Self::replace(to)
    }

    /// Starts the file that will be called `to`, and take the place of one that is called so.
    pub(super) fn replace(to: &Path) -> Outcome<Self> {
        let dir = to.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = to.file_name().unwrap_or_default().to_string_lossy();
        let file = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".partial")
            .permissions(Permissions::from_mode(0o644))
            .tempfile_in(dir)
            .map_err(|error| cannot_write(to, error, 0))?;
        Ok(Self { file, to: to.to_owned() })
    }

    pub(super) fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// Makes the content durable, then gives it its name.
    pub(super) fn publish(self, written: u64) -> Outcome<()> {
        let Self { file, to } = self;
        file.as_file().sync_all().map_err(|error| cannot_write(&to, error, written))?;
        file.persist(&to).map_err(|error| cannot_write(&to, error.error, written))?;
        sync_parent(&to)
    }
}

/// Makes a new name in a directory durable.
pub(super) fn sync_parent(path: &Path) -> Outcome<()> {
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| cannot_write(path, error, 0))
}

/// The failure of a write, with the remedy that fits.
pub(super) fn cannot_write(path: &Path, error: io::Error, written: u64) -> Failure {
    if path == Path::new(STANDARD) {
        return cannot_write_out(error, written);
    }
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let summary = if full {
        format!("no space left to write {}", path.display())
    } else {
        format!("cannot write {}", path.display())
    };
    let failure = Failure::build(summary)
        .because(error)
        .fact("file", path.display())
        .fact("written", format!("{written} bytes, removed again"));
    if full {
        failure.hint("free some space there, or choose another directory with `--output`")
    } else {
        failure.hint("choose a directory that can be written to with `--output`")
    }
}

/// The failure of a write to standard output, which nothing can take back.
fn cannot_write_out(error: io::Error, written: u64) -> Failure {
    let summary = if error.kind() == io::ErrorKind::BrokenPipe {
        "the program that reads the output ended before all was written"
    } else {
        "cannot write all of the output"
    };
    Failure::build(summary).because(error).fact("written", format!("{written} bytes"))
}
