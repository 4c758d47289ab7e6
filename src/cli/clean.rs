// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `imgforge clean`: removes what dead builds left behind.

use clap::Args;

use super::Global;
use crate::ui::{Failure, Outcome};

/// Arguments of `imgforge clean`.
#[derive(Debug, Args)]
pub(crate) struct CleanArgs {}

/// Undoes what the journals of dead builds name.
pub(super) fn run(_args: &CleanArgs, _global: &Global) -> Outcome<()> {
    Err(Failure::build("`imgforge clean` is not wired yet"))
}
