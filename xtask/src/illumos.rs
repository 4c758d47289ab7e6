// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `cargo xtask illumos`: the code as an illumos compiler would see it.

use std::process::Command;

use crate::process::{self, Outcome};

/// The recipe with its arguments.
pub(crate) fn recipe(arguments: &[&str]) -> Command {
    let mut command = Command::new(process::recipe("illumos/check.sh"));
    command.args(arguments);
    command
}

/// The two commands that must be clean.
pub(crate) const CLEAN: [&[&str]; 2] = [
    &["--check", "--package", "imgforge", "--lib", "--bins"],
    &["--clippy", "--package", "imgforge", "--lib", "--bins", "--", "-D", "warnings"],
];

/// `illumos [check|clippy|link|setup] [CARGO ARGUMENTS]`.
pub(crate) fn main(words: &[&str]) -> Outcome {
    match words {
        [] => CLEAN.iter().try_for_each(|arguments| process::run(&mut recipe(arguments))),
        ["check", rest @ ..] => {
            process::run(recipe(&["--check", "--package", "imgforge"]).args(rest))
        }
        ["clippy", rest @ ..] => {
            process::run(recipe(&["--clippy", "--package", "imgforge"]).args(rest))
        }
        ["link", rest @ ..] => {
            process::run(recipe(&["--link", "--package", "imgforge", "--bins"]).args(rest))
        }
        ["setup"] => process::run(&mut recipe(&["--setup"])),
        _ => Err("usage: cargo xtask illumos [check|clippy|link|setup] [CARGO ARGUMENTS]".into()),
    }
}
