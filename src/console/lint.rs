// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.
//! What packer types without a word although it was probably meant otherwise.

use std::fmt;

use super::boot_command::{Action, BootCommand, Element, KeyEvent, Stroke, position};
use super::keysym;

/// Longest text between angle brackets that still looks like a token.
const LONGEST_TOKEN: usize = 24;

/// Something in a boot command that works, but hardly as its author thinks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What happens and what was likely meant.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

/// Reads a boot command (late variables may still be unexpanded) and says what looks doubtful:
/// tokens typed as text, keys held at the end or never held, a capital that lets go of a held
/// shift, line breaks, and characters that have no key. In the order of the text.
pub fn lint(command: &BootCommand) -> Vec<Finding> {
    let mut found: Vec<(usize, String)> = Vec::new();
    for (index, element) in command.elements().iter().enumerate() {
        if let Action::Char { c, stroke } = element.action {
            found.extend(character(element, c));
            if (c, stroke) == ('<', Stroke::Press) {
                let rest = command.elements().get(index..).unwrap_or_default();
                found.extend(token_typed_as_text(rest));
            }
        }
    }
    found.extend(held_keys(command));
    found.sort_by_key(|(offset, _)| *offset);
    found
        .into_iter()
        .map(|(offset, message)| {
            let (line, column) = position(command.text(), offset);
            Finding { line, column, message }
        })
        .collect()
}

fn character(element: &Element, c: char) -> Option<(usize, String)> {
    let message = match c {
        '\n' => "a line break is typed as a key that no guest reads as Enter; write `<enter>`, or \
                 join the lines"
            .to_owned(),
        '\t' => {
            "a tab character is typed as a key that no guest reads as Tab; write `<tab>`".to_owned()
        }
        c if c.is_control() => {
            format!("the control character U+{:04X} has no key", u32::from(c))
        }
        c if !c.is_ascii() && u32::from(c) > 0xff => {
            format!("`{c}` never arrives: its code point is not a keysym")
        }
        c if !c.is_ascii() => format!("`{c}` does not arrive where the guest has a US keyboard"),
        _ => return None,
    };
    Some((element.span.start, message))
}

/// `rest` starts with a `<` that is typed.
fn token_typed_as_text(rest: &[Element]) -> Option<(usize, String)> {
    let start = rest.first()?.span.start;
    let mut inside = String::new();
    let mut closed = false;
    for element in rest.iter().skip(1).take(LONGEST_TOKEN + 1) {
        match element.action {
            Action::Char { c: '>', stroke: Stroke::Press } => {
                closed = true;
                break;
            }
            Action::Char { c, stroke: Stroke::Press } if c != '<' && c != '\n' => inside.push(c),
            _ => break,
        }
    }
    let message = if closed { closed_token(&inside) } else { open_token(&inside) }?;
    Some((start, message))
}

fn closed_token(inside: &str) -> Option<String> {
    if !inside.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    let typed = format!("`<{inside}>` is typed as text");
    if inside.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("wait")) {
        return Some(format!("{typed}; {}", meant_wait(inside)));
    }
    if !inside.chars().all(|c| c.is_ascii_alphanumeric() || " -_".contains(c)) {
        return None;
    }
    match nearest_token(inside) {
        Some(token) => Some(format!("{typed}; did you mean `{token}`?")),
        None if inside.contains(' ') => None,
        None => Some(format!("{typed}; there is no key of that name")),
    }
}

/// A token whose `>` is missing: only certain when all of a key name or `wait` is there.
fn open_token(inside: &str) -> Option<String> {
    let word: String = inside.chars().take_while(char::is_ascii_alphanumeric).collect();
    let is_wait = word
        .strip_prefix("wait")
        .is_some_and(|n| n.chars().all(|c| c.is_ascii_digit() || "smh".contains(c)));
    let (name, _) = split_stroke(&word);
    if word.is_empty() || !(is_wait || keysym::by_name(name).is_some()) {
        return None;
    }
    Some(format!("`<{word}` is typed as text; its `>` is missing"))
}

fn meant_wait(inside: &str) -> String {
    let amount: String = inside.chars().skip(4).filter(|c| !c.is_whitespace()).collect();
    if inside.starts_with("wait") && (amount.starts_with('\'') || amount.starts_with('"')) {
        return "waiting for text on the screen is not part of the language".to_owned();
    }
    let significant = amount.trim_start_matches('0');
    let mut guess = match significant.chars().next() {
        Some(first) if first.is_ascii_digit() => significant.to_owned(),
        Some(_) if amount.starts_with(['0', '.']) => format!("0{significant}"),
        _ => significant.trim_start_matches('-').to_owned(),
    }
    .to_lowercase();
    if guess.contains('.') && guess.ends_with(|c: char| c.is_ascii_digit()) {
        guess.push('s');
    }
    for unit in ["seconds", "second", "secs", "sec"] {
        if let Some(number) = guess.strip_suffix(unit) {
            guess = format!("{number}s");
        }
    }
    if guess.contains(['s', 'm', 'h']) && guess.ends_with(|c: char| c.is_ascii_digit()) {
        guess.push('s');
    }
    let token = format!("<wait{guess}>");
    match super::boot_command::parse(&token) {
        Ok(parsed)
            if parsed.validate().is_ok()
                && matches!(parsed.elements(), [Element { action: Action::Wait { .. }, .. }]) =>
        {
            format!("did you mean `{token}`?")
        }
        _ => "a wait is `<wait>`, `<wait5>` in seconds, or has units as in `<wait1m30s>` and \
              `<wait300ms>`"
            .to_owned(),
    }
}

/// Names that people use for keys, with the ones that the language has.
const SYNONYMS: &[(&str, &str)] = &[
    ("delete", "del"),
    ("backspace", "bs"),
    ("back", "bs"),
    ("escape", "esc"),
    ("space", "spacebar"),
    ("ret", "return"),
    ("cr", "return"),
    ("newline", "enter"),
    ("ins", "insert"),
    ("pgup", "pageUp"),
    ("pgdn", "pageDown"),
    ("pgdown", "pageDown"),
    ("ctrl", "leftCtrl"),
    ("control", "leftCtrl"),
    ("lctrl", "leftCtrl"),
    ("rctrl", "rightCtrl"),
    ("alt", "leftAlt"),
    ("lalt", "leftAlt"),
    ("altgr", "rightAlt"),
    ("shift", "leftShift"),
    ("lshift", "leftShift"),
    ("rshift", "rightShift"),
    ("super", "leftSuper"),
    ("win", "leftSuper"),
    ("meta", "leftSuper"),
    ("command", "leftCommand"),
    ("cmd", "leftCommand"),
    ("option", "leftOption"),
];

fn nearest_token(inside: &str) -> Option<String> {
    let squeezed: String = inside.chars().filter(char::is_ascii_alphanumeric).collect();
    let spelled = |name: &str| {
        let lower = name.to_ascii_lowercase();
        let synonym = SYNONYMS.iter().find(|(word, _)| *word == lower).map(|(_, key)| *key);
        synonym.or_else(|| {
            keysym::NAMES.iter().map(|(known, _)| *known).find(|k| k.eq_ignore_ascii_case(&lower))
        })
    };
    let (stem, suffix) = split_stroke(&squeezed);
    if let Some(name) = spelled(&squeezed) {
        return Some(format!("<{name}>"));
    }
    if let Some(name) = spelled(stem) {
        return Some(format!("<{name}{suffix}>"));
    }
    if inside.contains(' ') {
        return None;
    }
    let close = |word: &str| {
        let lower = word.to_ascii_lowercase();
        let (distance, name) = keysym::NAMES
            .iter()
            .map(|(name, _)| {
                (strsim::damerau_levenshtein(&lower, &name.to_ascii_lowercase()), *name)
            })
            .min_by_key(|(distance, _)| *distance)?;
        let is_function_key = name.starts_with('f') && name.len() <= 3;
        (distance <= lower.len() / 3 && distance < 3 && !is_function_key).then_some(name)
    };
    close(&squeezed)
        .map(|name| format!("<{name}>"))
        .or_else(|| close(stem).map(|name| format!("<{name}{suffix}>")))
}

/// `leftAltOn` to `leftAlt` and `On`; the suffix is empty when there is none.
fn split_stroke(word: &str) -> (&str, &'static str) {
    for (ending, suffix) in [("on", "On"), ("off", "Off")] {
        let cut = word.len().saturating_sub(ending.len());
        if let (Some(stem), Some(end)) = (word.get(..cut), word.get(cut..))
            && end.eq_ignore_ascii_case(ending)
        {
            return (stem, suffix);
        }
    }
    (word, "")
}

/// Follows which keys are down, as the guest would see them.
fn held_keys(command: &BootCommand) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut held: Vec<(u32, usize)> = Vec::new();
    for element in command.elements() {
        let start = element.span.start;
        let token = command.text().get(element.span.clone()).unwrap_or_default();
        let shift_is_held = held.iter().any(|(keysym, _)| *keysym == keysym::LEFT_SHIFT);
        if let Action::Char { c, stroke: Stroke::Press } = element.action
            && keysym::needs_shift(c)
            && shift_is_held
        {
            found.push((
                start,
                format!(
                    "typing `{c}` lets go of the shift that `<leftShiftOn>` holds; what follows \
                     is typed without it"
                ),
            ));
            held.retain(|(keysym, _)| *keysym != keysym::LEFT_SHIFT);
            continue;
        }
        for event in element_events(element) {
            match event {
                KeyEvent::Down(keysym) => held.push((keysym, start)),
                KeyEvent::Up(keysym) => {
                    let before = held.len();
                    held.retain(|(down, _)| *down != keysym);
                    if before == held.len() && keysym != keysym::LEFT_SHIFT {
                        found.push((start, format!("`{token}` lets go of a key that is not held")));
                    }
                }
                KeyEvent::Wait(_) => {}
            }
        }
    }
    for (keysym, start) in held {
        let name = keysym::describe(keysym);
        found.push((start, format!("{name} is still held at the end; it is then let go")));
    }
    found
}

fn element_events(element: &Element) -> Vec<KeyEvent> {
    match element.action {
        Action::Wait { .. } | Action::Char { stroke: Stroke::Press, .. } => Vec::new(),
        Action::Key { keysym, stroke } => {
            let mut events = Vec::new();
            super::boot_command::push_key(&mut events, keysym, stroke, false);
            events
        }
        Action::Char { c, stroke } => {
            let mut events = Vec::new();
            let shift = keysym::needs_shift(c);
            super::boot_command::push_key(&mut events, keysym::of_char(c), stroke, shift);
            events
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::boot_command::parse;
    use super::*;
    use proptest::prelude::*;

    fn messages(text: &str) -> Vec<String> {
        lint(&parse(text).unwrap()).iter().map(|finding| finding.message.clone()).collect()
    }

    #[test]
    fn says_what_a_token_typed_as_text_was_meant_to_be() {
        for (text, hint) in [
            ("<delete>", "did you mean `<del>`?"),
            ("<backspace>", "did you mean `<bs>`?"),
            ("<ESCAPE>", "did you mean `<esc>`?"),
            ("<space>", "did you mean `<spacebar>`?"),
            ("<ctrlOn>", "did you mean `<leftCtrlOn>`?"),
            ("<left alt>", "did you mean `<leftAlt>`?"),
            ("<page-up>", "did you mean `<pageUp>`?"),
            ("<leftCtlOff>", "did you mean `<leftCtrlOff>`?"),
            ("<entr>", "did you mean `<enter>`?"),
            ("<f13>", "there is no key of that name"),
            ("<Wait>", "did you mean `<wait>`?"),
            ("<wait 5>", "did you mean `<wait5>`?"),
            ("<wait05>", "did you mean `<wait5>`?"),
            ("<wait1.5>", "did you mean `<wait1.5s>`?"),
            ("<wait.5s>", "did you mean `<wait0.5s>`?"),
            ("<wait1m30>", "did you mean `<wait1m30s>`?"),
            ("<wait-5>", "did you mean `<wait5>`?"),
            ("<wait10sec>", "did you mean `<wait10s>`?"),
            ("<wait five>", "a wait is"),
            ("<wait 'login:'>", "not part of the language"),
            ("<esc", "its `>` is missing"),
            ("<wait5 x", "its `>` is missing"),
        ] {
            let found = messages(text);
            assert!(
                found.len() == 1 && found[0].contains(hint),
                "{text}: wanted {hint}, found {found:?}"
            );
        }
    }

    #[test]
    fn has_nothing_to_say_about_sound_commands() {
        for text in [
            "c<wait>linux /vmlinuz inst.ks=http://{{ .HTTPIP }}:{{ .HTTPPort }}/a.ks<enter>",
            "a < b > c",
            "cat <<EOF",
            "x <3",
            "<leftAltOn><f2><leftAltOff>",
            "<leftShiftOn>ab c<leftShiftOff>",
            "<cOn><wait2><cOff>",
            "if (a<b) then c>d",
            "mail <root@example.org>",
        ] {
            assert_eq!(messages(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn follows_held_keys() {
        let found = lint(&parse("x<leftCtrlOn>c\n<f1Off>").unwrap());
        assert_eq!(
            found[0].to_string().split(';').next().unwrap(),
            "line 1, column 2: <leftCtrl> is still held at the end"
        );
        assert!(found[1].message.contains("line break"), "{found:?}");
        assert_eq!((found[2].line, found[2].column), (2, 1));
        assert!(found[2].message.contains("not held"), "{found:?}");
        let found = messages("<leftShiftOn>aB c<leftShiftOff>");
        assert!(found.len() == 1 && found[0].contains("lets go of the shift"), "{found:?}");
    }

    #[test]
    fn knows_characters_without_a_key() {
        assert!(messages("界")[0].contains("never arrives"));
        assert!(messages("é")[0].contains("US keyboard"));
        assert!(messages("\t")[0].contains("<tab>"));
    }

    proptest! {
        #[test]
        fn never_panics(text in "(<|>|wait|On|off|[0-9.é]|left|Alt|del|[a-z \n-]){0,24}") {
            if let Ok(command) = parse(&text) {
                for finding in lint(&command) {
                    prop_assert!(finding.line >= 1 && finding.column >= 1);
                }
            }
        }
    }
}
