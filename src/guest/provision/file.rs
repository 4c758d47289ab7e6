// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Files and trees into the guest.

use super::{Context, StepReport};
use crate::guest::command::{Command, quote};
use crate::guest::upload::{upload_bytes, upload_tree};
use crate::target::FileUpload;
use crate::ui::{Failure, Outcome};

/// What to upload.
enum Load {
    File(Vec<u8>),
    Tree(Vec<crate::target::AssetFile>),
}

/// Uploads as rsync would: a source with a trailing slash is the content of a directory; a
/// destination with one is a directory to put the source into.
pub(super) async fn run(upload: &FileUpload, context: &Context<'_>) -> Outcome<StepReport> {
    let destination = (context.expand)(&upload.destination)?;
    let into = destination.ends_with('/');
    let load = load(upload, context)?;
    let name = upload.source.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let summary = match load {
        Load::File(bytes) => {
            let mut to = destination.clone();
            if into {
                if name.is_empty() {
                    return Err(Failure::input("`content` needs a file name as its destination")
                        .fact("value", &destination)
                        .hint("end `destination` with the name of the file, not with `/`"));
                }
                make_directory(context, &destination).await?;
                to.push_str(name);
            }
            upload_bytes(context.session, &bytes, &to, upload.mode).await?;
            format!("{} bytes to {to}", bytes.len())
        }
        Load::Tree(files) => {
            let mut to = destination.clone();
            if into && !upload.source.ends_with('/') {
                to.push_str(name);
            }
            upload_tree(context.session, &files, &to).await?;
            format!("{} files to {to}", files.len())
        }
    };
    Ok(StepReport { summary, ..StepReport::default() })
}

fn load(upload: &FileUpload, context: &Context<'_>) -> Outcome<Load> {
    if let Some(content) = &upload.content {
        return Ok(Load::File((context.expand)(content)?.into_bytes()));
    }
    let source = upload.source.trim_end_matches('/');
    if upload.source.ends_with('/') {
        return context.assets.tree(source).map(Load::Tree);
    }
    match context.assets.read(source) {
        Ok(bytes) => Ok(Load::File(bytes)),
        // Not a file: a directory, or the failure to read it stands.
        Err(failure) => context.assets.tree(source).map(Load::Tree).map_err(|_| failure),
    }
}

async fn make_directory(context: &Context<'_>, path: &str) -> Outcome<()> {
    if !path.starts_with('/') {
        return Err(Failure::input(format!("`{path}` is no absolute path in the guest")));
    }
    let command = Command::new(format!("mkdir -p {}", quote(path)));
    let made = context.session.capture(&command, 4096).await?;
    made.or_fail(&format!("make the directory {path}"))?;
    Ok(())
}
