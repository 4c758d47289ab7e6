// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Send streams against real receivers and senders: ZFS in a process, which is of 2010, and OpenZFS
//! in the lab machine's kernel.

use std::path::PathBuf;
use std::process::Command;

use crate::phases::{self, Verdict, cargo, lacks_apt, verdict};
use crate::process::{self, Log, Outcome};
use crate::suite::Count;
use crate::{demo, whole_build};

/// What the daemon cannot do without.
pub(crate) fn lacks_zfs_fuse() -> Option<String> {
    if !process::is_root() {
        return Some("needs root, for a ZFS daemon of its own".into());
    }
    lacks_apt()
}

/// What the lab machine cannot do without.
pub(crate) fn lacks_lab() -> Option<String> {
    if !process::is_root() {
        return Some("needs root, for the lab machine".into());
    }
    lacks_apt().or_else(|| phases::lacks(&[("dmsetup", "dmsetup")]))
}

/// The program, compiled.
pub(crate) fn imgforge(log: &Log) -> Outcome<PathBuf> {
    log.run(3600, &cargo(&["build", "--locked", "--package", "imgforge", "--bin", "imgforge"]))?;
    Ok(demo::target_directory().join("debug/imgforge"))
}

/// Send streams, received by a ZFS without a kernel and sent back.
pub(crate) fn zfs_fuse(log: &Log) -> Verdict {
    verdict(|count| {
        let root = process::root().join("target/zfs-fuse");
        log.run(300, Command::new(process::recipe("zfs-fuse.sh")).arg(&root))?;
        let mut script = Command::new(process::root().join("tests/streams/zfs-fuse.sh"));
        script.arg(imgforge(log)?).arg(&root);
        whole_build::checks(log, 900, &mut script, count)
    })
}

/// Send streams, received by the kernel module, cloned, and read as a disk; and its own.
pub(crate) fn openzfs(log: &Log) -> Verdict {
    verdict(|count| {
        let binary = imgforge(log)?;
        log.run(1800, Command::new(process::recipe("lab/build.sh")).arg("--zfs"))?;
        let tools = process::root().join("target/lab/zfs-tools");
        inside(log, 2, 1500, "tests/streams/openzfs.sh", &[binary, tools], count)
    })
}

/// Runs a script in the lab machine with so many processors, for so many seconds at most, and
/// counts its checks.
pub(crate) fn inside(
    log: &Log,
    cpus: u32,
    seconds: u32,
    script: &str,
    words: &[PathBuf],
    count: &mut Count,
) -> Outcome {
    let mut lab = Command::new(process::recipe("lab/run.sh"));
    lab.args(["--cpus", &cpus.to_string(), "--timeout", &seconds.to_string(), "--"])
        .arg(process::root().join(script))
        .args(words);
    let before = count.passed + count.failed;
    let result = whole_build::checks(log, seconds + 100, &mut lab, count);
    if result.is_ok() || count.passed + count.failed > before {
        return result;
    }
    // The emulated machine itself hangs now and then before it runs anything.
    println!("     the lab machine ran no check; it gets a second try");
    whole_build::checks(log, seconds + 100, &mut lab, count)
}
