// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The reference: packer's own QEMU builder with a template for the same target, then gzip and
//! sha1sum, as image scripts around packer do it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::answers::{self, Variables};
use super::plan::Plan;
use super::scratch::Scratch;
use super::watch::{self, Ran};
use super::{Outcome, Split};
use crate::packages::{self, Need};

/// What packer's side needs.
const NEEDS: &[Need] = &[
    ("packer", "packer"),
    ("qemu-img", "qemu-utils"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("ssh-keygen", "openssh-client"),
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf"),
];

/// Firmware code and the variables that belong to it.
const FIRMWARE: (&str, &str) =
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd");

/// A hash that no password has: the form of SHA-512 crypt without its value.
fn no_password() -> String {
    format!("$6$benchmark${}", ".".repeat(86))
}

/// A finished build.
#[derive(Debug)]
pub(super) struct Build {
    pub(super) seconds: f64,
    pub(super) split: Split,
}

/// Sees to it that everything is there.
pub(super) fn check() -> Outcome {
    packages::ensure(NEEDS)
}

/// Version of packer, for the table.
pub(super) fn version() -> String {
    let text = watch::text_of(Command::new("packer").arg("version").env("CHECKPOINT_DISABLE", "1"));
    text.ok()
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| "packer".into())
}

/// Builds the target.
pub(super) fn build(plan: &Plan, scratch: &Scratch) -> Outcome<Build> {
    let directory = scratch.fresh("packer")?;
    let (code, variables) = FIRMWARE;
    let mut command = Command::new("packer");
    command.args(["build", "-color=false"]);
    let mut var = |name: &str, value: &Path| {
        command.arg("-var").arg(format!("{name}={}", value.display()));
    };
    let output = directory.join("output");
    prepare(plan, &directory, variables)?;
    var("code", Path::new(code));
    var("vars", &directory.join("vars.fd"));
    var("iso", &plan.iso);
    var("output", &output);
    var("http", &directory.join("http"));
    var("key", &directory.join("key"));
    var("root", &plan.root);
    for (name, value) in &plan.given {
        if *name == "mirror" {
            command.arg("-var").arg(format!("{name}={value}"));
        }
    }
    if let Some(wait) = &plan.packer_boot_wait {
        command.arg("-var").arg(format!("boot_wait={wait}"));
    }
    command.arg(&plan.template).current_dir(&directory);
    command.env("CHECKPOINT_DISABLE", "1").env("PACKER_CACHE_DIR", directory.join("cache"));
    for name in ["PACKER_KEY_INTERVAL", "PACKER_LOG", "PACKER_CONFIG", "SSH_AUTH_SOCK"] {
        command.env_remove(name);
    }
    let ran = watch::run(&mut command, &directory.join("log")).map_err(|problem| {
        format!(
            "{problem}\nbench: when packer never saw SSH, the machine was too busy for the target's \
             boot wait: packer types blindly; try again on an idle machine or give \
             --packer-boot-wait"
        )
    })?;
    let mut split = split(&ran)?;
    split.compress = compress(&output.join(format!("{}.raw", plan.name)))?;
    fs::remove_dir_all(&directory)
        .map_err(|error| format!("cannot remove {}: {error}", directory.display()))?;
    Ok(Build { seconds: split.total(), split })
}

/// Fresh firmware variables, a key for this build, and the answer file.
fn prepare(plan: &Plan, directory: &Path, variables: &str) -> Outcome {
    let cannot = |what: PathBuf| move |error| format!("cannot write {}: {error}", what.display());
    let vars = directory.join("vars.fd");
    fs::copy(variables, &vars).map_err(cannot(vars.clone()))?;
    let key = directory.join("key");
    watch::text_of(
        Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f"])
            .arg(&key),
    )?;
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    let mut values: Variables = plan.variables.clone();
    values.set("SSHPublicKey", read(&directory.join("key.pub"))?.trim());
    values.set("RootPasswordHash", &no_password());
    let text = answers::render(&read(&plan.answers)?, &values)
        .map_err(|problem| format!("{}: {problem}", plan.answers.display()))?;
    let served = directory.join("http");
    fs::create_dir(&served).map_err(cannot(served.clone()))?;
    let file = served.join(plan.served_as);
    fs::write(&file, text).map_err(cannot(file.clone()))
}

/// packer's time by the lines that it prints as it goes on.
fn split(ran: &Ran) -> Outcome<Split> {
    let at = |mark: &str| {
        ran.lines
            .iter()
            .find(|(_, line)| line.contains(mark))
            .map(|(seconds, _)| *seconds)
            .ok_or_else(|| format!("packer did not print `{mark}`"))
    };
    let waits = at("for boot...")?;
    let connects = at("Connecting to VM via VNC")?;
    let typed = at("Using ssh communicator")?;
    let off = at("Gracefully halting")?;
    let gone = at("Converting hard drive").or_else(|_| at("Builds finished"))?.max(off);
    Ok(Split {
        boot_wait: connects - waits,
        typing: typed - connects,
        guest: gone - typed,
        own: waits + (ran.seconds - gone),
        ..Split::default()
    })
}

/// gzip and sha1sum of the disk, in seconds.
fn compress(disk: &Path) -> Outcome<f64> {
    let started = Instant::now();
    watch::text_of(Command::new("gzip").arg("-6").arg(disk))?;
    let packed = disk.with_extension("raw.gz");
    watch::text_of(Command::new("sha1sum").arg(&packed))?;
    Ok(started.elapsed().as_secs_f64())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ran(lines: &[(f64, &str)]) -> Ran {
        let lines = lines.iter().map(|(at, line)| (*at, (*line).to_owned())).collect();
        Ran { seconds: 100.0, lines, peak_kib: None }
    }

    #[test]
    fn packers_time_is_split_by_its_lines() {
        let all = [
            (0.1, "==> tiny: Starting VM, booting from CD-ROM"),
            (2.0, "==> tiny: Waiting 12s for boot..."),
            (14.0, "==> tiny: Connecting to VM via VNC (127.0.0.1:5936)"),
            (14.0, "==> tiny: Typing the boot command over VNC..."),
            (35.0, "==> tiny: Using ssh communicator to connect: 127.0.0.1"),
            (90.0, "==> tiny: Gracefully halting virtual machine..."),
            (98.0, "==> Builds finished. The artifacts of successful builds are:"),
        ];
        let split = split(&ran(&all)).unwrap();
        let expected =
            Split { boot_wait: 12.0, typing: 21.0, guest: 63.0, own: 4.0, ..Split::default() };
        assert_eq!(split, expected);
        assert!((split.total() - 100.0).abs() < 1e-9);
        let problem = super::split(&ran(&all[..4])).unwrap_err();
        assert!(problem.contains("ssh communicator"), "{problem}");
    }

    #[test]
    fn the_hash_has_the_form_of_a_hash() {
        assert_eq!(no_password().len(), "$6$benchmark$".len() + 86);
    }
}
