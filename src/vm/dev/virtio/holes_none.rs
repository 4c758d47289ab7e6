// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! No holes in files.

use std::fs::File;
use std::io;

/// Cannot: there is no portable call for it.
///
/// # Errors
/// None.
pub(super) fn punch(_file: &File, _offset: u64, _bytes: u64) -> io::Result<bool> {
    Ok(false)
}
