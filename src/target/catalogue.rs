// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The targets there are: those inside the binary, those in `./targets/`, a file of the user's.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Resolved;
use super::assets::{Library, embedded_targets};
use super::finding::{Finding, Position, failure, nearest, nearest_place};
use super::resolve::{Frame, resolve};
use super::schema::check::{Checked, check};
use super::schema::document::Declaration;
use super::schema::quantity::read_name;
use super::schema::tree::{Entry, Node, Value};
use super::schema::{self};
use super::source::{EMBEDDED, Source, Trouble, find, parse, read_source, tree_of};
use super::variables::{DocumentTemplates, Given, Variables, bad_name};
use crate::ui::{Failure, Outcome};

/// What a user gave beside the target's name.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// `--var NAME=VALUE`, in order.
    pub vars: Vec<(String, String)>,
    /// `--var-file FILE`, in order.
    pub var_files: Vec<PathBuf>,
    /// `--target-file FILE`.
    pub target_file: Option<PathBuf>,
    /// Where `targets/` and the files of targets are looked for.
    pub working_dir: PathBuf,
    /// The environment.
    pub env: BTreeMap<String, String>,
}

impl LoadOptions {
    /// Options with the process's own working directory and environment.
    pub fn of_process() -> Self {
        let env = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .collect();
        Self { working_dir: PathBuf::from("."), env, ..Self::default() }
    }
}

/// A target ready to build.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The target.
    pub resolved: Resolved,
    /// Where its files come from.
    pub assets: Arc<Library>,
    /// What is doubtful but does not stop a build, each on one line.
    pub warnings: Vec<String>,
    /// Where the fields stand, for later findings.
    pub(crate) places: BTreeMap<String, Position>,
}

impl Loaded {
    /// The place of a field, or of the nearest thing that holds it.
    pub(crate) fn place(&self, field: &str) -> Position {
        nearest_place(&self.places, field)
            .unwrap_or_else(|| Position::whole(&self.resolved.origin.as_str().into()))
    }

    /// A finding about a field.
    pub(crate) fn finding(&self, field: &str, message: &str, warning: bool) -> Finding {
        Finding { warning, ..Finding::error(self.place(field), field, message) }
    }
}

/// One line of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Name.
    pub name: String,
    /// What it says of itself; what is wrong when it cannot be read.
    pub description: String,
    /// Distribution family.
    pub family: String,
    /// Release.
    pub release: String,
    /// `embedded`, or the file.
    pub origin: String,
    /// It cannot be read.
    pub broken: bool,
}

/// Everything found in a target, and the target itself when there is no mistake.
#[derive(Debug)]
pub struct Examined {
    /// Mistakes and doubtful things.
    pub findings: Vec<Finding>,
    /// The target, when it can be built.
    pub loaded: Option<Loaded>,
}

/// Lists the targets, those of the working directory before those inside the binary.
///
/// # Errors
/// `targets/` of the working directory exists and cannot be read.
pub fn list(working_dir: &Path) -> Outcome<Vec<Listed>> {
    let mut listed = BTreeMap::new();
    for name in names(working_dir)? {
        let line = match find(&name, working_dir) {
            Ok(Some(source)) => describe(&source, working_dir),
            Ok(None) => continue,
            Err(failure) => broken(&name, "", failure.summary()),
        };
        listed.insert(name, line);
    }
    Ok(listed.into_values().collect())
}

fn broken(name: &str, origin: &str, why: &str) -> Listed {
    Listed {
        name: name.to_owned(),
        description: why.to_owned(),
        family: String::new(),
        release: String::new(),
        origin: origin.to_owned(),
        broken: true,
    }
}

fn describe(source: &Source, working_dir: &Path) -> Listed {
    match tree_of(source, working_dir) {
        Ok(root) => {
            let text = |key| root.get(key).and_then(Node::text).unwrap_or_default().to_owned();
            Listed {
                name: source.stem.clone(),
                description: text("description"),
                family: text("family"),
                release: text("release"),
                origin: source.origin.clone(),
                broken: false,
            }
        }
        Err(failure) => broken(&source.stem, &source.origin, failure.summary()),
    }
}

/// Names of all targets, sorted. Files whose names start with `_` are parts, not targets.
///
/// # Errors
/// As for [`list`].
pub fn names(working_dir: &Path) -> Outcome<Vec<String>> {
    let mut names: Vec<String> = embedded_targets().map(|(name, _)| name.to_owned()).collect();
    let directory = working_dir.join("targets");
    match fs::read_dir(&directory) {
        Ok(entries) => {
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                names.extend(name.strip_suffix(".yaml").map(str::to_owned));
            }
        }
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
        Err(e) => {
            return Err(Failure::input("cannot list the targets of this directory")
                .because(e)
                .fact("file", directory.display()));
        }
    }
    names.retain(|n| !n.starts_with('_') && read_name(n).is_ok());
    names.sort();
    names.dedup();
    Ok(names)
}

/// Loads a target with all variables decided.
///
/// # Errors
/// [`Kind::Input`](crate::ui::Kind::Input): unknown target with the nearest names, mistakes of
/// the document with their places, undeclared or missing variables.
pub fn load(name: &str, options: &LoadOptions) -> Outcome<Loaded> {
    let examined = examine(name, options)?;
    if let Some(failure) = failure(&examined.findings) {
        return Err(failure.within(name));
    }
    let loaded = examined.loaded;
    loaded.ok_or_else(|| Failure::input(format!("{name}: the target cannot be read")))
}

/// Loads the target of `--target-file`, under the name that it has there.
///
/// # Errors
/// As for [`load`]; also a file that cannot be read.
pub fn name_in_file(path: &Path) -> Outcome<String> {
    let source = read_source(path)?;
    let root = parse(&source)?;
    Ok(root.get("name").and_then(Node::text).unwrap_or(&source.stem).to_owned())
}

/// Reads a target and collects every finding.
///
/// # Errors
/// What is no finding in a document: an unknown target, an unreadable file, variables.
pub fn examine(name: &str, options: &LoadOptions) -> Outcome<Examined> {
    let source = match &options.target_file {
        Some(path) => read_source(path)?,
        None => {
            find(name, &options.working_dir)?.ok_or_else(|| unknown(name, &options.working_dir))?
        }
    };
    let root = match tree_of(&source, &options.working_dir) {
        Ok(root) => root,
        Err(Trouble::Found(finding)) => {
            return Ok(Examined { findings: vec![finding], loaded: None });
        }
        Err(Trouble::Failed(failure)) => return Err(failure),
    };
    let (declared, mut findings) = declarations(&root);
    if !findings.is_empty() {
        return Ok(Examined { findings, loaded: None });
    }
    let given = Given::collect(&options.env, &options.var_files, &options.vars)?;
    let own_name = root.get("name").and_then(Node::text).unwrap_or(&source.stem).to_owned();
    findings.extend(wrong_name(&root, &source, &own_name, name));
    let (mut variables, warnings) = Variables::decide(&own_name, &declared, &given)?;
    let (values, found) = variables.finish(|variable| declared_at(&root, variable));
    findings.extend(found);
    let Checked { json, places, findings: found } =
        check(&root, schema::schema(), &DocumentTemplates::new(&variables));
    findings.extend(found);
    if findings.iter().any(|f| !f.warning) {
        return Ok(Examined { findings, loaded: None });
    }
    let document = match schema::read(json, &root.position) {
        Ok(document) => document,
        Err(finding) => return Ok(Examined { findings: vec![finding], loaded: None }),
    };
    let roots = roots(options);
    let frame = Frame {
        name: own_name,
        origin: source.origin,
        variables: values,
        env: &options.env,
        places: &places,
        roots: &roots,
    };
    let overlay = frame.origin == EMBEDDED;
    let (target, found) = resolve(document, frame);
    findings.extend(found);
    let sound = !findings.iter().any(|f| !f.warning);
    let doubts = findings.iter().filter(|f| f.warning).map(Finding::text);
    let warnings = warnings.into_iter().chain(doubts).collect();
    let assets = Arc::new(Library::new(roots, overlay));
    let loaded = sound.then_some(Loaded { resolved: target, assets, warnings, places });
    Ok(Examined { findings, loaded })
}

/// Directories in which the files of a target are looked for, the strongest first.
fn roots(options: &LoadOptions) -> Vec<PathBuf> {
    let mut roots = Vec::new();
    if let Some(file) = &options.target_file {
        let parent = file.parent().filter(|p| !p.as_os_str().is_empty());
        roots.push(parent.unwrap_or(Path::new(".")).to_owned());
    }
    let here = match options.working_dir.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => options.working_dir.clone(),
    };
    if !roots.contains(&here) {
        roots.push(here);
    }
    roots
}

fn unknown(name: &str, working_dir: &Path) -> Failure {
    let names = names(working_dir).unwrap_or_default();
    let mut failure =
        Failure::input(format!("there is no target `{}`", schema::check::shorten(name)));
    if !names.is_empty() {
        failure = failure.fact("targets", names.join(", "));
    }
    if let Some(near) = nearest(name, names.iter().map(String::as_str)) {
        failure = failure.hint(format!("did you mean `{near}`?"));
    }
    if Path::new(name).is_file() {
        failure = failure.hint(format!("for a file, write `--target-file {name}`"));
    }
    failure.hint("`imgforge list` shows the targets")
}

/// The variables that a document declares.
fn declarations(root: &Node) -> (BTreeMap<String, Declaration>, Vec<Finding>) {
    let Some(node) = root.get("variables") else { return (BTreeMap::new(), Vec::new()) };
    let mut findings = Vec::new();
    if let Value::Mapping(entries) = &node.value {
        for entry in entries {
            if let Some(message) = bad_name(&entry.key) {
                findings.push(Finding::error(entry.position.clone(), "variables", message));
            }
            let contradiction = entry.node.get("default").is_some()
                && entry.node.get("required").and_then(Node::text) == Some("true");
            if contradiction {
                let field = format!("variables.{}", entry.key);
                let message = "a variable with a default is not required";
                findings.push(Finding::error(entry.position.clone(), field, message));
            }
        }
    }
    // Only this part, as a document of its own; the rest needs the variables first.
    let position = node.position.clone();
    let entry =
        Entry { key: "variables".to_owned(), position: position.clone(), node: node.clone() };
    let part = Node { position: position.clone(), value: Value::Mapping(vec![entry]) };
    let mut schema = schema::schema().clone();
    if let Some(object) = schema.as_object_mut() {
        object.remove("required");
    }
    let nothing = Variables::default();
    let checked = check(&part, &schema, &DocumentTemplates::new(&nothing));
    findings.extend(checked.findings);
    if !findings.is_empty() {
        return (BTreeMap::new(), findings);
    }
    let json = checked.json.get("variables").cloned().unwrap_or_default();
    match serde_json::from_value::<Option<BTreeMap<String, Declaration>>>(json) {
        Ok(declared) => (declared.unwrap_or_default(), findings),
        Err(e) => {
            let message = format!("cannot be read: {e}");
            (BTreeMap::new(), vec![Finding::error(position, "variables", message)])
        }
    }
}

/// The node that holds a variable's default.
fn declared_at<'n>(root: &'n Node, variable: &str) -> Option<&'n Node> {
    let node = root.get("variables")?.get(variable)?;
    Some(node.get("default").unwrap_or(node))
}

fn wrong_name(root: &Node, source: &Source, own: &str, asked: &str) -> Option<Finding> {
    let position =
        root.get("name").map_or_else(|| Position::whole(&source.file), |n| n.position.clone());
    if let Err(message) = read_name(own) {
        return Some(Finding::error(position, "name", message));
    }
    if own != asked {
        let message = format!("this target is named `{own}`, not `{asked}`");
        return Some(Finding::error(position, "name", message));
    }
    None
}
