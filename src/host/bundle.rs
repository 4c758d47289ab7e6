// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `imgforge doctor --bundle`: one text file from which somebody far away can tell what is wrong.
//!
//! It holds versions, device nodes, links and addresses, a machine on trial call by call, and the
//! ends of logs. It holds no environment, no answer file, no key, and no line that looks as if it
//! had a secret in it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::command;
use crate::vm::firmware::rom::{Profile, Search};
use crate::vm::hv::bhyve::{self, Look};

/// Bytes of each log that are kept: its end.
const TAIL: u64 = 32 << 10;
/// Builds whose logs are kept: the last ones.
const BUILDS: usize = 3;
const LOGS: [&str; 2] = ["build.log", "monitor.log"];

/// What this host is, in the words of its own commands. Those of other systems are missing.
const COMMANDS: [(&str, &[&str]); 12] = [
    ("uname", &["-srvm"]),
    ("isainfo", &["-k"]),
    ("zonename", &[]),
    ("psrinfo", &["-vp"]),
    ("dladm", &["show-link"]),
    ("dladm", &["show-vnic"]),
    ("dladm", &["show-linkprop", "-p", "mtu"]),
    ("ipadm", &["show-addr"]),
    ("netstat", &["-rn"]),
    ("svcs", &["-H", "ipfilter", "ipv4-forwarding", "network/datalink-management"]),
    ("prctl", &["-P", "-i", "process", "$$"]),
    ("ppriv", &["$$"]),
];

const NODES: [&str; 8] = [
    "/dev/vmmctl",
    "/dev/vmm",
    "/dev/viona",
    "/dev/dld",
    "/dev/net",
    "/dev/zvol",
    "/dev/kvm",
    "/dev/net/tun",
];

/// The file: sections with a title each.
#[derive(Debug, Default)]
pub struct Bundle(Vec<(String, String)>);

impl Bundle {
    /// Appends a section.
    #[must_use]
    pub fn with(mut self, title: &str, text: impl fmt::Display) -> Self {
        self.0.push((title.to_owned(), text.to_string()));
        self
    }
}

impl fmt::Display for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "What `imgforge doctor --bundle` found. It names this host's links and addresses, and \
             the\nnames of its virtual machines; lines that may hold a secret are left out."
        )?;
        for (title, text) in &self.0 {
            writeln!(f, "\n== {title} ==\n")?;
            for line in text.trim_end().lines() {
                writeln!(f, "{}", without_secrets(line))?;
            }
        }
        Ok(())
    }
}

/// A line, unless it may hold a secret.
fn without_secrets(line: &str) -> &str {
    const LEFT_OUT: &str = "(a line that may hold a secret is left out)";
    const WORDS: [&str; 7] =
        ["password", "passwd", "secret", "token", "authorization", "private key", "passphrase"];
    // How hashes of passwords begin (crypt(5)), and keys of SSH and TLS.
    const BEGINNINGS: [&str; 6] = ["$6$", "$5$", "$y$", "$2b$", "-----BEGIN", "b3BlbnNzaC1rZXk"];
    let lower = line.to_ascii_lowercase();
    let is_secret = WORDS.iter().any(|word| lower.contains(word))
        || BEGINNINGS.iter().any(|beginning| line.contains(beginning));
    // A line of base64 without a blank is a part of a key, or of no use here.
    let is_key = line.len() >= 60
        && line.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '='));
    if is_secret || is_key { LEFT_OUT } else { line }
}

/// Versions, commands, device nodes and firmware.
pub fn platform() -> String {
    let mut text = format!(
        "imgforge {} for {} {}, effective user {}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS,
        nix::unistd::geteuid()
    );
    let own = std::process::id().to_string();
    for (name, arguments) in COMMANDS {
        let arguments: Vec<&str> =
            arguments.iter().map(|word| if *word == "$$" { own.as_str() } else { *word }).collect();
        text += &format!("\n$ {name} {}\n", arguments.join(" "));
        text += &match command::run(name, &arguments) {
            Ok(words) => words,
            Err(failure) => format!("{failure}\n"),
        };
    }
    text.push('\n');
    for node in NODES {
        text += &format!("{node}: {}\n", describe(Path::new(node)));
    }
    text.push('\n');
    text + &firmware(&Search::from_environment())
}

/// What a node is and who may use it.
fn describe(path: &Path) -> String {
    let meta = match path.metadata() {
        Ok(meta) => meta,
        Err(error) => return error.to_string(),
    };
    let kind = match meta.file_type() {
        kind if kind.is_char_device() => "character device",
        kind if kind.is_block_device() => "block device",
        kind if kind.is_dir() => "directory",
        _ => "no device",
    };
    let (mode, user, group) = (meta.mode() & 0o7777, meta.uid(), meta.gid());
    format!("{kind} {:#x}, mode {mode:04o}, owner {user}:{group}", meta.rdev())
}

fn firmware(search: &Search) -> String {
    let of = |profile: Profile| match search.find(&[profile]) {
        Ok(rom) => format!(
            "firmware {}: {}, {} bytes of code, sha256 {}\n",
            rom.profile,
            rom.path.display(),
            rom.code.len(),
            hex::encode(Sha256::digest(&rom.code))
        ),
        Err(failure) => format!("firmware {profile}: {failure}\n"),
    };
    [Profile::Bhyve, Profile::Ovmf].map(of).concat()
}

/// What bhyve says of itself, and a machine of it on trial, call by call.
pub fn trial() -> String {
    let found = match bhyve::look() {
        Look::Usable(found) => found.to_string(),
        Look::Absent(failure) => return format!("{failure}\n"),
        Look::Unusable(failure) => format!("{failure}\n"),
    };
    let stem = format!("{}doctor-{}", bhyve::PREFIX, std::process::id());
    let trial = bhyve::trial(&stem);
    let outcome = match trial.outcome {
        Ok(()) => "the machine ran and is gone".to_owned(),
        Err(failure) => failure.to_string(),
    };
    format!("{found}\n\n{}\n{outcome}\n", trial.calls)
}

/// The ends of the logs of the last builds whose output is below `directory`.
pub fn logs(directory: &Path) -> String {
    let mut builds = builds(directory);
    builds.sort_by_key(|(changed, _)| std::cmp::Reverse(*changed));
    let mut text = String::new();
    for (_, build) in builds.into_iter().take(BUILDS) {
        for log in LOGS.map(|name| build.join(name)) {
            match tail(&log) {
                Ok(end) => text += &format!("--- {}\n{}\n", log.display(), end.trim_end()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => text += &format!("--- {}: {error}\n", log.display()),
            }
        }
    }
    if text.is_empty() {
        text = format!("no log of a build in {}\n", directory.display());
    }
    text
}

/// Directories with a build's log, and when it was written last.
fn builds(directory: &Path) -> Vec<(SystemTime, PathBuf)> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let inside = entries.map(|entry| entry.path()).chain([directory.to_owned()]);
    let dated = |build: PathBuf| {
        let meta = build.join(LOGS[0]).symlink_metadata().ok()?;
        Some((meta.is_file().then(|| meta.modified().ok())??, build))
    };
    inside.filter_map(dated).collect()
}

/// The end of a file, from a line's beginning on.
fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(TAIL);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(match text.split_once('\n') {
        Some((_, whole)) if start > 0 => whole.to_owned(),
        _ => text,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_left_out_whatever_brings_them() {
        let key = "QyNTUxOQAAACBTb21lIGtleSBvZiBzb21lYm9keSB0aGF0IGlzIG5vdCB0b2xk";
        let text = format!(
            "harmless\nroot_password=hunter2\nroot:$6$salt$hash:1\n-----BEGIN KEY-----\n{key}\nend"
        );
        let bundle = Bundle::default().with("one", &text).with("two", "fine").to_string();
        for leaked in ["hunter2", "$6$", "BEGIN", key] {
            assert!(!bundle.contains(leaked), "{bundle}");
        }
        for kept in ["== one ==", "harmless", "end", "== two ==", "fine", "left out)"] {
            assert!(bundle.contains(kept), "{bundle}");
        }
    }

    #[test]
    fn the_last_builds_are_told_by_the_ends_of_their_logs() {
        let dir = tempfile::tempdir().unwrap();
        assert!(logs(dir.path()).starts_with("no log of a build"));
        for (age, name) in ["new", "middle", "old", "oldest"].iter().enumerate() {
            let build = dir.path().join(name);
            std::fs::create_dir(&build).unwrap();
            let long = format!("{}\n{name}'s first\n", "x".repeat(80)).repeat(1000);
            std::fs::write(build.join("build.log"), format!("first {name}\n{long}last {name}\n"))
                .unwrap();
            let file = File::options().write(true).open(build.join("build.log")).unwrap();
            let age = std::time::Duration::from_secs(3600 * age as u64);
            file.set_modified(SystemTime::now() - age).unwrap();
        }
        std::fs::write(dir.path().join("old/monitor.log"), "a driver came up\n").unwrap();
        let text = logs(dir.path());
        for told in ["last new", "last middle", "last old\n", "a driver came up"] {
            assert!(text.contains(told), "{told}");
        }
        assert!(!text.contains("last oldest") && !text.contains("first new"), "too much");
        assert!(text.len() < 4 * TAIL as usize);
    }

    #[test]
    fn a_platform_is_described_even_where_it_is_another() {
        let text = platform();
        assert!(text.contains(env!("CARGO_PKG_VERSION")), "{text}");
        assert!(text.contains("$ uname -srvm\n"), "{text}");
        assert!(text.contains("/dev/vmmctl: ") && text.contains("firmware bhyve: "), "{text}");
        assert!(describe(Path::new("/dev/null")).starts_with("character device"));
        assert!(describe(Path::new("/")).starts_with("directory"));
        assert!(describe(Path::new("/nonexistent")).contains("No such file"));
    }
}
