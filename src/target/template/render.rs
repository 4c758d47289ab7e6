// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Fills in a template.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;

use jiff::Timestamp;

use super::functions::{self, MAX_TEXT, Surroundings};
use super::parse::{Command, Piece, Pipeline, Term, parse};
use super::{Problem, TemplateError};
use crate::target::finding::suggestion;

/// How deep defaults of variables may refer to other variables.
const MAX_REFERENCES: usize = 16;
/// Most commands that one rendering may run, the defaults of variables included.
const MAX_COMMANDS: usize = 100_000;

/// What a scope knows about a variable.
pub(crate) enum Lookup<'a> {
    /// Its value.
    Value(Cow<'a, str>),
    /// A template that gives its value.
    Template(&'a str),
    /// Known during the build only.
    Late,
    /// Declared, but without a value.
    Unset,
    /// Not declared.
    Unknown,
}

/// The variables that a template sees.
pub(crate) trait Scope {
    /// Looks up a variable.
    fn lookup(&self, name: &str) -> Lookup<'_>;
    /// All names, for suggestions.
    fn names(&self) -> Vec<&str>;
    /// The environment, for the defaults of variables.
    fn env(&self) -> Option<&BTreeMap<String, String>> {
        None
    }
    /// The moment that `timestamp` and `isotime` give.
    fn now(&self) -> Timestamp;
}

/// Fills in `source` once. In a `dry` run every branch is looked at, whether or not it is taken,
/// and the result means nothing.
pub(crate) fn render(source: &str, scope: &dyn Scope, dry: bool) -> Result<String, TemplateError> {
    let spent = Cell::new(0);
    Renderer { source, scope, depth: 0, in_default: false, dry, spent: &spent }.template()
}

/// Fills in the default of a variable, in which the environment may be read.
pub(crate) fn render_default(source: &str, scope: &dyn Scope) -> Result<String, TemplateError> {
    let spent = Cell::new(0);
    Renderer { source, scope, depth: 1, in_default: true, dry: false, spent: &spent }.template()
}

struct Renderer<'a> {
    source: &'a str,
    scope: &'a dyn Scope,
    depth: usize,
    in_default: bool,
    dry: bool,
    spent: &'a Cell<usize>,
}

impl Renderer<'_> {
    fn template(&self) -> Result<String, TemplateError> {
        let pieces = parse(self.source)?;
        let mut text = String::new();
        self.pieces(&pieces, &mut text)?;
        Ok(text)
    }

    fn pieces(&self, pieces: &[Piece], text: &mut String) -> Result<(), TemplateError> {
        for piece in pieces {
            match piece {
                Piece::Text(part) => self.push(text, part, 0)?,
                Piece::Output(pipeline) => {
                    let at = pipeline.0.first().map_or(0, |c| c.at);
                    let value = self.pipeline(pipeline)?;
                    self.push(text, &value, at)?;
                }
                Piece::If(branches) => self.conditional(branches, text)?,
            }
        }
        Ok(())
    }

    fn conditional(
        &self,
        branches: &[(Option<Pipeline>, Vec<Piece>)],
        text: &mut String,
    ) -> Result<(), TemplateError> {
        for (condition, pieces) in branches {
            let holds = match condition {
                Some(condition) => functions::holds(&self.pipeline(condition)?),
                None => true,
            };
            if holds || self.dry {
                self.pieces(pieces, text)?;
            }
            if holds && !self.dry {
                return Ok(());
            }
        }
        Ok(())
    }

    fn push(&self, text: &mut String, part: &str, at: usize) -> Result<(), TemplateError> {
        if text.len() + part.len() > MAX_TEXT {
            let message = format!("the text grows beyond {MAX_TEXT} bytes");
            return Err(TemplateError::at(self.source, at, message));
        }
        text.push_str(part);
        Ok(())
    }

    fn pipeline(&self, pipeline: &Pipeline) -> Result<String, TemplateError> {
        let mut value: Option<String> = None;
        for command in &pipeline.0 {
            value = Some(self.command(command, value)?);
        }
        Ok(value.unwrap_or_default())
    }

    fn command(&self, command: &Command, piped: Option<String>) -> Result<String, TemplateError> {
        self.spent.set(self.spent.get() + 1);
        if self.spent.get() > MAX_COMMANDS {
            let message = format!("more than {MAX_COMMANDS} values are to be filled in");
            return Err(TemplateError::at(self.source, command.at, message));
        }
        let mut arguments = Vec::with_capacity(command.arguments.len() + 1);
        for term in &command.arguments {
            arguments.push(match term {
                Term::Literal(text) => text.clone(),
                Term::Variable(at, name) => self.variable(*at, name)?,
                Term::Group(pipeline) => self.pipeline(pipeline)?,
            });
        }
        arguments.extend(piped);
        let Some(function) = command.function.as_deref() else {
            return Ok(arguments.pop().unwrap_or_default());
        };
        if matches!(function, "var" | "user") {
            return self.variable(command.at, arguments.first().map_or("", String::as_str));
        }
        let env = self.scope.env().filter(|_| self.in_default);
        let surroundings = Surroundings { now: self.scope.now(), env };
        match functions::call(function, &arguments, &surroundings) {
            // In a dry run values stand in for values that are not known yet.
            Err(_) if self.dry && !matches!(function, "env") => Ok(String::new()),
            result => result.map_err(|m| TemplateError::at(self.source, command.at, m)),
        }
    }

    fn variable(&self, at: usize, name: &str) -> Result<String, TemplateError> {
        let wrong = |message: String| TemplateError::at(self.source, at, message);
        match self.scope.lookup(name) {
            Lookup::Value(value) => Ok(value.into_owned()),
            Lookup::Template(_) if self.depth >= MAX_REFERENCES => {
                Err(wrong(format!("the default of `{name}` refers back to itself")))
            }
            Lookup::Template(source) => {
                let inner = Renderer { source, depth: self.depth + 1, in_default: true, ..*self };
                inner.template().map_err(|e| {
                    let message = match e.problem {
                        Problem::Wrong if !e.message.contains("refers back") => {
                            format!("in the default of `{name}`: {}", e.message)
                        }
                        _ => e.message.clone(),
                    };
                    TemplateError { problem: e.problem, ..wrong(message) }
                })
            }
            Lookup::Late => {
                let message = format!(
                    "`{name}` is known during the build only; here a value must be known before"
                );
                Err(TemplateError { problem: Problem::Late, ..wrong(message) })
            }
            Lookup::Unset => {
                let message =
                    format!("the variable `{name}` has no value; give one with `--var {name}=…`");
                Err(TemplateError { problem: Problem::Unset(name.to_owned()), ..wrong(message) })
            }
            Lookup::Unknown => {
                let near = suggestion(name, self.scope.names(), "variables");
                Err(wrong(format!("unknown variable `{name}`{near}")))
            }
        }
    }
}
