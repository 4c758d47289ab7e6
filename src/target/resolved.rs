// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A target with every default filled in and every variable known: what a build works from.
//!
//! Texts that hold late variables (`{{ .HTTPIP }}`, `{{ .SSHPublicKey }}`, …) stay unexpanded
//! here; [`crate::target`] expands them once the build knows the values.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::vm::Firmware;

/// One image, ready to build.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The name users type: `debian-13`.
    pub name: String,
    /// One line for `list` and the manifest.
    pub description: String,
    /// Distribution family: `debian`, `redhat`, `ubuntu`, or a word of the user's own.
    pub family: String,
    /// Release: `13`.
    pub release: String,
    /// Where the document came from: `embedded` or a file.
    pub origin: String,
    /// Every variable by name, in its final value.
    pub variables: BTreeMap<String, Variable>,
    /// Installer medium.
    pub media: Media,
    /// Virtual hardware.
    pub machine: MachineSettings,
    /// What is typed at the boot menu.
    pub boot: Boot,
    /// What the answer-file server serves.
    pub http: Http,
    /// When the installation counts as done.
    pub install: Install,
    /// How to log in.
    pub ssh: Ssh,
    /// Provisioning steps, in order.
    pub provision: Vec<Step>,
    /// How to power off.
    pub shutdown: Shutdown,
    /// What to write.
    pub output: Output,
}

/// A variable's final value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// The value.
    pub value: String,
    /// Hidden in every output.
    pub sensitive: bool,
    /// What it is for.
    pub description: String,
    /// Where the value came from: `default`, `--var`, a file, the environment.
    pub source: String,
}

/// Installer medium.
#[derive(Debug, Clone)]
pub struct Media {
    /// `https://`, `http://`, `file://` or a path; tried in order.
    pub urls: Vec<String>,
    /// How to know that it is whole.
    pub checksum: Checksum,
}

/// How to know that a medium is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checksum {
    /// The digest itself.
    Digest {
        /// Algorithm.
        algorithm: Algorithm,
        /// Lower-case hex.
        hex: String,
    },
    /// A sums file as distributors publish it (URL or path).
    File(String),
    /// Not checked; the build warns.
    None,
}

/// Digest algorithms that distributors use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// MD5: accepted with a warning.
    Md5,
    /// SHA-1: accepted with a warning.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// Virtual hardware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineSettings {
    /// Virtual processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Disk in MiB.
    pub disk_mib: u64,
    /// Firmware.
    pub firmware: Firmware,
    /// Extra QEMU arguments (packer's `qemuargs`), used by the QEMU driver only.
    pub qemu_args: Vec<String>,
}

/// What is typed at the boot menu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// Time between power-on and the first key.
    pub wait: Duration,
    /// Pause after each key event.
    pub key_interval: Duration,
    /// Packer's boot command, list joined, late variables unexpanded.
    pub command: String,
}

/// What the answer-file server serves.
#[derive(Debug, Clone, Default)]
pub struct Http {
    /// URL path (starting with `/`) → asset path of a template to render.
    pub files: BTreeMap<String, String>,
    /// URL path → text given in the document, a template too.
    pub content: BTreeMap<String, String>,
    /// Directories of the host served as they are under `/NAME/`.
    pub directories: Vec<PathBuf>,
}

/// The guest event that ends the installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstallEnd {
    /// The installer restarts the machine.
    Reboot,
    /// The installer powers the machine off.
    PowerOff,
}

/// When the installation counts as done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Install {
    /// The event.
    pub end: InstallEnd,
    /// Longest time for the whole installation.
    pub timeout: Duration,
    /// Longest time without any sign of life (disk, screen, serial, HTTP).
    pub stall_timeout: Duration,
    /// Longest time after typing until the answer file is asked for.
    pub answer_timeout: Duration,
}

/// How to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    /// User.
    pub username: String,
    /// Port in the guest.
    pub port: u16,
    /// Longest time from the installed system's power-on to the first login.
    pub timeout: Duration,
}

/// One provisioning step.
#[derive(Debug, Clone)]
pub struct Step {
    /// Name shown in the output.
    pub name: String,
    /// Longest time for the step.
    pub timeout: Duration,
    /// How often a failed step is tried again.
    pub max_retries: u32,
    /// What it does.
    pub action: Action,
}

/// What a provisioning step does.
#[derive(Debug, Clone)]
pub enum Action {
    /// Commands in the guest.
    Shell(Shell),
    /// A file or tree into the guest.
    File(FileUpload),
    /// A playbook.
    Ansible(Ansible),
}

/// Commands in the guest.
#[derive(Debug, Clone, Default)]
pub struct Shell {
    /// Lines of one script run by `/bin/sh -e`.
    pub inline: Vec<String>,
    /// Asset path of a script with its own `#!` line.
    pub script: Option<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Exit codes that count as success.
    pub valid_exit_codes: Vec<i32>,
    /// The connection may end with the step (a reboot).
    pub expect_disconnect: bool,
}

/// A file or tree into the guest.
#[derive(Debug, Clone)]
pub struct FileUpload {
    /// Asset path of a file or directory; empty when `content` is given.
    pub source: String,
    /// Text of the file.
    pub content: Option<String>,
    /// Absolute path in the guest; with a trailing slash, a directory to put the source into.
    pub destination: String,
    /// Octal permission bits of a file.
    pub mode: u32,
}

/// Where `ansible-playbook` runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnsibleMode {
    /// On this host, over SSH.
    Host,
    /// In the guest; installed for it and removed again with everything it brought.
    Guest,
}

/// A playbook.
#[derive(Debug, Clone)]
pub struct Ansible {
    /// Where it runs.
    pub mode: AnsibleMode,
    /// Asset path of the directory that holds playbook, roles and collections.
    pub directory: String,
    /// Playbook, relative to the directory.
    pub playbook: String,
    /// Extra variables.
    pub extra_vars: BTreeMap<String, String>,
    /// Further arguments.
    pub extra_arguments: Vec<String>,
    /// Environment of the command.
    pub env: BTreeMap<String, String>,
    /// `ansible-playbook` to use in host mode; found on `PATH` when empty.
    pub command: String,
}

/// How to power off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shutdown {
    /// Command typed over SSH.
    pub command: String,
    /// How long to wait before the ACPI button, and after it again before giving up.
    pub timeout: Duration,
}

/// What to write.
#[derive(Debug, Clone)]
pub struct Output {
    /// Artefact formats.
    pub formats: Vec<Format>,
    /// Block size of the volume in a stream, in bytes.
    pub volblocksize: u32,
    /// Gzip level, 1 to 9.
    pub compression_level: u32,
    /// Fields of the IMGAPI manifest.
    pub manifest: ManifestFields,
}

/// An artefact format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The sparse raw disk, `.raw`.
    Raw,
    /// Gzip of the raw disk, `.raw.gz`.
    RawGz,
    /// Gzip of a volume's ZFS send stream, `.zfs.gz`, with an IMGAPI manifest.
    ZfsGz,
    /// Compressed qcow2, `.qcow2`.
    Qcow2,
}

impl Format {
    /// The ending of its files, which is its name in targets.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::RawGz => "raw.gz",
            Self::ZfsGz => "zfs.gz",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// Fields of the IMGAPI manifest that a target decides.
#[derive(Debug, Clone, Default)]
pub struct ManifestFields {
    /// Image version; the build's date as `YYYYMMDD` when empty.
    pub version: String,
    /// `linux` unless said otherwise.
    pub os: String,
    /// Home page URL.
    pub homepage: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Requirement `brand`, when the image needs one.
    pub brand: Option<String>,
    /// Requirement `bootrom`, only with brand `bhyve`.
    pub bootrom: Option<String>,
}
