// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The parts of the suite, in the order in which they start: cheap ones first. The longest one
//! runs beside those after it.

use std::path::Path;
use std::process::Command;

use crate::media::{self, Medium};
use crate::process::{self, Log, Outcome, command};
use crate::suite::{Count, Phase};
use crate::{boot, demo, illumos, lab, licences, packages, readme, streams, whole_build};

/// How a phase ends.
pub(crate) type Verdict = Result<Count, (String, Count)>;

/// Everything.
pub(crate) const ALL: &[Phase] = &[
    quick("format", lacks_nothing, format),
    quick("clippy", lacks_nothing, clippy),
    quick("shell", lacks_shellcheck, shell),
    quick("ansible", lacks_ansible_lint, ansible),
    quick("unit", lacks_test_tools, unit),
    quick("cli", lacks_test_tools, integration),
    quick("model", lacks_nothing, model),
    Phase {
        is_slow: true,
        is_beside: true,
        ..quick("whole-build", whole_build::lacks, whole_build::check)
    },
    quick("streams", streams::lacks_zfs_fuse, streams::zfs_fuse),
    quick("licences", lacks_nothing, |log| whole(licences::check(log))),
    Phase { is_optional: true, ..quick("deny", lacks_cargo_deny, deny) },
    quick("illumos", lacks_apt, illumos_clean),
    quick("openzfs", streams::lacks_lab, streams::openzfs),
    Phase { is_slow: true, ..quick("kvm", lab::lacks, lab::kvm) },
    Phase { is_slow: true, is_by_hand: true, ..quick("bhyve", lab::lacks, lab::bhyve) },
    quick("readme", lacks_nothing, readme::check),
    quick("tiny", lacks_build_tools, tiny),
    quick("failures", lacks_test_tools, failures),
];

const fn quick(
    name: &'static str,
    lacks: fn() -> Option<String>,
    run: fn(&Log) -> Verdict,
) -> Phase {
    Phase {
        name,
        is_slow: false,
        is_optional: false,
        is_by_hand: false,
        is_beside: false,
        lacks,
        run,
    }
}

/// A phase that is one test.
pub(crate) fn whole(result: Result<(), String>) -> Verdict {
    result.map(|()| Count::ONE).map_err(|reason| (reason, Count::default()))
}

/// Counts the checks of a script, all of which must pass.
pub(crate) fn verdict(work: impl FnOnce(&mut Count) -> Outcome) -> Verdict {
    let mut count = Count::default();
    match work(&mut count) {
        Ok(()) if count.failed == 0 => Ok(count),
        Ok(()) => Err((format!("{} checks failed", count.failed), count)),
        Err(reason) => Err((reason, count)),
    }
}

fn lacks_nothing() -> Option<String> {
    None
}

/// Tries to install what is missing; says what is still missing.
pub(crate) fn lacks(needs: &[packages::Need]) -> Option<String> {
    packages::ensure(needs).err()
}

fn lacks_shellcheck() -> Option<String> {
    lacks(&[("shellcheck", "shellcheck")])
}

fn lacks_ansible_lint() -> Option<String> {
    lacks(&[("ansible-playbook", "ansible-core"), ("ansible-lint", "ansible-lint")])
}

fn lacks_test_tools() -> Option<String> {
    lacks(packages::TESTS).or_else(lacks_build_tools)
}

fn lacks_build_tools() -> Option<String> {
    lacks(packages::BUILD).or_else(|| lacks(packages::MEDIUM))
}

pub(crate) fn lacks_apt() -> Option<String> {
    process::which("apt-get").is_none().then(|| "needs a Debian machine: no apt-get".into())
}

fn lacks_cargo_deny() -> Option<String> {
    process::which("cargo-deny").is_none().then(|| "cargo-deny is not installed".into())
}

pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = process::cargo();
    cargo.args(arguments);
    cargo
}

/// The sources, and whether the fuzz targets' own lock file follows the program's dependencies.
fn format(log: &Log) -> Verdict {
    let fuzz = ["tree", "--locked", "--quiet", "--manifest-path", "fuzz/Cargo.toml"];
    whole(
        log.run(300, &cargo(&["fmt", "--all", "--check"]))
            .and_then(|()| log.run(300, &cargo(&fuzz))),
    )
}

fn clippy(log: &Log) -> Verdict {
    whole(log.run(
        3600,
        &cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]),
    ))
}

/// Every shell script of the project, by its first line.
fn shell(log: &Log) -> Verdict {
    let listed = process::capture(&mut command(
        "git",
        &["ls-files", "--cached", "--others", "--exclude-standard"],
    ));
    let files = match listed {
        Ok(text) => text,
        Err(reason) => return whole(Err(reason)),
    };
    let scripts: Vec<&str> = files
        .lines()
        .filter(|file| {
            Path::new(file).extension().is_some_and(|end| end == "sh")
                || starts_as_shell(Path::new(file))
        })
        .collect();
    whole(
        log.run(
            300,
            command(
                "shellcheck",
                &["--severity=warning", "--external-sources", "--source-path=SCRIPTDIR"],
            )
            .args(scripts),
        ),
    )
}

fn starts_as_shell(file: &Path) -> bool {
    let bytes = std::fs::read(file).unwrap_or_default();
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    matches!(first, b"#!/bin/sh" | b"#!/bin/bash" | b"#!/bin/busybox sh")
}

/// The roles, by the strictest rules of their own checker.
fn ansible(log: &Log) -> Verdict {
    let lint = ["--offline", "--strict", "--nocolor", "-p", "ansible/site.yml", "ansible"];
    let syntax = ["--syntax-check", "--inventory", "localhost,", "ansible/site.yml"];
    whole(
        log.run(600, &command("ansible-lint", &lint))
            .and_then(|()| log.run(120, &command("ansible-playbook", &syntax))),
    )
}

fn unit(log: &Log) -> Verdict {
    counted(log, &["--workspace", "--lib", "--bins"])
}

/// The rules of bhyve's kernel interface, asked of the model that plays it.
fn model(log: &Log) -> Verdict {
    counted(log, &["--package", "vmm-model", "--tests"])
}

/// Every file of `tests/` but the one whose tests are whole builds.
fn integration(log: &Log) -> Verdict {
    let mut names: Vec<String> = std::fs::read_dir(process::root().join("tests"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".rs").map(str::to_owned))
        .filter(|name| name != "tiny")
        .collect();
    names.sort();
    let mut selection = vec!["--package", "imgforge"];
    for name in &names {
        selection.extend(["--test", name]);
    }
    counted(log, &selection)
}

fn counted(log: &Log, selection: &[&str]) -> Verdict {
    let mut command = if process::which("cargo-nextest").is_some() {
        cargo(&["nextest", "run", "--locked", "--no-fail-fast", "--color", "never"])
    } else {
        cargo(&["test", "--locked", "--no-fail-fast", "--color", "never"])
    };
    command.args(selection).env("CARGO_TERM_COLOR", "never");
    run_and_count(log, &command)
}

fn run_and_count(log: &Log, command: &Command) -> Verdict {
    let result = log.run(2 * 3600, command);
    let count = count_tests(&log.text());
    match result {
        Ok(()) if count.passed == 0 => Err(("no test ran".into(), count)),
        Ok(()) => Ok(count),
        Err(reason) => Err((reason, count)),
    }
}

/// Adds up the summaries that cargo's own runner or nextest prints.
fn count_tests(log: &str) -> Count {
    let mut count = Count::default();
    for line in log.lines() {
        let line = line.trim_start();
        let is_summary = line.starts_with("test result:") || line.starts_with("Summary [");
        if !is_summary {
            continue;
        }
        let words: Vec<&str> = line
            .split(|c: char| c.is_whitespace() || matches!(c, ';' | ',' | '.' | '(' | ')'))
            .filter(|word| !word.is_empty())
            .collect();
        for pair in words.windows(2) {
            let Ok(number) = pair[0].parse::<u64>() else { continue };
            match pair[1] {
                "passed" => count.passed += number,
                "failed" | "timed" => count.failed += number,
                "ignored" | "skipped" => count.skipped += number,
                _ => {}
            }
        }
    }
    count
}

fn deny(log: &Log) -> Verdict {
    whole(log.run(900, &cargo(&["deny", "check", "licenses", "bans", "sources"])))
}

fn illumos_clean(log: &Log) -> Verdict {
    whole(
        illumos::CLEAN.iter().try_for_each(|arguments| log.run(3600, &illumos::recipe(arguments))),
    )
}

/// How the pipeline fails, and what it leaves then: one build at a time, for each has the clock
/// of an idle machine.
fn failures(log: &Log) -> Verdict {
    let medium = Medium::Tiny.path();
    if let Err(reason) = media::make(Medium::Tiny, &medium, |recipe| log.run(1200, recipe)) {
        return whole(Err(reason));
    }
    let mut command = cargo(&["test", "--locked", "--package", "imgforge", "--test", "tiny"]);
    command.args(["--no-fail-fast", "--color", "never"]);
    command.args(["--", "--ignored", "--test-threads", "1"]);
    run_and_count(log, &command)
}

/// The whole pipeline with the tiny installer, and its result booted once more.
fn tiny(log: &Log) -> Verdict {
    whole((|| {
        media::make(Medium::Tiny, &Medium::Tiny.path(), |recipe| log.run(1200, recipe))?;
        log.run(
            3600,
            &cargo(&["build", "--locked", "--package", "imgforge", "--bin", "imgforge"]),
        )?;
        let binary = demo::target_directory().join("debug/imgforge");
        let output = process::root().join("target/xtask-out/tiny");
        let begin = std::time::Instant::now();
        log.run(
            1800,
            demo::build(&binary, Medium::Tiny, &output)?.args(["--no-progress", "--no-cache"]),
        )?;
        println!("     the build took {:.1} s", begin.elapsed().as_secs_f64());
        boot::complete(&output)?;
        let disk = boot::unpack(&output, log)?;
        let guest = boot::Guest::start(&disk, boot::Firmware::Uefi, &[])?;
        let result = guest.wait_for_serial("Tiny system is up", 240);
        drop(guest);
        std::fs::remove_file(&disk)
            .map_err(|error| format!("cannot remove {}: {error}", disk.display()))?;
        result
    })())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_cargo_test() {
        let log = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s\n\
                   test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n\
                   a line that says 99 passed\n";
        assert_eq!(count_tests(log), Count { passed: 15, failed: 2, skipped: 1 });
    }

    #[test]
    fn counts_nextest() {
        let log = "     Summary [   1.2s] 14 tests run: 12 passed (1 slow), 1 failed, 1 timed out, 3 skipped\n";
        assert_eq!(count_tests(log), Count { passed: 12, failed: 2, skipped: 3 });
    }
}
