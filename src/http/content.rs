// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What a server serves: pages in memory and directories of the host.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Error, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::path::{join, segments};
use crate::ui::{Failure, Outcome};

/// A rendered answer file. It holds a password hash, so it has no `Debug`.
pub(super) struct Page {
    pub(super) content_type: String,
    pub(super) body: Bytes,
}

/// Everything one server serves.
#[derive(Default)]
pub struct Content {
    pages: BTreeMap<String, Page>,
    /// Name in the URL → real path of the directory.
    directories: BTreeMap<String, PathBuf>,
}

/// What a path stands for.
pub(super) enum Found<'a> {
    Page(&'a Page),
    /// A name below a served directory.
    Below(PathBuf, Vec<String>),
    Nothing,
}

impl Content {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a page under `path` (`/preseed.cfg`, not encoded), sent with `content_type`.
    ///
    /// # Errors
    ///
    /// The path does not start with `/`, names nothing, holds `..` or control characters, or is
    /// taken; the content type is not one.
    pub fn page(mut self, path: &str, content_type: &str, body: impl Into<Bytes>) -> Outcome<Self> {
        // Escaped, so that the name is taken as it is written.
        let names = segments(&path.replace('%', "%25")).filter(|names| !names.is_empty());
        let Some(names) = names else {
            return Err(Failure::input("this is no path for an answer file")
                .fact("path", path.escape_debug())
                .hint("use an absolute path without `..`, such as /preseed.cfg"));
        };
        if hyper::header::HeaderValue::from_str(content_type).is_err() {
            return Err(
                Failure::input("this is no content type").fact("type", content_type.escape_debug())
            );
        }
        let path = join(&names);
        let page = Page { content_type: content_type.to_owned(), body: body.into() };
        if self.pages.insert(path.clone(), page).is_some() {
            return Err(Failure::input("two answer files have the same path").fact("path", path));
        }
        Ok(self)
    }

    /// Adds the directory at `directory` with all below it, under `/NAME/`, where NAME is its own
    /// name.
    ///
    /// # Errors
    ///
    /// It is no readable directory, has no name (`/`), or its name is taken.
    pub fn directory(mut self, directory: &Path) -> Outcome<Self> {
        let refused =
            |what: &str| Failure::input(what.to_owned()).fact("path", directory.display());
        let named = std::path::absolute(directory).unwrap_or_else(|_| directory.to_path_buf());
        let real = fs::canonicalize(directory).map_err(|error| {
            refused("cannot serve the directory")
                .because(error)
                .hint("check the target's `http.directories`")
        })?;
        if !real.is_dir() {
            return Err(refused("only a directory can be served as one"));
        }
        let name = named
            .file_name()
            .or(real.file_name())
            .and_then(|name| name.to_str())
            .map(str::to_owned);
        let Some(name) = name else {
            return Err(refused("the directory has no name that could stand in a URL"));
        };
        if self.directories.insert(name.clone(), real).is_some() {
            return Err(refused(&format!("two served directories are called {name}"))
                .hint("rename one of them"));
        }
        Ok(self)
    }

    /// Paths of all pages.
    pub(super) fn paths(&self) -> impl Iterator<Item = &String> {
        self.pages.keys()
    }

    /// What stands under these segments of a URL.
    pub(super) fn find(&self, names: &[String]) -> Found<'_> {
        if let Some(page) = self.pages.get(&join(names)) {
            return Found::Page(page);
        }
        match names.split_first() {
            Some((first, rest)) if !rest.is_empty() => match self.directories.get(first) {
                Some(root) => Found::Below(root.clone(), rest.to_vec()),
                None => Found::Nothing,
            },
            _ => Found::Nothing,
        }
    }

    /// The page whose path is most like `path`, if one is.
    pub(super) fn nearest(&self, path: &str) -> Option<&str> {
        self.paths()
            .map(|known| (strsim::jaro_winkler(known, path), known))
            .filter(|(likeness, _)| *likeness > 0.8)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, known)| known.as_str())
    }
}

/// Opens the regular file `names` below `root` (a real path) and tells its length. Symbolic links
/// that stay below the root are followed; every other way out is refused, also one that appears
/// between the check and the opening: the checked path is walked from the root, one directory at
/// a time, without following links. Blocks on the disk.
pub(super) fn open_below(root: &Path, names: &[String]) -> std::io::Result<(File, u64)> {
    let wanted = names.iter().fold(root.to_path_buf(), |path, name| path.join(name));
    let real = fs::canonicalize(wanted)?;
    let below = real
        .strip_prefix(root)
        .map_err(|_| Error::new(ErrorKind::PermissionDenied, "outside of the served directory"))?;
    // NONBLOCK: opening a named pipe must not wait for its writer.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let start = OpenOptions::new().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(root)?;
    let mut at = OwnedFd::from(start);
    for component in below.components() {
        let Component::Normal(name) = component else {
            return Err(Error::new(ErrorKind::InvalidInput, "not a plain name"));
        };
        at = openat(at.as_fd(), name, flags, Mode::empty())?;
    }
    let file = File::from(at);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Error::new(ErrorKind::NotFound, "not a regular file"));
    }
    Ok((file, metadata.len()))
}

/// The content type of a file, by its name's ending.
pub(super) fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "cfg" | "ks" | "txt" | "sh" | "conf" | "seed" | "toml" | "pub" | "list" => {
            "text/plain; charset=utf-8"
        }
        "yaml" | "yml" => "application/yaml",
        "json" => "application/json",
        "xml" => "application/xml",
        _ => "application/octet-stream",
    }
}
