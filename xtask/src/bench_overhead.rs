// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `cargo xtask bench overhead`: what a build costs beyond the guest's own work. The tiny target
//! is built by imgforge and by packer in the same run, on the same machine, one after the other.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::media::{self, Medium};
use crate::process::{self, Log, Outcome};
use crate::{demo, packages};

/// `bench overhead [--runs N]`.
pub(crate) fn main(words: &[&str]) -> Outcome {
    let runs: usize = match words {
        [] => 1,
        ["--runs", count] => count.parse().map_err(|_| format!("not a number of runs: {count}"))?,
        _ => return Err("usage: cargo xtask bench overhead [--runs N]".into()),
    };
    packages::ensure(packages::BUILD)?;
    packages::ensure(packages::MEDIUM)?;
    packages::ensure(&[
        ("packer", "packer"),
        ("qemu-img", "qemu-utils"),
        ("ssh-keygen", "openssh-client"),
        ("openssl", "openssl"),
    ])?;
    media::make(Medium::Tiny, &Medium::Tiny.path(), process::run)?;
    process::run(process::cargo().args([
        "build",
        "--release",
        "--package",
        "imgforge",
        "--bin",
        "imgforge",
    ]))?;
    let binary = demo::target_directory().join("release/imgforge");
    let log = Log::create("bench-overhead")?;
    list_time(&binary)?;
    let mut ratios = Vec::new();
    for run in 1..=runs {
        println!("run {run} of {runs}");
        let ours = imgforge(&log, &binary)?;
        let theirs = packer(&log)?;
        println!("  packer    {theirs:>7.1} s in all");
        println!("  ratio     {:>7.2}  (packer / imgforge)", theirs / ours);
        ratios.push(theirs / ours);
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "median ratio {:.2} of {} runs",
        ratios.get(ratios.len() / 2).copied().unwrap_or_default(),
        ratios.len()
    );
    Ok(())
}

/// The quickest of ten `imgforge list`.
fn list_time(binary: &Path) -> Outcome {
    let mut best = f64::INFINITY;
    for _ in 0..10 {
        let begin = Instant::now();
        process::capture(Command::new(binary).arg("list"))?;
        best = best.min(begin.elapsed().as_secs_f64());
    }
    println!("imgforge list: {:.1} ms (goal: below 20 ms)", best * 1000.0);
    Ok(())
}

/// One build by imgforge; prints where its time went and returns the wall time.
fn imgforge(log: &Log, binary: &Path) -> Outcome<f64> {
    let output = process::root().join("target/xtask-out/bench-imgforge");
    let begin = Instant::now();
    log.run(
        1800,
        demo::build(binary, Medium::Tiny, &output)?.args(["--no-progress", "--no-cache"]),
    )?;
    let wall = begin.elapsed().as_secs_f64();
    println!("  imgforge  {wall:>7.1} s in all");
    let events = demo::find(&output, "events.jsonl").ok_or("the build left no events.jsonl")?;
    let events = fs::read_to_string(&events).map_err(|error| format!("events.jsonl: {error}"))?;
    for (what, seconds) in split(&events) {
        println!("    {what:<22} {seconds:>7.1} s");
    }
    Ok(wall)
}

/// Wall time by stage, and the build's own account of its waits, from the event stream.
fn split(events: &str) -> BTreeMap<String, f64> {
    let mut parts = BTreeMap::new();
    for line in events.lines() {
        match string(line, "event").as_deref() {
            Some("stage-done") => {
                if let (Some(stage), Some(seconds)) =
                    (string(line, "stage"), number(line, "seconds"))
                {
                    parts.insert(format!("stage {stage}"), seconds);
                }
            }
            Some("build-done") => {
                if let Some(seconds) = number(line, "own_waits") {
                    parts.insert("waited by imgforge".into(), seconds);
                }
            }
            _ => {}
        }
    }
    parts
}

/// The value of a string field in one line of JSON that our own writer made.
fn string(line: &str, field: &str) -> Option<String> {
    let (_, rest) = line.split_once(&format!("\"{field}\":\""))?;
    rest.split('"').next().map(str::to_owned)
}

fn number(line: &str, field: &str) -> Option<f64> {
    let (_, rest) = line.split_once(&format!("\"{field}\":"))?;
    rest.split([',', '}']).next()?.trim().parse().ok()
}

/// One build by packer of the same medium, answer file, machine and provisioning.
fn packer(log: &Log) -> Outcome<f64> {
    let directory = process::root().join("target/xtask-out/bench-packer");
    let _ = fs::remove_dir_all(&directory);
    let files = |error: std::io::Error| format!("{}: {error}", directory.display());
    fs::create_dir_all(directory.join("http")).map_err(files)?;
    answer_file(log, &directory)?;
    fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", directory.join("vars.fd")).map_err(files)?;
    let begin = Instant::now();
    let mut command = Command::new("packer");
    command.arg("build").arg("-color=false");
    for (name, value) in
        [("iso", Medium::Tiny.path()), ("directory", directory.clone()), ("target", tiny())]
    {
        command.arg("-var").arg(format!("{name}={}", value.display()));
    }
    command.arg(process::recipe("packer-tiny.json"));
    command.env("CHECKPOINT_DISABLE", "1").env("PACKER_CACHE_DIR", directory.join("cache"));
    command.env("HOME", &directory).current_dir(&directory);
    log.run(1800, &command)?;
    let wall = begin.elapsed().as_secs_f64();
    fs::remove_dir_all(&directory).map_err(files)?;
    Ok(wall)
}

fn tiny() -> PathBuf {
    process::root().join("tests/data/tiny")
}

/// The answer file with a key and a password of this run, as imgforge renders it.
fn answer_file(log: &Log, directory: &Path) -> Outcome {
    let key = directory.join("key");
    log.run(
        60,
        Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f"])
            .arg(&key),
    )?;
    let public = fs::read_to_string(key.with_extension("pub"))
        .map_err(|error| format!("key.pub: {error}"))?;
    let random = fs::read_to_string("/proc/sys/kernel/random/uuid")
        .map_err(|error| format!("uuid: {error}"))?;
    let hash = process::capture(Command::new("openssl").args(["passwd", "-6", random.trim()]))?;
    let template = fs::read_to_string(tiny().join("answer.sh"))
        .map_err(|error| format!("answer.sh: {error}"))?;
    let rendered = template
        .replace("{{ .Name }}", "tiny")
        .replace("{{ .hostname }}", "tiny")
        .replace("{{ .RootPasswordHash }}", hash.trim())
        .replace("{{ .SSHPublicKey }}", public.trim());
    fs::write(directory.join("http/answer.sh"), rendered)
        .map_err(|error| format!("answer.sh: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages() {
        let events = concat!(
            r#"{"time":"x","event":"stage-done","stage":"install","seconds":12.5,"note":"a"}"#,
            "\n",
            r#"{"event":"note","text":"stage-done"}"#,
            "\n",
            r#"{"event":"build-done","output":"o","seconds":60.25,"own_waits":0.75}"#,
        );
        let parts = split(events);
        assert_eq!(parts.get("stage install"), Some(&12.5));
        assert_eq!(parts.get("waited by imgforge"), Some(&0.75));
        assert_eq!(parts.len(), 2);
    }
}
