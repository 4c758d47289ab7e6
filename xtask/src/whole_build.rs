// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The whole build from Debian's own installer, run once, and many things asserted about its
//! result: on the disk, in a running guest with a metadata service, and under BIOS.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::boot::{self, Firmware, Guest};
use crate::media::{self, Medium};
use crate::process::{self, Log, Outcome};
use crate::suite::Count;
use crate::{demo, mirror, packages, phases};

const UUID: &str = "6f0b3c1e-52a4-4d7c-9a55-0c1d2e3f4a5b";
const HOSTNAME: &str = "whole-build";
/// Variable of the environment for work on what follows the installation.
const CACHED: &str = "IMGFORGE_TEST_CACHED";
/// Variable of the environment for work on what follows the build: a finished build's directory.
const IMAGE: &str = "IMGFORGE_TEST_IMAGE";
/// Variable of the environment: which target to build instead of debian-13, when it is `debian-12`.
const TARGET: &str = "IMGFORGE_TEST_TARGET";
const PUBLIC_MIRROR: &str = "http://deb.debian.org/debian";

/// What is missing for it here.
pub(crate) fn lacks() -> Option<String> {
    if !process::is_root() {
        return Some("needs root, to mount the finished disk".into());
    }
    phases::lacks(packages::BUILD)
        .or_else(|| phases::lacks(packages::MEDIUM))
        .or_else(|| phases::lacks(packages::INSPECT))
}

/// Builds and looks.
pub(crate) fn check(log: &Log) -> phases::Verdict {
    phases::verdict(|count| {
        let disk = match std::env::var_os(IMAGE) {
            Some(output) => {
                println!("     {IMAGE} is set: nothing is built");
                boot::unpack(Path::new(&output), log)?
            }
            None => build(log)?,
        };
        count.passed += 1;
        let result = examine(log, &disk, count);
        let removed = fs::remove_file(&disk)
            .map_err(|error| format!("cannot remove {}: {error}", disk.display()));
        result.and(removed)
    })
}

fn build(log: &Log) -> Outcome<PathBuf> {
    let is_older = std::env::var_os(TARGET).is_some_and(|target| target == "debian-12");
    let (target, medium) =
        if is_older { ("debian-12", Medium::Debian12) } else { ("debian-13", Medium::Debian13) };
    media::make(medium, &medium.path(), |recipe| log.run(1800, recipe))?;
    log.run(
        3600,
        process::cargo().args(["build", "--locked", "--package", "imgforge", "--bin", "imgforge"]),
    )?;
    let binary = demo::target_directory().join("debug/imgforge");
    let output = process::root().join("target/xtask-out").join(target);
    let begin = std::time::Instant::now();
    let mut command = demo::build(&binary, medium, &output)?;
    command.arg("--no-progress");
    if std::env::var_os(CACHED).is_some() {
        println!("     {CACHED} is set: an installation from the cache will do");
    } else {
        command.arg("--no-cache");
    }
    // The longest part of the suite: what runs beside it gives way.
    log.run_shown(4500, &process::ahead(&command), &format!("{target}  "))?;
    println!("     the build took {:.0} s", begin.elapsed().as_secs_f64());
    boot::complete(&output)?;
    boot::unpack(&output, log)
}

fn examine(log: &Log, disk: &Path, count: &mut Count) -> Outcome {
    let mut on_disk = Command::new(process::root().join("tests/guest/check-disk.sh"));
    on_disk.arg(disk);
    let used = mirror::debian()?;
    if used != PUBLIC_MIRROR {
        on_disk.arg(used);
    }
    checks(log, 900, &mut on_disk, count)?;
    // Both write to files of their own.
    let bios = std::thread::scope(|scope| {
        let bios = scope.spawn(|| boots_under_bios(disk));
        guest(log, disk, count)?;
        bios.join().unwrap_or_else(|_| Err("the thread of the BIOS boot panicked".into()))
    });
    count.passed += u64::from(bios.is_ok());
    bios
}

fn boots_under_bios(disk: &Path) -> Outcome {
    Guest::start(disk, Firmware::Bios, &[])?.wait_for_serial("login:", 1500)
}

/// Runs a script that reports in TAP form and counts its lines; a failed line is no error here.
pub(crate) fn checks(log: &Log, seconds: u32, command: &mut Command, count: &mut Count) -> Outcome {
    let before = log.text().len();
    let result = log.run(seconds, command);
    let text = log.text();
    let (passed, failed) = tally(text.get(before..).unwrap_or_default());
    count.passed += passed;
    count.failed += failed;
    if failed == 0 { result } else { Ok(()) }
}

fn tally(tap: &str) -> (u64, u64) {
    let lines = |start: &str| tap.lines().filter(|line| line.starts_with(start)).count() as u64;
    (lines("ok "), lines("not ok "))
}

/// Boots the image as SmartOS would, with a metadata service on the second serial port.
fn guest(log: &Log, disk: &Path, count: &mut Count) -> Outcome {
    let keys = disk.with_extension("keys");
    let _ = fs::remove_dir_all(&keys);
    fs::create_dir_all(&keys)
        .map_err(|error| format!("cannot make {}: {error}", keys.display()))?;
    let result = guest_with_keys(log, disk, &keys, count);
    let _ = fs::remove_dir_all(&keys);
    result
}

/// What a SmartOS host says to a guest: who it is, its key, and its address on QEMU's user-mode
/// network, which gives neither a route nor a name server itself when it is restricted.
fn metadata_of(key: &str) -> String {
    let nic = r#""interface": "net0", "mac": "52:54:00:12:34:56", "nic_tag": "external",
        "ip": "10.0.2.15", "ips": ["10.0.2.15/24"], "netmask": "255.255.255.0",
        "gateway": "10.0.2.2", "gateways": ["10.0.2.2"], "primary": true"#;
    format!(
        r#"{{
    "sdc:uuid": "{UUID}", "sdc:hostname": "{HOSTNAME}", "root_authorized_keys": "{key}",
    "sdc:nics": [{{{nic}}}], "sdc:resolvers": ["10.0.2.3"], "sdc:routes": []
}}"#
    )
}

fn guest_with_keys(log: &Log, disk: &Path, keys: &Path, count: &mut Count) -> Outcome {
    let key = keys.join("key");
    log.run(
        60,
        Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "whole-build", "-f"])
            .arg(&key),
    )?;
    let public = fs::read_to_string(key.with_extension("pub"))
        .map_err(|error| format!("no public key: {error}"))?;
    let metadata = keys.join("metadata.json");
    fs::write(&metadata, metadata_of(public.trim()))
        .map_err(|error| format!("cannot write metadata: {error}"))?;
    let socket = keys.join("metadata.sock");
    let chardev = format!("socket,path={},server=on,wait=off,id=metadata", socket.display());
    let smbios = format!("type=1,manufacturer=Joyent,product=SmartDC HVM,uuid={UUID}");
    let guest = Guest::start(
        disk,
        Firmware::Uefi,
        &["-smbios", &smbios, "-chardev", &chardev, "-device", "isa-serial,chardev=metadata"],
    )?;
    guest.wait("socket of the second serial port", 30, || socket.exists())?;
    let _service = Service::start(&socket, &metadata, &guest.directory().join("metadata.log"))?;
    let identity = key.display().to_string();
    let with_key = ["-i", identity.as_str(), "-o", "IdentitiesOnly=yes"];
    guest.wait("login by the key from metadata", 1200, || {
        guest
            .ssh(&with_key)
            .arg("true")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })?;
    count.passed += 1;
    refuses_passwords(&guest)?;
    count.passed += 1;
    let failed = count.failed;
    let result = look(log, &guest, &with_key, count);
    if result.is_err() || count.failed > failed {
        log.line(&guest.facts())?;
    }
    result
}

/// The checks inside the guest. A connection that dies before the first answer is no fault of the
/// image's: one more is made, and the log has it.
fn look(log: &Log, guest: &Guest, with_key: &[&str], count: &mut Count) -> Outcome {
    let upload = format!(
        "exec {} sh -s {UUID} {HOSTNAME} < <(cat tap.sh guest/check-guest.sh)",
        process::show(&guest.ssh(with_key)),
    );
    let mut command = Command::new("bash");
    command.args(["-c", &upload]).current_dir(process::root().join("tests"));
    let answers = |count: &Count| count.passed + count.failed;
    let before = answers(count);
    let first = checks(log, 900, &mut command, count);
    match first {
        Err(reason) if answers(count) == before => {
            log.line(&format!("once more, as nothing was answered: {reason}\n{}", guest.facts()))?;
            println!("     no answer from the guest: {reason}; once more");
            checks(log, 600, &mut command, count)
        }
        result => result,
    }
}

/// Asks sshd which ways to log in it offers root: only keys.
fn refuses_passwords(guest: &Guest) -> Outcome {
    let output = guest
        .ssh(&["-o", "PreferredAuthentications=none"])
        .arg("true")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot start ssh: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("(publickey)") {
        Ok(())
    } else {
        Err(format!("sshd must offer root keys alone; it said: {}", said.trim()))
    }
}

/// The metadata service; ends when dropped.
struct Service(Child);

impl Service {
    fn start(socket: &Path, metadata: &Path, log: &Path) -> Outcome<Self> {
        let mut command = Command::new("python3");
        command.arg(process::root().join("tests/guest/mock_metadata.py"));
        command.arg("--connect").arg(socket).arg("--metadata").arg(metadata).arg("--log").arg(log);
        let child = command.stdin(Stdio::null()).spawn();
        child.map(Self).map_err(|error| format!("cannot start python3: {error}"))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tap() {
        assert_eq!(tally("ok 1 - a\nnot ok 2 - b\n# ok 3\nok 3 - c\n1..3\n"), (2, 1));
        assert_eq!(tally("Bail out!\n"), (0, 0));
    }
}
