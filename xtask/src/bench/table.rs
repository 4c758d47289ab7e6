// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The table that the benchmark prints.

use std::fmt::Write;

use super::plan::Plan;
use super::{Split, ours, reference};

/// Goal for imgforge's own work and waits of one build, in seconds.
const OWN_SECONDS: f64 = 5.0;
/// Goal for the start of the program, in milliseconds (less than).
const LIST_MS: f64 = 20.0;
/// Goal for the resident memory of the build's process, in MiB (less than).
const PEAK_MIB: f64 = 60.0;

/// Everything that was measured.
#[derive(Debug)]
pub(super) struct Results {
    target: &'static str,
    packer_boot_wait: Option<String>,
    pub(super) ours: Vec<ours::Build>,
    pub(super) packer: Vec<reference::Build>,
    /// The program measured, in words.
    pub(super) program: Option<String>,
    pub(super) list_ms: Option<f64>,
    load_before: Option<String>,
    pub(super) load_after: Option<String>,
}

impl Results {
    pub(super) fn new(plan: &Plan, load_before: Option<String>) -> Self {
        Self {
            target: plan.name,
            packer_boot_wait: plan.packer_boot_wait.clone(),
            ours: Vec::new(),
            packer: Vec::new(),
            program: None,
            list_ms: None,
            load_before,
            load_after: None,
        }
    }
}

/// The middle of some figures; NaN of none.
pub(super) fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => figures[n / 2],
        n => f64::midpoint(figures[n / 2 - 1], figures[n / 2]),
    }
}

/// The median of each part by itself.
fn typical(splits: &[Split]) -> Vec<(&'static str, f64)> {
    let names = Split::default().parts();
    let mut rows = Vec::with_capacity(names.len());
    for (index, (name, _)) in names.into_iter().enumerate() {
        let mut figures: Vec<f64> = splits.iter().map(|split| split.parts()[index].1).collect();
        rows.push((name, median(&mut figures)));
    }
    rows
}

/// The table, and how many goals were missed.
pub(super) fn render(results: &Results) -> (String, usize) {
    let mut out = String::new();
    let runs = results.ours.len().max(results.packer.len());
    let each = if runs == 1 { "once".into() } else { format!("{runs} times, medians") };
    let _ =
        writeln!(out, "\nOne build of {} by each ({each}), wall time in seconds\n", results.target);
    times(&mut out, results);
    let missed = goals(&mut out, results);
    method(&mut out, results);
    (out, missed)
}

fn times(out: &mut String, results: &Results) {
    let ours = typical(&results.ours.iter().map(|build| build.split).collect::<Vec<_>>());
    let packer = typical(&results.packer.iter().map(|build| build.split).collect::<Vec<_>>());
    let _ = writeln!(out, "{:<12}{:>10}{:>10}{:>18}", "", "imgforge", "packer", "packer/imgforge");
    for ((name, ours), (_, packer)) in ours.into_iter().zip(packer) {
        row(out, name, ours, packer);
    }
    let mut ours: Vec<f64> = results.ours.iter().map(|build| build.seconds).collect();
    let mut packer: Vec<f64> = results.packer.iter().map(|build| build.seconds).collect();
    row(out, "whole build", median(&mut ours), median(&mut packer));
    if runs_differ(&ours) || runs_differ(&packer) {
        let _ = writeln!(out, "\n  whole builds: imgforge {}; packer {}", all(&ours), all(&packer));
    }
}

fn runs_differ(figures: &[f64]) -> bool {
    figures.len() > 1
}

fn all(figures: &[f64]) -> String {
    figures.iter().map(|seconds| format!("{seconds:.1}")).collect::<Vec<_>>().join(" ")
}

fn row(out: &mut String, name: &str, ours: f64, packer: f64) {
    let ratio = packer / ours;
    // Of next to nothing, a ratio says nothing.
    let ratio =
        if ratio.is_finite() && ours >= 0.05 { format!("{ratio:.2}") } else { "-".to_owned() };
    let _ = writeln!(out, "{name:<12}{:>10}{:>10}{ratio:>18}", cell(ours), cell(packer));
}

fn cell(seconds: f64) -> String {
    if seconds.is_finite() { format!("{seconds:.1}") } else { "-".into() }
}

fn goals(out: &mut String, results: &Results) -> usize {
    if results.ours.is_empty() {
        return 0;
    }
    let mut own: Vec<f64> = results.ours.iter().map(|build| build.split.own).collect();
    // The largest of all runs: a goal for memory holds always, not in the middle.
    let peak = results.ours.iter().map(|build| build.peak_kib).max().flatten();
    let own = median(&mut own);
    let peak = peak.map(|kib| kib as f64 / 1024.0);
    let list = results.list_ms;
    let lines = [
        ("own work and waits", Some(own), "s", "at most", OWN_SECONDS, own <= OWN_SECONDS),
        ("imgforge list", list, "ms", "under", LIST_MS, list.is_some_and(|ms| ms < LIST_MS)),
        ("peak memory", peak, "MiB", "under", PEAK_MIB, peak.is_some_and(|mib| mib < PEAK_MIB)),
    ];
    let _ = writeln!(out, "\n{:<22}{:>10}  {:<16}", "Goals of imgforge", "measured", "goal");
    let mut missed = 0;
    for (name, figure, unit, how, goal, met) in lines {
        let (figure, word) = match figure {
            Some(figure) => (format!("{figure:.1} {unit}"), if met { "PASS" } else { "MISS" }),
            None => ("-".into(), "NOT MEASURED"),
        };
        missed += usize::from(word == "MISS");
        let goal = format!("{how} {goal} {unit}");
        let _ = writeln!(out, "{name:<22}{figure:>10}  {goal:<16}{word}");
    }
    missed
}

fn method(out: &mut String, results: &Results) {
    let _ = writeln!(out, "\nHow it was measured");
    if let (Some(program), Some(build)) = (&results.program, results.ours.first()) {
        let _ = writeln!(out, "  imgforge: {program}; machine by {}", build.hypervisor);
        let _ =
            writeln!(out, "  its split: `build-done` in events.jsonl; start and exit count as own");
        let _ =
            writeln!(out, "  its memory: high-water mark of its own process, QEMU not included");
    }
    if !results.packer.is_empty() {
        let _ = writeln!(
            out,
            "  packer: {}, QEMU builder, TCG, 100 ms a key; then gzip -6 and sha1sum",
            reference::version()
        );
        if let Some(wait) = &results.packer_boot_wait {
            let _ = writeln!(
                out,
                "  its boot wait: {wait}, not the target's; the ratio is not a fair one"
            );
        }
        let _ =
            writeln!(out, "  its split: by the lines that it prints; same medium, answers, steps");
    }
    let load = |load: &Option<String>| load.clone().unwrap_or_else(|| "unknown".into());
    let _ = writeln!(
        out,
        "  load average: {} before, {} after; more than the builds' own makes figures worthless",
        load(&results.load_before),
        load(&results.load_after)
    );
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn results(own: f64, list_ms: f64, peak_kib: Option<u64>) -> Results {
        let split = Split { boot_wait: 12.0, typing: 4.0, guest: 40.0, own, ..Split::default() };
        let slow =
            Split { boot_wait: 12.0, typing: 20.0, guest: 40.0, compress: 4.0, own: 2.0, ..split };
        Results {
            target: "tiny",
            packer_boot_wait: None,
            ours: vec![ours::Build {
                seconds: split.total(),
                split,
                peak_kib,
                hypervisor: "qemu".into(),
            }],
            packer: vec![reference::Build { seconds: slow.total(), split: slow }],
            program: Some("imgforge".into()),
            list_ms: Some(list_ms),
            load_before: Some("0.10".into()),
            load_after: None,
        }
    }

    #[test]
    fn ratio_and_goals() {
        let (text, missed) = render(&results(4.0, 9.0, Some(40 * 1024)));
        let row = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line[12..].split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(row("typing"), ["4.0", "20.0", "5.00"]);
        assert_eq!(row("compress"), ["0.0", "4.0", "-"]);
        assert_eq!(row("whole build"), ["60.0", "78.0", "1.30"]);
        assert_eq!((missed, text.matches("PASS").count()), (0, 3), "{text}");
    }

    #[test]
    fn missed_goals_are_counted_and_unmeasured_ones_said() {
        let (text, missed) = render(&results(5.1, 20.0, Some(60 * 1024)));
        assert_eq!((missed, text.matches("MISS").count()), (3, 3), "{text}");
        let (text, missed) = render(&results(1.0, 1.0, None));
        assert_eq!((missed, text.matches("NOT MEASURED").count()), (0, 1), "{text}");
    }

    #[test]
    fn one_side_alone_has_no_ratio() {
        let mut alone = results(1.0, 1.0, None);
        alone.ours.clear();
        let (text, missed) = render(&alone);
        assert!(text.contains("78.0") && !text.contains("Goals") && missed == 0, "{text}");
    }

    #[test]
    fn medians() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&mut []).is_nan());
    }
}
