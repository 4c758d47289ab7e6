// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! imgforge's side: a build by the real program, its own account of the time, its memory, and how
//! fast it starts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::plan::Plan;
use super::scratch::Scratch;
use super::watch::{self, Ran};
use super::{Outcome, Split};
use crate::demo;

/// How often `imgforge list` is started; the median counts.
const LISTS: usize = 20;

/// The program that is measured.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
    /// `release`, `debug`, or nothing when the user named it.
    profile: Option<&'static str>,
}

impl Program {
    /// The program that the user named, or the best that was built.
    pub(super) fn find(named: Option<&Path>) -> Outcome<Self> {
        if let Some(path) = named {
            let path = std::path::absolute(path).map_err(|e| format!("{}: {e}", path.display()))?;
            return if path.is_file() {
                Ok(Self { path, profile: None })
            } else {
                Err(format!("there is no program {}", path.display()))
            };
        }
        let target = demo::target_directory();
        ["release", "debug"]
            .into_iter()
            .map(|profile| (target.join(profile).join("imgforge"), profile))
            .find(|(path, _)| path.is_file())
            .map(|(path, profile)| Self { path, profile: Some(profile) })
            .ok_or_else(|| "imgforge is not built; run `cargo build --release`".into())
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The program in words.
    pub(super) fn describe(&self) -> String {
        match self.profile {
            Some(profile) => format!("{} ({profile} build)", self.path.display()),
            None => self.path.display().to_string(),
        }
    }
}

/// A finished build.
#[derive(Debug)]
pub(super) struct Build {
    /// By the benchmark's clock, start and exit of the program included.
    pub(super) seconds: f64,
    pub(super) split: Split,
    pub(super) peak_kib: Option<u64>,
    /// Who ran the machine, in imgforge's words.
    pub(super) hypervisor: String,
}

/// Builds the target anew, without anything kept from earlier builds.
pub(super) fn build(program: &Program, plan: &Plan, scratch: &Scratch) -> Outcome<Build> {
    let directory = scratch.fresh("imgforge")?;
    let output = directory.join("output");
    let mut command = Command::new(&program.path);
    command.current_dir(&plan.root).arg("build").args(&plan.selection);
    command.arg("--iso").arg(&plan.iso);
    command.arg("--output").arg(&output);
    command.arg("--cache-dir").arg(directory.join("cache"));
    command.args(["--hypervisor", "qemu", "--no-cache", "--no-progress"]);
    for (name, value) in &plan.given {
        command.arg("--var").arg(format!("{name}={value}"));
    }
    let ran = watch::run(&mut command, &directory.join("log"))?;
    let events = output.join("events.jsonl");
    let text = fs::read_to_string(&events)
        .map_err(|error| format!("cannot read {}: {error}", events.display()))?;
    read(&text, &ran)
}

/// A build from its event log and what was seen from outside.
fn read(events: &str, ran: &Ran) -> Outcome<Build> {
    let event = |name: &str| {
        let tag = format!("\"event\":\"{name}\"");
        events.lines().rev().find(|line| line.contains(&tag))
    };
    let done = event("build-done").ok_or("events.jsonl has no `build-done`")?;
    let part = |name: &str| {
        number(done, name).ok_or_else(|| format!("`build-done` has no number `{name}`"))
    };
    let mut split = Split {
        transfer: part("transfer")?,
        boot_wait: part("boot_wait")?,
        typing: part("typing")?,
        guest: part("guest")?,
        compress: part("compress")?,
        own: part("own")?,
    };
    // Start, exit and whatever else the program did outside its own ledger are its own time.
    split.own += (ran.seconds - split.total()).max(0.0);
    let hypervisor = event("build-started").and_then(|line| string(line, "hypervisor"));
    Ok(Build {
        seconds: ran.seconds,
        split,
        peak_kib: ran.peak_kib,
        hypervisor: hypervisor.unwrap_or("unknown").to_owned(),
    })
}

/// What stands behind `"name":` in a line of compact JSON. Inside JSON's strings a quotation mark
/// has a backslash before it, so `"name":` is a key wherever it stands.
fn value<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let key = format!("\"{name}\":");
    line.find(&key).map(|at| &line[at + key.len()..])
}

fn number(line: &str, name: &str) -> Option<f64> {
    let rest = value(line, name)?;
    let end = rest.find([',', '}'])?;
    rest[..end].parse().ok().filter(|seconds: &f64| seconds.is_finite())
}

/// A string without escapes.
fn string<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let rest = value(line, name)?.strip_prefix('"')?;
    rest.find('"').map(|end| &rest[..end])
}

/// Median wall time of `imgforge list`, in milliseconds.
pub(super) fn list_ms(program: &Program) -> Outcome<f64> {
    let mut times = Vec::with_capacity(LISTS);
    for _ in 0..LISTS {
        let started = Instant::now();
        let mut list = Command::new(&program.path);
        list.arg("list").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = list.status().map_err(|error| format!("cannot start imgforge: {error}"))?;
        times.push(started.elapsed().as_secs_f64() * 1000.0);
        if !status.success() {
            return Err(format!("imgforge list: {status}"));
        }
    }
    Ok(super::table::median(&mut times))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const EVENTS: &str = concat!(
        r#"{"time":"t","elapsed":0.0,"target":"tiny","event":"build-started","id":"x","hypervisor":"qemu 7.2 in software (TCG): as asked"}"#,
        "\n",
        r#"{"time":"t","elapsed":1.0,"target":"tiny","event":"note","text":"\"own\":99,"}"#,
        "\n",
        r#"{"time":"t","elapsed":9.0,"target":"tiny","event":"build-done","output":"a \"own\":7,","seconds":90.5,"split":{"transfer":0.5,"boot_wait":12.0,"typing":4.0,"guest":70.0,"compress":3.0,"own":1.0}}"#,
        "\n",
    );

    #[test]
    fn reads_the_account_of_a_build() {
        let ran = Ran { seconds: 91.0, lines: Vec::new(), peak_kib: Some(30_000) };
        let build = read(EVENTS, &ran).unwrap();
        assert!((build.split.own - 1.5).abs() < 1e-9, "{:?}", build.split);
        assert!((build.split.total() - 91.0).abs() < 1e-9);
        assert_eq!(build.hypervisor, "qemu 7.2 in software (TCG): as asked");
    }

    #[test]
    fn says_what_an_account_lacks() {
        let ran = Ran { seconds: 91.0, lines: Vec::new(), peak_kib: None };
        assert!(read("", &ran).unwrap_err().contains("build-done"));
        let without = EVENTS.replace("\"typing\":4.0,", "");
        assert!(read(&without, &ran).unwrap_err().contains("`typing`"));
    }

    #[test]
    fn an_absent_program_is_named() {
        let problem = Program::find(Some(Path::new("/nonexistent"))).unwrap_err();
        assert!(problem.contains("/nonexistent"));
    }
}
