// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! From the document to the resolved target: defaults, limits, and what no schema can say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::finding::{Finding, Position, nearest_place};
use super::resolved::{
    Action, Algorithm, Ansible, AnsibleMode, Boot, Checksum, FileUpload, Format, Http, Install,
    InstallEnd, MachineSettings, ManifestFields, Media, Output, Resolved, Shell, Shutdown, Ssh,
    Step, Variable,
};
use super::schema::document::{self as doc, Document, Text, Texts};
use super::schema::quantity::{Span, read_duration};
use crate::vm::Firmware;

/// Defaults of a document that says nothing.
const BOOT_WAIT: Duration = Duration::from_secs(10);
const KEY_INTERVAL: Duration = Duration::from_millis(20);
const STEP_TIMEOUT: Duration = Duration::from_secs(30 * 60);
const INSTALL_TIMEOUT: Duration = Duration::from_secs(90 * 60);
const STALL_TIMEOUT: Duration = Duration::from_secs(10 * 60);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5 * 60);
const SSH_TIMEOUT: Duration = Duration::from_secs(10 * 60);
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5 * 60);
const MEMORY_MIB: u64 = 2048;
const DISK_MIB: u64 = 10 * 1024;
/// Least memory and disk that any installer could use.
const LEAST_MIB: u64 = 64;

/// What a document alone does not say.
pub(crate) struct Frame<'a> {
    /// The target's name.
    pub(crate) name: String,
    /// `embedded`, or the file.
    pub(crate) origin: String,
    /// Variables in their final values.
    pub(crate) variables: BTreeMap<String, Variable>,
    /// The environment (`PACKER_KEY_INTERVAL`).
    pub(crate) env: &'a BTreeMap<String, String>,
    /// Where every field stands.
    pub(crate) places: &'a BTreeMap<String, Position>,
    /// Where relative directories of the host start, the strongest first.
    pub(crate) roots: &'a [PathBuf],
}

/// Resolves a document; the findings may hold mistakes, in which case the target is not to be
/// used.
pub(crate) fn resolve(document: Document, frame: Frame<'_>) -> (Resolved, Vec<Finding>) {
    let mut r = Resolver { frame: &frame, findings: Vec::new() };
    let media = r.media(document.media);
    let machine = r.machine(document.machine);
    let boot = r.boot(document.boot);
    let http = r.http(document.http);
    let install = r.install(&document.install);
    let ssh = r.ssh(document.ssh);
    let provision =
        document.provision.into_iter().enumerate().filter_map(|(i, s)| r.step(i, s)).collect();
    let shutdown = r.shutdown(document.shutdown);
    let output = r.output(document.output, document.kind);
    let findings = r.findings;
    let resolved = Resolved {
        description: document.description.unwrap_or_else(|| frame.name.clone()),
        name: frame.name,
        family: document.family.unwrap_or_default(),
        release: document.release.unwrap_or_default(),
        origin: frame.origin,
        variables: frame.variables,
        media,
        machine,
        boot,
        http,
        install,
        ssh,
        provision,
        shutdown,
        output,
    };
    (resolved, findings)
}

struct Resolver<'a> {
    frame: &'a Frame<'a>,
    findings: Vec<Finding>,
}

impl Resolver<'_> {
    fn place(&self, field: &str) -> Position {
        nearest_place(self.frame.places, field)
            .unwrap_or_else(|| Position::whole(&self.frame.origin.as_str().into()))
    }

    fn wrong(&mut self, field: &str, message: impl Into<String>) {
        self.findings.push(Finding::error(self.place(field), field, message));
    }

    fn doubt(&mut self, field: &str, message: impl Into<String>) {
        self.findings.push(Finding::warning(self.place(field), field, message));
    }

    /// A length of time that must be longer than nothing.
    fn span(&mut self, field: &str, span: Option<&Span>, default: Duration) -> Duration {
        match span {
            None => default,
            Some(Span(s)) if s.negative || s.length.is_zero() => {
                self.wrong(field, "the time must be longer than zero");
                default
            }
            Some(Span(s)) => s.length,
        }
    }

    fn media(&mut self, media: doc::Media) -> Media {
        let urls = match (media.url, media.urls) {
            (Some(_), Some(_)) => {
                self.wrong("media", "give `url` or `urls`, not both");
                Vec::new()
            }
            (Some(url), None) => vec![url],
            (None, Some(urls)) => urls,
            (None, None) => Vec::new(),
        };
        if urls.is_empty() {
            self.wrong(
                "media",
                "`url` is missing; for example `https://example.org/installer.iso`",
            );
        }
        for (i, url) in urls.iter().enumerate() {
            let field =
                if urls.len() == 1 { "media.url".into() } else { format!("media.urls[{i}]") };
            if url.trim().is_empty() {
                self.wrong(&field, "the address is empty");
            } else if let Some((scheme, _)) = url.split_once("://")
                && !["http", "https", "file"].contains(&scheme)
            {
                let message =
                    format!("`{scheme}://` cannot be fetched; use https, http, file or a path");
                self.wrong(&field, message);
            }
        }
        let urls = urls.into_iter().map(|url| self.beside(url)).collect();
        let checksum = match media.checksum.0 {
            Checksum::File(url) => Checksum::File(self.beside(url)),
            other => other,
        };
        match &checksum {
            Checksum::None => self.doubt("media.checksum", "the medium is not checked"),
            Checksum::Digest { algorithm: Algorithm::Md5, .. } => {
                self.doubt("media.checksum", "MD5 is easily forged; prefer sha256");
            }
            Checksum::Digest { algorithm: Algorithm::Sha1, .. } => {
                self.doubt("media.checksum", "SHA-1 is easily forged; prefer sha256");
            }
            _ => {}
        }
        Media { urls, checksum }
    }

    /// A relative path means a file beside the target, or else one of the working directory.
    fn beside(&self, url: String) -> String {
        if url.contains("://") || url.starts_with('/') {
            return url;
        }
        let found = self.frame.roots.iter().map(|root| root.join(&url)).find(|p| p.exists());
        found.map_or(url, |path| path.display().to_string())
    }

    fn machine(&mut self, machine: doc::Machine) -> MachineSettings {
        let memory_mib = machine.memory.map_or(MEMORY_MIB, |s| s.0);
        let disk_mib = machine.disk.map_or(DISK_MIB, |s| s.0);
        for (field, size) in [("machine.memory", memory_mib), ("machine.disk", disk_mib)] {
            if size < LEAST_MIB {
                self.wrong(field, format!("at least {LEAST_MIB}M"));
            }
        }
        MachineSettings {
            cpus: machine.cpus.unwrap_or(2),
            memory_mib,
            disk_mib,
            firmware: match machine.firmware {
                Some(doc::Firmware::Bios) => Firmware::Bios,
                Some(doc::Firmware::Uefi) | None => Firmware::Uefi,
            },
            qemu_args: machine.qemu_args,
        }
    }

    fn boot(&mut self, boot: doc::Boot) -> Boot {
        let wait = match boot.wait {
            // As in packer, zero means the default and only a negative wait means none.
            Some(Span(s)) if s.negative => Duration::ZERO,
            Some(Span(s)) if !s.length.is_zero() => s.length,
            _ => BOOT_WAIT,
        };
        let from_env = self.frame.env.get("PACKER_KEY_INTERVAL");
        let from_env = from_env.and_then(|text| read_duration(text).ok()).filter(|l| !l.negative);
        let key_interval = match boot.key_interval {
            Some(span) if !span.0.length.is_zero() => {
                self.span("boot.key_interval", Some(&span), KEY_INTERVAL)
            }
            _ => from_env.map_or(KEY_INTERVAL, |l| l.length),
        };
        let command = match boot.command {
            Some(Texts::One(text)) => text,
            Some(Texts::Many(list)) => list.concat(),
            None => String::new(),
        };
        Boot { wait, key_interval, command }
    }

    fn http(&mut self, http: doc::Http) -> Http {
        for (section, paths) in [("files", http.files.keys()), ("content", http.content.keys())]
            .map(|(s, k)| (s, k.cloned().collect::<Vec<_>>()))
        {
            for path in paths {
                let field = format!("http.{section}.{path}");
                if !path.starts_with('/') {
                    self.wrong(&field, format!("the path of a URL starts with `/`: `/{path}`"));
                } else if path.split('/').any(|p| p == "." || p == "..")
                    || path.contains(['?', '#'])
                {
                    self.wrong(&field, "not a plain path of a URL");
                }
                if section == "content" && http.files.contains_key(&path) {
                    self.wrong(&field, "the same path stands under `http.files`");
                }
            }
        }
        let mut names = BTreeSet::new();
        let mut directories = Vec::new();
        for (i, directory) in http.directories.into_iter().enumerate() {
            let field = format!("http.directories[{i}]");
            let relative = PathBuf::from(&directory);
            let found = self.frame.roots.iter().map(|r| r.join(&relative)).find(|p| p.is_dir());
            let Some(found) = found else {
                self.wrong(&field, format!("there is no directory `{directory}`"));
                continue;
            };
            match found.file_name().and_then(|n| n.to_str()) {
                Some(name) if names.insert(name.to_owned()) => directories.push(found),
                Some(name) => {
                    self.wrong(&field, format!("a second directory would be served as `/{name}/`"));
                }
                None => self.wrong(&field, "the directory has no name to serve it under"),
            }
        }
        Http { files: http.files, content: http.content, directories }
    }

    fn install(&mut self, install: &doc::Install) -> Install {
        Install {
            end: match install.end {
                Some(doc::InstallEnd::PowerOff) => InstallEnd::PowerOff,
                Some(doc::InstallEnd::Reboot) | None => InstallEnd::Reboot,
            },
            timeout: self.span("install.timeout", install.timeout.as_ref(), INSTALL_TIMEOUT),
            stall_timeout: self.span(
                "install.stall_timeout",
                install.stall_timeout.as_ref(),
                STALL_TIMEOUT,
            ),
            answer_timeout: self.span(
                "install.answer_timeout",
                install.answer_timeout.as_ref(),
                ANSWER_TIMEOUT,
            ),
        }
    }

    fn ssh(&mut self, ssh: doc::Ssh) -> Ssh {
        let username = ssh.username.unwrap_or_else(|| "root".to_owned());
        if username.is_empty() || username.contains(char::is_whitespace) {
            self.wrong("ssh.username", "not a user's name");
        }
        Ssh {
            username,
            port: ssh.port.unwrap_or(22),
            timeout: self.span("ssh.timeout", ssh.timeout.as_ref(), SSH_TIMEOUT),
        }
    }

    fn step(&mut self, index: usize, step: doc::Step) -> Option<Step> {
        let field = format!("provision[{index}]");
        let timeout = self.span(&format!("{field}.timeout"), step.timeout.as_ref(), STEP_TIMEOUT);
        let (kind, action) = match (step.ansible, step.shell, step.file) {
            (Some(ansible), None, None) => ("ansible", Action::Ansible(ansible_of(ansible))),
            (None, Some(shell), None) => {
                ("shell", Action::Shell(self.shell(&format!("{field}.shell"), shell)))
            }
            (None, None, Some(file)) => {
                ("file", Action::File(self.file(&format!("{field}.file"), file)))
            }
            _ => {
                self.wrong(&field, "a step has exactly one of `ansible`, `shell` and `file`");
                return None;
            }
        };
        let name = step.name.unwrap_or_else(|| format!("{kind}-{}", index + 1));
        Some(Step { name, timeout, max_retries: step.max_retries.unwrap_or(0), action })
    }

    fn shell(&mut self, field: &str, shell: doc::Shell) -> Shell {
        let inline = match shell.inline {
            Some(Texts::One(text)) => text.lines().map(str::to_owned).collect(),
            Some(Texts::Many(list)) => list,
            None => Vec::new(),
        };
        if inline.is_empty() && shell.script.is_none() {
            self.wrong(field, "`inline` or `script` is missing");
        }
        let codes = shell.valid_exit_codes.unwrap_or_else(|| vec![0]);
        Shell {
            inline,
            script: shell.script,
            env: texts(shell.env),
            valid_exit_codes: codes.into_iter().map(i32::from).collect(),
            expect_disconnect: shell.expect_disconnect,
        }
    }

    fn file(&mut self, field: &str, file: doc::FileUpload) -> FileUpload {
        if file.source.is_some() == file.content.is_some() {
            self.wrong(field, "a file has either `source` or `content`");
        }
        let destination = format!("{field}.destination");
        if !file.destination.starts_with('/') {
            self.wrong(&destination, "the path in the guest starts with `/`");
        } else if file.content.is_some() && file.destination.ends_with('/') {
            self.wrong(&destination, "`content` needs the path of a file, not of a directory");
        }
        FileUpload {
            source: file.source.unwrap_or_default(),
            content: file.content,
            destination: file.destination,
            mode: file.mode.map_or(0o644, |m| m.0),
        }
    }

    fn shutdown(&mut self, shutdown: doc::Shutdown) -> Shutdown {
        Shutdown {
            command: shutdown.command.unwrap_or_else(|| "poweroff".to_owned()),
            timeout: self.span("shutdown.timeout", shutdown.timeout.as_ref(), SHUTDOWN_TIMEOUT),
        }
    }

    fn output(&mut self, output: doc::Output, kind: doc::Kind) -> Output {
        let mut formats = Vec::new();
        for format in output.formats.unwrap_or_else(|| vec![doc::Format::ZfsGz]) {
            let format = match format {
                doc::Format::Raw => Format::Raw,
                doc::Format::RawGz => Format::RawGz,
                doc::Format::ZfsGz => Format::ZfsGz,
                doc::Format::Qcow2 => Format::Qcow2,
            };
            if formats.contains(&format) {
                self.wrong("output.formats", "a format stands twice");
            }
            formats.push(format);
        }
        let manifest = output.manifest;
        if manifest.bootrom.is_some() && manifest.brand.as_deref() != Some("bhyve") {
            self.wrong("output.manifest.bootrom", "only an image of brand `bhyve` has a bootrom");
        }
        let default_os = match kind {
            doc::Kind::Linux => "linux",
        };
        let volblocksize = output.volblocksize.unwrap_or(8192);
        if !volblocksize.is_power_of_two() || !(512..=131_072).contains(&volblocksize) {
            self.wrong("output.volblocksize", "a power of two from 512 to 131072 is wanted");
        }
        Output {
            formats,
            volblocksize,
            compression_level: output.compression_level.unwrap_or(crate::export::DEFAULT_LEVEL),
            manifest: ManifestFields {
                version: manifest.version,
                os: manifest.os.unwrap_or_else(|| default_os.to_owned()),
                homepage: manifest.homepage,
                tags: texts(manifest.tags),
                brand: manifest.brand,
                bootrom: manifest.bootrom,
            },
        }
    }
}

fn ansible_of(ansible: doc::Ansible) -> Ansible {
    Ansible {
        mode: match ansible.mode {
            Some(doc::AnsibleMode::Host) => AnsibleMode::Host,
            Some(doc::AnsibleMode::Guest) | None => AnsibleMode::Guest,
        },
        directory: ansible.directory.unwrap_or_else(|| "ansible".to_owned()),
        playbook: ansible.playbook.unwrap_or_else(|| "site.yml".to_owned()),
        extra_vars: texts(ansible.extra_vars),
        extra_arguments: ansible.extra_arguments,
        env: texts(ansible.env),
        command: ansible.command,
    }
}

fn texts(map: BTreeMap<String, Text>) -> BTreeMap<String, String> {
    map.into_iter().map(|(key, text)| (key, text.0)).collect()
}
