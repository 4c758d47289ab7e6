// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The export stage: the disk becomes the files that the target asks for.

use std::path::{Path, PathBuf};

use super::context::Context;
use super::ledger::Account;
use crate::export::{
    CompressedVolume, ImageFile, Manifest, ManifestInput, Options, Qcow2Options, StreamOptions,
    compress_disk, compress_volume, image_version, move_disk, write_qcow2_disk,
};
use crate::target::Format;
use crate::ui::{Event, Outcome};

/// Writes every format, and the manifest of the stream, into the scratch directory; returns their
/// paths there.
pub(crate) async fn run(context: &Context) -> Outcome<(Vec<PathBuf>, String)> {
    context.ledger.switch(Account::Compress);
    let image = Image::new(context);
    let mut files = Vec::new();
    let mut note = String::new();
    let formats = &context.target.output.formats;
    // The raw disk is the source of all others, so it gets its name last.
    for format in formats.iter().filter(|format| **format != Format::Raw) {
        let written = image.write(*format).await?;
        if note.is_empty() {
            note.clone_from(&written.note);
        }
        files.extend(written.files);
    }
    let disk = context.disk();
    if formats.contains(&Format::Raw) {
        files.push(image.name_raw(&disk).await?);
    } else {
        super::disk::remove(&disk)?;
    }
    context.ledger.switch(Account::Own);
    Ok((files, note))
}

/// One image in the making.
struct Image<'a> {
    context: &'a Context,
    made: jiff::Timestamp,
    uuid: uuid::Uuid,
    options: Options,
}

struct Written {
    files: Vec<PathBuf>,
    note: String,
}

impl<'a> Image<'a> {
    fn new(context: &'a Context) -> Self {
        let level = context.target.output.compression_level;
        Self {
            context,
            made: jiff::Timestamp::now(),
            uuid: uuid::Uuid::new_v4(),
            options: Options { level, ..Options::default() },
        }
    }

    /// `NAME-VERSION`, as image servers' files are called.
    fn stem(&self) -> String {
        let target = &self.context.target;
        format!("{}-{}", target.name, image_version(&target.output.manifest, self.made))
    }

    fn path(&self, format: Format) -> PathBuf {
        self.context.scratch.join(format!("{}.x86_64.{}", self.stem(), format.extension()))
    }

    async fn write(&self, format: Format) -> Outcome<Written> {
        let Context { events, token, .. } = self.context;
        let (disk, path) = (self.context.disk(), self.path(format));
        match format {
            Format::ZfsGz => self.volume(&disk, &path).await,
            Format::RawGz => {
                let done = compress_disk(&disk, &path, self.options, events, token).await?;
                Ok(self.written(path, done.bytes, done.sha256))
            }
            Format::Qcow2 => {
                let options = Qcow2Options {
                    compressed: true,
                    level: self.options.level,
                    threads: self.options.threads,
                };
                let bytes = write_qcow2_disk(&disk, &path, options, events, token).await?;
                let note = format!("{} MB", bytes / 1_000_000);
                self.say(&path, bytes, None);
                Ok(Written { files: vec![path], note })
            }
            Format::Raw => Ok(Written { files: Vec::new(), note: String::new() }),
        }
    }

    async fn volume(&self, disk: &Path, path: &Path) -> Outcome<Written> {
        let Context { target, events, token, .. } = self.context;
        let stream = StreamOptions {
            name: Some(format!("zones/{}@final", self.uuid)),
            volblocksize: target.output.volblocksize,
            guid: None,
            epoch: Some(self.made.as_second()),
        };
        let done = compress_volume(disk, path, stream, self.options, events, token).await?;
        let to = self.context.scratch.join(format!("{}.json", self.stem()));
        self.manifest(&done)?.write(&to)?;
        let mut written = self.written(path.to_owned(), done.file.bytes, done.file.sha256);
        written.files.push(to);
        Ok(written)
    }

    fn manifest(&self, done: &CompressedVolume) -> Outcome<Manifest> {
        let target = &self.context.target;
        Manifest::new(&ManifestInput {
            uuid: self.uuid,
            name: &target.name,
            description: &target.description,
            fields: &target.output.manifest,
            disk_bytes: done.volume_size,
            file: ImageFile {
                sha1: done.file.sha1.clone(),
                size: done.file.bytes,
                compression: "gzip".to_owned(),
                dataset_guid: Some(done.guid.to_string()),
            },
            made: self.made,
        })
    }

    fn written(&self, path: PathBuf, bytes: u64, sha256: String) -> Written {
        let note = format!("{} MB  sha256:{sha256:.12}…", bytes / 1_000_000);
        self.say(&path, bytes, Some(sha256));
        Written { files: vec![path], note }
    }

    async fn name_raw(&self, disk: &Path) -> Outcome<PathBuf> {
        let Context { events, token, .. } = self.context;
        let path = self.path(Format::Raw);
        let bytes = move_disk(disk, &path, events, token).await?;
        self.say(&path, bytes, None);
        Ok(path)
    }

    fn say(&self, path: &Path, bytes: u64, sha256: Option<String>) {
        let path = path.display().to_string();
        self.context.events.emit(Event::Artefact { path, bytes, sha256 });
    }
}
