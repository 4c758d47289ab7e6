// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A resolved target for people and programs, secrets hidden.

use serde_json::{Map, Value as Json, json};

use super::catalogue::Loaded;
use super::resolved::{Action, AnsibleMode, InstallEnd, Resolved, Step};
use super::schema::quantity::{write_checksum, write_duration, write_size};
use crate::vm::Firmware;

/// What stands for a secret.
const HIDDEN: &str = "***";
/// Shortest sensitive value that is searched for in other texts; shorter ones would hide innocent
/// letters.
const SHORTEST: usize = 3;

/// The resolved target in the document's own shape. Variables come with their description and
/// with where their value came from; sensitive values are `***`, also inside other texts.
pub fn inspect(loaded: &Loaded) -> Json {
    let target = &loaded.resolved;
    let mut json = json!({
        "name": target.name,
        "description": target.description,
        "family": target.family,
        "release": target.release,
        "origin": target.origin,
        "variables": variables(target),
        "media": {
            "urls": target.media.urls,
            "checksum": write_checksum(&target.media.checksum),
        },
        "machine": {
            "cpus": target.machine.cpus,
            "memory": write_size(target.machine.memory_mib),
            "disk": write_size(target.machine.disk_mib),
            "firmware": match target.machine.firmware {
                Firmware::Uefi => "uefi",
                Firmware::Bios => "bios",
            },
            "qemu_args": target.machine.qemu_args,
        },
        "boot": {
            "wait": write_duration(target.boot.wait),
            "key_interval": write_duration(target.boot.key_interval),
            "command": target.boot.command,
        },
        "http": http(loaded),
        "install": {
            "end": match target.install.end {
                InstallEnd::Reboot => "reboot",
                InstallEnd::PowerOff => "poweroff",
            },
            "timeout": write_duration(target.install.timeout),
            "stall_timeout": write_duration(target.install.stall_timeout),
            "answer_timeout": write_duration(target.install.answer_timeout),
        },
        "ssh": {
            "username": target.ssh.username,
            "port": target.ssh.port,
            "timeout": write_duration(target.ssh.timeout),
        },
        "provision": target.provision.iter().map(step).collect::<Vec<_>>(),
        "shutdown": {
            "command": target.shutdown.command,
            "timeout": write_duration(target.shutdown.timeout),
        },
        "output": output(target),
    });
    let secrets: Vec<&str> = target
        .variables
        .values()
        .filter(|v| v.sensitive && v.value.chars().count() >= SHORTEST)
        .map(|v| v.value.as_str())
        .collect();
    hide(&mut json, &secrets);
    json
}

fn variables(target: &Resolved) -> Json {
    let mut map = Map::new();
    for (name, variable) in &target.variables {
        let value = if variable.sensitive { HIDDEN } else { &variable.value };
        let mut entry = json!({ "value": value, "from": variable.source });
        if let Some(entry) = entry.as_object_mut() {
            if !variable.description.is_empty() {
                entry.insert("description".into(), variable.description.as_str().into());
            }
            if variable.sensitive {
                entry.insert("sensitive".into(), true.into());
            }
        }
        map.insert(name.clone(), entry);
    }
    Json::Object(map)
}

fn http(loaded: &Loaded) -> Json {
    let http = &loaded.resolved.http;
    let files: Map<String, Json> = http
        .files
        .iter()
        .map(|(path, asset)| {
            let origin = loaded.assets.origin(asset).unwrap_or_else(|| "missing".to_owned());
            (path.clone(), json!({ "file": asset, "from": origin }))
        })
        .collect();
    json!({
        "files": files,
        "content": http.content,
        "directories": http.directories.iter().map(|d| d.display().to_string()).collect::<Vec<_>>(),
    })
}

fn step(step: &Step) -> Json {
    let (kind, action) = match &step.action {
        Action::Shell(shell) => (
            "shell",
            json!({
                "inline": shell.inline,
                "script": shell.script,
                "env": shell.env,
                "valid_exit_codes": shell.valid_exit_codes,
                "expect_disconnect": shell.expect_disconnect,
            }),
        ),
        Action::File(file) => (
            "file",
            json!({
                "source": file.source,
                "content": file.content,
                "destination": file.destination,
                "mode": format!("{:04o}", file.mode),
            }),
        ),
        Action::Ansible(ansible) => (
            "ansible",
            json!({
                "mode": match ansible.mode {
                    AnsibleMode::Host => "host",
                    AnsibleMode::Guest => "guest",
                },
                "directory": ansible.directory,
                "playbook": ansible.playbook,
                "extra_vars": ansible.extra_vars,
                "extra_arguments": ansible.extra_arguments,
                "env": ansible.env,
                "command": ansible.command,
            }),
        ),
    };
    json!({
        "name": step.name,
        kind: action,
        "timeout": write_duration(step.timeout),
        "max_retries": step.max_retries,
    })
}

fn output(target: &Resolved) -> Json {
    let formats = target.output.formats.iter().map(|format| format.extension());
    let manifest = &target.output.manifest;
    json!({
        "formats": formats.collect::<Vec<_>>(),
        "volblocksize": target.output.volblocksize,
        "compression_level": target.output.compression_level,
        "manifest": {
            "version": manifest.version,
            "os": manifest.os,
            "homepage": manifest.homepage,
            "tags": manifest.tags,
            "brand": manifest.brand,
            "bootrom": manifest.bootrom,
        },
    })
}

fn hide(json: &mut Json, secrets: &[&str]) {
    match json {
        Json::String(text) => {
            for secret in secrets {
                if text.contains(secret) {
                    *text = text.replace(secret, HIDDEN);
                }
            }
        }
        Json::Array(items) => items.iter_mut().for_each(|item| hide(item, secrets)),
        Json::Object(map) => map.values_mut().for_each(|value| hide(value, secrets)),
        _ => {}
    }
}
