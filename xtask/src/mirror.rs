// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The package mirrors that this machine uses.

use std::process::Command;

use crate::process::{self, Outcome};

/// The Debian mirror of this machine's apt, without a slash at the end.
pub(crate) fn debian() -> Outcome<String> {
    process::capture(&mut Command::new(process::recipe("mirror.sh")))
        .map(|text| text.trim().to_owned())
}

/// The security mirror for a Debian release, empty when this machine's apt has none or it does
/// not carry the release.
pub(crate) fn security(suite: &str) -> Outcome<String> {
    process::capture(Command::new(process::recipe("mirror.sh")).args(["security", suite]))
        .map(|text| text.trim().to_owned())
}
