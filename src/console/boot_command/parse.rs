// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The grammar: alternatives in order, the first that matches wins, and none is tried again.
//!
//! ```text
//! text     := ( wait | toggle | special | literal )*
//! wait     := "<wait" ( duration | integer )? ">"
//! toggle   := "<" any-one-character ("on" | "off") ">"
//! special  := "<" key-name ("on" | "off")? ">"
//! literal  := any one character
//! ```
//!
//! `wait` and the units are case-sensitive; key names, `on` and `off` are not. A number too large
//! is an error even where the token would have been typed as text: packer converts numbers while
//! it matches.

use std::fmt;

use super::duration::{self, Amount};
use super::{Action, BootCommand, Element, Stroke};
use crate::console::keysym;

/// Why a boot command is refused, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    line: usize,
    column: usize,
    message: String,
}

impl ParseError {
    pub(super) fn new(text: &str, offset: usize, message: String) -> Self {
        let (line, column) = position(text, offset);
        Self { line, column, message }
    }

    /// Line, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Column in characters, from 1.
    pub fn column(&self) -> usize {
        self.column
    }

    /// What is wrong, without the place.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for ParseError {}

/// Line and column (both from 1, the column in characters) of a byte offset.
pub(in crate::console) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before.get(line_start..).map_or(0, |line| line.chars().count());
    (before.matches('\n').count() + 1, column + 1)
}

/// Parses a boot command. Lists are joined without anything between their items before this.
///
/// Fails only on numbers: too large an integer or wait, or a sign inside a duration.
pub fn parse(text: &str) -> Result<BootCommand, ParseError> {
    let mut elements = Vec::new();
    let mut offset = 0;
    while let Some(rest) = text.get(offset..)
        && let Some(first) = rest.chars().next()
    {
        let (action, length) = match token(rest) {
            Ok(Some(found)) => found,
            Ok(None) => (Action::Char { c: first, stroke: Stroke::Press }, first.len_utf8()),
            Err(message) => return Err(ParseError::new(text, offset, message)),
        };
        elements.push(Element { action, span: offset..offset + length });
        offset += length;
    }
    Ok(BootCommand { elements, text: text.to_owned() })
}

/// The token at the start of `rest` and its length in bytes.
fn token(rest: &str) -> Result<Option<(Action, usize)>, String> {
    let Some(inner) = rest.strip_prefix('<') else { return Ok(None) };
    if let Some(found) = wait(rest)? {
        return Ok(Some(found));
    }
    Ok(toggle(rest, inner).or_else(|| special(rest, inner)))
}

fn wait(rest: &str) -> Result<Option<(Action, usize)>, String> {
    let Some(after) = rest.strip_prefix("<wait") else { return Ok(None) };
    let (amount, after) = duration::amount(after)?;
    let Some(after) = after.strip_prefix('>') else { return Ok(None) };
    let nanoseconds = match amount {
        Some(Amount::Duration(nanoseconds)) => nanoseconds,
        Some(Amount::Seconds(seconds)) => seconds
            .checked_mul(1_000_000_000)
            .ok_or_else(|| format!("a wait of {seconds} seconds is too long"))?,
        None => 1_000_000_000,
    };
    Ok(Some((Action::Wait { nanoseconds }, rest.len() - after.len())))
}

fn toggle(rest: &str, inner: &str) -> Option<(Action, usize)> {
    let c = inner.chars().next()?;
    let (stroke, after) = on_or_off(inner.get(c.len_utf8()..)?)?;
    let after = after.strip_prefix('>')?;
    Some((Action::Char { c, stroke }, rest.len() - after.len()))
}

fn special(rest: &str, inner: &str) -> Option<(Action, usize)> {
    let (keysym, after) = keysym::NAMES
        .iter()
        .find_map(|(name, keysym)| Some((*keysym, strip_prefix_any_case(inner, name)?)))?;
    let (stroke, after) = on_or_off(after).unwrap_or((Stroke::Press, after));
    let after = after.strip_prefix('>')?;
    Some((Action::Key { keysym, stroke }, rest.len() - after.len()))
}

fn on_or_off(text: &str) -> Option<(Stroke, &str)> {
    strip_prefix_any_case(text, "on")
        .map(|after| (Stroke::Hold, after))
        .or_else(|| strip_prefix_any_case(text, "off").map(|after| (Stroke::Release, after)))
}

/// Strips a prefix by comparing characters in lower case, one by one (so `İ` counts as `i`).
fn strip_prefix_any_case<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let mut chars = text.chars();
    for wanted in prefix.chars() {
        let lower = chars.next()?.to_lowercase().next()?;
        if lower != wanted.to_ascii_lowercase() {
            return None;
        }
    }
    Some(chars.as_str())
}
