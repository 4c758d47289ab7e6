// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The printer: the only way to the terminal.
//!
//! Results (paths of artefacts, tables, JSON) go to standard output; all else goes to standard
//! error. In text mode a terminal shows one live line per build below the lines that stay;
//! without a terminal, or with `--no-progress`, there are plain lines only. In JSON mode every
//! event is one line of JSON on standard output.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::events::{Event, Events, Stream};
use super::live::Live;
use super::logfile::json_line;
use super::report::{Failure, Outcome};
use super::text;

/// Plain output says how far a transfer is this often.
const PLAIN_PACE: Duration = Duration::from_secs(10);

/// How events are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line, for programs.
    Json,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What the user asked of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrinterOptions {
    /// Text or JSON.
    pub format: Format,
    /// Live lines where there is a terminal.
    pub progress: bool,
    /// Only warnings, failures and results.
    pub quiet: bool,
    /// HTTP requests, machine events and screenshots too.
    pub verbose: bool,
}

impl Default for PrinterOptions {
    fn default() -> Self {
        Self { format: Format::Text, progress: true, quiet: false, verbose: false }
    }
}

/// The owner of standard output and standard error. Cheap to clone.
#[derive(Clone)]
pub struct Printer {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    options: PrinterOptions,
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    colored: bool,
    live: Option<Live>,
    started: Instant,
    plain: HashMap<String, Plain>,
}

/// What plain output has said last of a build.
#[derive(Default)]
struct Plain {
    waiting: String,
    progress: Option<(String, Instant)>,
}

impl Printer {
    /// A printer on this process's standard output and standard error, in colour where there is
    /// a terminal for it.
    pub fn new(options: PrinterOptions) -> Self {
        Self::with_color(options, Color::Auto)
    }

    /// A printer that uses colour as told.
    pub fn with_color(options: PrinterOptions, color: Color) -> Self {
        let terminal = io::stderr().is_terminal();
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colored = match color {
            Color::Auto => terminal && !dumb && !no_color,
            Color::Always => true,
            Color::Never => false,
        };
        let live = terminal
            && !dumb
            && options.progress
            && !options.quiet
            && options.format == Format::Text;
        let live = live.then(Live::new);
        Self::over(options, Box::new(io::stdout()), Box::new(io::stderr()), colored, live)
    }

    fn over(
        options: PrinterOptions,
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
        colored: bool,
        live: Option<Live>,
    ) -> Self {
        let started = Instant::now();
        let inner = Inner { options, out, err, colored, live, started, plain: HashMap::new() };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Events of one build that are printed here.
    pub fn events(&self, target: &str) -> Events {
        let printer = self.clone();
        Events::new(target, move |target, event| printer.locked().event(target, event))
    }

    /// Prints a result for scripts, a path for instance, to standard output. In JSON mode the
    /// events say it already.
    ///
    /// # Errors
    /// When standard output cannot be written to.
    pub fn result(&self, line: &str) -> Outcome<()> {
        let mut inner = self.locked();
        if inner.options.format == Format::Json {
            return Ok(());
        }
        inner.data(line)
    }

    /// Prints what the user asked for (a list, a table, JSON) to standard output, in every mode.
    ///
    /// # Errors
    /// When standard output cannot be written to.
    pub fn data(&self, text: &str) -> Outcome<()> {
        self.locked().data(text)
    }

    /// Says something that is not part of any build on standard error; not when quiet.
    pub fn notice(&self, text: &str) {
        let mut inner = self.locked();
        if !inner.options.quiet {
            inner.remark(text);
        }
    }

    /// Warns on standard error, quiet or not.
    pub fn warn(&self, text: &str) {
        self.locked().warning("", text);
    }

    /// Prints a failure to standard error, in colour where it fits.
    pub fn failure(&self, failure: &Failure) {
        let mut inner = self.locked();
        let text = inner.paint_failure(&failure.to_string());
        inner.remark(&text);
    }

    /// Takes the live lines away, before something else writes to the terminal or the run ends.
    pub fn finish(&self) {
        let mut inner = self.locked();
        if let Some(live) = &mut inner.live {
            live.clear();
        }
    }

    /// Asks the user on the terminal; returns the first letter of the answer in lower case, or
    /// `None` when nobody can answer (no terminal, or end of input). Blocks; the live lines wait.
    pub fn ask(&self, question: &str) -> Option<char> {
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return None;
        }
        let mut inner = self.locked();
        inner.on_terminal(|inner| {
            let _ = write!(inner.err, "{question} ");
            let _ = inner.err.flush();
            let mut answer = String::new();
            io::stdin().read_line(&mut answer).ok().filter(|count| *count > 0)?;
            answer.trim().chars().next().map(|c| c.to_ascii_lowercase())
        })
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn event(&mut self, target: &str, event: &Event) {
        if self.options.format == Format::Json {
            let line = json_line(target, event, self.started.elapsed().as_secs_f64());
            // A reader that went away does not stop the build.
            let _ = self.out.write_all(line.as_bytes()).and_then(|()| self.out.flush());
            return;
        }
        if let Some(live) = &mut self.live {
            live.show(target, event);
        }
        match event {
            Event::Warning { text } => self.warning(target, text),
            _ if self.is_shown(target, event) => self.line(target, event),
            _ => {}
        }
    }

    /// Whether an event gets a line that stays, in text mode.
    fn is_shown(&mut self, target: &str, event: &Event) -> bool {
        let plain = self.live.is_none();
        let said = self.plain.entry(target.to_owned()).or_default();
        match event {
            _ if self.options.quiet => false,
            Event::Waiting { what, .. } => {
                let changed = said.waiting != *what;
                said.waiting.clone_from(what);
                plain && changed
            }
            Event::Progress { what, .. } => {
                let now = Instant::now();
                let due = match &said.progress {
                    Some((last, at)) if last == what => now.duration_since(*at) >= PLAIN_PACE,
                    // Short transfers end before their first line is due.
                    _ => {
                        said.progress = Some((what.clone(), now));
                        false
                    }
                };
                if due {
                    said.progress = Some((what.clone(), now));
                }
                plain && due
            }
            Event::StageStarted { .. } => {
                *said = Plain::default();
                plain
            }
            Event::Http { .. } | Event::Machine { .. } | Event::Screenshot { .. } => {
                self.options.verbose
            }
            Event::Typing { .. } => false,
            Event::BuildFailed { .. } => false,
            _ => true,
        }
    }

    fn line(&mut self, target: &str, event: &Event) {
        if self.options.quiet {
            return;
        }
        let line = match event {
            Event::Output { stream, line, .. } => {
                let mark = if *stream == Stream::Stderr { "!" } else { "|" };
                format!("{} {mark} {}", text::plain(target), text::plain(line))
            }
            Event::BuildDone { output, seconds, split } => format!(
                "\nBuilt {} in {} (own waits {:.1}s) into {}",
                text::plain(target),
                text::seconds(*seconds),
                split.own,
                text::plain(output)
            ),
            event => {
                let words = text::describe(event);
                let words: Vec<_> = words.lines().map(text::plain).collect();
                format!("{}  {}", self.paint("36", &text::plain(target)), words.join("\n  "))
            }
        };
        self.remark(&line);
    }

    fn warning(&mut self, target: &str, text: &str) {
        let label = self.paint("1;33", "warning:");
        let place = if target.is_empty() { String::new() } else { format!("{target}: ") };
        self.remark(&format!("{label} {place}{}", text::plain(text)));
    }

    /// One line on standard error, above the live lines.
    fn remark(&mut self, line: &str) {
        // Nothing sensible is left to do when standard error is gone.
        self.on_terminal(|inner| {
            let _ = writeln!(inner.err, "{line}").and_then(|()| inner.err.flush());
        });
    }

    fn data(&mut self, text: &str) -> Outcome<()> {
        self.on_terminal(|inner| writeln!(inner.out, "{text}").and_then(|()| inner.out.flush()))
            .map_err(|error| Failure::build("cannot write to standard output").because(error))
    }

    fn on_terminal<T>(&mut self, action: impl FnOnce(&mut Self) -> T) -> T {
        match self.live.take() {
            None => action(self),
            Some(live) => {
                let result = live.above(|| action(self));
                self.live = Some(live);
                result
            }
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colored { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Colours `error:` and `hint:`, and lets no control character of a guest through.
    fn paint_failure(&self, text: &str) -> String {
        let mut lines = text.split('\n').map(|line| {
            let line = text::plain(line);
            for (label, code) in [("error:", "1;31"), ("hint:", "1;36")] {
                if let Some(rest) = line.strip_prefix(label) {
                    return format!("{}{rest}", self.paint(code, label));
                }
            }
            line.into_owned()
        });
        let first = lines.next().unwrap_or_default();
        lines.fold(first, |all, line| all + "\n" + &line)
    }
}

impl std::fmt::Debug for Printer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Printer").field("options", &self.locked().options).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "printer_tests.rs"]
mod tests;
