// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The directories of a build: scratch while it runs, the output when it is done, the evidence
//! when it failed. The last good output is never touched before the new one is complete.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::journal::{Entry, Journal};
use crate::ui::{Failure, Outcome};

/// Directory of the screenshots, below scratch, output and evidence.
pub(crate) const SCREENSHOTS: &str = "screenshots";

/// Names of a build's directories.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    finished: PathBuf,
    scratch: PathBuf,
}

impl Output {
    /// The output directory `finished`; it must be possible to make it, and it must not exist
    /// unless `force`.
    pub(crate) fn plan(finished: &Path, force: bool) -> Outcome<Self> {
        let name = finished.file_name().filter(|name| !name.is_empty());
        if name.is_none() {
            return Err(Failure::input("the output directory needs a name of its own")
                .fact("path", finished.display()));
        }
        let output = Self { finished: absolute(finished)?, scratch: PathBuf::new() };
        if !force && output.finished.symlink_metadata().is_ok() {
            return Err(Failure::input("the output directory exists already")
                .fact("path", output.finished.display())
                .hint("move it away, choose another with `--output DIR`, or replace it with `--force`"));
        }
        output.check_parent()?;
        Ok(output)
    }

    /// The nearest directory above the output that exists must be writable; those between are
    /// made when the build begins.
    fn check_parent(&self) -> Outcome<()> {
        let above = self.finished.ancestors().skip(1).find(|path| path.symlink_metadata().is_ok());
        let above = above.unwrap_or(Path::new("/"));
        let probe = tempfile::Builder::new().prefix(".imgforge-probe-").tempfile_in(above);
        probe.map(drop).map_err(|error| {
            Failure::input("no way to write beside the output directory")
                .because(error)
                .fact("path", above.display())
                .hint("choose a writable place with `--output DIR`")
        })
    }

    /// Where the finished files will be.
    pub(crate) fn finished(&self) -> &Path {
        &self.finished
    }

    /// Where the build works.
    pub(crate) fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Makes the scratch directory beside the output, recorded in the journal first. Directories
    /// that are missing above it stay, for a failed build leaves its evidence there.
    pub(crate) fn open_scratch(&mut self, journal: &Journal) -> Outcome<Entry> {
        let parent = self.finished.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent).map_err(|error| failure("cannot create", parent, error))?;
        self.scratch = journal.scratch(&self.finished)?;
        let entry = journal.make_dir(&self.scratch)?;
        let shots = self.scratch.join(SCREENSHOTS);
        fs::create_dir(&shots).map_err(|error| failure("cannot create", &shots, error))?;
        Ok(entry)
    }

    /// Where the logs and screenshots of a failed build are kept.
    fn evidence(&self) -> PathBuf {
        self.with_suffix(".failed")
    }

    fn with_suffix(&self, suffix: &str) -> PathBuf {
        let mut name = self.finished.file_name().unwrap_or_default().to_owned();
        name.push(suffix);
        self.finished.with_file_name(name)
    }

    /// Turns scratch into the output in one rename; an old output goes only then.
    pub(crate) fn publish(&self) -> Outcome<()> {
        let old = self.with_suffix(".old");
        remove_tree(&old)?;
        let replaces = self.finished.symlink_metadata().is_ok();
        if replaces {
            rename(&self.finished, &old)?;
        }
        if let Err(problem) = rename(&self.scratch, &self.finished) {
            if replaces {
                rename(&old, &self.finished)?;
            }
            return Err(problem);
        }
        remove_tree(&old)?;
        remove_tree(&self.evidence())
    }

    /// Moves logs and screenshots of scratch to the evidence directory, and tells so in the
    /// failure. Disks are not evidence.
    pub(crate) fn keep_evidence(&self, problem: Failure) -> Failure {
        if !self.scratch.is_dir() {
            return problem;
        }
        match self.move_evidence() {
            Ok(moved) => {
                let here =
                    moved.iter().fold(problem, |problem, (from, to)| problem.moved(from, to));
                here.fact("kept", self.evidence().display())
            }
            Err(second) => problem.fact("evidence", second.summary()),
        }
    }

    /// From where to where everything was moved.
    fn move_evidence(&self) -> Outcome<Vec<(PathBuf, PathBuf)>> {
        let evidence = self.evidence();
        remove_tree(&evidence)?;
        fs::create_dir(&evidence).map_err(|error| failure("cannot create", &evidence, error))?;
        let mut moved = Vec::new();
        for name in ["build.log", "events.jsonl", "serial.log", "monitor.log", SCREENSHOTS] {
            let (from, to) = (self.scratch.join(name), evidence.join(name));
            if from.exists() {
                rename(&from, &to)?;
                moved.push((from, to));
            }
        }
        Ok(moved)
    }
}

fn absolute(path: &Path) -> Outcome<PathBuf> {
    std::path::absolute(path).map_err(|error| failure("cannot resolve", path, error))
}

fn rename(from: &Path, to: &Path) -> Outcome<()> {
    fs::rename(from, to)
        .map_err(|error| failure("cannot rename", from, error).fact("to", to.display()))
}

fn remove_tree(path: &Path) -> Outcome<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
    .map_err(|error| failure("cannot remove", path, error))
}

fn failure(what: &str, path: &Path, error: io::Error) -> Failure {
    Failure::build(format!("{what} {}", path.display())).because(error)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::build::StateDirs;
    use crate::ui::Events;

    fn journal(dir: &Path) -> Journal {
        Journal::create(&StateDirs::at(dir.join("state"), dir.join("run")), "test").unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn an_existing_output_is_refused_and_kept_until_the_new_one_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let finished = dir.path().join("out");
        fs::create_dir(&finished).unwrap();
        fs::write(finished.join("old"), "old").unwrap();
        assert!(Output::plan(&finished, false).unwrap_err().summary().contains("exists"));

        let mut output = Output::plan(&finished, true).unwrap();
        let journal = journal(dir.path());
        let entry = output.open_scratch(&journal).unwrap();
        fs::write(output.scratch().join("new"), "new").unwrap();
        assert!(finished.join("old").exists());
        output.publish().unwrap();
        journal.done(entry).unwrap();
        journal.undo(&Events::silent());
        assert!(finished.join("new").exists() && !finished.join("old").exists());
        assert_eq!(names(dir.path()), ["out", "run", "state"]);
    }

    #[test]
    fn a_failed_build_leaves_its_evidence_and_no_disk() {
        let dir = tempfile::tempdir().unwrap();
        let mut output = Output::plan(&dir.path().join("out"), false).unwrap();
        let journal = journal(dir.path());
        let _entry = output.open_scratch(&journal).unwrap();
        let scratch = output.scratch().to_owned();
        fs::write(scratch.join("disk.raw"), "x").unwrap();
        fs::write(scratch.join("serial.log"), "x").unwrap();
        let problem = Failure::build("it broke").fact("log", scratch.join("serial.log").display());
        let problem = output.keep_evidence(problem);
        let kept = output.evidence();
        assert_eq!(problem.facts()[0].1, kept.join("serial.log").display().to_string());
        assert_eq!(problem.facts()[1], ("kept".into(), kept.display().to_string()));
        assert!(kept.join("serial.log").exists() && !kept.join("disk.raw").exists());
        journal.undo(&Events::silent());
        assert!(!scratch.exists() && !output.finished().exists());
    }

    #[test]
    fn missing_directories_above_are_made_when_the_build_begins() {
        let dir = tempfile::tempdir().unwrap();
        let mut output = Output::plan(&dir.path().join("a/b/out"), false).unwrap();
        assert!(!dir.path().join("a").exists(), "a plan made something");
        let journal = journal(dir.path());
        let _entry = output.open_scratch(&journal).unwrap();
        assert!(output.scratch().starts_with(dir.path().join("a/b")));
        journal.undo(&Events::silent());
    }

    #[test]
    fn a_place_without_room_for_directories_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        let problem = Output::plan(&file.join("out"), false).unwrap_err();
        assert!(problem.to_string().contains("no way to write beside"), "{problem}");
    }
}
