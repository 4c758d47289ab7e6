// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Failures: what failed, where, why, and the next command to type.

use std::error::Error;
use std::fmt;
use std::path::Path;

/// The result of anything that can fail for a reason a person should read.
pub type Outcome<T> = Result<T, Failure>;

/// Who must act on a failure; it decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The build failed: guest, network, host or a bug. Exit code 1.
    Build,
    /// What the user gave is wrong: a flag, a target, a variable. Exit code 2.
    Input,
    /// The user or CI interrupted the run. Exit code 130.
    Interrupted,
}

impl Kind {
    /// The process's exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Build => 1,
            Self::Input => 2,
            Self::Interrupted => 130,
        }
    }
}

/// One failure with all that a person needs at 3 a.m.: a summary, facts as label and value
/// (`file`, `line`, `screen`, `serial`, …), the cause chain, and hints that say the next command.
pub struct Failure {
    kind: Kind,
    summary: String,
    facts: Vec<(String, String)>,
    hints: Vec<String>,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// A failure of the build or its host.
    pub fn build(summary: impl Into<String>) -> Self {
        Self::new(Kind::Build, summary)
    }

    /// A failure that the user's input caused.
    pub fn input(summary: impl Into<String>) -> Self {
        Self::new(Kind::Input, summary)
    }

    /// The run was interrupted by a signal.
    pub fn interrupted(summary: impl Into<String>) -> Self {
        Self::new(Kind::Interrupted, summary)
    }

    fn new(kind: Kind, summary: impl Into<String>) -> Self {
        Self { kind, summary: summary.into(), facts: Vec::new(), hints: Vec::new(), cause: None }
    }

    /// Adds a fact: a short lower-case label and its value (which may have several lines).
    #[must_use]
    pub fn fact(mut self, label: impl Into<String>, value: impl fmt::Display) -> Self {
        self.facts.push((label.into(), value.to_string()));
        self
    }

    /// Adds a hint: what to do next, preferably a command in backquotes.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Attaches the underlying error; its chain is printed once, after the summary.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Puts a prefix (`debian-13: install`) before the summary.
    #[must_use]
    pub fn within(mut self, place: impl fmt::Display) -> Self {
        self.summary = format!("{place}: {}", self.summary);
        self
    }

    /// Corrects the facts after a file or directory was moved.
    #[must_use]
    pub fn moved(mut self, from: &Path, to: &Path) -> Self {
        let (from, to) = (from.display().to_string(), to.display().to_string());
        for (_, value) in &mut self.facts {
            *value = value.replace(&from, &to);
        }
        self
    }

    /// Who must act.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The one-line summary.
    pub fn summary(&self) -> &str {
        &self.summary
    }

    /// The facts, in the order they were added.
    pub fn facts(&self) -> &[(String, String)] {
        &self.facts
    }

    /// The hints, in the order they were added.
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// The cause chain, outermost first, one line each, without texts already said.
    pub fn causes(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut next = self.cause.as_deref().map(|c| c as &dyn Error);
        while let Some(error) = next {
            let text = error.to_string();
            if !self.summary.contains(&text) && !lines.iter().any(|l: &String| l.contains(&text)) {
                lines.push(text);
            }
            next = error.source();
        }
        lines
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.summary)?;
        for cause in self.causes() {
            write!(f, "\n  because  {cause}")?;
        }
        for (label, value) in &self.facts {
            let mut lines = value.lines();
            write!(f, "\n  {label:<8} {}", lines.next().unwrap_or_default())?;
            for line in lines {
                write!(f, "\n  {:<8} {line}", "")?;
            }
        }
        if !self.hints.is_empty() {
            writeln!(f)?;
        }
        for hint in &self.hints {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {self}", self.kind)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|c| c as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_summary_cause_facts_and_hints() {
        let failure = Failure::build("cannot read the disk")
            .within("debian-13: export")
            .because(std::io::Error::other("Input/output error"))
            .fact("file", "/var/disk.raw")
            .fact("serial", "line one\nline two")
            .hint("run `imgforge doctor`");
        assert_eq!(
            failure.to_string(),
            "error: debian-13: export: cannot read the disk\n  because  Input/output error\n  \
             file     /var/disk.raw\n  serial   line one\n           line two\n\n\
             hint: run `imgforge doctor`"
        );
        assert_eq!(failure.kind().exit_code(), 1);
        let moved = failure.moved(Path::new("/var"), Path::new("/srv"));
        assert!(moved.to_string().contains("file     /srv/disk.raw"));
    }
}
