// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The files that a target uses: answer files, roles, scripts. Those beside the target or in the
//! working directory win over those inside the binary, file by file.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};

use include_dir::{Dir, include_dir};

use crate::ui::{Failure, Outcome};

/// Largest single file, in bytes.
const MAX_FILE: u64 = 256 << 20;
/// Most files of a tree.
const MAX_FILES: usize = 10_000;
/// Deepest directory of a tree.
const MAX_DEPTH: usize = 32;

static EMBEDDED: [(&str, Dir<'static>); 4] = [
    ("targets", include_dir!("$CARGO_MANIFEST_DIR/targets")),
    ("preseed", include_dir!("$CARGO_MANIFEST_DIR/preseed")),
    ("kickstart", include_dir!("$CARGO_MANIFEST_DIR/kickstart")),
    ("ansible", include_dir!("$CARGO_MANIFEST_DIR/ansible")),
];

/// One file of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetFile {
    /// Path relative to the tree, with `/`.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Contents.
    pub bytes: Vec<u8>,
}

/// Where the files of a target come from.
pub trait Assets: Send + Sync {
    /// Reads one file by its relative path (`preseed/debian.cfg`).
    ///
    /// # Errors
    /// No such file, a path that leaves the directory, an unreadable file.
    fn read(&self, path: &str) -> Outcome<Vec<u8>>;

    /// Reads every file below a directory, sorted by path. A path that names a file gives that
    /// file alone, under its own name.
    ///
    /// # Errors
    /// As for [`Assets::read`]; also a tree of more than 10 000 files.
    fn tree(&self, path: &str) -> Outcome<Vec<AssetFile>>;
}

/// Directories of the host, the strongest first, and the files inside the binary.
#[derive(Debug, Clone, Default)]
pub struct Library {
    roots: Vec<PathBuf>,
    overlay: bool,
}

impl Library {
    /// A library that looks in `roots` in order and then inside the binary. With `overlay`, a
    /// directory of the host is laid over that of the binary, file by file: one role can be
    /// changed without copying all. Without it, the first directory found is the whole tree:
    /// nothing of the binary gets into a user's own files.
    pub fn new(roots: Vec<PathBuf>, overlay: bool) -> Self {
        Self { roots, overlay }
    }

    /// Where a file would be read from: a path of the host, or `embedded:PATH`.
    pub fn origin(&self, path: &str) -> Option<String> {
        let plain = plain(path).ok()?;
        for root in &self.roots {
            if let Ok(Some(found)) = within(root, &plain) {
                return Some(found.display().to_string());
            }
        }
        let known = embedded_file(&plain).is_some() || embedded_dir(&plain).is_some();
        known.then(|| format!("embedded:{plain}"))
    }

    fn missing(&self, path: &str) -> Failure {
        let mut failure = Failure::input(format!("there is no file `{path}`"));
        for root in &self.roots {
            failure = failure.fact("looked in", root.display());
        }
        let names = embedded_paths();
        if let Some(near) = super::finding::nearest(path, names.iter().map(String::as_str)) {
            failure = failure.hint(format!("did you mean `{near}`?"));
        }
        failure.hint("paths are relative to the target's file or the working directory")
    }
}

impl Assets for Library {
    fn read(&self, path: &str) -> Outcome<Vec<u8>> {
        let plain = plain(path)?;
        for root in &self.roots {
            if let Some(found) = within(root, &plain)?
                && found.is_file()
            {
                return read_file(&found);
            }
        }
        match embedded_file(&plain) {
            Some(bytes) => Ok(bytes.to_vec()),
            None if self.origin(path).is_some() => {
                Err(Failure::input(format!("`{path}` is a directory; a file is wanted here")))
            }
            None => Err(self.missing(path)),
        }
    }

    fn tree(&self, path: &str) -> Outcome<Vec<AssetFile>> {
        let plain = plain(path)?;
        let mut files: BTreeMap<String, AssetFile> = BTreeMap::new();
        let mut found_any = false;
        if let Some(dir) = embedded_dir(&plain) {
            found_any = true;
            collect_embedded(dir, dir.path(), &mut files);
        } else if let Some(bytes) = embedded_file(&plain) {
            found_any = true;
            add_single(&plain, bytes.to_vec(), embedded_mode(bytes), &mut files);
        }
        for root in self.roots.iter().rev() {
            let Some(found) = within(root, &plain)? else { continue };
            if !self.overlay {
                files.clear();
            }
            if found.is_dir() {
                let top = found.canonicalize().map_err(|e| unreadable(&found, e))?;
                let limit = root.canonicalize().map_err(|e| unreadable(root, e))?;
                found_any |= collect_host(&limit, &top, "", 0, &mut files)?;
            } else if found.is_file() {
                found_any = true;
                add_single(&plain, read_file(&found)?, host_mode(&found)?, &mut files);
            }
        }
        if !found_any {
            return Err(self.missing(path));
        }
        Ok(files.into_values().collect())
    }
}

/// The path without `.` parts; refuses what could leave the directory.
fn plain(path: &str) -> Outcome<String> {
    let refuse = |why: &str| {
        Err(Failure::input(format!("the path `{}` {why}", path.escape_debug()))
            .hint("put the file beside the target and name it by its relative path"))
    };
    let mut parts = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => match part.to_str() {
                Some(part) if !part.contains('\0') => parts.push(part),
                _ => return refuse("is not plain text"),
            },
            Component::CurDir => {}
            Component::ParentDir => return refuse("must not contain `..`"),
            Component::RootDir | Component::Prefix(_) => return refuse("must be relative"),
        }
    }
    if parts.is_empty() {
        return refuse("names no file");
    }
    Ok(parts.join("/"))
}

/// The path below `root` when it exists. A symbolic link may not lead out of the root.
fn within(root: &Path, plain: &str) -> Outcome<Option<PathBuf>> {
    let path = root.join(plain);
    let real = match path.canonicalize() {
        Ok(real) => real,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(e) => return Err(unreadable(&path, e)),
    };
    let limit = root.canonicalize().map_err(|e| unreadable(root, e))?;
    if real.starts_with(&limit) {
        return Ok(Some(path));
    }
    Err(Failure::input(format!("`{plain}` is a symbolic link that leads out of its directory"))
        .fact("file", path.display())
        .fact("leads to", real.display()))
}

fn unreadable(path: &Path, error: io::Error) -> Failure {
    Failure::input("cannot read a file of the target").because(error).fact("file", path.display())
}

fn read_file(path: &Path) -> Outcome<Vec<u8>> {
    let file = fs::File::open(path).map_err(|e| unreadable(path, e))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| unreadable(path, e))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Failure::input(format!(
            "a file of the target is larger than {MAX_FILE} bytes"
        ))
        .fact("file", path.display()));
    }
    Ok(bytes)
}

fn host_mode(path: &Path) -> Outcome<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = fs::metadata(path).map_err(|e| unreadable(path, e))?;
    Ok(metadata.permissions().mode() & 0o777)
}

/// The binary keeps no permission bits: what starts with `#!` is executable.
fn embedded_mode(bytes: &[u8]) -> u32 {
    if bytes.starts_with(b"#!") { 0o755 } else { 0o644 }
}

fn add_single(plain: &str, bytes: Vec<u8>, mode: u32, files: &mut BTreeMap<String, AssetFile>) {
    let name = plain.rsplit('/').next().unwrap_or(plain).to_owned();
    files.clear();
    files.insert(name.clone(), AssetFile { path: name, mode, bytes });
}

/// True when the directory holds a file.
fn collect_host(
    limit: &Path,
    directory: &Path,
    prefix: &str,
    depth: usize,
    files: &mut BTreeMap<String, AssetFile>,
) -> Outcome<bool> {
    if depth > MAX_DEPTH {
        return Err(Failure::input(format!("a directory is deeper than {MAX_DEPTH} levels"))
            .fact("file", directory.display()));
    }
    let mut found = false;
    let entries = fs::read_dir(directory).map_err(|e| unreadable(directory, e))?;
    for entry in entries {
        let entry = entry.map_err(|e| unreadable(directory, e))?;
        let path = entry.path();
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            return Err(Failure::input("a file's name is not UTF-8").fact("file", path.display()));
        };
        let relative = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let real = path.canonicalize().map_err(|e| unreadable(&path, e))?;
        if !real.starts_with(limit) {
            return Err(Failure::input("a symbolic link leads out of the target's directory")
                .fact("file", path.display())
                .fact("leads to", real.display()));
        }
        if real.is_dir() {
            found |= collect_host(limit, &path, &relative, depth + 1, files)?;
        } else if real.is_file() {
            if files.len() >= MAX_FILES {
                return Err(Failure::input(format!("a directory has more than {MAX_FILES} files"))
                    .fact("file", directory.display()));
            }
            let (mode, bytes) = (host_mode(&path)?, read_file(&path)?);
            files.insert(relative.clone(), AssetFile { path: relative, mode, bytes });
            found = true;
        }
    }
    Ok(found)
}

fn embedded_top(plain: &str) -> Option<(&'static Dir<'static>, &str)> {
    let (top, rest) = plain.split_once('/').unwrap_or((plain, ""));
    EMBEDDED.iter().find(|(name, _)| *name == top).map(|(_, dir)| (dir, rest))
}

/// A file inside the binary.
pub(crate) fn embedded_file(plain: &str) -> Option<&'static [u8]> {
    let (dir, rest) = embedded_top(plain)?;
    dir.get_file(rest).filter(|f| visible(f.path())).map(include_dir::File::contents)
}

fn embedded_dir(plain: &str) -> Option<&'static Dir<'static>> {
    let (dir, rest) = embedded_top(plain)?;
    let dir = if rest.is_empty() { Some(dir) } else { dir.get_dir(rest) };
    dir.filter(|d| !d.entries().is_empty())
}

fn visible(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name != ".keep")
}

fn collect_embedded(
    dir: &'static Dir<'static>,
    base: &Path,
    files: &mut BTreeMap<String, AssetFile>,
) {
    for file in dir.files().filter(|f| visible(f.path())) {
        let relative = file.path().strip_prefix(base).unwrap_or(file.path());
        let path = relative.to_string_lossy().into_owned();
        let bytes = file.contents().to_vec();
        files.insert(path.clone(), AssetFile { path, mode: embedded_mode(&bytes), bytes });
    }
    for child in dir.dirs() {
        collect_embedded(child, base, files);
    }
}

fn embedded_paths() -> Vec<String> {
    let mut paths = Vec::new();
    for (name, dir) in &EMBEDDED {
        let mut files = BTreeMap::new();
        collect_embedded(dir, dir.path(), &mut files);
        paths.extend(files.into_keys().map(|path| format!("{name}/{path}")));
    }
    paths
}

/// Names and contents of the embedded targets (`debian-13` for `targets/debian-13.yaml`).
pub(crate) fn embedded_targets() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    EMBEDDED
        .iter()
        .filter(|(name, _)| *name == "targets")
        .flat_map(|(_, dir)| dir.files())
        .filter_map(|f| Some((f.path().to_str()?.strip_suffix(".yaml")?, f.contents())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn library() -> (tempfile::TempDir, Library) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("ansible/roles")).unwrap();
        fs::write(root.join("ansible/site.yml"), "- hosts: all\n").unwrap();
        fs::write(root.join("ansible/roles/run.sh"), "#!/bin/sh\n").unwrap();
        fs::write(dir.path().join("outside"), "secret").unwrap();
        (dir, Library::new(vec![root], true))
    }

    #[test]
    fn reads_files_and_trees_of_the_host() {
        let (_dir, library) = library();
        assert_eq!(library.read("./ansible/site.yml").unwrap(), b"- hosts: all\n");
        let paths: Vec<_> = library.tree("ansible").unwrap().into_iter().map(|f| f.path).collect();
        assert!(paths.contains(&"roles/run.sh".to_owned()), "{paths:?}");
        let single = library.tree("ansible/site.yml").unwrap();
        assert_eq!((single.len(), single[0].path.as_str()), (1, "site.yml"));
    }

    #[test]
    fn a_tree_is_laid_over_that_of_the_program_or_stands_alone() {
        let (dir, library) = library();
        let paths = |library: &Library| -> Vec<String> {
            library.tree("ansible").unwrap().into_iter().map(|f| f.path).collect()
        };
        let site = library.tree("ansible").unwrap();
        let site = site.iter().find(|f| f.path == "site.yml").unwrap();
        assert_eq!(site.bytes, b"- hosts: all\n");
        assert!(paths(&library).len() > 2);
        let alone = Library::new(vec![dir.path().join("root")], false);
        assert_eq!(paths(&alone), ["roles/run.sh", "site.yml"]);
        assert!(Library::new(Vec::new(), false).tree("ansible").unwrap().len() > 2);
    }

    #[test]
    fn nothing_leaves_the_directory() {
        let (dir, library) = library();
        for path in ["../outside", "/etc/passwd", "ansible/../../outside", "", ".", "a\0b"] {
            assert!(library.read(path).is_err(), "{path}");
            assert!(library.tree(path).is_err(), "{path}");
        }
        symlink(dir.path().join("outside"), dir.path().join("root/ansible/link")).unwrap();
        let failure = library.read("ansible/link").unwrap_err().to_string();
        assert!(failure.contains("leads out"), "{failure}");
        assert!(library.tree("ansible").unwrap_err().to_string().contains("leads out"));
    }

    #[test]
    fn a_missing_file_says_where_it_was_looked_for() {
        let (dir, library) = library();
        let failure = library.read("preseed/none.cfg").unwrap_err().to_string();
        assert!(failure.contains(&dir.path().join("root").display().to_string()), "{failure}");
        assert!(library.read("ansible").unwrap_err().to_string().contains("is a directory"));
    }

    #[test]
    fn links_within_the_directory_and_loops_are_bounded() {
        let (dir, library) = library();
        let root = dir.path().join("root");
        symlink(root.join("ansible/site.yml"), root.join("ansible/alias.yml")).unwrap();
        assert_eq!(library.read("ansible/alias.yml").unwrap(), b"- hosts: all\n");
        symlink(root.join("ansible"), root.join("ansible/roles/loop")).unwrap();
        assert!(library.tree("ansible").is_err());
    }
}
