// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `imgforge schema`: the JSON Schema of targets.

use super::output;
use crate::target;
use crate::ui::Outcome;

/// Prints the JSON Schema to standard output.
pub(super) fn run() -> Outcome<()> {
    output::data(&format!("{:#}\n", target::schema()))
}
