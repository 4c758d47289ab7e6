// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The IMGAPI v2 manifest of an image: made here, held against [`super::rules`] before it is
//! written.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::partial::{Partial, cannot_write};
use super::rules::{self, Finding, Severity};
use crate::target::ManifestFields;
use crate::ui::{Failure, Outcome};

/// The owner "nobody": the server puts its own administrator there.
const NOBODY: &str = "00000000-0000-0000-0000-000000000000";
/// Images tell their size in MiB.
const MIB: u64 = 1 << 20;

/// An IMGAPI v2 manifest of a zvol image. Serializes to the JSON that IMGAPI and `imgadm` take;
/// it has no place for the fields that only servers write.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Manifest {
    /// Manifest version, 2.
    pub v: u8,
    /// Image id, lower-case UUID.
    pub uuid: String,
    /// Owner, all zeros for nobody.
    pub owner: String,
    /// Image name.
    pub name: String,
    /// Image version, `YYYYMMDD` by default.
    pub version: String,
    /// `active`.
    pub state: String,
    /// False.
    pub disabled: bool,
    /// True.
    pub public: bool,
    /// UTC time, `YYYY-MM-DDTHH:MM:SSZ`.
    pub published_at: String,
    /// `zvol`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `linux` and the like.
    pub os: String,
    /// The one image file.
    pub files: Vec<ImageFile>,
    /// One line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// URL.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub homepage: String,
    /// What a machine must offer.
    pub requirements: Requirements,
    /// Accounts that users log in with.
    pub users: Vec<User>,
    /// Network driver of the guest.
    pub nic_driver: String,
    /// Disk driver of the guest.
    pub disk_driver: String,
    /// Processor model.
    pub cpu_type: String,
    /// Size of the volume in MiB.
    pub image_size: u64,
    /// Free-form tags.
    pub tags: BTreeMap<String, String>,
}

/// The image file as uploaded, that is, compressed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageFile {
    /// SHA-1 in lower-case hex.
    pub sha1: String,
    /// Bytes.
    pub size: u64,
    /// `gzip`, `bzip2`, `xz` or `none`.
    pub compression: String,
    /// Id of the snapshot in the stream, when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset_guid: Option<String>,
}

/// What a machine made from the image must offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Requirements {
    /// Networks.
    pub networks: Vec<Network>,
    /// A key is needed to log in.
    pub ssh_key: bool,
    /// Zone brand; `bhyve` bars KVM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub brand: Option<String>,
    /// `bios` or `uefi`; only together with brand `bhyve`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootrom: Option<String>,
}

/// A network that a machine needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Network {
    /// Interface name.
    pub name: String,
    /// What it is for.
    pub description: String,
}

/// An account of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct User {
    /// Login name.
    pub name: String,
}

/// What a manifest is made from.
#[derive(Debug, Clone)]
pub struct ManifestInput<'a> {
    /// The image's id.
    pub uuid: uuid::Uuid,
    /// The target's name.
    pub name: &'a str,
    /// One line.
    pub description: &'a str,
    /// The fields that the target decides.
    pub fields: &'a ManifestFields,
    /// Size of the disk in bytes.
    pub disk_bytes: u64,
    /// The image file.
    pub file: ImageFile,
    /// When the image was made.
    pub made: jiff::Timestamp,
}

/// The image's version: what the target says, or the day it was made (UTC).
pub fn image_version(fields: &ManifestFields, made: jiff::Timestamp) -> String {
    match fields.version.as_str() {
        "" => made.strftime("%Y%m%d").to_string(),
        version => version.to_owned(),
    }
}

impl Manifest {
    /// Makes the manifest of a new image.
    ///
    /// # Errors
    /// When the disk is not a whole number of MiB, or a rule of IMGAPI is broken (each broken
    /// rule is a fact of the failure).
    pub fn new(input: &ManifestInput<'_>) -> Outcome<Self> {
        if input.disk_bytes == 0 || !input.disk_bytes.is_multiple_of(MIB) {
            return Err(Failure::input(format!(
                "an image of {} bytes cannot be described: the size must be whole MiB",
                input.disk_bytes
            ))
            .hint("give the disk in the target a size in MiB or GiB"));
        }
        let fields = input.fields;
        let or = |value: &str, default: &str| {
            if value.is_empty() { default.to_owned() } else { value.to_owned() }
        };
        let os = or(&fields.os, "linux");
        let mut tags = fields.tags.clone();
        tags.entry("role".into()).or_insert_with(|| "os".into());
        let manifest = Self {
            v: 2,
            uuid: input.uuid.hyphenated().to_string(),
            owner: NOBODY.into(),
            name: input.name.into(),
            version: image_version(fields, input.made),
            state: "active".into(),
            disabled: false,
            public: true,
            published_at: input.made.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            kind: "zvol".into(),
            os,
            files: vec![input.file.clone()],
            description: input.description.into(),
            homepage: fields.homepage.clone(),
            requirements: Requirements {
                networks: vec![Network { name: "net0".into(), description: "public".into() }],
                ssh_key: true,
                brand: fields.brand.clone(),
                bootrom: fields.bootrom.clone(),
            },
            users: vec![User { name: "root".into() }],
            nic_driver: "virtio".into(),
            disk_driver: "virtio".into(),
            cpu_type: "host".into(),
            image_size: input.disk_bytes / MIB,
            tags,
        };
        manifest.refuse_if_broken()?;
        Ok(manifest)
    }

    /// Writes the manifest to `to`, which has that name only when it is whole and durable.
    ///
    /// # Errors
    /// When a rule is broken, `to` exists, or it cannot be written.
    pub fn write(&self, to: &Path) -> Outcome<()> {
        self.refuse_if_broken()?;
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|error| Failure::build("cannot write the manifest").because(error))?;
        text.push(b'\n');
        let mut partial = Partial::create(to)?;
        partial.file().write_all(&text).map_err(|error| cannot_write(to, error, 0))?;
        partial.publish(text.len() as u64)
    }

    fn refuse_if_broken(&self) -> Outcome<()> {
        let broken: Vec<_> =
            validate(self).into_iter().filter(|f| f.severity == Severity::Error).collect();
        if broken.is_empty() {
            return Ok(());
        }
        let failure =
            Failure::input(format!("the manifest of {} breaks rules of IMGAPI", self.name))
                .hint("correct `output.manifest` (or the name or description) in the target");
        Err(broken.into_iter().fold(failure, |f, finding| f.fact(finding.field, finding.message)))
    }
}

/// Holds a manifest against every rule of IMGAPI that concerns it.
pub fn validate(manifest: &Manifest) -> Vec<Finding> {
    match serde_json::to_value(manifest) {
        Ok(value) => rules::check(&value),
        Err(error) => vec![Finding::error("", error.to_string())],
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn input(fields: &ManifestFields) -> ManifestInput<'_> {
        ManifestInput {
            uuid: uuid::Uuid::new_v4(),
            name: "debian-13",
            description: "Debian 13 (trixie) for virtual machines",
            fields,
            disk_bytes: 10 << 30,
            file: ImageFile {
                sha1: "da39a3ee5e6b4b0d3255bfef95601890afd80709".into(),
                size: 123,
                compression: "gzip".into(),
                dataset_guid: None,
            },
            made: "2031-02-03T23:59:58.75Z".parse().unwrap(),
        }
    }

    #[test]
    fn has_every_field_of_a_published_image_and_no_other() {
        let manifest = Manifest::new(&input(&ManifestFields::default())).unwrap();
        let mut value = serde_json::to_value(&manifest).unwrap();
        let id = value["uuid"].take();
        let id = uuid::Uuid::try_parse(id.as_str().unwrap()).unwrap();
        assert_eq!(id.get_version_num(), 4);
        assert_eq!(id.to_string(), manifest.uuid, "not lower case");
        assert_eq!(
            value,
            serde_json::json!({
                "v": 2,
                "uuid": null,
                "owner": NOBODY,
                "name": "debian-13",
                "version": "20310203",
                "state": "active",
                "disabled": false,
                "public": true,
                "published_at": "2031-02-03T23:59:58Z",
                "type": "zvol",
                "os": "linux",
                "files": [{
                    "sha1": "da39a3ee5e6b4b0d3255bfef95601890afd80709",
                    "size": 123,
                    "compression": "gzip",
                }],
                "description": "Debian 13 (trixie) for virtual machines",
                "requirements": {
                    "networks": [{"name": "net0", "description": "public"}],
                    "ssh_key": true,
                },
                "users": [{"name": "root"}],
                "nic_driver": "virtio",
                "disk_driver": "virtio",
                "cpu_type": "host",
                "image_size": 10240,
                "tags": {"role": "os"},
            })
        );
        assert_eq!(validate(&manifest), []);
    }

    #[test]
    fn refuses_what_imgapi_would_refuse() {
        let mut fields = ManifestFields { bootrom: Some("uefi".into()), ..Default::default() };
        let failure = Manifest::new(&input(&fields)).unwrap_err();
        assert!(failure.to_string().contains("requirements.bootrom"), "{failure}");
        fields.brand = Some("bhyve".into());
        Manifest::new(&input(&fields)).unwrap();
        let odd = ManifestInput { disk_bytes: (10 << 30) + 512, ..input(&fields) };
        assert!(Manifest::new(&odd).unwrap_err().summary().contains("whole MiB"));
        fields.homepage = "ftp://example.org".into();
        assert!(Manifest::new(&input(&fields)).is_err());
    }

    #[test]
    fn writes_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("manifest.json");
        let mut manifest = Manifest::new(&input(&ManifestFields::default())).unwrap();
        manifest.write(&to).unwrap();
        let text = std::fs::read_to_string(&to).unwrap();
        assert!(text.ends_with("}\n"));
        assert!(manifest.write(&to).is_err(), "overwrote an existing file");
        manifest.image_size = 0;
        let other = dir.path().join("other.json");
        assert!(manifest.write(&other).is_err());
        assert!(!other.exists());
    }
}
