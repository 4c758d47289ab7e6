// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `imgforge vmm`: the monitor process, started by a build.

use std::io;
use std::path::PathBuf;

use clap::Args;

use crate::ui::Outcome;
use crate::vm::monitor::{MonitorConfig, serve};

/// Arguments of `imgforge vmm`.
#[derive(Debug, Args)]
pub(crate) struct VmmArgs {
    /// Where to write the process id
    #[arg(long, value_name = "FILE")]
    pid_file: PathBuf,
}

/// Runs the verb.
pub(super) fn run(args: &VmmArgs) -> Outcome<()> {
    serve(&MonitorConfig::read(io::stdin().lock())?, &args.pid_file)
}
