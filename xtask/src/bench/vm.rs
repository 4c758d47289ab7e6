// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `cargo xtask bench vm`: imgforge's own monitor beside QEMU on KVM, in the lab machine: the same
//! firmware, disk and guest, taking turns. Its times are an emulated processor's; their ratios
//! say something, the times themselves do not.

use std::path::PathBuf;
use std::process::Command;

use super::ours::Program;
use super::runs;
use crate::media::{self, Medium};
use crate::process::{self, Outcome, root};
use crate::{demo, packages};

const USAGE: &str = "\
Usage: cargo xtask bench vm [--runs N] [--imgforge PATH] [--check]

  --runs      how often each runs the guest, taking turns; the medians are shown (default: 3)
  --imgforge  program to measure (default: target/release/imgforge, else target/debug/imgforge)
  --check     a missed goal is a failure";

/// Seconds that one guest takes at most, its disk and its idling included.
const SECONDS_EACH: usize = 400;

#[derive(Debug, PartialEq)]
struct Options {
    runs: usize,
    imgforge: Option<PathBuf>,
    check: bool,
}

impl Options {
    fn parse(words: &[&str]) -> Outcome<Self> {
        let mut options = Self { runs: 3, imgforge: None, check: false };
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            let mut value =
                || words.next().copied().ok_or_else(|| format!("{word} needs a value\n\n{USAGE}"));
            match word {
                "--runs" => options.runs = runs(value()?)?,
                "--imgforge" => options.imgforge = Some(value()?.into()),
                "--check" => options.check = true,
                other => return Err(format!("no such argument: {other}\n\n{USAGE}")),
            }
        }
        Ok(options)
    }
}

/// The words after `bench vm`.
pub(crate) fn main(words: &[&str]) -> Outcome {
    if let ["help" | "-h" | "--help", ..] = words {
        println!("{USAGE}");
        return Ok(());
    }
    let options = Options::parse(words)?;
    packages::ensure(packages::MEDIUM)?;
    packages::ensure(packages::BUILD)?;
    packages::ensure(&[("python3", "python3"), ("debugfs", "e2fsprogs")])?;
    let program = Program::find(options.imgforge.as_deref())?;
    process::run(&mut Command::new(process::recipe("lab/build.sh")))?;
    let disk = disk(&program)?;
    let seconds = SECONDS_EACH * 2 * options.runs;
    let mut lab = Command::new(process::recipe("lab/run.sh"));
    lab.args(["--cpus", "1", "--timeout", &seconds.to_string(), "--"]);
    lab.arg(root().join("tests/lab/bench_vm.py")).arg(program.path()).arg(disk);
    lab.arg(options.runs.to_string());
    match process::run(&mut lab) {
        Err(problem) if options.check => Err(problem),
        _ => Ok(()),
    }
}

/// The guest's disk: the tiny system, installed by QEMU on this machine.
fn disk(program: &Program) -> Outcome<PathBuf> {
    media::make(Medium::Tiny, &Medium::Tiny.path(), process::run)?;
    let output = root().join("target/bench-vm");
    if demo::find(&output, ".raw").is_none() {
        let mut build = demo::build(program.path(), Medium::Tiny, &output)?;
        process::run(build.args(["--hypervisor", "qemu"]))?;
    }
    demo::find(&output, ".raw").ok_or_else(|| format!("no disk in {}", output.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_and_wrong_ones_named() {
        let options = Options::parse(&["--runs", "2", "--check"]);
        assert_eq!(options, Ok(Options { runs: 2, imgforge: None, check: true }));
        for (words, named) in [(&["--runs"][..], "--runs"), (&["--fast"], "--fast")] {
            assert!(Options::parse(words).is_err_and(|problem| problem.contains(named)));
        }
    }
}
