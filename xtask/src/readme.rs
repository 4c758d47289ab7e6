// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The commands of README.md, run as a reader would type them.
//!
//! A line `$ COMMAND` in a `console` block is a command. What builds an image or boots something
//! is not run here but checked in its form: the target must validate, the task must exist.

use std::fs;
use std::process::Command;

use crate::demo;
use crate::process::{self, Log, Outcome};
use crate::suite::Count;

/// Runs them all.
pub(crate) fn check(log: &Log) -> Result<Count, (String, Count)> {
    let mut count = Count::default();
    let mut first = None;
    let commands = match prepare(log) {
        Ok(commands) => commands,
        Err(reason) => return Err((reason, count)),
    };
    for command in &commands {
        match follow(log, command) {
            Ok(()) => count.passed += 1,
            Err(reason) => {
                count.failed += 1;
                first.get_or_insert(format!("`{command}`: {reason}"));
            }
        }
    }
    match first {
        None if count.passed == 0 => Err(("README.md has no commands".into(), count)),
        None => Ok(count),
        Some(reason) => Err((reason, count)),
    }
}

fn prepare(log: &Log) -> Outcome<Vec<String>> {
    let path = process::root().join("README.md");
    let text = fs::read_to_string(&path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    log.run(
        3600,
        process::cargo().args(["build", "--locked", "--package", "imgforge", "--bin", "imgforge"]),
    )?;
    Ok(commands(&text))
}

/// The lines after `$ ` in `console` blocks.
fn commands(text: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            inside = !inside && line == "```console";
        } else if inside && let Some(command) = line.strip_prefix("$ ") {
            found.push(command.to_owned());
        }
    }
    found
}

fn follow(log: &Log, line: &str) -> Outcome {
    let words: Vec<&str> = line.split_whitespace().collect();
    let imgforge = |arguments: &[&str]| {
        log.run(60, Command::new(demo::target_directory().join("debug/imgforge")).args(arguments))
    };
    match words.as_slice() {
        ["imgforge", "build", target, ..] => imgforge(&["validate", target]),
        ["imgforge", "doctor" | "clean", ..] => imgforge(&[words[1], "--help"]),
        ["imgforge", rest @ ..] => {
            let plain = line.split_once("imgforge ").map_or("", |(_, rest)| rest);
            if plain.contains(['\'', '"', '|', '>']) { shell(log, line) } else { imgforge(rest) }
        }
        ["cargo", "xtask", verb, ..] => {
            let help = process::capture(process::cargo().args(["xtask", "help"]))?;
            let is_known = help.lines().any(|line| line.split_whitespace().next() == Some(*verb));
            if is_known { Ok(()) } else { Err("there is no such task".into()) }
        }
        [
            "cargo" | "git" | "gzip" | "cp" | "qemu-system-x86_64" | "cd" | "apt-get" | "sudo",
            ..,
        ] => Ok(()),
        _ => {
            Err("the README may name only imgforge, cargo, git and the commands that boot an image"
                .into())
        }
    }
}

/// A line with quotes or pipes, with our own imgforge first on `PATH`.
fn shell(log: &Log, line: &str) -> Outcome {
    let mut path = demo::target_directory().join("debug").into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    log.run(60, Command::new("bash").args(["-c", line]).env("PATH", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_console_blocks() {
        let text =
            "```console\n$ a b\noutput\n```\n$ no\n```yaml\n$ no\n```\n```console\n$ c\n```\n";
        assert_eq!(commands(text), ["a b", "c"]);
    }
}
