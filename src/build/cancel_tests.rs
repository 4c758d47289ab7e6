// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Real signals to a real process: this test binary, started again.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;
use crate::build::{StateDirs, process, recover_dead};
use crate::ui::Events;

const VICTIM: &str = "IMGFORGE_TEST_CANCEL";

fn tell(text: &str) {
    println!("\n{text}");
    std::io::stdout().flush().unwrap();
}

/// Not a test by itself: the process that gets the signals.
#[test]
fn victim() {
    let Ok(top) = std::env::var(VICTIM) else { return };
    let (top, stubborn) = top.split_once(' ').unwrap();
    let cancel = Cancel::install(|line| tell(&format!("say {line}"))).unwrap();
    let dirs = StateDirs::at(Path::new(top).join("s"), Path::new(top).join("r"));
    let journal = Journal::create(&dirs, "debian-13").unwrap();
    cancel.watch(&journal);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut command = tokio::process::Command::new("sleep");
        let (child, _entry) = journal.spawn(command.arg("60")).unwrap();
        tell(&format!("pid {}", child.id().unwrap()));
        cancel.token().cancelled().await;
        tell(&format!("cancelled {}", cancel.check().unwrap_err().kind().exit_code()));
        if stubborn == "stubborn" {
            // A clean-up that hangs, with the runtime's only thread blocked.
            loop {
                std::thread::park();
            }
        }
    });
    journal.undo(&Events::silent());
    tell("undone");
}

fn start(top: &Path, mode: &str, nohup: bool) -> (Child, Lines<BufReader<ChildStdout>>, u32) {
    let this = std::env::current_exe().unwrap();
    let mut command = Command::new(if nohup { Path::new("nohup") } else { this.as_path() });
    if nohup {
        command.arg(&this);
    }
    let mut child = command
        .args(["--exact", "build::cancel::tests::victim", "--nocapture", "--test-threads=1"])
        .env(VICTIM, format!("{} {mode}", top.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let pid = until(&mut lines, "pid ").parse().unwrap();
    (child, lines, pid)
}

fn until(lines: &mut Lines<BufReader<ChildStdout>>, prefix: &str) -> String {
    loop {
        let line = lines.next().unwrap_or_else(|| panic!("no line {prefix:?}")).unwrap();
        if let Some(rest) = line.strip_prefix(prefix) {
            return rest.to_owned();
        }
    }
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

fn runs(pid: u32) -> bool {
    process::identify(pid).is_some_and(|i| i.name == "sleep" && !i.ended)
}

#[test]
fn the_first_signal_ends_in_good_order() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let top = tempfile::tempdir().unwrap();
        let (mut child, mut lines, pid) = start(top.path(), "obedient", false);
        send(&child, signal);
        assert!(until(&mut lines, "say ").starts_with("interrupted: cleaning up"));
        assert_eq!(until(&mut lines, "cancelled "), "130");
        until(&mut lines, "undone");
        assert!(child.wait().unwrap().success());
        assert!(!runs(pid), "{signal}: the process of the build still runs");
    }
}

#[test]
fn the_second_signal_stops_at_once() {
    let top = tempfile::tempdir().unwrap();
    let (mut child, mut lines, pid) = start(top.path(), "stubborn", false);
    send(&child, Signal::SIGINT);
    until(&mut lines, "cancelled ");
    assert!(runs(pid));
    send(&child, Signal::SIGINT);
    assert!(until(&mut lines, "say ").contains("1 processes killed"));
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!runs(pid));
    let dirs = StateDirs::at(top.path().join("s"), top.path().join("r"));
    let recovered = recover_dead(&dirs, &Events::silent()).unwrap();
    assert_eq!(recovered.len(), 1);
    assert_eq!(recovered[0].undone.as_ref().unwrap().failed, Vec::<String>::new());
}

#[test]
fn nohup_is_respected() {
    let top = tempfile::tempdir().unwrap();
    let (mut child, mut lines, _) = start(top.path(), "obedient", true);
    send(&child, Signal::SIGHUP);
    // Were SIGHUP handled, it would have been the first signal, and this the second.
    send(&child, Signal::SIGTERM);
    until(&mut lines, "undone");
    assert!(child.wait().unwrap().success());
}
