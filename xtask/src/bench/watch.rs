// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Programs that are measured: started, timed, watched, ended.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::Outcome;

/// How often the memory of a program is looked at. The figure read is a high-water mark, so only
/// growth in the last of these intervals can be missed.
const SAMPLE: Duration = Duration::from_millis(50);

/// A program that ran to its end.
#[derive(Debug)]
pub(super) struct Ran {
    /// Wall time from start to exit, in seconds.
    pub(super) seconds: f64,
    /// Each line of standard output with the seconds since the start.
    pub(super) lines: Vec<(f64, String)>,
    /// Largest resident set of the process itself, in KiB; unknown where there is no procfs.
    pub(super) peak_kib: Option<u64>,
}

/// Runs a command with both its outputs in `log`; fails with the log's last lines when it does.
/// It stays in this process group, so that Ctrl-C reaches it too and it can clean up.
pub(super) fn run(command: &mut Command, log: &Path) -> Outcome<Ran> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut file = File::create(log).map_err(|e| format!("cannot write {}: {e}", log.display()))?;
    let errors = file.try_clone().map_err(|e| format!("cannot write {}: {e}", log.display()))?;
    let started = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).spawn();
    let mut child = child.map_err(|error| format!("cannot start {name}: {error}"))?;
    let output = child.stdout.take().ok_or("a program without standard output")?;
    let mut lines = Vec::new();
    let read = || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            let _ = writeln!(file, "{line}");
            lines.push((started.elapsed().as_secs_f64(), line));
        }
    };
    let (status, seconds, peak_kib) = watch(&mut child, started, read);
    let status = status.map_err(|error| format!("cannot wait for {name}: {error}"))?;
    if !status.success() {
        return Err(format!("{name}: {status}\n{}", tail(log, 25)));
    }
    Ok(Ran { seconds, lines, peak_kib })
}

/// Waits for a program's end, doing `meanwhile` first; its status, the seconds since `started`, and
/// its largest resident set in KiB.
fn watch(
    child: &mut Child,
    started: Instant,
    meanwhile: impl FnOnce(),
) -> (io::Result<ExitStatus>, f64, Option<u64>) {
    let ended = AtomicBool::new(false);
    let pid = child.id();
    thread::scope(|scope| {
        let ended = &ended;
        let sampler = scope.spawn(move || sample(pid, ended));
        meanwhile();
        let status = child.wait();
        let seconds = started.elapsed().as_secs_f64();
        ended.store(true, Ordering::Relaxed);
        sampler.thread().unpark();
        (status, seconds, sampler.join().ok().flatten())
    })
}

/// Runs a command with its output in `into`; returns its wall time in seconds and its largest
/// resident set in KiB.
pub(super) fn timed(command: &mut Command, into: Stdio) -> Outcome<(f64, Option<u64>)> {
    let name = command.get_program().to_string_lossy().into_owned();
    let started = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(into).spawn();
    let mut child = child.map_err(|error| format!("cannot start {name}: {error}"))?;
    let (status, seconds, peak) = watch(&mut child, started, || ());
    match status {
        Ok(status) if status.success() => Ok((seconds, peak)),
        Ok(status) => Err(format!("{name}: {status}")),
        Err(error) => Err(format!("cannot wait for {name}: {error}")),
    }
}

/// Reads the high-water mark of a process until it has ended.
fn sample(pid: u32, ended: &AtomicBool) -> Option<u64> {
    let mut peak = None;
    while !ended.load(Ordering::Relaxed) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok();
        // The last reading counts: it grows but at exec, and a process that has ended has none.
        peak = status.as_deref().and_then(high_water).or(peak);
        thread::park_timeout(SAMPLE);
    }
    peak
}

/// `VmHWM` of a procfs status file, in KiB.
fn high_water(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Runs a command and returns its standard output.
pub(super) fn text_of(command: &mut Command) -> Outcome<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot start {name}: {error}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name}: {}\n{}", output.status, errors.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The last lines of a file.
fn tail(path: &Path, count: usize) -> String {
    let text = fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Load averages of this machine, where the system tells.
pub(super) fn load() -> Option<String> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_its_lines_times_and_memory() {
        let log = std::env::temp_dir().join(format!("bench-watch-{}", std::process::id()));
        let ran =
            run(Command::new("sh").args(["-c", "echo one; sleep 0.3; echo two"]), &log).unwrap();
        let words: Vec<&str> = ran.lines.iter().map(|(_, line)| line.as_str()).collect();
        assert_eq!(words, ["one", "two"]);
        assert!(ran.lines[1].0 - ran.lines[0].0 >= 0.25 && ran.seconds >= ran.lines[1].0);
        if Path::new("/proc/self/status").exists() {
            assert!(ran.peak_kib.unwrap() > 100);
        }
        let problem =
            run(Command::new("sh").args(["-c", "echo why >&2; exit 3"]), &log).unwrap_err();
        assert!(problem.contains("why") && problem.contains('3'), "{problem}");
        fs::remove_file(log).unwrap();
    }

    #[test]
    fn high_water_mark() {
        assert_eq!(high_water("Name:\tx\nVmHWM:\t   4321 kB\n"), Some(4321));
        assert_eq!(high_water("VmHWM: many"), None);
    }
}
