// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What is wrong in a file, with the place: `targets/debian-13.yaml:12:3: machine.memroy: …`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::ui::Failure;

/// How many findings a failure prints; the rest is counted.
const SHOWN: usize = 20;

/// A place in a file, for people: line and column count from 1, the column in characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The file as users know it; `embedded:targets/NAME.yaml` inside the binary.
    pub file: Arc<str>,
    /// Line, from 1; 0 when the whole file is meant.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl Position {
    /// The file as a whole.
    pub(crate) fn whole(file: &Arc<str>) -> Self {
        Self { file: Arc::clone(file), line: 0, column: 0 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.file),
            line => write!(f, "{}:{line}:{}", self.file, self.column),
        }
    }
}

/// One mistake or doubtful thing in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub position: Position,
    /// The field (`provision[0].shell.inline`); empty when the whole document is meant.
    pub field: String,
    /// What is wrong and what was expected.
    pub message: String,
    /// Doubtful only: the target can be built.
    pub warning: bool,
}

impl Finding {
    /// A mistake.
    pub(crate) fn error(
        position: Position,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { position, field: field.into(), message: message.into(), warning: false }
    }

    /// Something doubtful.
    pub(crate) fn warning(
        position: Position,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { warning: true, ..Self::error(position, field, message) }
    }

    /// Field and message without the place.
    pub fn text(&self) -> String {
        match self.field.as_str() {
            "" => self.message.clone(),
            field => format!("{field}: {}", self.message),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.warning { "warning: " } else { "" };
        write!(f, "{}: {kind}{}", self.position, self.text())
    }
}

/// Makes one failure of all mistakes (warnings are left out): a single one becomes the summary,
/// several are listed in the order of the file. `None` when there is no mistake.
pub(crate) fn failure(findings: &[Finding]) -> Option<Failure> {
    let mut errors: Vec<&Finding> = findings.iter().filter(|f| !f.warning).collect();
    errors.sort_by(|a, b| a.position.cmp(&b.position));
    errors.dedup();
    let first = *errors.first()?;
    if errors.len() == 1 {
        return Some(Failure::input(first.text()).fact("file", &first.position));
    }
    let mut failure =
        Failure::input(format!("{} has {} mistakes", first.position.file, errors.len()));
    for finding in errors.iter().take(SHOWN) {
        failure = failure.fact("file", finding);
    }
    if errors.len() > SHOWN {
        failure = failure.fact("more", errors.len() - SHOWN);
    }
    Some(failure)
}

/// The place of a field, or of the nearest thing that holds it.
pub(crate) fn nearest_place(places: &BTreeMap<String, Position>, field: &str) -> Option<Position> {
    let mut path = field;
    loop {
        match places.get(path) {
            Some(position) => return Some(position.clone()),
            None if path.is_empty() => return None,
            None => path = path.get(..path.rfind(['.', '[']).unwrap_or(0)).unwrap_or_default(),
        }
    }
}

/// The known word that `word` was probably meant to be.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(&lower, &k.to_lowercase()), k))
        .filter(|(distance, k)| {
            let longest = word.chars().count().max(k.chars().count());
            *distance <= (longest / 3).max(1) && *distance < longest
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

/// `; did you mean …?`, or the list of what there is.
pub(crate) fn suggestion<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
    what: &str,
) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("; did you mean `{near}`?"),
        None if known.is_empty() => String::new(),
        None => format!("; {what}: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_only_what_is_near() {
        let known = ["memory", "cpus", "disk"];
        assert_eq!(nearest("memroy", known), Some("memory"));
        assert_eq!(nearest("Memory", known), Some("memory"));
        assert_eq!(nearest("cpu", known), Some("cpus"));
        assert_eq!(nearest("network", known), None);
        assert_eq!(suggestion("zz", known, "known"), "; known: memory, cpus, disk");
    }

    #[test]
    fn one_mistake_is_the_summary_and_many_are_a_list() {
        let file: Arc<str> = "t.yaml".into();
        let at = |line| Position { file: Arc::clone(&file), line, column: 3 };
        let one = Finding::error(at(2), "boot.wait", "wrong");
        let shown = failure(std::slice::from_ref(&one)).map(|f| f.to_string());
        assert_eq!(shown.as_deref(), Some("error: boot.wait: wrong\n  file     t.yaml:2:3"));
        let two = failure(&[one, Finding::error(at(1), "", "odd")]).map(|f| f.to_string());
        assert_eq!(
            two.as_deref(),
            Some(
                "error: t.yaml has 2 mistakes\n  file     t.yaml:1:3: odd\n  \
                 file     t.yaml:2:3: boot.wait: wrong"
            )
        );
        assert!(failure(&[Finding::warning(at(1), "", "odd")]).is_none());
    }
}
