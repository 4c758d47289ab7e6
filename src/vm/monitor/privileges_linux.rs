// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Privileges on Linux.

use nix::sys::prctl;

/// No program that is started from here can gain any, and nobody else may look into this process.
pub(super) fn drop_them() {
    for result in [prctl::set_no_new_privs(), prctl::set_dumpable(false)] {
        if let Err(error) = result {
            tracing::debug!("a privilege could not be given up: {error}");
        }
    }
}
