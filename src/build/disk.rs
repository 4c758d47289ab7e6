// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The disk of a build: a sparse raw file in the scratch directory.

use std::fs;
use std::path::Path;

use super::context::Context;
use crate::store::FileStore;
use crate::ui::{Failure, Outcome};

/// Makes the empty disk.
pub(crate) fn create(context: &Context) -> Outcome<()> {
    let bytes = context.target.machine.disk_mib * 1024 * 1024;
    FileStore::open(&context.scratch)?.create(&context.target.name, bytes).map(drop)
}

/// Makes the disk a copy of a frozen one.
pub(crate) fn clone_from(context: &Context, frozen: &Path) -> Outcome<()> {
    FileStore::open(&context.scratch)?.clone_disk(frozen, &context.target.name).map(drop)
}

/// Makes the disk empty again, for another attempt.
pub(crate) fn recreate(context: &Context) -> Outcome<()> {
    remove(&context.disk())?;
    create(context)
}

/// Removes a disk that is no longer needed.
pub(crate) fn remove(disk: &Path) -> Outcome<()> {
    fs::remove_file(disk).map_err(|error| {
        Failure::build("cannot remove a disk").because(error).fact("file", disk.display())
    })
}
