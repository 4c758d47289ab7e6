// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Events in words: one line for a person, or none when the event is for machines only.

use super::events::{Event, Stream};

/// The line that says what happened.
pub(super) fn line(event: &Event) -> Option<String> {
    Some(match event {
        Event::BuildStarted { id, hypervisor } => format!("build {id}, {hypervisor}"),
        Event::StageStarted { stage } => format!("{} …", stage.name()),
        Event::StageDone { stage, seconds, note } => {
            let text = format!("{:<10} {:>8}  {note}", stage.name(), duration(*seconds));
            text.trim_end().to_owned()
        }
        Event::Waiting { what, deadline_seconds } => match deadline_seconds {
            Some(seconds) => format!("waiting for {what} (at most {})", duration(*seconds)),
            None => format!("waiting for {what}"),
        },
        Event::Progress { what, done, total, rate } => progress(what, *done, *total, *rate),
        Event::Note { text } => text.clone(),
        Event::Warning { text } => format!("warning: {text}"),
        Event::Output { step, stream, line } => match stream {
            Stream::Stdout => format!("{step}: {line}"),
            Stream::Stderr => format!("{step}! {line}"),
        },
        Event::Http { peer, method, path, status, bytes, .. } => {
            format!("http: {method} {path} from {peer}: {status}, {bytes} bytes")
        }
        Event::Typing { index, count } if index == count => format!("typed {count} key events"),
        Event::Typing { .. } => return None,
        Event::Screenshot { path, reason } => format!("screenshot ({reason}): {path}"),
        Event::Machine { what } => format!("machine: {what}"),
        Event::Artefact { path, bytes, sha256 } => match sha256 {
            Some(sum) => format!("wrote {path}, {}, sha256:{sum}", size(*bytes)),
            None => format!("wrote {path}, {}", size(*bytes)),
        },
        Event::BuildDone { output, seconds, split } => {
            let own = duration(split.own);
            format!("built {output} in {} (own waits {own})", duration(*seconds))
        }
        Event::BuildFailed { error } => format!("failed\n{error}"),
    })
}

/// Bytes moved, with rate and time left.
pub(super) fn progress(what: &str, done: u64, total: Option<u64>, rate: f64) -> String {
    let speed = format!("{:.1} MB/s", rate / 1e6);
    match total {
        Some(total) if total > 0 => {
            let percent = done.saturating_mul(100) / total;
            let left = total.saturating_sub(done);
            let mut text = format!("{what}: {percent} % of {}, {speed}", size(total));
            if rate > 1.0 && left > 0 {
                text.push_str(&format!(", {} left", duration(left as f64 / rate)));
            }
            text
        }
        _ => format!("{what}: {}, {speed}", size(done)),
    }
}

/// Seconds as people read them: `8.2s`, `3m07s`, `1h02m`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..60 => format!("{:.1}s", seconds.max(0.0)),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3600, whole % 3600 / 60),
    }
}

/// Bytes as people read them.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(duration(8.24), "8.2s");
        assert_eq!(duration(187.9), "3m07s");
        assert_eq!(duration(3725.0), "1h02m");
        assert_eq!(duration(-1.0), "0.0s");
        assert_eq!(size(999), "1.0 kB");
        assert_eq!(size(612_000_000), "612.0 MB");
        let text = progress("downloading x.iso", 250_000_000, Some(1_000_000_000), 50e6);
        assert_eq!(text, "downloading x.iso: 25 % of 1.00 GB, 50.0 MB/s, 15.0s left");
        assert_eq!(progress("copying", 10, None, 0.0), "copying: 0.0 kB, 0.0 MB/s");
    }
}
