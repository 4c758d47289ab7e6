// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The journal of one build: what it is about to do to the host, written down before it is done.
//!
//! One file of JSON lines per build in the state directory, synced line by line. While the build
//! lives it holds an exclusive lock on its journal; the kernel drops the lock however the
//! process ends, and so the next run, or `imgforge clean`, tells the dead from the living and
//! undoes what the dead have left (the undo room beside this one).
//!
//! Files and directories of a build lie in its run directory or under a name that
//! [`Journal::scratch`] made; a path elsewhere is refused, when it is written as well as when
//! it is read back.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::machines;
use super::process::{self, base_name};
use super::record::{Effect, Record, Territory, scratch_suffix, short_id};
use super::remains::Undone;
use super::state::StateDirs;
use super::undo;
use crate::ui::{Events, Failure, Outcome};

/// Names one effect in a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "mark the entry done when its effect is gone or published"]
pub struct Entry(u64);

/// The journal of a living build. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    id: String,
    path: PathBuf,
    run_dir: PathBuf,
    territory: Territory,
    /// The machines of this build are written down.
    has_machines: AtomicBool,
    /// The open, locked file and the number of the next entry.
    file: Mutex<(File, u64)>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Closing is not enough: a child that another thread has just forked shares the lock
        // until its exec. The file goes away with us, so there is nobody to tell of an error.
        let _ = self.file.get_mut().unwrap_or_else(PoisonError::into_inner).0.unlock();
    }
}

impl Journal {
    /// Starts the journal of a new build of `target`, and makes its run directory.
    ///
    /// # Errors
    /// When the state or runtime directory cannot be made, is not private, or is full.
    pub fn create(dirs: &StateDirs, target: &str) -> Outcome<Self> {
        let id = uuid::Uuid::new_v4().to_string();
        let run_dir = dirs.runtime()?.join(short_id(&id));
        let held = dirs.lock_journals()?;
        let path = dirs.journals()?.join(format!("{id}.jsonl"));
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| cannot_write(&path, error))?;
        file.lock().map_err(|error| cannot_write(&path, error))?;
        let territory = Territory::of(dirs, &id);
        let file = Mutex::new((file, 1));
        let has_machines = AtomicBool::new(false);
        let inner = Inner { id, path, run_dir, territory, has_machines, file };
        let journal = Self { inner: Arc::new(inner) };
        let started = journal.start(target);
        drop(held);
        if started.is_err() {
            let _ = fs::remove_file(&journal.inner.path);
        }
        started?;
        Ok(journal)
    }

    fn start(&self, target: &str) -> Outcome<()> {
        self.append(&Record::Build {
            id: self.inner.id.clone(),
            target: target.to_owned(),
            pid: std::process::id(),
            start: process::identify(std::process::id()).map(|own| own.start),
            boot: process::boot_id(),
            run_dir: self.inner.run_dir.clone(),
        })?;
        if let Some(parent) = self.inner.path.parent() {
            sync_dir(parent).map_err(|error| cannot_write(parent, error))?;
        }
        let _run_dir = self.make_dir(&self.inner.run_dir)?;
        Ok(())
    }

    /// The build's id, a lower-case UUID.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// The private directory for sockets and other small files (mode 0700, short path). It goes
    /// when the journal is undone.
    pub fn run_dir(&self) -> &Path {
        &self.inner.run_dir
    }

    /// The name in the kernel of all machines of this build; a number follows it.
    pub fn machine_name(&self) -> String {
        machines::stem(&self.inner.id)
    }

    /// The environment variable that each process of the build should carry: it finds those
    /// that were started in the very moment in which the build died.
    pub fn environment(&self) -> (&'static str, &str) {
        (process::BUILD_VARIABLE, &self.inner.id)
    }

    /// The scratch name beside `finished`, on the same file system, that this build may record:
    /// `out/debian-13` becomes `out/.debian-13.imgforge-ID8`.
    ///
    /// # Errors
    /// When the path has no last component.
    pub fn scratch(&self, finished: &Path) -> Outcome<PathBuf> {
        let whole = std::path::absolute(finished).unwrap_or_else(|_| finished.to_owned());
        let clear = |path: &Path| {
            Some((path.parent()?.canonicalize().ok()?, path.file_name()?.to_str()?.to_owned()))
        };
        let (parent, name) = clear(&whole).ok_or_else(|| {
            Failure::input(format!("cannot write to {}", finished.display()))
                .fact("path", finished.display())
                .hint("name a file or directory (in UTF-8) whose parent directory exists")
        })?;
        Ok(parent.join(format!(".{name}{}", scratch_suffix(&self.inner.id))))
    }

    /// Records a directory and makes it (mode 0700). Undoing removes it with all in it.
    ///
    /// # Errors
    /// When it exists, cannot be made, or is not the build's to make.
    pub fn make_dir(&self, path: &Path) -> Outcome<Entry> {
        let entry = self.will(Effect::Dir { path: self.own(path)? })?;
        if let Err(error) = DirBuilder::new().mode(0o700).create(path) {
            self.done(entry)?;
            return Err(Failure::build(format!("cannot make the directory {}", path.display()))
                .because(error)
                .fact("dir", path.display()));
        }
        Ok(entry)
    }

    /// Records a file that is about to be made.
    ///
    /// # Errors
    /// When the path is not the build's to write, or the journal cannot be written.
    pub fn will_write(&self, path: &Path) -> Outcome<Entry> {
        self.will(Effect::File { path: self.own(path)? })
    }

    /// Records a UNIX socket that is about to be bound.
    ///
    /// # Errors
    /// As [`Journal::will_write`].
    pub fn will_bind(&self, path: &Path) -> Outcome<Entry> {
        self.will(Effect::Socket { path: self.own(path)? })
    }

    /// Records that the program `argv0` is about to be started. Give the process
    /// [`Journal::environment`], or a file below [`Journal::run_dir`] on its command line, and
    /// call [`Journal::started`] as soon as its pid is known.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn will_start(&self, argv0: &str) -> Outcome<Entry> {
        self.will(Effect::Process { argv0: base_name(argv0).to_owned() })
    }

    /// Records that the kernel is about to have machines of [`Journal::machine_name`]. The entry is
    /// undone with the others: that there is no such machine any more is nothing to be written down.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn will_make_machine(&self) -> Outcome<()> {
        if self.inner.has_machines.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        self.will(Effect::Machine { name: self.machine_name() }).map(drop)
    }

    /// Records the process of an entry, with its start time and name, so that no later process
    /// with the same pid is mistaken for it.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn started(&self, entry: Entry, pid: u32) -> Outcome<()> {
        let identity = process::identify(pid);
        self.append(&Record::Started {
            entry: entry.0,
            pid,
            start: identity.as_ref().map(|i| i.start),
            group: identity.as_ref().map(|i| i.group),
            name: identity.map(|i| i.name),
        })
    }

    /// Starts a process so that it cannot outlive the build unnoticed: recorded before, marked
    /// by its environment, its pid recorded after, killed when the child is dropped.
    ///
    /// # Errors
    /// When the program cannot be started or the journal cannot be written.
    pub fn spawn(
        &self,
        command: &mut tokio::process::Command,
    ) -> Outcome<(tokio::process::Child, Entry)> {
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        let entry = self.will_start(&program)?;
        let (name, value) = self.environment();
        match command.env(name, value).kill_on_drop(true).spawn() {
            Ok(child) => {
                if let Some(pid) = child.id() {
                    self.started(entry, pid)?;
                }
                Ok((child, entry))
            }
            Err(error) => {
                self.done(entry)?;
                Err(Failure::build(format!("cannot start {program}"))
                    .because(error)
                    .hint("run `imgforge doctor`"))
            }
        }
    }

    /// Records that an entry needs no undoing: the process has ended, the file is gone or has
    /// been published under its final name.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn done(&self, entry: Entry) -> Outcome<()> {
        self.append(&Record::Done { entry: entry.0 })
    }

    /// Records that the user wants what there is to stay (`--on-error keep`): later runs leave
    /// it alone, and `imgforge clean` removes it.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn keep(&self, why: &str) -> Outcome<()> {
        self.append(&Record::Kept { why: why.to_owned() })
    }

    /// Undoes everything not done, newest first, and removes the journal when nothing is left.
    /// The orderly end of every build, good or bad. Blocks while processes obey (seconds).
    pub fn undo(&self, events: &Events) -> Undone {
        let mut held = self.inner.file.lock().unwrap_or_else(PoisonError::into_inner);
        let undone = undo::undo_file(&self.inner.path, &mut held.0, &self.inner.territory);
        undone.report(events);
        undone
    }

    /// Kills every recorded process with SIGKILL, without further ado. Returns how many.
    pub fn kill_processes(&self) -> usize {
        undo::kill_processes(&self.inner.path)
    }

    fn own(&self, path: &Path) -> Outcome<PathBuf> {
        if self.inner.territory.holds(path) {
            return Ok(path.to_owned());
        }
        Err(Failure::build(format!("{} is outside the directories of this build", path.display()))
            .fact("path", path.display())
            .fact("run dir", self.inner.run_dir.display())
            .hint("this is a fault of imgforge; please report it"))
    }

    fn will(&self, effect: Effect) -> Outcome<Entry> {
        let mut held = self.inner.file.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = held.1;
        held.1 += 1;
        write_record(&mut held.0, &Record::Will { entry, effect })
            .map_err(|error| cannot_write(&self.inner.path, error))?;
        Ok(Entry(entry))
    }

    fn append(&self, record: &Record) -> Outcome<()> {
        let mut held = self.inner.file.lock().unwrap_or_else(PoisonError::into_inner);
        write_record(&mut held.0, record).map_err(|error| cannot_write(&self.inner.path, error))
    }
}

/// Appends one line and makes it durable.
pub(super) fn write_record(file: &mut File, record: &Record) -> io::Result<()> {
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    file.write_all(&line)?;
    file.sync_data()
}

pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn cannot_write(path: &Path, error: io::Error) -> Failure {
    Failure::build("cannot write the journal of the build")
        .because(error)
        .fact("file", path.display())
        .hint("free some space there, or set IMGFORGE_STATE_DIR to another directory")
}
