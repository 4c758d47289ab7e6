// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Builds that die at every step, and journals that lie.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::*;
use crate::build::{Entry, Journal};
use crate::ui::Event;

const VICTIM: &str = "IMGFORGE_TEST_VICTIM";

struct Place {
    top: tempfile::TempDir,
    dirs: StateDirs,
}

fn place() -> Place {
    let top = tempfile::tempdir().unwrap();
    let dirs = dirs_in(top.path());
    std::fs::create_dir(top.path().join("out")).unwrap();
    Place { top, dirs }
}

fn dirs_in(top: &Path) -> StateDirs {
    StateDirs::at(top.join("state"), top.join("run"))
}

/// Everything below the place but empty directories of imgforge's own and its lock file.
fn files_in(top: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![top.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path.clone());
            }
            let own = ["state", "run", "out", "state/builds", "state/builds/lock"];
            if !own.iter().any(|name| path == top.join(name)) {
                found.push(path);
            }
        }
    }
    found
}

/// A build that stops before step `stop`, says so, and waits to be killed.
fn build_until(top: &Path, stop: usize) {
    let mut step = 0;
    let mut at = |what: &str| {
        if step == stop {
            println!("\nstopped before {what}");
            std::io::stdout().flush().unwrap();
            loop {
                std::thread::park();
            }
        }
        step += 1;
    };
    at("the journal");
    let journal = Journal::create(&dirs_in(top), "debian-13").unwrap();
    at("scratch");
    let scratch = journal.scratch(&top.join("out/debian-13")).unwrap();
    let _dir: Entry = journal.make_dir(&scratch).unwrap();
    at("a file in scratch");
    std::fs::write(scratch.join("disk.raw"), "data").unwrap();
    let lone = journal.scratch(&top.join("out/lone.gz")).unwrap();
    let _file: Entry = journal.will_write(&lone).unwrap();
    at("the lone file");
    std::fs::write(&lone, "data").unwrap();
    at("the socket");
    let socket = journal.run_dir().join("qmp");
    let _socket: Entry = journal.will_bind(&socket).unwrap();
    let _listener = UnixListener::bind(&socket).unwrap();
    at("the intent to start");
    let entry = journal.will_start("sleep").unwrap();
    at("the start");
    let (name, id) = journal.environment();
    let mut child = Command::new("sleep").arg("60").env(name, id).spawn().unwrap();
    println!("\npid {}", child.id());
    at("writing down the pid");
    journal.started(entry, child.id()).unwrap();
    at("the end of the process");
    child.kill().unwrap();
    child.wait().unwrap();
    journal.done(entry).unwrap();
    at("publishing");
    std::fs::rename(&scratch, top.join("out/debian-13")).unwrap();
    at("marking it published");
    journal.done(_dir).unwrap();
    at("undo");
    assert_eq!(journal.undo(&Events::silent()).failed, Vec::<String>::new());
    println!("\nfinished");
}

/// Not a test by itself: the body of the process that the tests below kill.
#[test]
fn victim() {
    if let Ok(order) = std::env::var(VICTIM) {
        let (stop, top) = order.split_once(' ').unwrap();
        build_until(Path::new(top), stop.parse().unwrap());
    }
}

/// Runs the victim until it stops; returns it, what it stopped before, and the pid it started.
fn run_victim(top: &Path, stop: usize) -> (Child, Option<String>, Option<u32>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "build::undo::tests::victim", "--nocapture", "--test-threads=1"])
        .env(VICTIM, format!("{stop} {}", top.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pid = None;
    let mut finished = false;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(number) = line.strip_prefix("pid ") {
            pid = Some(number.parse().unwrap());
        }
        if let Some(what) = line.strip_prefix("stopped before ") {
            return (child, Some(what.to_owned()), pid);
        }
        finished |= line == "finished";
    }
    assert!(finished, "the victim ended early at step {stop}");
    (child, None, pid)
}

#[test]
fn a_build_killed_at_any_step_leaves_nothing() {
    let mut stop = 0;
    loop {
        let place = place();
        let top = place.top.path();
        let (mut victim, what, pid) = run_victim(top, stop);
        let Some(what) = what else {
            assert!(victim.wait().unwrap().success());
            assert!(stop > 10, "the victim has fewer steps than expected");
            return;
        };
        let living = survey(&place.dirs).unwrap();
        assert!(living.iter().all(|r| r.condition == Condition::Running), "before {what}");
        assert!(recover_dead(&place.dirs, &Events::silent()).unwrap().is_empty());
        victim.kill().unwrap();
        victim.wait().unwrap();
        let (events, list) = Events::recorded();
        for remains in recover_dead(&place.dirs, &events).unwrap() {
            assert_eq!(remains.undone.unwrap().failed, Vec::<String>::new(), "before {what}");
        }
        let published = top.join("out/debian-13");
        let rest: Vec<_> =
            files_in(top).into_iter().filter(|path| !path.starts_with(&published)).collect();
        assert_eq!(rest, Vec::<PathBuf>::new(), "left behind when killed before {what}");
        let should_exist = ["marking it published", "undo"].contains(&what.as_str());
        assert_eq!(published.join("disk.raw").exists(), should_exist, "before {what}");
        if let Some(pid) = pid {
            let alive = process::identify(pid).is_some_and(|i| i.name == "sleep" && !i.ended);
            assert!(!alive, "process {pid} survived when killed before {what}");
        }
        let said = list.lock().unwrap();
        assert!(!said.iter().any(|e| matches!(e, Event::Warning { .. })), "{what}: {said:?}");
        drop(said);
        assert!(recover_dead(&place.dirs, &Events::silent()).unwrap().is_empty(), "twice: {what}");
        stop += 1;
    }
}

/// Writes a dead build's journal with these lines after the first.
fn forge(place: &Place, lines: &[String]) -> (String, PathBuf) {
    let id = uuid::Uuid::new_v4().to_string();
    let run_dir = place.top.path().join("run").join(&id[..8]);
    let first = Record::Build {
        id: id.clone(),
        target: "forged".into(),
        pid: 4_000_000,
        start: None,
        boot: process::boot_id(),
        run_dir,
    };
    let text = serde_json::to_string(&first).unwrap() + "\n" + &lines.concat();
    let path = place.dirs.journals().unwrap().join(format!("{id}.jsonl"));
    std::fs::write(&path, text).unwrap();
    (id, path)
}

fn line(record: &Record) -> String {
    serde_json::to_string(record).unwrap() + "\n"
}

fn will(entry: u64, effect: Effect) -> String {
    line(&Record::Will { entry, effect })
}

#[test]
fn a_journal_that_names_foreign_paths_is_refused() {
    let place = place();
    let precious = place.top.path().join("precious");
    std::fs::create_dir(&precious).unwrap();
    std::fs::write(precious.join("file"), "x").unwrap();
    let up = place.top.path().join("run/../precious");
    let (_, path) = forge(
        &place,
        &[
            will(1, Effect::Dir { path: precious.clone() }),
            will(2, Effect::File { path: precious.join("file") }),
            will(3, Effect::Dir { path: up }),
            will(4, Effect::Dir { path: "/".into() }),
            will(5, Effect::Dir { path: "".into() }),
        ],
    );
    let cleaned = clean(&place.dirs).unwrap();
    let undone = cleaned[0].undone.clone().unwrap();
    assert_eq!(undone.failed.len(), 5, "{undone:?}");
    assert!(undone.removed.is_empty());
    assert!(precious.join("file").exists());
    assert!(path.exists(), "a journal that could not be undone was thrown away");
}

#[test]
fn a_recycled_pid_is_not_killed() {
    let place = place();
    let mut other = Command::new("sleep").arg("60").spawn().unwrap();
    let real = process::identify(other.id()).unwrap();
    let started = |start| Record::Started {
        entry: 1,
        pid: other.id(),
        start,
        name: Some(real.name.clone()),
        group: Some(0),
    };
    let intent = will(1, Effect::Process { argv0: "sleep".into() });
    forge(&place, &[intent.clone(), line(&started(Some(real.start + 7)))]);
    forge(&place, &[intent, line(&started(None))]);
    let all: Vec<_> = clean(&place.dirs).unwrap().into_iter().map(|r| r.undone.unwrap()).collect();
    assert!(all.iter().all(|undone| undone.removed.is_empty()));
    assert_eq!(all.iter().map(|undone| undone.failed.len()).sum::<usize>(), 1, "unknown start");
    assert!(other.try_wait().unwrap().is_none());
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn damage_is_said_and_the_rest_is_undone() {
    let place = place();
    let name = |id: &str| place.top.path().join("out").join(format!("x.imgforge-{}", &id[..8]));
    let (id, path) = forge(&place, &[]);
    std::fs::write(name(&id), "x").unwrap();
    let mut text = std::fs::read_to_string(&path).unwrap();
    text += "garbage\n";
    text += &will(1, Effect::File { path: name(&id) });
    text += "{\"record\":\"wi";
    std::fs::write(&path, text).unwrap();
    let undone = clean(&place.dirs).unwrap()[0].undone.clone().unwrap();
    assert_eq!(undone.failed.len(), 1, "{undone:?}");
    assert!(undone.failed[0].contains("line 2"), "{undone:?}");
    assert!(!name(&id).exists());
}

#[test]
fn what_the_user_keeps_stays_until_clean() {
    let place = place();
    let journal = Journal::create(&place.dirs, "debian-13").unwrap();
    let run_dir = journal.run_dir().to_owned();
    journal.keep("--on-error keep").unwrap();
    drop(journal);
    assert!(recover_dead(&place.dirs, &Events::silent()).unwrap().is_empty());
    assert!(run_dir.exists());
    let listed = survey(&place.dirs).unwrap();
    assert_eq!(listed[0].condition, Condition::Kept);
    assert_eq!(listed[0].items.len(), 1);
    assert!(run_dir.exists(), "a survey changes nothing");
    clean(&place.dirs).unwrap();
    assert!(!run_dir.exists());
    assert_eq!(files_in(place.top.path()), Vec::<PathBuf>::new());
}

#[test]
fn the_living_refuse_foreign_paths_too() {
    let place = place();
    let journal = Journal::create(&place.dirs, "debian-13").unwrap();
    let foreign = place.top.path().join("out/plain");
    assert!(journal.make_dir(&foreign).is_err());
    assert!(journal.will_write(&foreign).is_err());
    assert!(!foreign.exists());
    let twice = journal.scratch(&foreign).unwrap();
    let _entry = journal.make_dir(&twice).unwrap();
    assert!(journal.make_dir(&twice).is_err());
    assert!(twice.exists());
    let undone = journal.undo(&Events::silent());
    assert_eq!((undone.removed.len(), undone.failed.len()), (2, 0), "{undone:?}");
    assert!(journal.undo(&Events::silent()).removed.is_empty());
}

#[tokio::test]
async fn a_spawned_process_goes_with_the_journal_and_takes_its_children() {
    let place = place();
    let journal = Journal::create(&place.dirs, "debian-13").unwrap();
    let mut command = tokio::process::Command::new("sh");
    command.args(["-c", "sleep 60 & echo started; wait"]).stdout(Stdio::piped());
    let (mut child, _entry) = journal.spawn(&mut command).unwrap();
    let mut lines =
        tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stdout.take().unwrap()));
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "started");
    let undoing = journal.clone();
    let undone =
        tokio::task::spawn_blocking(move || undoing.undo(&Events::silent())).await.unwrap();
    assert_eq!(undone.failed, Vec::<String>::new());
    // The shell may end by itself once its child is gone.
    assert!(undone.removed.iter().any(|i| i.kind == "process"), "{undone:?}");
    child.wait().await.unwrap();
    assert!(process::marked(journal.id(), journal.run_dir(), &[]).is_empty());
    assert!(journal.spawn(&mut tokio::process::Command::new("/nonexistent/tool")).is_err());
}

#[test]
fn a_child_that_shares_a_dead_owners_lock_for_a_moment_does_not_hide_the_build() {
    let place = place();
    let (_, path) = forge(&place, &[]);
    let hold = |seconds: &str| {
        let file = std::fs::File::open(&path).unwrap();
        file.lock().unwrap();
        // The child's standard input is the same open file, and so holds the same lock.
        Command::new("sleep").arg(seconds).stdin(file).spawn().unwrap()
    };
    let mut child = hold("0.4");
    assert_eq!(recover_dead(&place.dirs, &Events::silent()).unwrap().len(), 1);
    assert!(!path.exists());
    child.wait().unwrap();
    std::fs::write(&path, "").unwrap();
    let mut child = hold("60");
    let listed = survey(&place.dirs).unwrap();
    assert_eq!(listed[0].condition, Condition::Running, "somebody does hold the lock");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn machines_are_written_down_once_and_their_end_is_no_failure() {
    let place = place();
    let journal = Journal::create(&place.dirs, "t").unwrap();
    journal.will_make_machine().unwrap();
    journal.will_make_machine().unwrap();
    let path = place.dirs.state().join("builds").join(format!("{}.jsonl", journal.id()));
    let text = std::fs::read_to_string(&path).unwrap();
    let line = format!("\"kind\":\"machine\",\"name\":\"{}\"", journal.machine_name());
    assert_eq!(text.matches(&line).count(), 1, "{text}");
    // A journal that names somebody else's machines is not believed.
    let lie = "{\"record\":\"will\",\"entry\":99,\"kind\":\"machine\",\"name\":\"web01\"}\n";
    let mut file = std::fs::File::options().append(true).open(&path).unwrap();
    file.write_all(lie.as_bytes()).unwrap();
    let undone = journal.undo(&crate::ui::Events::silent());
    assert!(undone.failed.iter().any(|why| why.contains("web01")), "{undone:?}");
    std::fs::write(&path, text).unwrap();
    assert_eq!(journal.undo(&crate::ui::Events::silent()).failed, Vec::<String>::new());
    assert!(!path.exists());
}
