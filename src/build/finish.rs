// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The export stage: the disk becomes the files that the target asks for.

use std::path::{Path, PathBuf};

use super::context::Context;
use super::ledger::Account;
use crate::export::{Compressed, ImageFile, Manifest, ManifestInput, Options, compress_disk};
use crate::target::Format;
use crate::ui::{Event, Outcome};

/// Writes every format and the manifest into the scratch directory; returns their paths there.
pub(crate) async fn run(context: &Context) -> Outcome<(Vec<PathBuf>, String)> {
    context.ledger.switch(Account::Compress);
    let disk = context.disk();
    let mut files = Vec::new();
    let mut note = String::new();
    for format in &context.target.output.formats {
        match format {
            Format::RawGz => {
                let path = context.scratch.join(format!("{}.raw.gz", context.target.name));
                let options = Options {
                    level: context.target.output.compression_level,
                    ..Options::default()
                };
                let done =
                    compress_disk(&disk, &path, options, &context.events, &context.token).await?;
                let written = context.scratch.join("manifest.json");
                manifest(context, &done)?.write(&written)?;
                note = format!("{} MB  sha256:{:.12}…", done.bytes / 1_000_000, done.sha256);
                artefact(context, &path, done.bytes, Some(done.sha256));
                files.extend([path, written]);
            }
            Format::Raw => {
                let bytes = std::fs::metadata(&disk).map_or(0, |meta| meta.len());
                artefact(context, &disk, bytes, None);
                files.push(disk.clone());
            }
        }
    }
    if !context.target.output.formats.contains(&Format::Raw) {
        super::disk::remove(&disk)?;
    }
    context.ledger.switch(Account::Own);
    Ok((files, note))
}

fn manifest(context: &Context, done: &Compressed) -> Outcome<Manifest> {
    let input = ManifestInput {
        name: &context.target.name,
        description: &context.target.description,
        fields: &context.target.output.manifest,
        disk_bytes: done.source_bytes,
        file: ImageFile {
            sha1: done.sha1.clone(),
            size: done.bytes,
            compression: "gzip".to_owned(),
            dataset_guid: None,
        },
        made: jiff::Timestamp::now(),
    };
    Manifest::new(&input)
}

fn artefact(context: &Context, path: &Path, bytes: u64, sha256: Option<String>) {
    context.events.emit(Event::Artefact { path: path.display().to_string(), bytes, sha256 });
}
