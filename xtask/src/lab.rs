// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `cargo xtask lab`: a machine with a working `/dev/kvm` where there is none.

use std::path::PathBuf;
use std::process::Command;

use crate::media::{self, Medium};
use crate::phases::{self, Verdict};
use crate::process::{self, Log, Outcome};
use crate::suite::Count;
use crate::{demo, packages, streams};

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

/// What builds in the lab machine cannot do without.
pub(crate) fn lacks() -> Option<String> {
    streams::lacks_lab().or_else(|| phases::lacks(packages::MEDIUM)).or_else(|| {
        phases::lacks(&[
            ("passt", "passt"),
            ("qemu-img", "qemu-utils"),
            ("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf"),
        ])
    })
}

/// The bhyve ROM that `IMGFORGE_BHYVE_ROM` names.
fn bhyve_rom() -> Option<PathBuf> {
    let named = std::env::var_os("IMGFORGE_BHYVE_ROM").filter(|path| !path.is_empty());
    named.map(PathBuf::from)
}

/// The whole pipeline on imgforge's own monitor with KVM, with each firmware.
pub(crate) fn kvm(log: &Log) -> Verdict {
    phases::verdict(|count| pipeline(log, "kvm", 1200, &[], count))
}

/// The same with bhyve, whose kernel the model plays.
pub(crate) fn bhyve(log: &Log) -> Verdict {
    phases::verdict(|count| {
        // Each exit of the guest goes through it: not without optimization.
        let model = ["build", "--locked", "--release", "--package", "vmm-model", "--lib"];
        log.run(1800, &phases::cargo(&model))?;
        let model = demo::target_directory().join("release/libvmm_model.so");
        pipeline(log, "bhyve", 2400, &[model], count)
    })
}

/// The tiny build on a hypervisor in the lab machine, with one processor and each firmware, each
/// within so many seconds; `more` is what its script needs besides.
fn pipeline(
    log: &Log,
    hypervisor: &str,
    seconds: u32,
    more: &[PathBuf],
    count: &mut Count,
) -> Outcome {
    let binary = streams::imgforge(log)?;
    media::make(Medium::Tiny, &Medium::Tiny.path(), |recipe| log.run(1200, recipe))?;
    log.run(1800, &Command::new(process::recipe("lab/build.sh")))?;
    let run = |rom: PathBuf, count: &mut _| {
        let words = [hypervisor.into(), binary.clone(), Medium::Tiny.path(), "1".into(), rom];
        streams::inside(log, 1, seconds, "tests/lab/tiny.sh", &[&words, more].concat(), count)
    };
    run(PathBuf::new(), count)?;
    match bhyve_rom() {
        Some(rom) => run(rom, count),
        None => {
            println!("     not with a bhyve ROM: IMGFORGE_BHYVE_ROM names none");
            Ok(())
        }
    }
}
