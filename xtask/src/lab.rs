// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `cargo xtask lab`: a machine with a working `/dev/kvm` where there is none.

use std::process::Command;

use crate::process::{self, Outcome};

/// `lab build [--zfs]` or `lab run [OPTIONS] -- CMD`.
pub(crate) fn main(words: &[&str]) -> Outcome {
    match words {
        ["build", rest @ ..] => {
            process::run(Command::new(process::recipe("lab/build.sh")).args(rest))
        }
        ["run", rest @ ..] => {
            process::run(&mut Command::new(process::recipe("lab/build.sh")))?;
            process::run(Command::new(process::recipe("lab/run.sh")).args(rest))
        }
        _ => Err("usage: cargo xtask lab build [--zfs] | lab run [OPTIONS] -- CMD...".into()),
    }
}
