// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! From a guest's bytes to lines fit for a terminal and a log: bounded, clean, secrets masked.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::ui::Secret;

/// Longest line passed on, in bytes; the rest of a longer one is dropped, which the line says.
pub(super) const LINE_MAX: usize = 4096;
/// Secrets shorter than this are not masked: they would hide half of every line.
const SECRET_MIN: usize = 4;
const STARS: &str = "***";

/// Hides secrets in text: as they are, and as URL, JSON, shell and base64 writers write them.
#[derive(Clone, Default)]
pub struct Mask {
    forms: Vec<Secret>,
    longest: usize,
}

impl Mask {
    /// A mask for these secrets. Each line of a secret with several lines is hidden by itself.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut forms: Vec<String> = Vec::new();
        for secret in secrets {
            for line in secret.reveal().lines().map(str::trim) {
                if line.len() >= SECRET_MIN {
                    forms.extend(written_forms(line));
                }
            }
        }
        forms.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        forms.dedup();
        let longest = forms.first().map_or(0, String::len);
        Self { forms: forms.into_iter().map(Secret::new).collect(), longest }
    }

    /// The text with every secret replaced by `***`.
    pub fn apply(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for form in &self.forms {
            if text.contains(form.reveal()) {
                text = text.replace(form.reveal(), STARS);
            }
        }
        text
    }
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mask({} forms)", self.forms.len())
    }
}

fn written_forms(secret: &str) -> Vec<String> {
    let url = secret.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    });
    let json = serde_json::to_string(secret).unwrap_or_default();
    let json = json.strip_prefix('"').and_then(|j| j.strip_suffix('"')).unwrap_or("").to_owned();
    let shell = secret.replace('\'', r"'\''");
    let base64 = STANDARD_NO_PAD.encode(secret);
    [secret.to_owned(), url, json, shell, base64]
        .into_iter()
        .filter(|form| form.len() >= SECRET_MIN)
        .collect()
}

/// Cuts a stream of bytes into lines.
#[derive(Debug)]
pub(super) struct LineCutter {
    mask: Mask,
    buffer: Vec<u8>,
    dropped: usize,
}

impl LineCutter {
    pub(super) fn new(mask: Mask) -> Self {
        Self { mask, buffer: Vec::new(), dropped: 0 }
    }

    /// Takes bytes in and hands complete lines to `give`.
    pub(super) fn push(&mut self, mut bytes: &[u8], give: &mut dyn FnMut(String)) {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            self.keep(&bytes[..end]);
            give(self.take());
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes);
    }

    /// The last line, when it had no newline.
    pub(super) fn finish(&mut self) -> Option<String> {
        (!self.buffer.is_empty()).then(|| self.take())
    }

    fn keep(&mut self, bytes: &[u8]) {
        // A secret that starts before the cut must be whole to be recognized.
        let room = (LINE_MAX + self.mask.longest).saturating_sub(self.buffer.len());
        let kept = bytes.len().min(room);
        self.buffer.extend_from_slice(&bytes[..kept]);
        self.dropped += bytes.len() - kept;
    }

    fn take(&mut self) -> String {
        let text = clean(&String::from_utf8_lossy(&self.buffer));
        let mut text = self.mask.apply(&text);
        // Where bytes were dropped, the text may end in a piece of a secret.
        let whole =
            text.len() - if self.dropped > 0 { self.mask.longest.min(text.len()) } else { 0 };
        let mut cut = LINE_MAX.min(whole);
        while !text.is_char_boundary(cut) {
            cut -= 1;
        }
        let lost = self.dropped + (text.len() - cut);
        if lost > 0 {
            text.truncate(cut);
            text.push_str(&format!(" … [{lost} bytes more]"));
        }
        self.buffer.clear();
        self.dropped = 0;
        text
    }
}

/// What a terminal would show of the line in the end: the text after the last carriage return,
/// without escape sequences and control characters.
fn clean(line: &str) -> String {
    let line = line.trim_end_matches('\r');
    let line = line.rsplit('\r').next().unwrap_or(line);
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_escape(&mut chars),
            '\t' => out.push('\t'),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// Skips one escape sequence (ECMA-48): CSI up to its final byte, OSC up to its end, others one
/// character.
fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next() {
        Some('[') => while chars.next().is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c)) {},
        Some(']') => {
            while let Some(c) = chars.next() {
                if c == '\u{7}' {
                    break;
                }
                if c == '\u{1b}' {
                    chars.next_if_eq(&'\\');
                    break;
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(mask: Mask, pieces: &[&[u8]]) -> Vec<String> {
        let mut cutter = LineCutter::new(mask);
        let mut lines = Vec::new();
        for piece in pieces {
            cutter.push(piece, &mut |line| lines.push(line));
        }
        lines.extend(cutter.finish());
        lines
    }

    #[test]
    fn joins_pieces_and_cleans_lines() {
        let lines = cut(
            Mask::default(),
            &[
                b"one\r\ntw",
                b"o\n\n10%\r50%\r100%\n",
                b"\x1b[1;31mred\x1b[0m\x07\x1b]0;t\x07!",
                b"\xff",
            ],
        );
        assert_eq!(lines, ["one", "two", "", "100%", "red!\u{fffd}"]);
    }

    #[test]
    fn masks_every_form() {
        let mask = Mask::new(&[
            Secret::new("pa'ss \"word"),
            Secret::new("abc"),
            Secret::new("a\nlong line\n"),
        ]);
        assert_eq!(mask.apply("abc pa'ss \"word"), "abc ***");
        assert_eq!(mask.apply("x=pa%27ss%20%22word&"), "x=***&");
        assert_eq!(mask.apply(r#"{"p":"pa'ss \"word"}"#), r#"{"p":"***"}"#);
        assert_eq!(mask.apply(r#"echo 'pa'\''ss "word'"#), "echo '***'");
        assert_eq!(mask.apply("cGEnc3MgIndvcmQ="), "***=");
        assert_eq!(mask.apply("the long line"), "the ***");
    }

    #[test]
    fn a_secret_across_the_cut_of_a_long_line_is_masked() {
        let secret = "s3cret-".repeat(20);
        let text = format!("{}{secret}tail", "x".repeat(LINE_MAX - 3));
        let lines = cut(Mask::new(&[Secret::new(secret.as_str())]), &[text.as_bytes(), b"\nok"]);
        assert!(!lines[0].contains("s3cret"), "{}", lines[0]);
        assert!(lines[0].contains("bytes more]"));
        assert_eq!(lines[1], "ok");
    }

    proptest! {
        #[test]
        fn cutting_does_not_depend_on_the_pieces(text in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..300) {
            let at = at.min(text.len());
            prop_assert_eq!(cut(Mask::default(), &[&text]), cut(Mask::default(), &[&text[..at], &text[at..]]));
        }

        #[test]
        fn lines_are_bounded_and_printable(text in proptest::collection::vec(any::<u8>(), 0..20000)) {
            for line in cut(Mask::default(), &[&text]) {
                prop_assert!(line.len() < LINE_MAX + 40);
                prop_assert!(line.chars().all(|c| c == '\t' || !c.is_control()));
            }
        }
    }
}
