// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The variables of a target: what is declared, what is given, and which value wins.
//!
//! Precedence, from weak to strong: the document's default, the environment (`PKR_VAR_x`, then
//! `IMGFORGE_VAR_x`), `--var-file` in the order given, `--var` in the order given.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::Variable;
use super::finding::{Finding, failure, nearest, suggestion};
use super::schema::check::Templates;
use super::schema::document::Declaration;
use super::schema::tree::{self, Node, Value};
use super::template::{
    DEFAULT, LATE, LATE_DEFAULT, Lookup, NAME, Problem, Scope, TemplateError, render,
    render_default,
};
use crate::ui::{Failure, Outcome};

/// Values from outside, weakest first.
#[derive(Debug, Default)]
pub(crate) struct Given {
    values: Vec<(String, String, String)>,
    env: BTreeMap<String, String>,
}

impl Given {
    /// Collects the environment, the files and the flags.
    ///
    /// # Errors
    /// An unreadable or malformed file.
    pub(crate) fn collect(
        env: &BTreeMap<String, String>,
        files: &[PathBuf],
        flags: &[(String, String)],
    ) -> Outcome<Self> {
        let mut values = Vec::new();
        for prefix in ["PKR_VAR_", "IMGFORGE_VAR_"] {
            for (key, value) in env {
                if let Some(name) = key.strip_prefix(prefix) {
                    values.push((name.to_owned(), value.clone(), format!("environment {key}")));
                }
            }
        }
        for file in files {
            let source = format!("--var-file {}", file.display());
            for (name, value) in read_file(file)? {
                values.push((name, value, source.clone()));
            }
        }
        for (name, value) in flags {
            values.push((name.clone(), value.clone(), "--var".to_owned()));
        }
        Ok(Self { values, env: env.clone() })
    }
}

/// Reads a YAML or JSON mapping of names to values.
fn read_file(path: &Path) -> Outcome<Vec<(String, String)>> {
    let shown: Arc<str> = path.display().to_string().into();
    let bytes = std::fs::read(path).map_err(|e| {
        Failure::input("cannot read the file of variables").because(e).fact("file", &shown)
    })?;
    let one = |finding: Finding| {
        failure(&[finding])
            .unwrap_or_else(|| Failure::input("unreadable"))
            .hint("a file of variables is a YAML or JSON mapping, for example `mirror: http://…`")
    };
    let Some(root) = tree::parse(&shown, &bytes).map_err(one)? else { return Ok(Vec::new()) };
    let Value::Mapping(entries) = root.value else {
        let message = format!("expected a mapping, found {}", root.kind());
        return Err(one(Finding::error(root.position, "", message)));
    };
    entries
        .into_iter()
        .map(|e| match e.node.value {
            Value::Scalar(s) if !s.is_null() => Ok((e.key, s.text)),
            _ => {
                let message = format!("expected a text, found {}", e.node.kind());
                Err(one(Finding::error(e.node.position, e.key, message)))
            }
        })
        .collect()
}

#[derive(Debug)]
enum Slot {
    Given(String),
    Template(String),
    Unset,
}

/// The variables of one target with their values.
#[derive(Debug, Default)]
pub(crate) struct Variables {
    target: String,
    slots: BTreeMap<String, (Slot, Variable)>,
    env: BTreeMap<String, String>,
    now: Timestamp,
    /// Late variables and unset ones have a stand-in value.
    pretend: bool,
}

impl Variables {
    /// Gives every declared variable its value; also returns warnings.
    ///
    /// # Errors
    /// `--var` with an undeclared name; required variables without a value, all of them.
    pub(crate) fn decide(
        target: &str,
        declared: &BTreeMap<String, Declaration>,
        given: &Given,
    ) -> Outcome<(Self, Vec<String>)> {
        let mut slots: BTreeMap<String, (Slot, Variable)> =
            declared.iter().map(|(name, declaration)| (name.clone(), slot(declaration))).collect();
        let mut warnings = Vec::new();
        for (name, value, source) in &given.values {
            match slots.get_mut(name) {
                Some((slot, variable)) => {
                    *slot = Slot::Given(value.clone());
                    variable.value.clone_from(value);
                    variable.source.clone_from(source);
                }
                None if source.starts_with("environment") => {}
                None if source == "--var" => return Err(undeclared(target, name, declared)),
                None => {
                    let near = nearest(name, declared.keys().map(String::as_str))
                        .map(|near| format!("; did you mean `{near}`?"))
                        .unwrap_or_default();
                    warnings.push(format!("{source}: {target} has no variable `{name}`{near}"));
                }
            }
        }
        let missing: Vec<_> =
            slots.iter().filter(|(_, (slot, _))| matches!(slot, Slot::Unset)).collect();
        if let Some((first, _)) = missing.first() {
            let names: Vec<&str> = missing.iter().map(|(n, _)| n.as_str()).collect();
            let mut failure =
                Failure::input(format!("{target} needs a value for: {}", names.join(", ")));
            for (name, (_, variable)) in &missing {
                if !variable.description.is_empty() {
                    failure = failure.fact(name.as_str(), &variable.description);
                }
            }
            return Err(failure.hint(format!(
                "give it with `--var {first}=…`, in a `--var-file`, or as IMGFORGE_VAR_{first}"
            )));
        }
        let env = given.env.clone();
        let now = Timestamp::now();
        Ok((Self { target: target.to_owned(), slots, env, now, pretend: false }, warnings))
    }

    /// Fills in the defaults and returns every variable in its final value; a default that needs
    /// what only the build knows stays a template. `place` finds where a default stands.
    pub(crate) fn finish<'n>(
        &mut self,
        place: impl Fn(&str) -> Option<&'n Node>,
    ) -> (BTreeMap<String, Variable>, Vec<Finding>) {
        let mut findings = Vec::new();
        let mut finished = BTreeMap::new();
        for (name, (slot, variable)) in &self.slots {
            let mut variable = variable.clone();
            if let Slot::Template(template) = slot {
                match render_default(template, self) {
                    Ok(value) => variable.value = value,
                    Err(e) if e.problem == Problem::Late => {
                        variable.value.clone_from(template);
                        variable.source = LATE_DEFAULT.to_owned();
                    }
                    Err(e) => findings.extend(place(name).map(|node| {
                        let field = format!("variables.{name}");
                        Finding::error(node.within(e.line, e.column), field, e.message)
                    })),
                }
            }
            finished.insert(name.clone(), variable);
        }
        for (name, variable) in &finished {
            if variable.source == DEFAULT
                && let Some((slot, _)) = self.slots.get_mut(name)
            {
                *slot = Slot::Given(variable.value.clone());
            }
        }
        (finished, findings)
    }
}

fn slot(declaration: &Declaration) -> (Slot, Variable) {
    let (default, sensitive, description) = match declaration {
        Declaration::Value(text) => (Some(text), false, String::new()),
        Declaration::Detail(d) => (d.default.as_ref(), d.sensitive, d.description.clone()),
    };
    let slot = match default {
        Some(text) if text.0.contains("{{") => Slot::Template(text.0.clone()),
        Some(text) => Slot::Given(text.0.clone()),
        None => Slot::Unset,
    };
    let value = default.map(|t| t.0.clone()).unwrap_or_default();
    (slot, Variable { value, sensitive, description, source: DEFAULT.to_owned() })
}

fn undeclared(target: &str, name: &str, declared: &BTreeMap<String, Declaration>) -> Failure {
    let known = declared.keys().map(String::as_str);
    let near = suggestion(name, known, "its variables are");
    Failure::input(format!("{target} has no variable `{name}`{near}"))
        .hint(format!("`imgforge inspect {target}` shows the variables and their values"))
}

impl Scope for Variables {
    fn lookup(&self, name: &str) -> Lookup<'_> {
        let stand_in = || Lookup::Value(Cow::Borrowed("1"));
        match name {
            NAME => Lookup::Value(Cow::Borrowed(&self.target)),
            late if LATE.contains(&late) && self.pretend => stand_in(),
            late if LATE.contains(&late) => Lookup::Late,
            name => match self.slots.get(name) {
                Some((Slot::Given(value), _)) => Lookup::Value(Cow::Borrowed(value)),
                Some((Slot::Template(template), _)) => Lookup::Template(template),
                Some((Slot::Unset, _)) if self.pretend => stand_in(),
                Some((Slot::Unset, _)) => Lookup::Unset,
                None => Lookup::Unknown,
            },
        }
    }

    fn names(&self) -> Vec<&str> {
        self.slots.keys().map(String::as_str).chain(LATE).chain([NAME]).collect()
    }

    fn env(&self) -> Option<&BTreeMap<String, String>> {
        Some(&self.env)
    }

    fn now(&self) -> Timestamp {
        self.now
    }
}

/// How the checker of documents fills in and inspects templates.
pub(crate) struct DocumentTemplates<'a> {
    now: &'a Variables,
    later: Variables,
}

impl<'a> DocumentTemplates<'a> {
    pub(crate) fn new(variables: &'a Variables) -> Self {
        let slots = variables
            .slots
            .iter()
            .map(|(name, (slot, variable))| {
                let slot = match slot {
                    Slot::Given(value) => Slot::Given(value.clone()),
                    Slot::Template(_) | Slot::Unset => Slot::Unset,
                };
                (name.clone(), (slot, variable.clone()))
            })
            .collect();
        let later = Variables {
            target: variables.target.clone(),
            slots,
            env: BTreeMap::new(),
            now: variables.now,
            pretend: true,
        };
        Self { now: variables, later }
    }
}

impl Templates for DocumentTemplates<'_> {
    fn fill(&self, text: &str) -> Result<String, TemplateError> {
        render(text, self.now, false)
    }

    fn inspect(&self, text: &str) -> Result<(), TemplateError> {
        render(text, &self.later, true).map(drop)
    }
}

/// Names that cannot be used: `None` when `name` is fine.
pub(crate) fn bad_name(name: &str) -> Option<String> {
    if LATE.contains(&name) || name == NAME || name == "Vars" {
        return Some(format!("`{name}` is a variable of imgforge itself; choose another name"));
    }
    let start = |c: char| c.is_ascii_alphabetic() || c == '_';
    let sound = name.starts_with(start) && name.chars().all(|c| start(c) || c.is_ascii_digit());
    (!sound).then(|| {
        format!(
            "`{name}` is not a variable's name: letters, digits and `_`, not starting with a digit"
        )
    })
}
