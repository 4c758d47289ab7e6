// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `cargo xtask test`: everything that must pass, each part named and timed.

use std::time::{Duration, Instant};

use crate::phases;
use crate::process::{Log, Outcome};

/// How many tests a phase ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Count {
    /// A phase that is one test.
    pub(crate) const ONE: Self = Self { passed: 1, failed: 0, skipped: 0 };

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// A part of the suite.
pub(crate) struct Phase {
    pub(crate) name: &'static str,
    /// Left out by `--fast`.
    pub(crate) is_slow: bool,
    /// Skipped without its needs even in CI.
    pub(crate) is_optional: bool,
    /// Runs only when it is named: its time on an emulated processor is not known to be bounded.
    pub(crate) is_by_hand: bool,
    /// Runs while the parts after it run: long, and no more than one processor's work.
    pub(crate) is_beside: bool,
    /// What is missing here, if anything.
    pub(crate) lacks: fn() -> Option<String>,
    pub(crate) run: fn(&Log) -> Result<Count, (String, Count)>,
}

enum Verdict {
    Passed(Count),
    Failed(String, Count),
    Skipped(String),
}

struct Options {
    is_fast: bool,
    skip: Vec<String>,
    only: Vec<String>,
}

fn options(words: &[&str]) -> Outcome<Options> {
    let mut options = Options { is_fast: false, skip: Vec::new(), only: Vec::new() };
    let mut words = words.iter();
    while let Some(&word) = words.next() {
        let mut name = || {
            let name = *words.next().ok_or_else(|| format!("{word} needs the name of a part"))?;
            if phases::ALL.iter().any(|phase| phase.name == name) {
                return Ok(name.to_owned());
            }
            let names: Vec<&str> = phases::ALL.iter().map(|phase| phase.name).collect();
            Err(format!("no such part: {name}; there are {}", names.join(", ")))
        };
        match word {
            "--fast" => options.is_fast = true,
            "--skip" => options.skip.push(name()?),
            "--only" => options.only.push(name()?),
            _ => {
                return Err(
                    "usage: cargo xtask test [--fast] [--skip NAME]... [--only NAME]...".into()
                );
            }
        }
    }
    Ok(options)
}

/// `test [--fast] [--skip NAME]... [--only NAME]...`. Its last line is the count of tests, so
/// a failure has no further text.
pub(crate) fn main(words: &[&str]) -> Outcome {
    let options = options(words)?;
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true" || value == "1");
    let table = run(&options, is_ci);
    let total = summary(&table);
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    if total.failed == 0 { Ok(()) } else { Err(String::new()) }
}

type Row = (&'static str, Verdict, Duration);

/// Runs the parts in their order, those that may run beside others in threads of their own.
fn run(options: &Options, is_ci: bool) -> Vec<Row> {
    std::thread::scope(|scope| {
        let mut table = Vec::new();
        let mut beside = Vec::new();
        for phase in phases::ALL {
            let begin = Instant::now();
            match refusal(phase, options, is_ci) {
                Some(verdict) => table.push(row(phase, verdict, begin)),
                None if phase.is_beside => {
                    let thread = scope.spawn(move || row(phase, execute(phase), begin));
                    beside.push((phase, begin, thread));
                }
                None => table.push(row(phase, execute(phase), begin)),
            }
        }
        for (phase, begin, thread) in beside {
            let verdict = thread.join();
            table.push(verdict.unwrap_or_else(|_| row(phase, failed("it panicked".into()), begin)));
        }
        table
    })
}

fn row(phase: &'static Phase, verdict: Verdict, begin: Instant) -> Row {
    report(phase.name, &verdict, begin.elapsed());
    (phase.name, verdict, begin.elapsed())
}

fn failed(reason: String) -> Verdict {
    Verdict::Failed(reason, Count { failed: 1, ..Count::default() })
}

/// Why a part does not run, if so. Installs what it needs.
fn refusal(phase: &Phase, options: &Options, is_ci: bool) -> Option<Verdict> {
    let named = |list: &[String]| list.iter().any(|name| name == phase.name);
    let skipped = |why: &str| Some(Verdict::Skipped(why.into()));
    if named(&options.skip) {
        return skipped("--skip");
    }
    if !options.only.is_empty() && !named(&options.only) {
        return skipped("--only");
    }
    if phase.is_by_hand && !named(&options.only) {
        return skipped("by hand: `--only` names it");
    }
    if options.is_fast && phase.is_slow {
        return skipped("--fast");
    }
    let reason = (phase.lacks)()?;
    let is_allowed = phase.is_optional || !is_ci;
    Some(if is_allowed { Verdict::Skipped(reason) } else { failed(reason) })
}

fn execute(phase: &Phase) -> Verdict {
    println!("==== {} ...", phase.name);
    let log = match Log::create(phase.name) {
        Ok(log) => log,
        Err(reason) => return failed(reason),
    };
    match (phase.run)(&log) {
        Ok(count) => Verdict::Passed(count),
        Err((reason, mut count)) => {
            println!("{}", log.tail(80));
            println!("---- the end of {}", log.path().display());
            count.failed = count.failed.max(1);
            Verdict::Failed(reason, count)
        }
    }
}

fn word(verdict: &Verdict) -> (&'static str, &str) {
    match verdict {
        Verdict::Passed(_) => ("passed", ""),
        Verdict::Failed(reason, _) => ("FAILED", reason),
        Verdict::Skipped(reason) => ("skipped", reason),
    }
}

fn report(name: &str, verdict: &Verdict, time: Duration) {
    let (word, reason) = word(verdict);
    let dash = if reason.is_empty() { "" } else { ": " };
    println!("==== {name} {word} ({:.1} s){dash}{reason}", time.as_secs_f64());
}

fn summary(table: &[Row]) -> Count {
    let mut total = Count::default();
    println!();
    for (name, verdict, time) in table {
        let count = match verdict {
            Verdict::Passed(count) | Verdict::Failed(_, count) => *count,
            Verdict::Skipped(_) => Count { skipped: 1, ..Count::default() },
        };
        total.add(count);
        let (word, reason) = word(verdict);
        println!(
            "{name:<12} {word:<8} {:>8.1} s {:>6} tests  {reason}",
            time.as_secs_f64(),
            count.passed + count.failed
        );
    }
    total
}
