// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A manifest file held against the rules, and an image file held against its manifest.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use sha1::{Digest, Sha1};

use super::rules::{self, Finding};
use crate::ui::{Failure, Outcome};

/// Manifests are small; tags alone may reach 100 KiB.
const LARGEST: u64 = 4 << 20;

/// What an image file really is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileFacts {
    /// Bytes.
    pub size: u64,
    /// SHA-1 in lower-case hex.
    pub sha1: String,
    /// Compression, as the first bytes tell.
    pub compression: &'static str,
}

/// Checks the manifest in `manifest`, and with `image` also that size, digest and compression of
/// the image file are what the manifest says. Returns every broken rule.
///
/// # Errors
/// When a file cannot be read or the manifest is not JSON.
pub fn check_manifest(manifest: &Path, image: Option<&Path>) -> Outcome<Vec<Finding>> {
    let value = read_json(manifest)?;
    let mut findings = rules::check(&value);
    if let Some(image) = image {
        let facts = facts(image)?;
        let claimed = &value["files"][0];
        let mut compare = |name: &str, claimed: Value, real: Value| {
            if claimed != real {
                let field = format!("files[0].{name}");
                let message = format!("says {claimed}, but {} has {real}", image.display());
                findings.push(Finding::error(field, message));
            }
        };
        compare("size", claimed["size"].clone(), facts.size.into());
        compare("sha1", claimed["sha1"].clone(), facts.sha1.into());
        compare("compression", claimed["compression"].clone(), facts.compression.into());
    }
    Ok(findings)
}

fn read_json(path: &Path) -> Outcome<Value> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut text))
        .map_err(|error| cannot_read(path, error))?;
    if text.len() as u64 > LARGEST {
        return Err(Failure::input(format!("{} is too large for a manifest", path.display()))
            .fact("file", path.display()));
    }
    serde_json::from_slice(&text).map_err(|error| {
        Failure::input(format!("{} is not JSON", path.display()))
            .fact("file", path.display())
            .fact("line", error.line())
            .fact("column", error.column())
            .because(error)
    })
}

fn facts(path: &Path) -> Outcome<FileFacts> {
    let failed = |error: io::Error| cannot_read(path, error);
    let mut file = File::open(path).map_err(failed)?;
    let mut sha1 = Sha1::new();
    let mut buffer = vec![0; 1 << 20];
    let mut start = Vec::new();
    let mut size = 0;
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        let part = &buffer[..count];
        if start.len() < 6 {
            start.extend_from_slice(&part[..count.min(6)]);
        }
        sha1.update(part);
        size += count as u64;
    }
    let compression = match start.as_slice() {
        [0x1f, 0x8b, ..] => "gzip",
        [b'B', b'Z', b'h', ..] => "bzip2",
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => "xz",
        _ => "none",
    };
    Ok(FileFacts { size, sha1: hex::encode(sha1.finalize()), compression })
}

fn cannot_read(path: &Path, error: io::Error) -> Failure {
    Failure::input(format!("cannot read {}", path.display()))
        .because(error)
        .fact("file", path.display())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::export::manifest::tests::input;
    use crate::export::{ImageFile, Manifest, ManifestInput, Options, RawDisk, compress};
    use crate::target::ManifestFields;
    use crate::ui::Events;

    #[test]
    fn a_manifest_of_a_real_file_passes_and_a_changed_file_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("d.raw"), vec![7u8; 2 << 20]).unwrap();
        let mut disk = RawDisk::open(&path("d.raw")).unwrap();
        let image = path("d.raw.gz");
        let done = compress(
            &mut disk,
            &image,
            Options::default(),
            &Events::silent(),
            &tokio_util::sync::CancellationToken::new(),
        )
        .unwrap();
        let fields = ManifestFields::default();
        let file = ImageFile {
            sha1: done.sha1,
            size: done.bytes,
            compression: "gzip".into(),
            dataset_guid: None,
        };
        let input = ManifestInput { file, disk_bytes: done.source_bytes, ..input(&fields) };
        Manifest::new(&input).unwrap().write(&path("m.json")).unwrap();
        assert_eq!(check_manifest(&path("m.json"), Some(&image)).unwrap(), []);
        std::fs::write(&image, b"BZh9").unwrap();
        let found = check_manifest(&path("m.json"), Some(&image)).unwrap();
        let fields: Vec<_> = found.iter().map(|f| f.field.as_str()).collect();
        assert_eq!(fields, ["files[0].size", "files[0].sha1", "files[0].compression"]);
    }

    #[test]
    fn says_where_json_breaks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.json");
        std::fs::write(&path, "{\n  \"v\": 2,\n  oops\n}").unwrap();
        let text = check_manifest(&path, None).unwrap_err().to_string();
        assert!(text.contains("line     3"), "{text}");
        assert!(check_manifest(&dir.path().join("none"), None).is_err());
    }
}
