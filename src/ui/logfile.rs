// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The two logs of a build: `events.jsonl` for programs, `build.log` for people.
//!
//! A thread of its own writes them, so that a slow disk never holds a build up, and a full one
//! never fails it: that is said once, and what was lost is counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::events::{Event, Events};
use super::report::{Failure, Outcome};
use super::text;

/// Events waiting to be written; more than a burst of provisioner output, less than a MiB or two.
const QUEUE: usize = 8192;

/// The end of a build waits this long at most for its logs.
const PATIENCE: Duration = Duration::from_secs(5);

/// One line of `events.jsonl` and of `--log-format json`. Fields are only ever added.
#[derive(Serialize)]
struct Record<'a> {
    /// UTC, RFC 3339 with milliseconds.
    time: String,
    /// Seconds since the log or the printer was started.
    elapsed: f64,
    target: &'a str,
    #[serde(flatten)]
    event: &'a Event,
}

/// An event as one line of JSON, with its newline.
pub(super) fn json_line(target: &str, event: &Event, elapsed: f64) -> String {
    let elapsed = (elapsed * 1000.0).round() / 1000.0;
    let record = Record { time: now(), elapsed, target, event };
    let mut line = serde_json::to_string(&record).unwrap_or_else(|error| {
        serde_json::json!({"event": "unwritable", "error": error.to_string()}).to_string()
    });
    line.push('\n');
    line
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// What the writing thread is told.
enum Order {
    Write {
        json: String,
        human: String,
    },
    /// Answer once everything before is written.
    Reach(SyncSender<()>),
}

/// The open logs of one build. Cheap to clone; what is queued is written when the last clone
/// (and the last of its events) is dropped.
#[derive(Debug, Clone)]
pub struct LogFiles {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    queue: Option<SyncSender<Order>>,
    writer: Option<JoinHandle<()>>,
    started: Instant,
    lost: Arc<AtomicU64>,
    /// Why the logs are incomplete.
    trouble: Arc<OnceLock<String>>,
    /// That has been said.
    complained: AtomicBool,
}

impl LogFiles {
    /// Opens `events.jsonl` and `build.log` in `directory`, appending. The directory may be
    /// renamed while they are open.
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub fn open(directory: &Path) -> Outcome<Self> {
        let open = |name: &'static str| {
            let path = directory.join(name);
            let opened = OpenOptions::new().append(true).create(true).open(&path);
            opened.map(|file| Log { name, file, cut: false }).map_err(|error| {
                Failure::build("cannot create a log of the build")
                    .because(error)
                    .fact("file", path.display())
                    .hint("choose a directory that can be written to with `--output`")
            })
        };
        Self::over([open("events.jsonl")?, open("build.log")?])
    }

    fn over(logs: [Log; 2]) -> Outcome<Self> {
        let (queue, orders) = sync_channel(QUEUE);
        let (lost, trouble) = (Arc::<AtomicU64>::default(), Arc::default());
        let (counter, complaint) = (Arc::clone(&lost), Arc::clone(&trouble));
        let writer = std::thread::Builder::new()
            .name("logs".into())
            .spawn(move || write_logs(logs, &orders, &counter, &complaint))
            .map_err(|error| {
                Failure::build("cannot start the thread of the logs").because(error)
            })?;
        let (queue, writer) = (Some(queue), Some(writer));
        let started = Instant::now();
        let complained = AtomicBool::new(false);
        let inner = Inner { queue, writer, started, lost, trouble, complained };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Events that go to the logs and on to `next`. The last event of a build returns once the
    /// logs hold everything; a log that cannot be written becomes one warning on `next`.
    pub fn tee(&self, next: &Events) -> Events {
        let (inner, next) = (Arc::clone(&self.inner), next.clone());
        let target = next.target().to_owned();
        Events::new(&target, move |target, event| {
            inner.write(target, event);
            if matches!(event, Event::BuildDone { .. } | Event::BuildFailed { .. }) {
                inner.reach();
            }
            if let Some(why) = inner.trouble.get()
                && !inner.complained.swap(true, Ordering::Relaxed)
            {
                next.warn(format!("the logs of this build are incomplete: {why}"));
            }
            next.emit(event.clone());
        })
    }
}

impl Inner {
    fn write(&self, target: &str, event: &Event) {
        let json = json_line(target, event, self.started.elapsed().as_secs_f64());
        let time = now();
        let mut human = String::new();
        // Every key typed would drown the rest.
        if !matches!(event, Event::Typing { index, count } if index + 1 < *count) {
            for line in text::describe(event).lines() {
                human += &format!("{time} {}\n", text::plain(line));
            }
        }
        if !self.tell(Order::Write { json, human }) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything queued is written, or patience ends.
    fn reach(&self) {
        let (answer, reached) = sync_channel(1);
        if self.tell(Order::Reach(answer)) {
            let _ = reached.recv_timeout(PATIENCE);
        }
    }

    fn tell(&self, order: Order) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.try_send(order).is_ok())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Without a sender the thread ends when the queue is empty.
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// One log file.
struct Log {
    name: &'static str,
    file: File,
    /// The last write was cut short, perhaps within a line.
    cut: bool,
}

impl Log {
    fn write(&mut self, text: &str) -> io::Result<()> {
        let written = if self.cut {
            self.file.write_all(format!("\n{text}").as_bytes())
        } else {
            self.file.write_all(text.as_bytes())
        };
        self.cut = written.is_err();
        written
    }
}

fn write_logs(
    mut logs: [Log; 2],
    orders: &Receiver<Order>,
    lost: &AtomicU64,
    trouble: &OnceLock<String>,
) {
    while let Ok(order) = orders.recv() {
        let (json, human) = match order {
            Order::Write { json, human } => (json, human),
            Order::Reach(answer) => {
                let _ = answer.send(());
                continue;
            }
        };
        let missing = lost.swap(0, Ordering::Relaxed);
        let gap = if missing > 0 {
            format!("{} {missing} events came too fast to be logged\n", now())
        } else {
            String::new()
        };
        for (log, text) in logs.iter_mut().zip([json, gap + &human]) {
            if let Err(error) = log.write(&text) {
                trouble.get_or_init(|| format!("{}: {error}", log.name));
            }
        }
    }
    for log in logs {
        // A log on a full disk has been complained of already.
        let _ = log.file.sync_all();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::ui::Stage;

    fn failed() -> Event {
        Event::BuildFailed { error: "error: it broke\nhint: mend it".into() }
    }

    #[test]
    fn both_logs_are_whole_when_the_build_has_ended() {
        let top = tempfile::tempdir().unwrap();
        let (scratch, done) = (top.path().join("scratch"), top.path().join("done"));
        std::fs::create_dir(&scratch).unwrap();
        let logs = LogFiles::open(&scratch).unwrap();
        let (next, seen) = Events::recorded();
        let events = logs.tee(&next);
        events.emit(Event::StageStarted { stage: Stage::Media });
        std::fs::rename(&scratch, &done).unwrap();
        events.note("two\nlines \u{1b}[31mred");
        for number in 0..2000 {
            events.emit(Event::Typing { index: number, count: 2000 });
        }
        events.emit(failed());
        // Nothing was dropped or closed yet.
        let json = std::fs::read_to_string(done.join("events.jsonl")).unwrap();
        let lines: Vec<serde_json::Value> =
            json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2003);
        assert_eq!(seen.lock().unwrap().len(), 2003);
        assert_eq!(lines[0]["event"], "stage-started");
        assert_eq!(lines[0]["stage"], "media");
        assert_eq!(lines[0]["target"], "test");
        assert!(lines[0]["time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
        assert!(lines[0]["elapsed"].as_f64().unwrap() < 5.0);
        let human = std::fs::read_to_string(done.join("build.log")).unwrap();
        let human: Vec<&str> = human.lines().collect();
        assert_eq!(human.len(), 6);
        assert!(human[0].ends_with("Z media     started"), "{}", human[0]);
        assert!(human[2].ends_with("Z lines red"), "{}", human[2]);
        assert!(human[5].ends_with("Z hint: mend it"), "{}", human[5]);
        events.note("after the end");
        drop((events, logs));
        let json = std::fs::read_to_string(done.join("events.jsonl")).unwrap();
        assert!(json.lines().last().unwrap().contains("after the end"));
    }

    #[test]
    fn a_full_disk_is_said_once_and_fails_nothing() {
        let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
        let log = |name| Log { name, file: full(), cut: false };
        let logs = LogFiles::over([log("events.jsonl"), log("build.log")]).unwrap();
        let (next, seen) = Events::recorded();
        let events = logs.tee(&next);
        for _ in 0..50 {
            events.note("x");
            events.emit(failed());
        }
        let seen = seen.lock().unwrap();
        let warnings: Vec<_> =
            seen.iter().filter(|event| matches!(event, Event::Warning { .. })).collect();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(format!("{warnings:?}").contains("No space left"), "{warnings:?}");
        assert_eq!(seen.len(), 101);
    }
}
