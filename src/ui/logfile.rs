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
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use serde::Serialize;

use super::events::Event;
use super::report::{Failure, Outcome};
use super::text;

/// Events waiting to be written; more than a burst of provisioner output, less than a MiB or two.
const QUEUE: usize = 8192;

/// Something that takes events, as [`super::Events::new`] wants it.
pub type EventSink = Arc<dyn Fn(&str, &Event) + Send + Sync>;

/// One sink that hands each event to all of `sinks`, in their order.
pub fn tee(sinks: Vec<EventSink>) -> impl Fn(&str, &Event) + Send + Sync + 'static {
    move |target, event| sinks.iter().for_each(|sink| sink(target, event))
}

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
    Write { json: String, human: String },
    Close,
}

/// The open logs of one build.
#[derive(Debug)]
pub struct LogFiles {
    queue: SyncSender<Order>,
    writer: Option<JoinHandle<()>>,
    started: Instant,
    lost: Arc<AtomicU64>,
}

impl LogFiles {
    /// Opens `events.jsonl` and `build.log` in `dir`, appending. The directory may be renamed
    /// while they are open. `complain` is called once, from another thread, when a log cannot
    /// be written any more; the build goes on.
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub fn open(dir: &Path, complain: impl Fn(&str) + Send + 'static) -> Outcome<Self> {
        let open = |name: &'static str| {
            let path = dir.join(name);
            let opened = OpenOptions::new().append(true).create(true).open(&path);
            opened.map(|file| Log { name, file, cut: false }).map_err(|error| {
                Failure::build(format!("cannot write the log {}", path.display()))
                    .because(error)
                    .fact("file", path.display())
                    .hint("choose a directory that can be written to with `--output`")
            })
        };
        Self::over([open("events.jsonl")?, open("build.log")?], complain)
    }

    fn over(logs: [Log; 2], complain: impl Fn(&str) + Send + 'static) -> Outcome<Self> {
        let (queue, orders) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&lost);
        let writer = std::thread::Builder::new()
            .name("logs".into())
            .spawn(move || write_logs(logs, &orders, &counter, &complain))
            .map_err(|error| {
                Failure::build("cannot start the thread of the logs").because(error)
            })?;
        Ok(Self { queue, writer: Some(writer), started: Instant::now(), lost })
    }

    /// The sink of these logs; what it takes after [`LogFiles::close`] is dropped.
    pub fn sink(&self) -> EventSink {
        let (queue, lost) = (self.queue.clone(), Arc::clone(&self.lost));
        let started = self.started;
        Arc::new(move |target, event| {
            let json = json_line(target, event, started.elapsed().as_secs_f64());
            let time = now();
            let mut human = String::new();
            for line in text::describe(event).lines() {
                human += &format!("{time} {target} {}\n", text::plain(line));
            }
            if queue.try_send(Order::Write { json, human }).is_err() {
                lost.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    /// Writes what is still queued, makes it durable, and ends.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for LogFiles {
    fn drop(&mut self) {
        let _ = self.queue.send(Order::Close);
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
    complain: &(impl Fn(&str) + Send),
) {
    let mut complained = false;
    while let Ok(Order::Write { json, human }) = orders.recv() {
        let missing = lost.swap(0, Ordering::Relaxed);
        let gap = if missing > 0 {
            format!("{} {missing} events came too fast to be logged\n", now())
        } else {
            String::new()
        };
        for (log, text) in logs.iter_mut().zip([json, gap + &human]) {
            if let Err(error) = log.write(&text)
                && !complained
            {
                complained = true;
                complain(&format!("cannot write {} ({error}); the build goes on", log.name));
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
    use crate::ui::{Events, Stage};
    use std::sync::Mutex;

    #[test]
    fn writes_both_logs_even_after_the_directory_was_renamed() {
        let top = tempfile::tempdir().unwrap();
        let (scratch, done) = (top.path().join("scratch"), top.path().join("done"));
        std::fs::create_dir(&scratch).unwrap();
        let logs = LogFiles::open(&scratch, |line| panic!("{line}")).unwrap();
        let sink = logs.sink();
        let events = Events::new("debian-13", tee(vec![sink]));
        events.emit(Event::StageStarted { stage: Stage::Media });
        std::fs::rename(&scratch, &done).unwrap();
        events.note("two\nlines \u{1b}[31mred");
        for number in 0..2000 {
            events.note(format!("{number}"));
        }
        logs.close();
        events.note("after the end");
        let json = std::fs::read_to_string(done.join("events.jsonl")).unwrap();
        let lines: Vec<serde_json::Value> =
            json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2002);
        assert_eq!(lines[0]["event"], "stage-started");
        assert_eq!(lines[0]["stage"], "media");
        assert_eq!(lines[0]["target"], "debian-13");
        assert!(lines[0]["time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
        assert!(lines[0]["elapsed"].as_f64().unwrap() < 5.0);
        let human = std::fs::read_to_string(done.join("build.log")).unwrap();
        let human: Vec<&str> = human.lines().collect();
        assert_eq!(human.len(), 2003);
        assert!(human[0].ends_with("Z debian-13 media     started"), "{}", human[0]);
        assert!(human[2].ends_with("Z debian-13 lines red"), "{}", human[2]);
    }

    #[test]
    fn a_full_disk_is_said_once_and_fails_nothing() {
        let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&said);
        let log = |name| Log { name, file: full(), cut: false };
        let logs = LogFiles::over([log("events.jsonl"), log("build.log")], move |line: &str| {
            list.lock().unwrap().push(line.to_owned());
        })
        .unwrap();
        let events = Events::new("debian-13", tee(vec![logs.sink()]));
        for _ in 0..50 {
            events.note("x");
        }
        logs.close();
        let said = said.lock().unwrap();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("No space left"), "{said:?}");
    }
}
