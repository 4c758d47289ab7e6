// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A build's result looked at from outside: the files it must consist of, and whether the disk
//! boots in a machine that knows nothing of the build.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::demo::{self, find};
use crate::process::{self, Log, Outcome};

/// Firmware of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Firmware {
    /// OVMF with an empty variable store.
    Uefi,
    /// SeaBIOS.
    Bios,
}

/// Fails unless the output directory holds what a build must leave.
pub(crate) fn complete(output: &Path) -> Outcome {
    let need = |suffix: &str| {
        find(output, suffix)
            .filter(|path| fs::metadata(path).is_ok_and(|facts| facts.len() > 0))
            .ok_or_else(|| format!("the build left no {suffix} in {}", output.display()))
    };
    let image = need(".zfs.gz")?;
    let manifest = need(".json")?;
    need("build.log")?;
    need("serial.log")?;
    need(".png")?;
    let events = fs::read_to_string(need("events.jsonl")?)
        .map_err(|error| format!("events.jsonl: {error}"))?;
    if let Some(line) = events.lines().find(|line| !(line.starts_with('{') && line.ends_with('}')))
    {
        return Err(format!("events.jsonl has a line that is no object: {line}"));
    }
    let manifest = fs::read_to_string(manifest).map_err(|error| format!("manifest: {error}"))?;
    let sum = process::capture(Command::new("sha1sum").arg(&image))?;
    let sum = sum.split_whitespace().next().unwrap_or_default();
    if sum.len() != 40 || !manifest.contains(sum) {
        return Err(format!("the manifest does not hold {sum}, the image's SHA-1"));
    }
    let left = find(output, ".partial").or_else(|| find(output, ".tmp"));
    left.map_or(Ok(()), |path| Err(format!("the build left {}", path.display())))
}

/// The image as a sparse disk beside the output directory. The caller removes it.
pub(crate) fn unpack(output: &Path, log: &Log) -> Outcome<PathBuf> {
    let image = find(output, ".zfs.gz").ok_or("no .zfs.gz")?;
    let disk = output.with_extension("raw");
    let binary = demo::target_directory().join("debug/imgforge");
    let mut convert = Command::new(binary);
    convert.args(["convert", "--force", "--no-progress"]).arg(&image).arg(&disk);
    log.run(1800, &convert)?;
    Ok(disk)
}

/// A running machine; dropping it ends it and removes its files. Its writes are lost.
pub(crate) struct Guest {
    monitor: Child,
    directory: PathBuf,
    ssh_port: u16,
}

impl Guest {
    /// Starts the disk in a machine without network but for SSH from this host.
    pub(crate) fn start(disk: &Path, firmware: Firmware, extra: &[&str]) -> Outcome<Self> {
        let directory = disk.with_extension(format!("{firmware:?}").to_lowercase());
        let files = |error: std::io::Error| format!("cannot use {}: {error}", directory.display());
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).map_err(files)?;
        let ssh_port = free_port()?;
        let mut command = Command::new("qemu-system-x86_64");
        command.args([
            "-machine",
            "q35",
            "-smp",
            "1",
            "-m",
            "1024",
            "-display",
            "none",
            "-snapshot",
            "-nodefaults",
        ]);
        command.args(["-vga", "std"]);
        if kvm_works() {
            command.args(["-accel", "kvm", "-cpu", "host"]);
        } else {
            command.args(["-accel", "tcg,thread=multi", "-cpu", "max,la57=off,erms=off,fsrm=off"]);
        }
        if firmware == Firmware::Uefi {
            let store = directory.join("vars.fd");
            fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &store).map_err(files)?;
            command.args([
                "-drive",
                "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
            ]);
            command.arg("-drive").arg(format!("if=pflash,format=raw,file={}", store.display()));
        }
        // A full host must be an error in the guest: by default the machine would stand still.
        command
            .arg("-drive")
            .arg(format!("if=virtio,format=raw,werror=report,file={}", disk.display()));
        command
            .arg("-netdev")
            .arg(format!("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{ssh_port}-:22"));
        command.args(["-device", "virtio-net-pci,netdev=net,romfile="]);
        command.arg("-serial").arg(format!("file:{}", directory.join("serial.log").display()));
        // What is written goes to a temporary file, which is as large as the disk in the worst case.
        command.args(extra).current_dir(&directory).env("TMPDIR", &directory);
        let errors = fs::File::create(directory.join("monitor.log")).map_err(files)?;
        let monitor = command.stdin(Stdio::null()).stderr(errors).spawn();
        let monitor =
            monitor.map_err(|error| format!("cannot start qemu-system-x86_64: {error}"))?;
        Ok(Self { monitor, directory, ssh_port })
    }

    /// The private directory, in which the monitor runs.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Waits until the first serial port has shown `text`.
    pub(crate) fn wait_for_serial(&self, text: &str, seconds: u64) -> Outcome {
        let what = format!("\"{text}\" on the serial port");
        self.wait(&what, seconds, || self.said("serial.log").contains(text))
    }

    fn said(&self, name: &str) -> String {
        let bytes = fs::read(self.directory.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What there is to know from outside about a machine that does not do what it should.
    pub(crate) fn facts(&self) -> String {
        let mut text = String::new();
        for (name, count) in [("serial.log", 30), ("monitor.log", 10), ("metadata.log", 5)] {
            let said = self.said(name);
            let lines: Vec<&str> = said.lines().collect();
            text.push_str(&format!("---- the end of the guest's {name}\n"));
            text.push_str(&lines[lines.len().saturating_sub(count)..].join("\n"));
            text.push('\n');
        }
        let process = format!("/proc/{}", self.monitor.id());
        let state = fs::read_to_string(format!("{process}/stat")).unwrap_or_default();
        let state: Vec<&str> = state.split_whitespace().skip(2).take(13).collect();
        text.push_str(&format!("---- QEMU's state and counters: {}\n", state.join(" ")));
        let space = process::capture(Command::new("df").arg("-h").arg(&self.directory));
        text + &space.unwrap_or_else(|error| error)
    }

    /// Waits until `is_there`, asked several times a second.
    pub(crate) fn wait(&self, what: &str, seconds: u64, is_there: impl Fn() -> bool) -> Outcome {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        while !is_there() {
            if !Path::new(&format!("/proc/{}", self.monitor.id())).exists() {
                return Err(format!("QEMU ended while we waited for {what}"));
            }
            if Instant::now() > deadline {
                return Err(format!("no {what} within {seconds} s\n{}", self.facts()));
            }
            std::thread::sleep(Duration::from_millis(250));
        }
        Ok(())
    }

    /// ssh(1) to the guest's root with options of ours only.
    pub(crate) fn ssh(&self, options: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command.args(["-F", "none", "-p", &self.ssh_port.to_string()]);
        command.args([
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ]);
        command.args([
            "-o",
            "LogLevel=ERROR",
            "-o",
            "IdentityAgent=none",
            "-o",
            "ConnectTimeout=20",
            "-o",
            "ServerAliveInterval=30",
            "-o",
            "ServerAliveCountMax=4",
        ]);
        command.args(options).arg("root@127.0.0.1");
        command
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn free_port() -> Outcome<u16> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| format!("no free port: {error}"))
}

/// Hardware virtualization is used only where the processor itself says that it has it: some
/// hosts offer a `/dev/kvm` with nothing behind it.
fn kvm_works() -> bool {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let is_real = flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    is_real && fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}
