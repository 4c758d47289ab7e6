// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What reaches the two streams, and a real terminal (a pseudo-terminal).

#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::process::{Command, Stdio};

use super::*;
use crate::ui::{Split, Stage};

const VICTIM: &str = "IMGFORGE_TEST_PRINTER";

#[derive(Clone, Default)]
struct Sheet(Arc<Mutex<Vec<u8>>>);

impl Write for Sheet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sheet {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// A printer without a terminal, its standard output and its standard error.
fn printer(options: PrinterOptions, colored: bool) -> (Printer, Sheet, Sheet) {
    let (out, err) = (Sheet::default(), Sheet::default());
    let printer =
        Printer::over(options, Box::new(out.clone()), Box::new(err.clone()), colored, None);
    (printer, out, err)
}

fn story(events: &Events) {
    events.emit(Event::BuildStarted { id: "1234".into(), hypervisor: "qemu: no KVM".into() });
    events.emit(Event::StageStarted { stage: Stage::Install });
    for what in ["the installer's reboot", "the installer's reboot", "the first login"] {
        events.emit(Event::Waiting { what: what.into(), deadline_seconds: Some(90.0) });
    }
    for done in 0..100 {
        let (what, total) = ("downloading x.iso".into(), Some(100));
        events.emit(Event::Progress { what, done, total, rate: 1.0 });
    }
    events.emit(Event::Output {
        step: "ansible".into(),
        stream: Stream::Stdout,
        line: "\u{1b}[0;32mok: [guest]\u{1b}[2J".into(),
    });
    events.warn("no checksum");
    events.emit(Event::Machine { what: "reset".into() });
    events.emit(Event::StageDone {
        stage: Stage::Install,
        seconds: 751.0,
        note: "1.4 GiB written".into(),
    });
    events.emit(Event::Artefact { path: "/o/d.raw.gz".into(), bytes: 2048, sha256: None });
    events.emit(Event::BuildDone {
        output: "/o".into(),
        seconds: 60.0,
        split: Split { own: 1.25, ..Default::default() },
    });
}

#[test]
fn plain_lines_without_a_terminal() {
    let (printer, out, err) = printer(PrinterOptions::default(), false);
    story(&printer.events("debian-13"));
    assert_eq!(out.text(), "");
    assert_eq!(
        err.text(),
        "debian-13  start    qemu: no KVM  build 1234\n\
         debian-13  install   started\n\
         debian-13  waiting for the installer's reboot (at most 1m30s)\n\
         debian-13  waiting for the first login (at most 1m30s)\n\
         debian-13 | ok: [guest]\n\
         warning: debian-13: no checksum\n\
         debian-13  install   12m31s  1.4 GiB written\n\
         debian-13  file     /o/d.raw.gz  2.0 KiB\n\
         \n\
         Built debian-13 in 1m00s (own waits 1.2s) into /o\n"
    );
}

#[test]
fn quiet_leaves_warnings_failures_and_results() {
    let (printer, out, err) = printer(PrinterOptions { quiet: true, ..Default::default() }, false);
    story(&printer.events("debian-13"));
    printer.notice("a remark");
    printer.result("/o/d.raw.gz").unwrap();
    printer.failure(&Failure::build("it broke"));
    assert_eq!(out.text(), "/o/d.raw.gz\n");
    assert_eq!(err.text(), "warning: debian-13: no checksum\nerror: it broke\n");
}

#[test]
fn json_is_one_object_per_event_on_standard_output() {
    let (printer, out, err) =
        printer(PrinterOptions { format: Format::Json, ..Default::default() }, false);
    story(&printer.events("debian-13"));
    printer.result("/o/d.raw.gz").unwrap();
    assert_eq!(err.text(), "");
    let lines: Vec<serde_json::Value> =
        out.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 111);
    assert!(lines.iter().all(|line| line["target"] == "debian-13" && line["time"].is_string()));
    assert_eq!(lines[2]["event"], "waiting");
    assert_eq!(lines[110]["split"]["own"], 1.25);
}

#[test]
fn colour_marks_labels_only_and_guests_cannot_add_any() {
    let (printer, _, err) = printer(PrinterOptions::default(), true);
    printer.failure(&Failure::build("broke \u{1b}[5mhere").fact("screen", "a\nb").hint("try `x`"));
    assert_eq!(
        err.text(),
        "\u{1b}[1;31merror:\u{1b}[0m broke here\n  screen   a\n           b\n\n\
         \u{1b}[1;36mhint:\u{1b}[0m try `x`\n"
    );
}

/// Not a test by itself: a process with a terminal as standard error.
#[test]
fn victim() {
    let Ok(mode) = std::env::var(VICTIM) else { return };
    let printer = Printer::new(PrinterOptions { progress: mode != "plain", ..Default::default() });
    let events = printer.events("debian-13");
    events.emit(Event::StageStarted { stage: Stage::Media });
    let what = format!("downloading {}", "long-name-".repeat(30));
    events.emit(Event::Progress { what, done: 300 << 20, total: Some(700 << 20), rate: 1e7 });
    std::thread::sleep(Duration::from_millis(600));
    events.emit(Event::StageDone { stage: Stage::Media, seconds: 3.0, note: "fetched".into() });
    events.emit(Event::StageStarted { stage: Stage::Install });
    events.emit(Event::Waiting { what: "the reboot".into(), deadline_seconds: None });
    std::thread::sleep(Duration::from_millis(600));
    printer.finish();
    printer.failure(&Failure::build("it broke"));
}

/// Runs the victim on a pseudo-terminal of 80 columns; returns all that reached it.
fn on_terminal(mode: &str, no_color: &str) -> String {
    let size = nix::pty::Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = nix::pty::openpty(&size, None).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ui::printer::tests::victim", "--nocapture", "--test-threads=1"])
        .env(VICTIM, mode)
        .env("TERM", "xterm")
        .env("NO_COLOR", no_color)
        .stdout(Stdio::null())
        .stderr(pty.slave)
        .spawn()
        .unwrap();
    let mut master = std::fs::File::from(pty.master);
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    // EIO: the last holder of the other end is gone.
    while let Ok(count) = master.read(&mut buffer) {
        if count == 0 {
            break;
        }
        seen.extend_from_slice(&buffer[..count]);
    }
    assert!(child.wait().unwrap().success());
    String::from_utf8_lossy(&seen).into_owned()
}

#[test]
fn a_terminal_shows_a_live_line_that_goes_away() {
    let seen = on_terminal("live", "");
    assert!(seen.contains("debian-13  media     0s"), "{seen:?}");
    assert!(seen.contains("debian-13  install   0s      waiting for the reboot"), "{seen:?}");
    let widest = seen.split(['\r', '\n']).map(|line| text::plain(line).chars().count()).max();
    assert!(widest <= Some(80), "a live line of {widest:?} columns would wrap");
    assert!(seen.contains("media     3s      fetched\r\n"), "{seen:?}");
    assert!(seen.trim_end().ends_with("\u{1b}[1;31merror:\u{1b}[0m it broke"), "{seen:?}");
    let last = seen.rfind("waiting for the reboot").unwrap();
    assert!(seen[last..].contains("\u{1b}[2K"), "the live line was not erased: {seen:?}");
}

#[test]
fn no_color_and_no_progress_are_respected() {
    let seen = on_terminal("plain", "1");
    assert!(!seen.contains('\u{1b}'), "{seen:?}");
    assert!(seen.contains("debian-13  install   started\r\n"), "{seen:?}");
    assert!(seen.ends_with("error: it broke\r\n"), "{seen:?}");
}
