// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Undoing a journal: newest effect first, every step repeatable, nothing touched that the
//! journal does not name and the build's id does not own.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::journal::write_record;
use super::machines;
use super::process::{self, Ended, Known};
use super::record::{Contents, Effect, LARGEST, Pending, Record, Territory, parse};
use super::remains::{Condition, Item, Remains, Undone};
use super::state::{StateDirs, is_still, wait_for_lock};
use crate::ui::{Events, Failure, Outcome};

/// A journal found; `lock` is ours when the build is dead.
struct Found {
    path: PathBuf,
    id: String,
    contents: Contents,
    lock: Option<File>,
}

/// Lists what all builds of this user have on this host; changes nothing.
///
/// # Errors
/// When the state directory cannot be read.
pub fn survey(dirs: &StateDirs) -> Outcome<Vec<Remains>> {
    let found = scan(dirs)?;
    Ok(found.iter().map(|found| remains(dirs, found)).collect())
}

/// Undoes what dead builds have left, and says so; called when a build starts. What a user
/// asked to keep is left alone. A leftover that cannot be removed is a warning, not a failure.
///
/// # Errors
/// When the state directory cannot be read.
pub fn recover_dead(dirs: &StateDirs, events: &Events) -> Outcome<Vec<Remains>> {
    let cleaned = undo_all(dirs, |found| found.contents.kept.is_none())?;
    for remains in &cleaned {
        let undone = remains.undone.clone().unwrap_or_default();
        if !undone.removed.is_empty() {
            events.note(format!(
                "cleaned up after an earlier build of {} (process {}): {}",
                remains.target,
                remains.pid,
                undone.removed.iter().map(|i| i.what.as_str()).collect::<Vec<_>>().join(", ")
            ));
        }
        undone.report(events);
    }
    Ok(cleaned)
}

/// Undoes what dead builds have left, with what their users asked to keep.
///
/// # Errors
/// When the state directory cannot be read.
pub fn clean(dirs: &StateDirs) -> Outcome<Vec<Remains>> {
    undo_all(dirs, |_| true)
}

fn undo_all(dirs: &StateDirs, wanted: impl Fn(&Found) -> bool) -> Outcome<Vec<Remains>> {
    let mut cleaned = Vec::new();
    for mut found in scan(dirs)? {
        if found.lock.is_none() || !wanted(&found) {
            continue;
        }
        let mut remains = remains(dirs, &found);
        let territory = Territory::of(dirs, &found.id);
        if let Some(lock) = &mut found.lock {
            remains.undone = Some(undo_file(&found.path, lock, &territory));
        }
        cleaned.push(remains);
    }
    Ok(cleaned)
}

/// All journals, oldest first, each dead one locked.
fn scan(dirs: &StateDirs) -> Outcome<Vec<Found>> {
    let _held = dirs.lock_journals()?;
    let dir = dirs.journals()?;
    let failed = |error: io::Error| {
        Failure::build("cannot list the journals of earlier builds")
            .because(error)
            .fact("dir", dir.display())
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Some(id) = journal_id(&entry.file_name().to_string_lossy()) else { continue };
        if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let path = entry.path();
        let Ok(mut file) = OpenOptions::new().read(true).append(true).open(&path) else { continue };
        let mut dead = match file.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        };
        let mut contents = parse(&read_all(&mut file).map_err(failed)?);
        if !dead && owner_is_gone(&contents) {
            dead = wait_for_lock(&file);
            contents = parse(&read_all(&mut file).map_err(failed)?);
        }
        if dead && !is_still(&file, &path) {
            continue;
        }
        let modified = entry.metadata().and_then(|m| m.modified()).ok();
        found.push((modified, Found { path, id, contents, lock: dead.then_some(file) }));
    }
    found.sort_by_key(|(modified, _)| *modified);
    Ok(found.into_iter().map(|(_, found)| found).collect())
}

/// The process that began the journal has certainly ended.
fn owner_is_gone(contents: &Contents) -> bool {
    let replaced = |start| process::identify(contents.pid).is_none_or(|now| now.start != start);
    !same_boot(contents)
        || (contents.pid != 0 && !process::exists(contents.pid))
        || contents.start.is_some_and(replaced)
}

/// The id in a journal's file name; other files of the directory are not journals.
fn journal_id(name: &str) -> Option<String> {
    let id = name.strip_suffix(".jsonl")?;
    let parsed = uuid::Uuid::try_parse(id).ok()?;
    (parsed.hyphenated().to_string() == id).then(|| id.to_owned())
}

fn read_all(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn remains(dirs: &StateDirs, found: &Found) -> Remains {
    let territory = Territory::of(dirs, &found.id);
    let contents = &found.contents;
    let condition = match (&found.lock, &contents.kept) {
        (None, _) => Condition::Running,
        (Some(_), Some(_)) => Condition::Kept,
        (Some(_), None) => Condition::Dead,
    };
    let live = |pending: &&Pending| match &pending.effect {
        Effect::Process { .. } => process_lives(contents, pending),
        Effect::Machine { name } => !machines::of(name).is_empty(),
        Effect::Dir { path } | Effect::File { path } | Effect::Socket { path } => {
            territory.holds_really(path) && fs::symlink_metadata(path).is_ok()
        }
    };
    Remains {
        id: found.id.clone(),
        target: contents.target.clone(),
        pid: contents.pid,
        condition,
        items: contents.pending.iter().rev().filter(live).map(item).collect(),
        undone: None,
    }
}

fn process_lives(contents: &Contents, pending: &Pending) -> bool {
    same_boot(contents) && known(contents, pending).is_some_and(|known| process::lives(&known))
}

/// The process of an entry, when its pid and identity were written down.
fn known(contents: &Contents, pending: &Pending) -> Option<Known> {
    Some(Known {
        pid: pending.pid?,
        identity: pending.identity.clone()?,
        build: contents.id.clone(),
        program: match &pending.effect {
            Effect::Process { argv0 } => argv0.clone(),
            _ => String::new(),
        },
    })
}

/// Processes do not outlive the boot in which they were started.
fn same_boot(contents: &Contents) -> bool {
    contents.boot.is_none() || contents.boot == process::boot_id()
}

fn item(pending: &Pending) -> Item {
    match &pending.effect {
        Effect::Process { argv0 } => Item {
            kind: "process",
            what: match pending.pid {
                Some(pid) => format!("{argv0} (pid {pid})"),
                None => argv0.clone(),
            },
        },
        Effect::Machine { name } => Item { kind: "machine", what: name.clone() },
        Effect::Dir { path } => Item { kind: "dir", what: path.display().to_string() },
        Effect::File { path } => Item { kind: "file", what: path.display().to_string() },
        Effect::Socket { path } => Item { kind: "socket", what: path.display().to_string() },
    }
}

/// Undoes the journal in `path`, whose lock the caller holds by `file`. Each step done is
/// written down, so that an undo that is itself cut short goes on where it stopped.
pub(super) fn undo_file(path: &Path, file: &mut File, territory: &Territory) -> Undone {
    let mut undone = Undone::default();
    let contents = match fs::File::open(path).and_then(|mut f| read_all(&mut f)) {
        Ok(bytes) => parse(&bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return undone,
        Err(error) => {
            undone.failed.push(format!("cannot read {}: {error}", path.display()));
            return undone;
        }
    };
    let id = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    if !contents.id.is_empty() && contents.id != id {
        undone.failed.push(format!("{} is the journal of another build", path.display()));
        return undone;
    }
    for damage in &contents.damaged {
        undone.failed.push(format!("{}: {damage}", path.display()));
    }
    if contents.torn {
        let _ = file.write_all(b"\n");
    }
    end_unrecorded(&contents, &id, territory, &mut undone);
    for pending in contents.pending.iter().rev() {
        match undo_one(&contents, &id, pending, territory) {
            Ok(existed) => {
                if existed {
                    undone.removed.push(item(pending));
                }
                // A full disk must not stop the cleaning; the step is repeatable.
                let _ = write_record(file, &Record::Done { entry: pending.entry });
            }
            Err(why) => undone.failed.push(why),
        }
    }
    end_unrecorded(&contents, &id, territory, &mut undone);
    if undone.failed.is_empty()
        && let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        undone.failed.push(format!("cannot remove {}: {error}", path.display()));
    }
    undone
}

/// How often [`end_unrecorded`] looks again.
const ROUNDS: usize = 5;

/// Ends processes that were started but whose pid never reached the journal, and children that
/// outlived the process that was recorded.
fn end_unrecorded(contents: &Contents, id: &str, territory: &Territory, undone: &mut Undone) {
    if !same_boot(contents) || !territory.holds(&contents.run_dir) {
        return;
    }
    let recorded: Vec<u32> = contents.pending.iter().filter_map(|p| p.pid).collect();
    let programs: Vec<String> = contents
        .pending
        .iter()
        .filter_map(|p| match &p.effect {
            Effect::Process { argv0 } => Some(argv0.clone()),
            _ => None,
        })
        .collect();
    let mut seen = recorded;
    // A process may start another while it is looked for; a few rounds catch up with it.
    for _ in 0..ROUNDS {
        let mut fresh = process::marked(id, &contents.run_dir, &programs);
        fresh.retain(|pid| !seen.contains(pid));
        if fresh.is_empty() {
            return;
        }
        for pid in fresh {
            seen.push(pid);
            let Some(identity) = process::identify(pid).filter(|now| !now.ended) else { continue };
            let known = Known { pid, identity, build: id.to_owned(), program: String::new() };
            match process::end(&known, false) {
                Ok(Ended::Killed) => {
                    undone.removed.push(Item { kind: "process", what: known.to_string() });
                }
                Ok(Ended::Gone) => {}
                Err(why) => undone.failed.push(why),
            }
        }
    }
}

/// Undoes one effect; true when there was something to undo.
fn undo_one(
    contents: &Contents,
    id: &str,
    pending: &Pending,
    territory: &Territory,
) -> Result<bool, String> {
    let (path, is_expected): (&Path, fn(&fs::FileType) -> bool) = match &pending.effect {
        Effect::Process { .. } => return end_recorded(contents, pending),
        Effect::Machine { name } => return machines::undo(name, id),
        Effect::Dir { path } => (path, fs::FileType::is_dir),
        Effect::File { path } => (path, |kind| kind.is_file() || kind.is_symlink()),
        Effect::Socket { path } => (path, fs::FileType::is_socket),
    };
    if !territory.holds(path) {
        return Err(format!("{} is not a path of this build; left alone", path.display()));
    }
    let kind = match fs::symlink_metadata(path) {
        Ok(meta) => meta.file_type(),
        Err(error) if gone(&error) => return Ok(false),
        Err(error) => return Err(format!("cannot inspect {}: {error}", path.display())),
    };
    if !territory.holds_really(path) {
        return Err(format!("{} leads out of this build by a link; left alone", path.display()));
    }
    if !is_expected(&kind) {
        return Err(format!("{} is not what the build made; left alone", path.display()));
    }
    let removed = if kind.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Ok(()) => Ok(true),
        Err(error) if gone(&error) => Ok(false),
        Err(error) => Err(format!("cannot remove {}: {error}", path.display())),
    }
}

fn gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn end_recorded(contents: &Contents, pending: &Pending) -> Result<bool, String> {
    let Some(pid) = pending.pid else { return Ok(false) };
    if !same_boot(contents) {
        return Ok(false);
    }
    match known(contents, pending) {
        Some(known) => process::end(&known, false).map(|ended| ended == Ended::Killed),
        None if process::identify(pid).is_none() => Ok(false),
        None => Err(format!(
            "process {pid} may or may not be of this build (its start time is not known); \
             left alone"
        )),
    }
}

/// SIGKILL for every recorded process of the journal in `path`. Returns how many were running.
pub(super) fn kill_processes(path: &Path) -> usize {
    let Ok(bytes) = fs::File::open(path).and_then(|mut f| read_all(&mut f)) else { return 0 };
    let contents = parse(&bytes);
    let known = contents.pending.iter().filter_map(|pending| known(&contents, pending));
    known.filter(|known| process::end(known, true) == Ok(Ended::Killed)).count()
}

#[cfg(test)]
#[path = "undo_tests.rs"]
mod tests;
