// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The target document: what users write. The JSON Schema and every check of structure come from
//! these types, so their doc comments are what an editor shows.
//!
//! Texts may hold templates. They are filled in when the document is loaded, except for the
//! fields marked `x-template`: those marked `build` are filled in during the build, when the
//! address of the answer-file server and the build's key are known; those marked `none` never.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::quantity::{Mode, Size, Span, Sum};

/// One image to build with imgforge.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "imgforge target")]
pub(crate) struct Document {
    /// What kind of system is installed.
    #[serde(default)]
    pub(crate) kind: Kind,
    /// The name that users type; the file's name without `.yaml` when missing.
    #[schemars(extend("x-template" = "none", "format" = "imgforge-name",
        "pattern" = "^[a-z0-9][a-z0-9.-]{0,62}$", "examples" = ["debian-13"]))]
    #[allow(dead_code, reason = "used before the document is typed")]
    pub(crate) name: Option<String>,
    /// One line for lists and the image's manifest.
    #[schemars(extend("x-template" = "none", "examples" = ["Debian 13 (trixie)"]))]
    pub(crate) description: Option<String>,
    /// Distribution family: `debian`, `redhat`, `ubuntu`, or a word of your own.
    #[schemars(extend("x-template" = "none", "examples" = ["debian"]))]
    pub(crate) family: Option<String>,
    /// Release of the distribution.
    #[schemars(extend("x-template" = "none", "examples" = ["13"]))]
    pub(crate) release: Option<String>,
    /// Another target (or `_NAME`, a part that is never listed) that this one starts from:
    /// mappings are merged, everything else is replaced.
    #[schemars(extend("x-template" = "none", "examples" = ["_debian"]))]
    #[allow(dead_code, reason = "used before the document is typed")]
    pub(crate) extends: Option<String>,
    /// Variables by name: a value, or a description of the variable.
    #[serde(default)]
    #[schemars(extend("x-template" = "none"))]
    #[allow(dead_code, reason = "used before the document is typed")]
    pub(crate) variables: BTreeMap<String, Declaration>,
    /// The installer's medium.
    pub(crate) media: Media,
    /// The virtual hardware.
    #[serde(default)]
    pub(crate) machine: Machine,
    /// What is typed at the installer's boot menu.
    #[serde(default)]
    pub(crate) boot: Boot,
    /// What the answer-file server serves to the installer.
    #[serde(default)]
    pub(crate) http: Http,
    /// When the installation counts as done.
    #[serde(default)]
    pub(crate) install: Install,
    /// How to log in to the installed system.
    #[serde(default)]
    pub(crate) ssh: Ssh,
    /// What is done in the installed system, in order.
    #[serde(default)]
    pub(crate) provision: Vec<Step>,
    /// How the installed system is powered off.
    #[serde(default)]
    pub(crate) shutdown: Shutdown,
    /// What is written.
    #[serde(default)]
    pub(crate) output: Output,
}

/// What kind of system a target installs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(extend("x-template" = "none"))]
pub(crate) enum Kind {
    /// Linux, by its distributor's installer.
    #[default]
    Linux,
}

/// A variable: its value, or what is known about it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Declaration {
    /// The default value. It may use other variables.
    Value(Text),
    /// The variable in detail.
    Detail(Detail),
}

/// A text; numbers and booleans are taken as they are written.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct Text(pub(crate) String);

impl JsonSchema for Text {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Text".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

/// A variable in detail.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{"default": "http://deb.debian.org/debian"}]))]
pub(crate) struct Detail {
    /// The value when none is given; may use other variables. Without one, a value is required.
    pub(crate) default: Option<Text>,
    /// What the variable is for.
    #[serde(default)]
    pub(crate) description: String,
    /// Hidden in every output.
    #[serde(default)]
    pub(crate) sensitive: bool,
    /// A value must be given; the same as leaving `default` out.
    #[serde(default)]
    #[allow(dead_code, reason = "says aloud what a missing default says")]
    pub(crate) required: bool,
}

/// One text or a list of texts.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Texts {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// The installer's medium.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{"url": "https://…/installer.iso", "checksum": "none"}]))]
pub(crate) struct Media {
    /// Where it is: `https://`, `http://`, `file://` or a path.
    #[schemars(extend("examples" = ["https://example.org/installer.iso"]))]
    pub(crate) url: Option<String>,
    /// Several places, tried in order, instead of `url`.
    #[schemars(extend("examples" = [["https://example.org/installer.iso"]]))]
    pub(crate) urls: Option<Vec<String>>,
    /// `sha256:…` or `sha512:…`, `file:URL` of the distributor's sums file, or `none`.
    pub(crate) checksum: Sum,
}

/// The virtual hardware.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{"cpus": 2, "memory": "2G", "disk": "10G"}]))]
pub(crate) struct Machine {
    /// Virtual processors. Default: 2.
    #[schemars(range(min = 1, max = 64), extend("examples" = [2]))]
    pub(crate) cpus: Option<u32>,
    /// Memory. Default: `2G`.
    #[schemars(extend("examples" = ["2G"]))]
    pub(crate) memory: Option<Size>,
    /// Size of the disk. Default: `10G`.
    pub(crate) disk: Option<Size>,
    /// Firmware. Default: `uefi`.
    pub(crate) firmware: Option<Firmware>,
    /// Further QEMU arguments; used by the QEMU driver only.
    #[serde(default)]
    #[schemars(extend("examples" = [["-device", "virtio-rng-pci"]]))]
    pub(crate) qemu_args: Vec<String>,
}

/// Firmware of the virtual machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Firmware {
    /// UEFI with an empty variable store.
    Uefi,
    /// Legacy BIOS.
    Bios,
}

/// What is typed at the installer's boot menu.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{"wait": "10s", "command": ["c<wait>", "boot<enter>"]}]))]
pub(crate) struct Boot {
    /// Time between power-on and the first key; negative for none. Default: `10s`.
    #[schemars(extend("examples" = ["10s"]))]
    pub(crate) wait: Option<Span>,
    /// Pause after each key event. Default: the environment's `PACKER_KEY_INTERVAL`, or `20ms`.
    #[schemars(extend("examples" = ["20ms"]))]
    pub(crate) key_interval: Option<Span>,
    /// Packer's boot command; a list is joined with nothing between.
    #[schemars(extend("x-template" = "build", "examples" = ["<esc>auto<enter>"]))]
    pub(crate) command: Option<Texts>,
}

/// What the answer-file server serves to the installer.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{"files": {"/debian-13.cfg": "preseed/debian.cfg"}}]))]
pub(crate) struct Http {
    /// Path in the URL and the file that is rendered as a template and served under it.
    #[serde(default)]
    #[schemars(extend("examples" = [{"/debian-13.cfg": "preseed/debian.cfg"}]))]
    pub(crate) files: BTreeMap<String, String>,
    /// Path in the URL and the template itself.
    #[serde(default)]
    #[schemars(extend("x-template" = "build", "examples" = [{"/meta-data": "instance-id: 1\n"}]))]
    pub(crate) content: BTreeMap<String, String>,
    /// Directories of this host, served as they are under `/NAME/`.
    #[serde(default)]
    #[schemars(extend("examples" = [["packages"]]))]
    pub(crate) directories: Vec<String>,
}

/// When the installation counts as done.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{"end": "reboot", "timeout": "90m"}]))]
pub(crate) struct Install {
    /// What the installer does at its end. Default: `reboot`.
    pub(crate) end: Option<InstallEnd>,
    /// Longest time for the whole installation. Default: `90m`.
    #[schemars(extend("examples" = ["90m"]))]
    pub(crate) timeout: Option<Span>,
    /// Longest time without any sign of life. Default: `10m`.
    #[schemars(extend("examples" = ["10m"]))]
    pub(crate) stall_timeout: Option<Span>,
    /// Longest time from the end of typing until the answer file is asked for. Default: `5m`.
    #[schemars(extend("examples" = ["5m"]))]
    pub(crate) answer_timeout: Option<Span>,
}

/// What the installer does at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum InstallEnd {
    /// It restarts the machine.
    Reboot,
    /// It powers the machine off.
    PowerOff,
}

/// How to log in to the installed system.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{"username": "root"}]))]
pub(crate) struct Ssh {
    /// User. Default: `root`.
    #[schemars(extend("examples" = ["root"]))]
    pub(crate) username: Option<String>,
    /// Port in the guest. Default: 22.
    #[schemars(range(min = 1, max = 65535), extend("examples" = [22]))]
    pub(crate) port: Option<u16>,
    /// Longest time from power-on to the first login. Default: `10m`.
    #[schemars(extend("examples" = ["10m"]))]
    pub(crate) timeout: Option<Span>,
}

/// One provisioning step: exactly one of `ansible`, `shell` and `file`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{"shell": {"inline": ["uname -a"]}}]))]
pub(crate) struct Step {
    /// Name in the output.
    #[schemars(extend("examples" = ["roles"]))]
    pub(crate) name: Option<String>,
    /// A playbook.
    pub(crate) ansible: Option<Ansible>,
    /// Commands in the guest.
    pub(crate) shell: Option<Shell>,
    /// A file or a directory into the guest.
    pub(crate) file: Option<FileUpload>,
    /// Longest time for the step. Default: `30m`.
    #[schemars(extend("examples" = ["30m"]))]
    pub(crate) timeout: Option<Span>,
    /// How often a failed step is tried again. Default: 0.
    #[schemars(range(max = 100), extend("examples" = [0]))]
    pub(crate) max_retries: Option<u32>,
}

/// A playbook.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{"mode": "guest", "playbook": "site.yml"}]))]
pub(crate) struct Ansible {
    /// Where `ansible-playbook` runs. Default: `guest`.
    pub(crate) mode: Option<AnsibleMode>,
    /// Directory of the playbook, its roles and collections. Default: `ansible`.
    #[schemars(extend("examples" = ["ansible"]))]
    pub(crate) directory: Option<String>,
    /// Playbook within the directory. Default: `site.yml`.
    #[schemars(extend("examples" = ["site.yml"]))]
    pub(crate) playbook: Option<String>,
    /// Extra variables.
    #[serde(default)]
    #[schemars(extend("x-template" = "build", "examples" = [{"role": "os"}]))]
    pub(crate) extra_vars: BTreeMap<String, Text>,
    /// Further arguments of `ansible-playbook`.
    #[serde(default)]
    #[schemars(extend("x-template" = "build", "examples" = [["-v"]]))]
    pub(crate) extra_arguments: Vec<String>,
    /// Environment of `ansible-playbook`.
    #[serde(default)]
    #[schemars(extend("x-template" = "build", "examples" = [{"LANG": "C.UTF-8"}]))]
    pub(crate) env: BTreeMap<String, Text>,
    /// `ansible-playbook` to run in mode `host`; found on `PATH` when empty.
    #[serde(default)]
    pub(crate) command: String,
}

/// Where `ansible-playbook` runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AnsibleMode {
    /// In the guest; installed for it and removed again.
    Guest,
    /// On this host, over SSH.
    Host,
}

/// Commands in the guest: `inline`, `script`, or both.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{"inline": ["uname -a"]}]))]
pub(crate) struct Shell {
    /// Lines of one script for `/bin/sh -e`.
    #[schemars(extend("x-template" = "build", "examples" = [["uname -a"]]))]
    pub(crate) inline: Option<Texts>,
    /// A script with its own `#!` line.
    #[schemars(extend("examples" = ["scripts/setup.sh"]))]
    pub(crate) script: Option<String>,
    /// Environment.
    #[serde(default)]
    #[schemars(extend("x-template" = "build", "examples" = [{"LANG": "C.UTF-8"}]))]
    pub(crate) env: BTreeMap<String, Text>,
    /// Exit codes that count as success. Default: 0.
    #[schemars(extend("examples" = [[0]]))]
    pub(crate) valid_exit_codes: Option<Vec<u8>>,
    /// The connection may end with the step.
    #[serde(default)]
    pub(crate) expect_disconnect: bool,
}

/// A file or a directory into the guest.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{"source": "files/motd", "destination": "/etc/motd"}]))]
pub(crate) struct FileUpload {
    /// The file or directory.
    #[schemars(extend("examples" = ["files/motd"]))]
    pub(crate) source: Option<String>,
    /// The file's text, instead of `source`.
    #[schemars(extend("x-template" = "build", "examples" = ["hello\n"]))]
    pub(crate) content: Option<String>,
    /// Absolute path in the guest; with a trailing slash, the directory to put the source into.
    #[schemars(extend("examples" = ["/etc/motd"]))]
    pub(crate) destination: String,
    /// Octal permission bits of a file. Default: `"0644"`.
    pub(crate) mode: Option<Mode>,
}

/// How the installed system is powered off.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{"command": "poweroff"}]))]
pub(crate) struct Shutdown {
    /// Command. Default: `poweroff`.
    #[schemars(extend("x-template" = "build", "examples" = ["poweroff"]))]
    pub(crate) command: Option<String>,
    /// Longest time to wait before the ACPI button, and after it again. Default: `5m`.
    #[schemars(extend("examples" = ["5m"]))]
    pub(crate) timeout: Option<Span>,
}

/// What is written.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{"formats": ["zfs.gz"]}]))]
pub(crate) struct Output {
    /// Formats. Default: `zfs.gz`.
    #[schemars(length(min = 1), extend("examples" = [["zfs.gz", "qcow2"]]))]
    pub(crate) formats: Option<Vec<Format>>,
    /// Block size of the volume in bytes, a power of two. Default: 8192.
    #[schemars(range(min = 512, max = 131072), extend("examples" = [8192]))]
    pub(crate) volblocksize: Option<u32>,
    /// Compression level, 1 to 9. Default: 5, which is smaller and much faster than `gzip -6`.
    #[schemars(range(min = 1, max = 9), extend("examples" = [6]))]
    pub(crate) compression_level: Option<u32>,
    /// Fields of the IMGAPI manifest.
    #[serde(default)]
    pub(crate) manifest: Manifest,
}

/// A format of the finished image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum Format {
    /// The raw disk, sparse.
    #[serde(rename = "raw")]
    Raw,
    /// The raw disk, gzip.
    #[serde(rename = "raw.gz")]
    RawGz,
    /// The send stream of a ZFS volume, gzip, with its manifest: a SmartOS image.
    #[serde(rename = "zfs.gz")]
    ZfsGz,
    /// A compressed qcow2 disk.
    #[serde(rename = "qcow2")]
    Qcow2,
}

/// Fields of the IMGAPI manifest.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{"os": "linux"}]))]
pub(crate) struct Manifest {
    /// Version of the image; the date of the build when empty.
    #[serde(default)]
    pub(crate) version: String,
    /// Operating system. Default: `linux`.
    #[schemars(extend("examples" = ["linux"]))]
    pub(crate) os: Option<String>,
    /// Home page.
    #[serde(default)]
    pub(crate) homepage: String,
    /// Tags.
    #[serde(default)]
    #[schemars(extend("examples" = [{"role": "os"}]))]
    pub(crate) tags: BTreeMap<String, Text>,
    /// Requirement `brand`.
    pub(crate) brand: Option<String>,
    /// Requirement `bootrom`, only with brand `bhyve`.
    pub(crate) bootrom: Option<String>,
}
