// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The only way to write to the terminal: decided once, data on standard output, the rest on
//! standard error.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::events::{Event, Events, Stage};
use super::logfile::{Line, now};
use super::words;
use super::{Failure, Outcome};

/// Without a terminal, progress is said this often.
const PLAIN_PROGRESS: Duration = Duration::from_secs(10);
/// How often a live line moves by itself.
const TICK: Duration = Duration::from_millis(250);

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Lines for people on standard error.
    Text,
    /// JSON lines on standard output.
    Json,
}

/// The user's wishes.
#[derive(Debug, Clone, Copy)]
pub struct PrinterOptions {
    /// Text or JSON.
    pub format: Format,
    /// Live lines on a terminal.
    pub progress: bool,
    /// Only warnings and failures.
    pub quiet: bool,
    /// Also waits, requests and screenshots.
    pub verbose: bool,
}

/// Writes what happens. Cheap to clone.
#[derive(Clone)]
pub struct Printer {
    options: PrinterOptions,
    live: Option<MultiProgress>,
    started: Instant,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    lines: BTreeMap<String, Live>,
    said: BTreeMap<String, Instant>,
}

struct Live {
    bar: ProgressBar,
    stage: Option<Stage>,
    since: Instant,
}

impl Printer {
    /// A printer; live lines need a terminal on standard error.
    pub fn new(options: PrinterOptions) -> Self {
        let wanted = options.progress && options.format == Format::Text && !options.quiet;
        let live = (wanted && std::io::stderr().is_terminal()).then(MultiProgress::new);
        Self { options, live, started: Instant::now(), state: Arc::default() }
    }

    /// Events of one build that are written here.
    pub fn events(&self, target: &str) -> Events {
        let printer = self.clone();
        Events::new(target, move |target, event| printer.take(target, event))
    }

    /// A line that is not part of any build.
    pub fn notice(&self, text: &str) {
        if !self.options.quiet {
            self.line(text);
        }
    }

    /// A failure that does not end the run.
    pub fn failure(&self, problem: &Failure) {
        self.line(&problem.to_string());
    }

    /// A result for scripts. In JSON the events say it already.
    pub fn result(&self, text: &str) -> Outcome<()> {
        if self.options.format == Format::Json {
            return Ok(());
        }
        let print = || writeln!(std::io::stdout().lock(), "{text}");
        let printed = match &self.live {
            Some(live) => live.suspend(print),
            None => print(),
        };
        printed.map_err(|error| Failure::build("cannot write to standard output").because(error))
    }

    /// Takes the live lines away.
    pub fn finish(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for live in std::mem::take(&mut state.lines).into_values() {
            live.bar.finish_and_clear();
        }
    }

    fn take(&self, target: &str, event: &Event) {
        if self.options.format == Format::Json {
            return self.json(target, event);
        }
        self.show(target, event);
        if self.is_worth_a_line(target, event)
            && let Some(text) = words::line(event)
        {
            self.line(&label(target, &text));
        }
    }

    fn json(&self, target: &str, event: &Event) {
        let elapsed = (self.started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        let line = Line { time: now(), elapsed, target, event };
        if let Ok(text) = serde_json::to_string(&line) {
            // A reader that is gone does not stop a build.
            let _ = writeln!(std::io::stdout().lock(), "{text}");
        }
    }

    /// Whether an event becomes a line of its own.
    fn is_worth_a_line(&self, target: &str, event: &Event) -> bool {
        let (quiet, verbose) = (self.options.quiet, self.options.verbose);
        match event {
            Event::Warning { .. } => true,
            // The failure itself is printed at the end, once.
            Event::BuildFailed { .. } => false,
            _ if quiet => false,
            Event::StageStarted { .. } => self.live.is_none(),
            Event::Waiting { .. } => verbose || self.live.is_none(),
            Event::Progress { .. } => self.live.is_none() && self.is_due(target),
            Event::Typing { .. } | Event::Http { .. } | Event::Screenshot { .. } => verbose,
            _ => true,
        }
    }

    fn is_due(&self, target: &str) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let due = state.said.get(target).is_none_or(|last| now - *last >= PLAIN_PROGRESS);
        if due {
            state.said.insert(target.to_owned(), now);
        }
        due
    }

    fn line(&self, text: &str) {
        let print = || {
            // Nowhere else to complain about standard error.
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        };
        match &self.live {
            Some(live) => live.suspend(print),
            None => print(),
        }
    }

    /// Moves the build's live line.
    fn show(&self, target: &str, event: &Event) {
        let Some(multi) = &self.live else { return };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::BuildDone { .. } | Event::BuildFailed { .. } => {
                if let Some(live) = state.lines.remove(target) {
                    live.bar.finish_and_clear();
                }
            }
            Event::StageStarted { stage } => {
                let live = state.lines.entry(target.to_owned()).or_insert_with(|| Live {
                    bar: bar(multi, target),
                    stage: None,
                    since: Instant::now(),
                });
                live.stage = Some(*stage);
                live.since = Instant::now();
                live.say("");
            }
            event => {
                if let Some(live) = state.lines.get(target)
                    && let Some(text) = doing(event)
                {
                    live.say(&text);
                }
            }
        }
    }
}

impl Live {
    fn say(&self, text: &str) {
        self.bar.set_prefix(self.stage.map_or("", Stage::name));
        self.bar.set_message(text.to_owned());
    }
}

fn bar(multi: &MultiProgress, target: &str) -> ProgressBar {
    let bar = multi.add(ProgressBar::new_spinner());
    let template = format!("{target:<12} {{prefix:<10}} {{elapsed:>5}}  {{wide_msg}}");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(TICK);
    bar
}

/// What a live line says while an event lasts.
fn doing(event: &Event) -> Option<String> {
    match event {
        Event::Waiting { what, .. } => Some(format!("waiting for {what}")),
        Event::Progress { what, done, total, rate } => {
            Some(words::progress(what, *done, *total, *rate))
        }
        Event::Typing { index, count } => Some(format!("typing {index}/{count}")),
        Event::Output { step, line, .. } => Some(format!("{step}: {line}")),
        _ => None,
    }
}

fn label(target: &str, text: &str) -> String {
    if target.is_empty() { text.to_owned() } else { format!("{target:<12} {text}") }
}
