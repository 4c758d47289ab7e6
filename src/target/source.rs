// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Documents and where they come from: `./targets/`, the binary, a file; and what they extend.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use super::assets::embedded_file;
use super::finding::{Finding, Position, failure};
use super::schema::quantity::read_name;
use super::schema::tree::{self, Entry, Node, Value};
use crate::ui::{Failure, Outcome};

/// Origin of the targets inside the binary.
pub(super) const EMBEDDED: &str = "embedded";
/// Longest chain of `extends`.
const MAX_CHAIN: usize = 8;

/// Where a document comes from.
pub(super) struct Source {
    pub(super) stem: String,
    pub(super) file: Arc<str>,
    pub(super) origin: String,
    bytes: Vec<u8>,
}

/// A mistake in a document, or a failure to get at it.
pub(super) enum Trouble {
    Found(Finding),
    Failed(Failure),
}

impl Trouble {
    /// In one line.
    pub(super) fn summary(&self) -> &str {
        match self {
            Self::Found(finding) => &finding.message,
            Self::Failed(failure) => failure.summary(),
        }
    }
}

/// Looks a document up by name; `None` when there is none.
pub(super) fn find(name: &str, working_dir: &Path) -> Outcome<Option<Source>> {
    let plain = name.strip_prefix('_').unwrap_or(name);
    if read_name(plain).is_err() {
        return Ok(None);
    }
    let relative = format!("targets/{name}.yaml");
    let path = working_dir.join(&relative);
    if path.is_file() {
        return read_source(&path).map(Some);
    }
    Ok(embedded_file(&relative).map(|bytes| Source {
        stem: name.to_owned(),
        file: format!("embedded:{relative}").into(),
        origin: EMBEDDED.to_owned(),
        bytes: bytes.to_vec(),
    }))
}

/// Reads a document from a file of the host.
pub(super) fn read_source(path: &Path) -> Outcome<Source> {
    let shown = path.strip_prefix("./").unwrap_or(path).display().to_string();
    let cannot = |e: io::Error| {
        Failure::input("cannot read the target").because(e).fact("file", path.display())
    };
    let file = fs::File::open(path).map_err(cannot)?;
    let mut bytes = Vec::new();
    // One byte more than allowed, so that the reader sees that it is too much.
    file.take(tree::MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Source { stem, file: shown.as_str().into(), origin: shown, bytes })
}

/// Reads the tree of one document, without what it extends.
pub(super) fn parse(source: &Source) -> Outcome<Node> {
    match read_tree(source) {
        Ok(root) => Ok(root),
        Err(finding) => Err(failure(&[finding]).unwrap_or_else(|| Failure::input("unreadable"))),
    }
}

fn read_tree(source: &Source) -> Result<Node, Finding> {
    let whole = Position::whole(&source.file);
    let root = tree::parse(&source.file, &source.bytes)?;
    match root {
        None => Err(Finding::error(
            whole,
            "",
            "the file is empty; `imgforge schema` describes a target, `imgforge inspect debian-13` \
             shows one",
        )),
        Some(root) if matches!(root.value, Value::Mapping(_)) => Ok(root),
        Some(root) => {
            let message = format!("a target is a mapping, this is {}", root.kind());
            Err(Finding::error(root.position, "", message))
        }
    }
}

/// Reads a document and what it extends.
pub(super) fn tree_of(source: &Source, working_dir: &Path) -> Result<Node, Trouble> {
    let mut chain = vec![source.stem.clone()];
    let mut root = read_tree(source).map_err(Trouble::Found)?;
    loop {
        let Some(base) = root.get("extends") else { return Ok(root) };
        let position = base.position.clone();
        let wrong =
            |message: String| Trouble::Found(Finding::error(position.clone(), "extends", message));
        let Some(name) = base.text().map(str::to_owned) else {
            return Err(wrong("expected the name of a target".to_owned()));
        };
        if chain.contains(&name) || chain.len() >= MAX_CHAIN {
            return Err(wrong(format!("the chain {} → {name} does not end", chain.join(" → "))));
        }
        let found = find(&name, working_dir).map_err(Trouble::Failed)?;
        let Some(base) = found else {
            return Err(wrong(format!("there is no target `{name}`")));
        };
        let base = read_tree(&base).map_err(Trouble::Found)?;
        root = extend(root, base);
        chain.push(name);
    }
}

/// Puts `own` over `base`. Name, and the base's place in the chain, are not inherited.
fn extend(own: Node, base: Node) -> Node {
    let (Value::Mapping(mut mine), Value::Mapping(theirs)) = (own.value, base.value) else {
        return Node { position: own.position, value: Value::Mapping(Vec::new()) };
    };
    mine.retain(|e| e.key != "extends");
    for entry in theirs {
        if entry.key != "name" {
            merge(&mut mine, entry);
        }
    }
    Node { position: own.position, value: Value::Mapping(mine) }
}

fn merge(mine: &mut Vec<Entry>, theirs: Entry) {
    let Some(own) = mine.iter_mut().find(|e| e.key == theirs.key) else {
        mine.push(theirs);
        return;
    };
    if let (Value::Mapping(own), Value::Mapping(base)) = (&mut own.node.value, theirs.node.value) {
        for entry in base {
            merge(own, entry);
        }
    }
}
