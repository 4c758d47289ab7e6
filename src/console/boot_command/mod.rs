// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Packer's boot command: text with tokens such as `<enter>`, `<leftCtrlOn>` and `<wait5s>`.
//!
//! The language has no syntax error for an unknown token: whatever is not a token is typed,
//! angle brackets included. That is kept, because templates depend on it; [`crate::console::lint`]
//! says where it is probably not meant.

mod duration;
mod event;
mod parse;
#[cfg(test)]
mod tests;

pub use event::KeyEvent;
pub(super) use parse::position;
pub use parse::{ParseError, parse};

use std::ops::Range;
use std::time::Duration;

use super::keysym;

/// How a key is acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stroke {
    /// Down, then up.
    Press,
    /// Held down: `<…On>`.
    Hold,
    /// Let go: `<…Off>`.
    Release,
}

/// What one piece of a boot command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A pause. Zero and negative ones parse, and are refused by [`BootCommand::validate`].
    Wait {
        /// Length in nanoseconds.
        nanoseconds: i64,
    },
    /// A key with a name.
    Key {
        /// Its keysym.
        keysym: u32,
        /// What happens to it.
        stroke: Stroke,
    },
    /// A character, with the shift it needs.
    Char {
        /// The character.
        c: char,
        /// What happens to its key.
        stroke: Stroke,
    },
}

/// One piece of a boot command and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// What it does.
    pub action: Action,
    /// Bytes of the text that it came from.
    pub span: Range<usize>,
}

/// A boot command, parsed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BootCommand {
    elements: Vec<Element>,
    text: String,
}

impl BootCommand {
    /// The pieces, in order.
    pub fn elements(&self) -> &[Element] {
        &self.elements
    }

    /// The text it was parsed from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Refuses waits that are not longer than zero, as packer's `validate` does.
    pub fn validate(&self) -> Result<(), ParseError> {
        for element in &self.elements {
            if let Action::Wait { nanoseconds: ..=0 } = element.action {
                let token = self.text.get(element.span.clone()).unwrap_or_default();
                return Err(ParseError::new(
                    &self.text,
                    element.span.start,
                    format!("`{token}` must wait longer than zero"),
                ));
            }
        }
        Ok(())
    }

    /// The key events and pauses, in the order in which they happen.
    pub fn expand(&self) -> Vec<KeyEvent> {
        let mut events = Vec::with_capacity(self.elements.len() * 2);
        for element in &self.elements {
            match element.action {
                Action::Wait { nanoseconds } => {
                    let nanoseconds = u64::try_from(nanoseconds).unwrap_or(0);
                    events.push(KeyEvent::Wait(Duration::from_nanos(nanoseconds)));
                }
                Action::Key { keysym, stroke } => push_key(&mut events, keysym, stroke, false),
                Action::Char { c, stroke } => {
                    push_key(&mut events, keysym::of_char(c), stroke, keysym::needs_shift(c));
                }
            }
        }
        events
    }

    /// The time that typing takes when `interval` follows every key event.
    pub fn duration(&self, interval: Duration) -> Duration {
        typing_time(&self.expand(), interval)
    }
}

/// The time that events take when `interval` follows every key event; saturates.
pub fn typing_time(events: &[KeyEvent], interval: Duration) -> Duration {
    events.iter().fold(Duration::ZERO, |sum, event| {
        sum.saturating_add(match event {
            KeyEvent::Wait(pause) => *pause,
            KeyEvent::Down(_) | KeyEvent::Up(_) => interval,
        })
    })
}

pub(super) fn push_key(events: &mut Vec<KeyEvent>, keysym: u32, stroke: Stroke, shift: bool) {
    if shift && stroke != Stroke::Release {
        events.push(KeyEvent::Down(keysym::LEFT_SHIFT));
    }
    if stroke != Stroke::Release {
        events.push(KeyEvent::Down(keysym));
    }
    if stroke != Stroke::Hold {
        events.push(KeyEvent::Up(keysym));
    }
    if shift && stroke != Stroke::Hold {
        events.push(KeyEvent::Up(keysym::LEFT_SHIFT));
    }
}
