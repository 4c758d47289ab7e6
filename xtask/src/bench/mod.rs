// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `cargo xtask bench overhead`: the same target built by imgforge and by packer in one run, and
//! where the time of each went.

mod answers;
pub(crate) mod export;
mod ours;
mod plan;
mod reference;
mod scratch;
mod table;
pub(crate) mod vm;
mod watch;

use std::path::PathBuf;

use plan::Plan;
use scratch::Scratch;

use crate::process::{Outcome, root};

const USAGE: &str = "\
Usage: cargo xtask bench overhead [--target tiny|debian-13] [--runs N] [--iso PATH]
                                  [--imgforge PATH] [--only imgforge|packer] [--check]
                                  [--packer-boot-wait DURATION]

  --target    what both build (default: tiny; debian-13 takes an hour or more in software)
  --runs      how often each builds it, taking turns; the medians are shown (default: 1)
  --iso       installer medium (default: the project's own, made when it is not there)
  --imgforge  program to measure (default: target/release/imgforge, else target/debug/imgforge)
  --only      builds with one of the two alone; there is no ratio then
  --check     a missed goal is a failure
  --packer-boot-wait  another boot wait for packer, which types blindly and so fails where the
              machine is too busy for the target's; the table says so";

/// Seconds of a build's wall time by what they were spent on; the parts add up to the whole.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Split {
    /// Downloading, checksumming and copying the medium.
    transfer: f64,
    /// The boot wait that the target asks for.
    boot_wait: f64,
    /// Typing the boot command.
    typing: f64,
    /// The guest installs, boots, is provisioned and powers off.
    guest: f64,
    /// Compressing and digesting the disk.
    compress: f64,
    /// Everything else: the builder's own work and waits.
    own: f64,
}

impl Split {
    fn total(self) -> f64 {
        self.parts().iter().map(|(_, seconds)| seconds).sum()
    }

    fn parts(self) -> [(&'static str, f64); 6] {
        [
            ("transfer", self.transfer),
            ("boot wait", self.boot_wait),
            ("typing", self.typing),
            ("guest", self.guest),
            ("compress", self.compress),
            ("own", self.own),
        ]
    }
}

#[derive(Debug, Default)]
struct Options {
    target: Option<String>,
    runs: usize,
    iso: Option<PathBuf>,
    imgforge: Option<PathBuf>,
    only: Option<String>,
    check: bool,
    packer_boot_wait: Option<String>,
}

impl Options {
    fn parse(words: &[&str]) -> Outcome<Self> {
        let mut options = Self { runs: 1, ..Self::default() };
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            let mut value =
                || words.next().copied().ok_or_else(|| format!("{word} needs a value\n\n{USAGE}"));
            match word {
                "--target" => options.target = Some(value()?.to_owned()),
                "--runs" => options.runs = runs(value()?)?,
                "--iso" => options.iso = Some(value()?.into()),
                "--imgforge" => options.imgforge = Some(value()?.into()),
                "--only" => match value()? {
                    which @ ("imgforge" | "packer") => options.only = Some(which.to_owned()),
                    other => return Err(format!("--only is imgforge or packer, not `{other}`")),
                },
                "--packer-boot-wait" => options.packer_boot_wait = Some(value()?.to_owned()),
                "--check" => options.check = true,
                other => return Err(format!("no such argument: {other}\n\n{USAGE}")),
            }
        }
        Ok(options)
    }

    fn builds_with(&self, which: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == which)
    }
}

/// The value of `--runs`.
fn runs(text: &str) -> Outcome<usize> {
    text.parse()
        .ok()
        .filter(|runs| (1..=99).contains(runs))
        .ok_or_else(|| format!("--runs is a number from 1 to 99, not `{text}`"))
}

/// Runs the benchmark with the words after `bench overhead`.
pub(crate) fn main(words: &[&str]) -> Outcome {
    if let ["help" | "-h" | "--help", ..] = words {
        println!("{USAGE}");
        return Ok(());
    }
    let options = Options::parse(words)?;
    let name = options.target.as_deref().unwrap_or("tiny");
    let mut plan = Plan::named(name, root(), options.iso.clone())?;
    plan.packer_boot_wait = options.packer_boot_wait.clone();
    let program = if options.builds_with("imgforge") {
        Some(ours::Program::find(options.imgforge.as_deref())?)
    } else {
        None
    };
    if options.builds_with("packer") {
        reference::check()?;
    }
    plan.make_medium()?;
    let scratch = Scratch::make(&root().join("target/bench"))?;
    let mut results = table::Results::new(&plan, watch::load());
    for round in 0..options.runs {
        // They take turns at going first, so that neither always finds a warm cache.
        let ours_first = round % 2 == 0;
        for ours_now in [ours_first, !ours_first] {
            match &program {
                Some(program) if ours_now => {
                    eprintln!("bench: run {} of {}: imgforge", round + 1, options.runs);
                    results.ours.push(ours::build(program, &plan, &scratch)?);
                }
                _ if !ours_now && options.builds_with("packer") => {
                    eprintln!("bench: run {} of {}: packer", round + 1, options.runs);
                    results.packer.push(reference::build(&plan, &scratch)?);
                }
                _ => {}
            }
        }
    }
    if let Some(program) = &program {
        results.program = Some(program.describe());
        results.list_ms = Some(ours::list_ms(program)?);
    }
    results.load_after = watch::load();
    let (text, missed) = table::render(&results);
    print!("{text}");
    if options.check && missed > 0 { Err(format!("{missed} goals missed")) } else { Ok(()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_and_wrong_ones_named() {
        let options = Options::parse(&["--runs", "3", "--only", "packer", "--check"]).unwrap();
        assert_eq!((options.runs, options.check), (3, true));
        assert!(options.builds_with("packer") && !options.builds_with("imgforge"));
        for (words, part) in [
            (&["--runs", "0"][..], "1 to 99"),
            (&["--runs"][..], "needs a value"),
            (&["--only", "qemu"][..], "`qemu`"),
            (&["--fast"][..], "--fast"),
        ] {
            let problem = Options::parse(words).unwrap_err();
            assert!(problem.contains(part), "{problem}");
        }
    }

    #[test]
    fn parts_add_up() {
        let split = Split { boot_wait: 12.0, typing: 2.5, own: 0.5, ..Split::default() };
        assert!((split.total() - 15.0).abs() < 1e-9);
    }
}
