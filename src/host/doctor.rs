// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The checks of `imgforge doctor`: what is there, what it means for a build, what to do.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::qemu::Search;
use crate::store::{free_space, mebibytes};
use crate::ui::Failure;
use crate::vm::hv::bhyve::{Look, look};
use crate::vm::hv::kvm::{Verdict, probe};

const MIB: u64 = 1 << 20;
/// A build's sparse disk with its frozen copies and compressed output.
const ROOM_WANTED: u64 = 12 * 1024 * MIB;
/// Less than this no installer finishes in.
const ROOM_NEEDED: u64 = 3 * 1024 * MIB;
/// One guest with 2 GiB and QEMU's own need.
const MEMORY_WANTED: u64 = 2560 * MIB;
const MEMORY_NEEDED: u64 = 1024 * MIB;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Builds work, but slower or not all of them.
    Warn,
    /// No build works.
    Fatal,
}

impl Severity {
    /// The word shown for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fatal => "FATAL",
        }
    }
}

/// One thing looked at. The JSON form is stable: fields and ids are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: `qemu`, `ovmf`, `kvm`, `memory`, …
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was seen.
    pub seen: String,
    /// What that means for a build; empty when all is well.
    pub means: String,
    /// What to do; empty when all is well.
    pub remedy: String,
}

impl Finding {
    fn fine(id: &'static str, seen: impl fmt::Display) -> Self {
        let (means, remedy) = (String::new(), String::new());
        Self { id, severity: Severity::Ok, seen: seen.to_string(), means, remedy }
    }

    fn bad(
        id: &'static str,
        severity: Severity,
        seen: impl fmt::Display,
        means: &str,
        remedy: &str,
    ) -> Self {
        Self { id, severity, seen: seen.to_string(), means: means.into(), remedy: remedy.into() }
    }
}

/// Directories that a build writes to.
#[derive(Debug, Clone)]
pub struct Places {
    /// Installer media and frozen disks.
    pub cache: PathBuf,
    /// Finished images.
    pub output: PathBuf,
    /// Run directories.
    pub temporary: PathBuf,
}

/// What the checks look at. [`Host::this`] is the host itself.
pub struct Host {
    /// Programs and firmware.
    pub search: Search,
    /// Directories.
    pub places: Places,
    /// Judges `/dev/kvm`.
    pub judge: fn() -> Verdict,
    /// Looks for bhyve.
    pub look: fn() -> Look,
    /// Text of `/proc/meminfo`; `None` where there is none.
    pub meminfo: Option<String>,
}

impl Host {
    /// The host that we run on.
    pub fn this(places: Places) -> Self {
        Self {
            search: Search::from_environment(),
            places,
            judge: probe,
            look,
            meminfo: std::fs::read_to_string("/proc/meminfo").ok(),
        }
    }
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In the order of the checks.
    pub findings: Vec<Finding>,
}

/// Runs every check; takes less than half a second and changes nothing.
pub fn examine(host: &Host) -> Report {
    let places = &host.places;
    let mut findings = vec![
        qemu(&host.search),
        ovmf(&host.search),
        kvm(&(host.judge)()),
        passt(&host.search.path),
        leash(&host.search),
        memory(host.meminfo.as_deref()),
        room("disk-cache", &places.cache, "set IMGFORGE_CACHE_DIR to a directory with more room"),
        room("disk-output", &places.output, "choose another directory with `--output`"),
        room("disk-temporary", &places.temporary, "set TMPDIR to a directory with more room"),
        ansible(&host.search.path),
        ssh(&host.search.path),
    ];
    match (host.look)() {
        Look::Usable(found) => {
            // It runs the machines, and brings a firmware.
            for finding in findings.iter_mut().filter(|f| matches!(f.id, "qemu" | "ovmf")) {
                finding.severity = finding.severity.min(Severity::Warn);
            }
            // Its machines are plugged into links.
            findings.retain(|f| f.id != "passt" || f.severity == Severity::Ok);
            findings.push(Finding::fine("bhyve", found));
        }
        Look::Unusable(failure) => {
            let mut finding = from_failure("bhyve", &failure, "bhyve runs no virtual machine");
            finding.severity = Severity::Warn;
            findings.push(finding);
        }
        // On a system of another kind there is nothing to say.
        Look::Absent(_) => {}
    }
    Report { findings }
}

impl Report {
    /// Whether builds can work here.
    pub fn can_build(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity != Severity::Fatal)
    }

    /// The failure to end with when no build can work here.
    pub fn failure(&self) -> Option<Failure> {
        let fatal = self.findings.iter().filter(|f| f.severity == Severity::Fatal);
        let ids: Vec<&str> = fatal.clone().map(|finding| finding.id).collect();
        let failure = Failure::build(format!("this host cannot build yet: {}", ids.join(", ")));
        let failure = fatal.fold(failure, |failure, finding| failure.hint(finding.remedy.clone()));
        (!ids.is_empty()).then_some(failure)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{:<5}  {:<15} {}", finding.severity.name(), finding.id, finding.seen)?;
            if !finding.means.is_empty() {
                writeln!(f, "{:<23}{}", "", finding.means)?;
            }
            if !finding.remedy.is_empty() {
                writeln!(f, "{:<23}remedy: {}", "", finding.remedy)?;
            }
        }
        Ok(())
    }
}

/// A finding made of a failure that names its own remedy.
fn from_failure(id: &'static str, failure: &Failure, means: &str) -> Finding {
    let facts = failure.facts().iter().map(|(label, value)| format!("{label}: {value}"));
    let parts: Vec<String> = std::iter::once(failure.summary().to_owned())
        .chain(failure.causes())
        .chain(facts)
        .collect();
    Finding::bad(id, Severity::Fatal, parts.join("; "), means, &failure.hints().join("; "))
}

fn qemu(search: &Search) -> Finding {
    match search.program() {
        Ok(program) => {
            Finding::fine("qemu", format!("{} {}", program.path.display(), program.version))
        }
        Err(failure) => from_failure("qemu", &failure, "no virtual machine can run"),
    }
}

fn ovmf(search: &Search) -> Finding {
    match search.uefi() {
        Ok(firmware) => Finding::fine("ovmf", firmware.code.display()),
        Err(failure) => from_failure("ovmf", &failure, "machines cannot start with UEFI"),
    }
}

fn kvm(verdict: &Verdict) -> Finding {
    let means = "QEMU runs guests in software, many times slower: an installation takes about \
                 half an hour";
    let remedy = match verdict {
        Verdict::Usable { .. } => return Finding::fine("kvm", verdict),
        Verdict::Unusable { .. } => {
            "none on this host: its /dev/kvm has no usable hardware behind it"
        }
        Verdict::Absent { .. } => {
            "enable virtualization in the firmware or for this cloud machine, then `modprobe \
             kvm_intel` or `modprobe kvm_amd`; your user must be in group `kvm`"
        }
    };
    Finding::bad("kvm", Severity::Warn, verdict, means, remedy)
}

fn passt(path: &OsString) -> Finding {
    optional(
        "passt",
        "passt",
        path,
        "imgforge's own monitor has no network for its machines; with KVM, QEMU runs them instead",
        "install it: `apt-get install passt`",
    )
}

fn leash(search: &Search) -> Finding {
    match search.setpriv() {
        Some(path) => Finding::fine("leash", path.display()),
        None => Finding::bad(
            "leash",
            Severity::Warn,
            "no setpriv on PATH",
            "after a `kill -9` of a build its QEMU runs on until the next run or `imgforge clean`",
            "install util-linux",
        ),
    }
}

fn memory(meminfo: Option<&str>) -> Finding {
    const ID: &str = "memory";
    let Some(available) = meminfo.and_then(available_memory) else {
        return Finding::fine(ID, "this host does not tell");
    };
    let seen = format!("{} available", mebibytes(available));
    let remedy = "stop other programs, or lower `machine.memory` of the target";
    let severity = match available {
        MEMORY_WANTED.. => return Finding::fine(ID, seen),
        MEMORY_NEEDED.. => Severity::Warn,
        _ => Severity::Fatal,
    };
    Finding::bad(ID, severity, seen, "a guest with 2 GiB does not fit", remedy)
}

fn available_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn room(id: &'static str, place: &Path, remedy: &str) -> Finding {
    let free = match free_space(place) {
        Ok(free) => free,
        Err(failure) => return from_failure(id, &failure, "it is unknown whether a build fits"),
    };
    let seen = format!("{} free for {}", mebibytes(free), place.display());
    let severity = match free {
        ROOM_WANTED.. => return Finding::fine(id, seen),
        ROOM_NEEDED.. => Severity::Warn,
        _ => Severity::Fatal,
    };
    let means = format!("a build may need {}", mebibytes(ROOM_WANTED));
    Finding::bad(id, severity, seen, &means, remedy)
}

fn ansible(path: &OsString) -> Finding {
    optional(
        "ansible",
        "ansible-playbook",
        path,
        "provisioning steps with `mode: host` cannot run; `mode: guest` works",
        "install it: `apt-get install ansible-core`",
    )
}

fn ssh(path: &OsString) -> Finding {
    optional(
        "ssh",
        "ssh",
        path,
        "ansible from this host cannot reach the guest; all else has its own SSH",
        "install it: `apt-get install openssh-client`",
    )
}

fn optional(
    id: &'static str,
    program: &str,
    path: &OsString,
    means: &str,
    remedy: &str,
) -> Finding {
    match crate::vm::child::on_path(program, path) {
        Some(file) => Finding::fine(id, file.display()),
        None => Finding::bad(id, Severity::Warn, format!("no {program} on PATH"), means, remedy),
    }
}

#[cfg(test)]
#[path = "doctor_tests.rs"]
mod tests;
