// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! One row per rule: a good manifest, one change, the field that is found.

#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::export::Manifest;
use crate::export::manifest::tests::input;
use crate::target::ManifestFields;

fn good() -> Value {
    serde_json::to_value(Manifest::new(&input(&ManifestFields::default())).unwrap()).unwrap()
}

/// The good manifest with one pointer set (or, for `null`, removed).
fn with(pointer: &str, value: Value) -> Value {
    let mut manifest = good();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let object = manifest.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if value.is_null() {
        object.remove(name);
    } else {
        object.insert(name.into(), value);
    }
    manifest
}

fn long(length: usize) -> Value {
    "x".repeat(length).into()
}

/// The rows that must be found at a field, with a severity.
fn broken() -> Vec<(&'static str, Value, &'static str, Severity)> {
    use Severity::{Error, Warning};
    let file = |key: &str, value: Value| {
        let mut file = json!({"sha1": "0".repeat(40), "size": 1, "compression": "gzip"});
        file[key] = value;
        json!([file])
    };
    let mut rows = vec![
        ("/v", json!(1), "v", Error),
        ("/v", json!("2"), "v", Error),
        ("/uuid", json!("F0E1D2C3-0000-4000-8000-000000000000"), "uuid", Error),
        ("/uuid", json!("f0e1d2c3000040008000000000000000"), "uuid", Error),
        ("/owner", json!("nobody"), "owner", Error),
        ("/origin", json!("x"), "origin", Error),
        ("/name", json!("debian:13"), "name", Error),
        ("/name", json!(""), "name", Error),
        ("/name", json!(13), "name", Error),
        ("/name", long(1025), "name", Error),
        ("/name", long(513), "name", Warning),
        ("/version", json!("2031 02"), "version", Error),
        ("/version", long(513), "version", Error),
        ("/version", long(129), "version", Warning),
        ("/version", json!("1+2"), "version", Warning),
        ("/description", long(10241), "description", Error),
        ("/description", long(513), "description", Warning),
        ("/description", json!(1), "description", Error),
        ("/homepage", json!("ftp://example.org/"), "homepage", Error),
        ("/homepage", json!("https://"), "homepage", Error),
        ("/homepage", json!(format!("https://{}", "x".repeat(1020))), "homepage", Error),
        ("/eula", json!("no url"), "eula", Error),
        ("/disabled", json!("false"), "disabled", Warning),
        ("/disabled", json!(0), "disabled", Error),
        ("/activated", json!(true), "activated", Error),
        ("/channels", json!(["dev"]), "channels", Error),
        ("/icon", json!(true), "icon", Warning),
        ("/error", json!({}), "error", Warning),
        ("/urn", json!("a:b:c"), "urn", Warning),
        ("/publisher", json!("x"), "publisher", Error),
        ("/state", json!("ready"), "state", Error),
        ("/public", json!("true"), "public", Error),
        ("/type", json!("disk"), "type", Error),
        ("/os", json!("Linux"), "os", Error),
        ("/published_at", json!("2031-02-03 10:00:00Z"), "published_at", Error),
        ("/published_at", json!("2031-02-03T10:00:00+00:00"), "published_at", Error),
        ("/published_at", json!("2031-02-03T10:00:00.12Z"), "published_at", Error),
        ("/published_at", json!("2031-02-30T10:00:00Z"), "published_at", Error),
        ("/files", json!({}), "files", Error),
        ("/files", json!([]), "files", Error),
        ("/files", json!(["x"]), "files[0]", Error),
        ("/files", file("sha1", json!("A".repeat(40))), "files[0].sha1", Error),
        ("/files", file("sha1", json!("0".repeat(39))), "files[0].sha1", Error),
        ("/files", file("size", json!(0)), "files[0].size", Error),
        ("/files", file("size", json!(-1)), "files[0].size", Error),
        ("/files", file("size", json!("1")), "files[0].size", Error),
        ("/files", file("size", json!((20u64 << 30) + 1)), "files[0].size", Error),
        ("/files", file("compression", json!("zstd")), "files[0].compression", Error),
        ("/files", file("dataset_guid", json!(5)), "files[0].dataset_guid", Error),
        ("/acl", json!("x"), "acl", Error),
        ("/acl", json!(["x"]), "acl[0]", Error),
        ("/users", json!([{"name": "root"}, {"name": "a", "x": 1}]), "users[1]", Error),
        ("/users", json!([{}]), "users[0]", Error),
        ("/billing_tags", json!([long(129)]), "billing_tags[0]", Error),
        ("/traits", json!({"a": 1}), "traits.a", Error),
        ("/traits", json!([]), "traits", Error),
        ("/tags", json!([]), "tags", Error),
        ("/tags", json!({"a": long(102_400)}), "tags", Error),
        ("/generate_passwords", json!("yes"), "generate_passwords", Error),
        ("/inherited_directories", json!(["/x"]), "inherited_directories", Error),
        ("/nic_driver", json!(""), "nic_driver", Error),
        ("/disk_driver", json!(1), "disk_driver", Error),
        ("/cpu_type", Value::Bool(true), "cpu_type", Error),
        ("/image_size", json!(0), "image_size", Error),
        ("/image_size", json!(-10), "image_size", Error),
        ("/image_size", json!("10240"), "image_size", Error),
        ("/image_size", json!(10.5), "image_size", Error),
        ("/type", json!("other"), "nic_driver", Error),
    ];
    for name in REQUIRED.iter().chain(ZVOL_ONLY).chain(&["published_at", "files"]) {
        let pointer: &'static str = Box::leak(format!("/{name}").into_boxed_str());
        rows.push((pointer, Value::Null, *name, Error));
    }
    rows
}

fn broken_requirements() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("/colour", json!("red"), "requirements.colour"),
        ("/networks", json!({}), "requirements.networks"),
        ("/networks", json!([{"name": "net0"}]), "requirements.networks[0]"),
        (
            "/networks",
            json!([{"name": "net0", "description": "p", "x": 1}]),
            "requirements.networks[0]",
        ),
        ("/brand", json!(1), "requirements.brand"),
        ("/bootrom", json!("uefi"), "requirements.bootrom"),
        ("/bootrom", json!("coreboot"), "requirements.bootrom"),
        ("/ssh_key", json!("true"), "requirements.ssh_key"),
        ("/min_ram", json!("512"), "requirements.min_ram"),
        ("/max_ram", json!(1.5), "requirements.max_ram"),
        ("/min_platform", json!({}), "requirements.min_platform"),
        ("/min_platform", json!("20180830T001556Z"), "requirements.min_platform"),
        ("/min_platform", json!({"7.0": "20110830T001556Z"}), "requirements.min_platform.7.0"),
        ("/max_platform", json!({"7.0": "20180830"}), "requirements.max_platform.7.0"),
    ]
}

#[test]
fn every_broken_rule_is_found_at_its_field() {
    for (pointer, value, field, severity) in broken() {
        let findings = check(&with(pointer, value.clone()));
        let found = findings.iter().any(|f| f.field == field && f.severity == severity);
        let shown: String = value.to_string().chars().take(60).collect();
        assert!(found, "{pointer} = {shown}: {findings:?}");
    }
    for (pointer, value, field) in broken_requirements() {
        let findings = check(&with(&format!("/requirements{pointer}"), value.clone()));
        let found = findings.iter().any(|f| f.field == field);
        assert!(found, "{pointer} = {value}: {findings:?}");
    }
}

#[test]
fn what_is_allowed_is_not_found() {
    let guid = json!([{"sha1": "0".repeat(40), "size": 1, "compression": "xz",
        "dataset_guid": "17721452453842105061"}]);
    for (pointer, value) in [
        ("/published_at", json!("2031-02-03T10:00:00.123Z")),
        ("/description", Value::Null),
        ("/files", guid),
        ("/tags", json!({"org.smartos:cloudinit_datasource": "nocloud", "n": 1})),
        ("/traits", json!({"ssd": true, "x": ["a"]})),
        ("/acl", json!(["00000000-0000-0000-0000-000000000000"])),
        ("/generate_passwords", json!(false)),
        ("/eula", json!("http://example.org/eula?x=1")),
        ("/requirements/brand", json!("bhyve")),
        ("/requirements/min_ram", json!(256)),
        ("/requirements/min_platform", json!({"7.0": "20180830T001556Z"})),
        ("/requirements", Value::Null),
    ] {
        assert_eq!(check(&with(pointer, value.clone())), [], "{pointer} = {value}");
    }
    let mut unactivated = with("/state", json!("unactivated"));
    for name in ["files", "published_at"] {
        unactivated.as_object_mut().unwrap().remove(name);
    }
    assert_eq!(check(&unactivated), []);
}

#[test]
fn rules_that_need_two_fields() {
    let mut manifest = with("/requirements/brand", json!("bhyve"));
    manifest["requirements"]["bootrom"] = json!("uefi");
    assert_eq!(check(&manifest), []);
    manifest["requirements"]["min_ram"] = json!(1024);
    manifest["requirements"]["max_ram"] = json!(512);
    assert_eq!(check(&manifest)[0].field, "requirements.min_ram");
    let one = good()["files"][0].clone();
    let two = with("/files", json!([one, one]));
    assert_eq!(check(&two)[0].field, "files");
    let mut lxd = two;
    lxd["type"] = json!("lxd");
    assert!(check(&lxd).iter().all(|f| f.field != "files"));
    assert_eq!(check(&json!([]))[0].message, "a manifest is a JSON object");
}
