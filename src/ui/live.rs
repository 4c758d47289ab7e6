// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The live part of the terminal: one line per build below everything printed so far.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::events::Event;
use super::text;

/// How often the clocks of the live lines are drawn anew.
const TICK: Duration = Duration::from_millis(250);

/// The live lines of all builds of this run.
pub(super) struct Live {
    area: MultiProgress,
    lines: HashMap<String, Line>,
    /// Width of the longest target's name so far.
    width: usize,
}

struct Line {
    bar: ProgressBar,
    step: Arc<Mutex<Step>>,
}

/// What a line's clock runs over.
struct Step {
    name: &'static str,
    since: Instant,
}

impl Live {
    /// Live lines drawn on standard error.
    pub(super) fn new() -> Self {
        let area = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        Self { area, lines: HashMap::new(), width: 0 }
    }

    /// Brings the line of `target` up to date.
    pub(super) fn show(&mut self, target: &str, event: &Event) {
        if matches!(event, Event::BuildDone { .. } | Event::BuildFailed { .. }) {
            self.end(target);
            return;
        }
        if matches!(event, Event::BuildStarted { .. } | Event::StageStarted { .. }) {
            self.begin(target);
        }
        let Some(line) = self.lines.get(target) else { return };
        match event {
            Event::StageStarted { stage } => {
                line.enter(stage.name());
                line.bar.set_message("");
            }
            Event::StageDone { .. } => {
                line.enter("");
                line.bar.set_message("");
            }
            Event::Waiting { what, .. } => {
                line.bar.set_message(format!("waiting for {}", text::plain(what)));
            }
            Event::Progress { what, done, total, rate } => {
                line.bar.set_message(text::transfer(what, *done, *total, *rate));
            }
            Event::Typing { index, count } => {
                line.bar.set_message(format!("typing the boot command, {} of {count}", index + 1));
            }
            Event::Output { step, .. } => line.bar.set_message(text::plain(step).into_owned()),
            _ => {}
        }
    }

    /// Does something to the terminal while no live line is on it.
    pub(super) fn above<T>(&self, action: impl FnOnce() -> T) -> T {
        self.area.suspend(action)
    }

    /// Takes all live lines away.
    pub(super) fn clear(&mut self) {
        for (_, line) in self.lines.drain() {
            line.bar.finish_and_clear();
        }
        // A terminal that is gone needs no clearing.
        let _ = self.area.clear();
    }

    fn begin(&mut self, target: &str) {
        if self.lines.contains_key(target) {
            return;
        }
        self.width = self.width.max(target.chars().count());
        let step = Arc::new(Mutex::new(Step { name: "start", since: Instant::now() }));
        let name = format!("{:<width$}", text::plain(target), width = self.width);
        let bar = ProgressBar::new_spinner().with_style(style(&step)).with_prefix(name);
        let bar = self.area.add(bar);
        bar.enable_steady_tick(TICK);
        self.lines.insert(target.to_owned(), Line { bar, step });
    }

    fn end(&mut self, target: &str) {
        if let Some(line) = self.lines.remove(target) {
            line.bar.finish_and_clear();
            self.area.remove(&line.bar);
        }
    }
}

impl Line {
    fn enter(&self, name: &'static str) {
        let mut step = self.step.lock().unwrap_or_else(PoisonError::into_inner);
        *step = Step { name, since: Instant::now() };
    }
}

/// Name, step, clock, and what fits of the rest.
fn style(step: &Arc<Mutex<Step>>) -> ProgressStyle {
    let step = Arc::clone(step);
    let clock = move |_: &ProgressState, out: &mut dyn Write| {
        let step = step.lock().unwrap_or_else(PoisonError::into_inner);
        let time = text::duration(step.since.elapsed());
        // Writing into a line that is being drawn does not fail.
        let _ = write!(out, "{:<9} {time:<7}", step.name);
    };
    ProgressStyle::with_template("{prefix}  {step_and_clock} {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .with_key("step_and_clock", clock)
}
