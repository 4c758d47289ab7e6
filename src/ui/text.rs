// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! How events, times and sizes read.

use std::borrow::Cow;
use std::time::Duration;

use super::events::{Event, Stream};

/// A duration as people say it: `7s`, `12m31s`, `2h05m`.
pub(super) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// [`duration`] of seconds that may be anything.
pub(super) fn seconds(seconds: f64) -> String {
    duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// A size: `312 MiB`, `1.4 GiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut size = count as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1000.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    let name = UNITS[unit];
    if size < 10.0 { format!("{size:.1} {name}") } else { format!("{size:.0} {name}") }
}

/// A transfer: `downloading x.iso  312 MiB of 700 MiB  12 MiB/s  32s left`.
pub(super) fn transfer(what: &str, done: u64, total: Option<u64>, rate: f64) -> String {
    let mut line = format!("{}  {}", plain(what), bytes(done));
    if let Some(total) = total {
        line += &format!(" of {}", bytes(total));
    }
    if rate >= 1.0 {
        line += &format!("  {}/s", bytes(rate as u64));
        if let Some(left) = total.and_then(|total| total.checked_sub(done)).filter(|left| *left > 0)
        {
            line += &format!("  {} left", seconds(left as f64 / rate));
        }
    }
    line
}

/// The text without what would move the cursor, change colours or ring the bell: escape
/// sequences (ECMA-48 §5) and control characters are taken out, tabs become blanks. Guests and
/// tools write such lines; a terminal must not obey them.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_escape(&mut chars),
            '\u{9b}' => skip_control_sequence(&mut chars),
            '\t' => out.push_str("    "),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

fn skip_escape(chars: &mut std::str::Chars<'_>) {
    let mut ahead = chars.clone();
    match ahead.next() {
        Some('[') => {
            *chars = ahead;
            skip_control_sequence(chars);
        }
        // Operating system command and its kin: up to BEL or ESC \.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            *chars = ahead;
            while let Some(c) = chars.next() {
                if c == '\u{7}' || c == '\u{9c}' {
                    return;
                }
                if c == '\u{1b}' {
                    chars.next();
                    return;
                }
            }
        }
        Some(c) if !c.is_control() => *chars = ahead,
        _ => {}
    }
}

fn skip_control_sequence(chars: &mut std::str::Chars<'_>) {
    for c in chars.by_ref() {
        if ('\u{40}'..='\u{7e}').contains(&c) {
            return;
        }
    }
}

/// One event in words, without the target's name; what `build.log` and plain output show.
pub(super) fn describe(event: &Event) -> String {
    let text = match event {
        Event::BuildStarted { id, hypervisor } => format!("start    {hypervisor}  build {id}"),
        Event::StageStarted { stage } => format!("{:<9} started", stage.name()),
        Event::StageDone { stage, seconds: time, note } => {
            let time = if note == "cached" { "cached".to_owned() } else { seconds(*time) };
            let note = if note == "cached" { "" } else { note.as_str() };
            format!("{:<9} {time:<7} {note}", stage.name())
        }
        Event::Waiting { what, deadline_seconds: None } => format!("waiting for {what}"),
        Event::Waiting { what, deadline_seconds: Some(limit) } => {
            format!("waiting for {what} (at most {})", seconds(*limit))
        }
        Event::Progress { what, done, total, rate } => transfer(what, *done, *total, *rate),
        Event::Note { text } => text.clone(),
        Event::Warning { text } => format!("warning: {text}"),
        Event::Output { step, stream: Stream::Stdout, line } => format!("{step} | {line}"),
        Event::Output { step, stream: Stream::Stderr, line } => format!("{step} ! {line}"),
        Event::Http { peer, method, path, status, bytes: sent, agent } => {
            format!("http     {peer} {method} {path} → {status}, {sent} bytes ({agent})")
        }
        Event::Typing { index, count } => format!("typing {} of {count}", index + 1),
        Event::Screenshot { path, reason } => format!("screen   {path} ({reason})"),
        Event::Machine { what } => format!("machine  {what}"),
        Event::Artefact { path, bytes: size, sha256 } => {
            let sum = sha256.as_ref().map(|sum| format!("  sha256:{sum}")).unwrap_or_default();
            format!("file     {path}  {}{sum}", bytes(*size))
        }
        Event::BuildDone { output, seconds: time, split } => {
            format!("built in {} into {output} (own waits {:.1}s)", seconds(*time), split.own)
        }
        Event::BuildFailed { error } => format!("failed: {error}"),
    };
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_and_sizes_read_well() {
        assert_eq!(seconds(7.9), "7s");
        assert_eq!(seconds(751.0), "12m31s");
        assert_eq!(seconds(7500.0), "2h05m");
        assert_eq!(seconds(f64::NAN), "0s");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(327_155_712), "312 MiB");
        assert_eq!(bytes(1_503_238_553), "1.4 GiB");
        assert_eq!(bytes(1_047_000_000), "998 MiB");
        assert!(bytes(u64::MAX).ends_with("PiB"));
        assert_eq!(
            transfer("downloading x.iso", 100 << 20, Some(700 << 20), 10_485_760.0),
            "downloading x.iso  100 MiB of 700 MiB  10 MiB/s  1m00s left"
        );
        assert_eq!(transfer("x", 5, None, 0.0), "x  5 B");
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(plain("\u{1b}[0;32mok\u{1b}[0m: [host]"), "ok: [host]");
        assert_eq!(plain("a\u{1b}]0;title\u{7}b\u{1b}]8;;x\u{1b}\\c"), "abc");
        assert_eq!(plain("10%\r20%\u{8}\u{7}"), "10%20%");
        assert_eq!(plain("\u{9b}2Jx\u{1b}(Bé\tend"), "xBé    end");
        assert_eq!(plain("cut \u{1b}["), "cut ");
    }

    proptest! {
        #[test]
        fn plain_text_has_no_control_characters(text in any::<String>()) {
            prop_assert!(!plain(&text).chars().any(char::is_control));
        }

        #[test]
        fn text_between_colours_survives(words in proptest::collection::vec("[a-z é]{0,9}", 0..6)) {
            let coloured: String = words.iter().map(|w| format!("\u{1b}[1;3{}m{w}\u{1b}[m", w.len() % 8)).collect();
            prop_assert_eq!(plain(&coloured), words.concat());
        }
    }
}
