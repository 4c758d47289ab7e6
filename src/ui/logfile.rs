// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The logs of one build: `events.jsonl` for machines, `build.log` for people.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use jiff::{Timestamp, Unit};
use serde::Serialize;

use super::events::{Event, Events};
use super::words;
use super::{Failure, Outcome};

/// Both logs of a build, open for writing.
#[derive(Clone)]
pub struct LogFiles {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    json: File,
    text: File,
    started: Instant,
    /// A full disk is said once; it does not end the build.
    complained: bool,
}

/// One line of the JSON form.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    /// RFC 3339, UTC.
    pub(super) time: String,
    /// Seconds since the build started.
    pub(super) elapsed: f64,
    pub(super) target: &'a str,
    #[serde(flatten)]
    pub(super) event: &'a Event,
}

impl LogFiles {
    /// Creates both files in `directory`.
    pub fn open(directory: &Path) -> Outcome<Self> {
        let create = |name: &str| {
            let path = directory.join(name);
            File::create(&path).map_err(|error| {
                Failure::build("cannot create a log of the build")
                    .because(error)
                    .fact("file", path.display())
            })
        };
        let inner = Inner {
            json: create("events.jsonl")?,
            text: create("build.log")?,
            started: Instant::now(),
            complained: false,
        };
        Ok(Self { inner: Arc::new(Mutex::new(inner)) })
    }

    /// Events that go to the logs and on to `next`.
    pub fn tee(&self, next: &Events) -> Events {
        let (inner, next) = (Arc::clone(&self.inner), next.clone());
        Events::new(&next.target().to_owned(), move |target, event| {
            let mut inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = inner.write(target, event)
                && !inner.complained
            {
                inner.complained = true;
                next.warn(format!("the logs of this build are incomplete: {error}"));
            }
            drop(inner);
            next.emit(event.clone());
        })
    }
}

impl Inner {
    fn write(&mut self, target: &str, event: &Event) -> io::Result<()> {
        let time = now();
        if let Some(text) = words::line(event) {
            let text = text.replace('\n', "\n    ");
            self.text.write_all(format!("{time} {text}\n").as_bytes())?;
        }
        let elapsed = (self.started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        let mut line = serde_json::to_vec(&Line { time, elapsed, target, event })?;
        line.push(b'\n');
        self.json.write_all(&line)
    }
}

/// The present moment, RFC 3339 with milliseconds.
pub(super) fn now() -> String {
    let now = Timestamp::now();
    now.round(Unit::Millisecond).unwrap_or(now).to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_in_both_logs_and_handed_on() {
        let dir = tempfile::tempdir().unwrap();
        let (next, seen) = Events::recorded();
        let logs = LogFiles::open(dir.path()).unwrap();
        let events = logs.tee(&next);
        events.note("hello");
        events.emit(Event::Typing { index: 1, count: 9 });
        assert_eq!(seen.lock().unwrap().len(), 2);
        let json = std::fs::read_to_string(dir.path().join("events.jsonl")).unwrap();
        let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
        assert_eq!((&first["event"], &first["text"]), (&"note".into(), &"hello".into()));
        assert!(first["time"].as_str().unwrap().ends_with('Z'));
        assert_eq!(json.lines().count(), 2);
        let text = std::fs::read_to_string(dir.path().join("build.log")).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn a_full_disk_is_said_once_and_the_build_goes_on() {
        let (next, seen) = Events::recorded();
        let full = || File::options().write(true).open("/dev/full").unwrap();
        let inner = Inner { json: full(), text: full(), started: Instant::now(), complained: false };
        let logs = LogFiles { inner: Arc::new(Mutex::new(inner)) };
        let events = logs.tee(&next);
        events.note("one");
        events.note("two");
        let seen = seen.lock().unwrap();
        assert_eq!(seen.iter().filter(|e| matches!(e, Event::Warning { .. })).count(), 1);
        assert_eq!(seen.iter().filter(|e| matches!(e, Event::Note { .. })).count(), 2);
    }
}
