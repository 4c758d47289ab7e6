// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `cargo xtask bench export`: from a raw disk to a compressed send stream and its digest, by
//! imgforge in one pass and by what it replaces, in the same run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::ours::Program;
use super::runs;
use super::scratch::Scratch;
use super::table::median;
use super::watch::{self, timed};
use crate::packages;
use crate::process::{Outcome, command, root};

const USAGE: &str = "\
Usage: cargo xtask bench export [--disk FILE] [--runs N] [--imgforge PATH] [--check]

  --disk      a raw disk (default: the finished image of the whole-build test, else a file system
              of 10 GiB made of this machine's /usr/lib)
  --runs      how often each is measured, taking turns; the medians are shown (default: 3)
  --imgforge  program to measure (default: target/release/imgforge, else target/debug/imgforge)
  --check     a missed goal is a failure";

const NEEDS: &[packages::Need] =
    &[("gzip", "gzip"), ("pigz", "pigz"), ("sha1sum", "coreutils"), ("mke2fs", "e2fsprogs")];
/// What the one pass must be against the three.
const FASTER_THAN_PASSES: f64 = 6.0;
const FASTER_THAN_PIGZ: f64 = 2.0;
const LARGEST: f64 = 1.01;
/// Bytes a second.
const WRITER: f64 = 1.5e9;
const READER: f64 = 1.0e9;
/// Memory in MiB, and more for each thread.
const MEMORY_MIB: f64 = 64.0;
const MEMORY_MIB_EACH: f64 = 4.0;

#[derive(Debug)]
struct Options {
    disk: Option<PathBuf>,
    runs: usize,
    imgforge: Option<PathBuf>,
    check: bool,
}

impl Options {
    fn parse(words: &[&str]) -> Outcome<Self> {
        let mut options = Self { disk: None, runs: 3, imgforge: None, check: false };
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            let mut value =
                || words.next().copied().ok_or_else(|| format!("{word} needs a value\n\n{USAGE}"));
            match word {
                "--disk" => options.disk = Some(value()?.into()),
                "--imgforge" => options.imgforge = Some(value()?.into()),
                "--runs" => options.runs = runs(value()?)?,
                "--check" => options.check = true,
                other => return Err(format!("no such argument: {other}\n\n{USAGE}")),
            }
        }
        Ok(options)
    }
}

/// Seconds and sizes of one round.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    copy: f64,
    gzip: f64,
    sha1sum: f64,
    pigz: f64,
    ours: f64,
    writer: f64,
    reader: f64,
    peak_mib: f64,
    gzip_bytes: f64,
    pigz_bytes: f64,
    our_bytes: f64,
}

/// The words after `bench export`.
pub(crate) fn main(words: &[&str]) -> Outcome {
    if let ["help" | "-h" | "--help", ..] = words {
        println!("{USAGE}");
        return Ok(());
    }
    let options = Options::parse(words)?;
    packages::ensure(NEEDS)?;
    let program = Program::find(options.imgforge.as_deref())?;
    let scratch = Scratch::make(&root().join("target/bench"))?;
    let place = scratch.fresh("export")?;
    let disk = disk(&options, &program, &place)?;
    let bench = Bench { program, disk, place };
    let load = watch::load();
    // The first makes the stream that all others read, and fills the page cache.
    bench.imgforge(&[&bench.disk, &bench.file("stream.zfs")], Stdio::null())?;
    let mut rounds = Vec::new();
    for number in 1..=options.runs {
        eprintln!("bench: round {number} of {}", options.runs);
        rounds.push(bench.round()?);
    }
    let missed = report(&bench, &rounds, load.as_deref())?;
    if options.check && missed > 0 { Err(format!("{missed} goals missed")) } else { Ok(()) }
}

struct Bench {
    program: Program,
    disk: PathBuf,
    place: PathBuf,
}

impl Bench {
    fn file(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    fn imgforge(&self, convert: &[&Path], into: Stdio) -> Outcome<(f64, Option<u64>)> {
        let mut command = Command::new(self.program.path());
        command.args(["convert", "--quiet", "--no-progress", "--force"]).args(convert);
        // Equal bytes in each round.
        command.args(["--name", "zones/bench@final", "--guid", "1"]);
        command.args(["--source-date-epoch", "1", "--to"]);
        let last = convert.last().and_then(|path| path.extension()).unwrap_or_default();
        command.arg(if last == "gz" { "zfs.gz" } else { "zfs" });
        timed(command.stderr(Stdio::inherit()), into)
    }

    /// `program`'s output goes to a new file; its seconds, and the file's size.
    fn made(&self, program: &mut Command, name: &str) -> Outcome<(f64, f64)> {
        let path = self.file(name);
        let file =
            File::create(&path).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        let (seconds, _) = timed(program, file.into())?;
        Ok((seconds, bytes(&path)?))
    }

    fn round(&self) -> Outcome<Round> {
        let mut round = Round::default();
        let stream = self.file("stream.zfs");
        let copy = self.file("copy.zfs");
        // What `zfs send` to a file costs at least.
        (round.copy, _) = self.made(Command::new("cat").arg(&stream), "copy.zfs")?;
        (round.gzip, round.gzip_bytes) =
            self.made(command("gzip", &["-6", "-c"]).arg(&copy), "gzip.gz")?;
        (round.sha1sum, _) =
            timed(Command::new("sha1sum").arg(self.file("gzip.gz")), Stdio::null())?;
        self.forget("copy.zfs")?;
        self.forget("gzip.gz")?;
        (round.pigz, round.pigz_bytes) =
            self.made(command("pigz", &["-6", "-c"]).arg(&stream), "pigz.gz")?;
        self.forget("pigz.gz")?;
        let ours = self.file("ours.zfs.gz");
        let (seconds, peak) = self.imgforge(&[&self.disk, &ours], Stdio::null())?;
        (round.ours, round.our_bytes) = (seconds, bytes(&ours)?);
        round.peak_mib = peak.map_or(f64::NAN, |kib| kib as f64 / 1024.0);
        self.forget("ours.zfs.gz")?;
        (round.writer, _) = self.imgforge(&[&self.disk, Path::new("-")], Stdio::null())?;
        let mut info = Command::new(self.program.path());
        (round.reader, _) = timed(info.args(["stream", "info"]).arg(&stream), Stdio::null())?;
        Ok(round)
    }

    fn forget(&self, name: &str) -> Outcome {
        let path = self.file(name);
        fs::remove_file(&path).map_err(|error| format!("cannot remove {}: {error}", path.display()))
    }
}

fn bytes(path: &Path) -> Outcome<f64> {
    let size = fs::metadata(path).map_err(|e| format!("{}: {e}", path.display()))?.len();
    Ok(size as f64)
}

/// What the whole-build test left.
fn finished_image() -> Option<PathBuf> {
    let entries = fs::read_dir(root().join("target/xtask-out/debian-13")).ok()?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    paths.find(|path| path.to_string_lossy().ends_with(".zfs.gz"))
}

/// The disk that the user names, or the best there is.
fn disk(options: &Options, program: &Program, place: &Path) -> Outcome<PathBuf> {
    if let Some(disk) = &options.disk {
        return std::path::absolute(disk).map_err(|e| format!("{}: {e}", disk.display()));
    }
    let disk = place.join("disk.raw");
    if let Some(image) = finished_image() {
        eprintln!("bench: unpacking {}", image.display());
        let mut convert = Command::new(program.path());
        convert.args(["convert", "--quiet", "--no-progress"]).arg(&image).arg(&disk);
        timed(&mut convert, Stdio::null())?;
        return Ok(disk);
    }
    eprintln!("bench: making a file system of /usr/lib");
    let mut make = command("mke2fs", &["-q", "-t", "ext4", "-d", "/usr/lib"]);
    timed(make.arg(&disk).arg("10G"), Stdio::null())?;
    Ok(disk)
}

/// Prints the table; how many goals were missed.
fn report(bench: &Bench, rounds: &[Round], load: Option<&str>) -> Outcome<usize> {
    let typical =
        |part: fn(&Round) -> f64| median(&mut rounds.iter().map(part).collect::<Vec<_>>());
    let stream = bytes(&bench.file("stream.zfs"))?;
    let ours = typical(|round| round.ours);
    let passes = typical(|round| round.copy + round.gzip + round.sha1sum);
    println!(
        "\nFrom a disk of {:.0} MiB with {:.0} MiB of data to its compressed send stream",
        bytes(&bench.disk)? / MIB,
        stream / MIB
    );
    println!("({} rounds, medians; load before {})\n", rounds.len(), load.unwrap_or("unknown"));
    println!("{:<34}{:>9}{:>14}{:>10}", "", "seconds", "bytes", "ratio");
    let row = |name: &str, seconds: f64, size: f64| {
        println!("{name:<34}{seconds:>9.1}{size:>14.0}{:>10.2}", seconds / ours);
    };
    row("imgforge, with sha1 and sha256", ours, typical(|round| round.our_bytes));
    row("copy, gzip -6, sha1sum", passes, typical(|round| round.gzip_bytes));
    row("  of it gzip -6", typical(|round| round.gzip), typical(|round| round.gzip_bytes));
    row("pigz -6 alone", typical(|round| round.pigz), typical(|round| round.pigz_bytes));
    println!("\n{}", bench.program.describe());
    println!("imgforge's file is on the disk for good when it ends, the others' need not be.\n");
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let memory = MEMORY_MIB + MEMORY_MIB_EACH * threads;
    let size = typical(|round| round.our_bytes) / typical(|round| round.gzip_bytes);
    let goals = [
        goal("faster than the three passes", passes / ours, "x", true, FASTER_THAN_PASSES),
        goal("faster than pigz", typical(|round| round.pigz) / ours, "x", true, FASTER_THAN_PIGZ),
        goal("size against gzip -6", size, "x", false, LARGEST),
        goal(
            "writer alone",
            stream / typical(|round| round.writer) / 1e9,
            " GB/s",
            true,
            WRITER / 1e9,
        ),
        goal(
            "reader alone",
            stream / typical(|round| round.reader) / 1e9,
            " GB/s",
            true,
            READER / 1e9,
        ),
        goal("memory", typical(|round| round.peak_mib), " MiB", false, memory),
    ];
    Ok(goals.iter().filter(|met| !**met).count())
}

const MIB: f64 = 1_048_576.0;

fn goal(what: &str, is: f64, unit: &str, at_least: bool, limit: f64) -> bool {
    let met = if at_least { is >= limit } else { is <= limit };
    let (sign, verdict) = (if at_least { "≥" } else { "≤" }, if met { "met" } else { "MISSED" });
    println!("{what:<30} {is:>8.2}{unit}, goal {sign} {limit:.2}{unit}: {verdict}");
    met
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_and_wrong_ones_named() {
        let options = Options::parse(&["--runs", "2", "--disk", "d.raw", "--check"]).unwrap();
        assert_eq!((options.runs, options.check, options.disk), (2, true, Some("d.raw".into())));
        for (words, part) in
            [(&["--runs", "0"][..], "1 to 99"), (&["--disk"], "needs a value"), (&["-x"], "-x")]
        {
            assert!(Options::parse(words).unwrap_err().contains(part));
        }
    }

    #[test]
    fn goals_are_met_or_not() {
        assert!(goal("speed", 6.1, "x", true, 6.0) && !goal("speed", 5.9, "x", true, 6.0));
        assert!(goal("size", 1.0, "x", false, 1.01) && !goal("size", f64::NAN, "x", false, 1.01));
    }
}
