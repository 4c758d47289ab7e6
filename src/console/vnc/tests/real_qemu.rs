// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.
//! Against QEMU's own server and real firmware.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::console::boot_command::parse;
use crate::console::{Screen, type_events};
use crate::ui::{Events, Secret};
use crate::vm::VncEndpoint;

const QEMU: &str = "qemu-system-x86_64";
const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";

/// A QEMU that dies with the test.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(arguments: &[&str]) -> Option<Qemu> {
    let child = Command::new(QEMU)
        .args(["-machine", "q35", "-accel", "tcg", "-display", "none", "-nic", "none"])
        .args(arguments)
        .stdin(Stdio::null())
        .spawn();
    match child {
        Ok(child) => Some(Qemu(child)),
        Err(error) => {
            println!("skipped: {QEMU}: {error}");
            None
        }
    }
}

/// Where pictures go: a place of the user's choice, or one that is removed again.
fn pictures(directory: &Path) -> PathBuf {
    std::env::var_os("IMGFORGE_TEST_PICTURES").map_or_else(|| directory.to_owned(), PathBuf::from)
}

/// Width and height of a character in the UEFI shell.
const CELL: (usize, usize) = (8, 19);

/// The UEFI shell's text: rows of characters, each a bitmap of what is not black. The shell has
/// 100 columns and 31 rows in the middle of the screen.
fn shell_text(screen: &Screen) -> Vec<Vec<Vec<bool>>> {
    let (width, height) = screen.size();
    let (left, top) = (usize::from(width) / 2 - 400, usize::from(height) / 2 - 295);
    let frame = screen.shared.frame();
    let lit = |x: usize, y: usize| frame.is_lit(x, y);
    let cell = |column: usize, row: usize| {
        let (x, y) = (left + column * CELL.0, top + row * CELL.1);
        (0..CELL.0 * CELL.1).map(|i| lit(x + i % CELL.0, y + i / CELL.0)).collect()
    };
    (0..31).map(|row| (0..100).map(|column| cell(column, row)).collect()).collect()
}

fn is_space(cell: &[bool]) -> bool {
    !cell.contains(&true)
}

/// The row with an empty prompt, `Shell> `: six characters of which only the fourth and the fifth
/// are alike, and nothing else but a cursor.
fn prompt(text: &[Vec<Vec<bool>>]) -> Option<usize> {
    text.iter().rposition(|row| {
        let alike = |a: usize, b: usize| row[a] == row[b];
        (0..6).all(|i| !is_space(&row[i]))
            && (0..6).all(|a| (0..a).all(|b| alike(a, b) == ((a, b) == (4, 3))))
            && is_space(&row[6])
            && row.iter().skip(8).all(|cell| is_space(cell))
    })
}

async fn wait_prompt(screen: &Screen, limit: Duration) -> usize {
    let found = async {
        loop {
            let seen = screen.fingerprint();
            if screen.size() == (1280, 800)
                && let Some(row) = prompt(&shell_text(screen))
            {
                return row;
            }
            screen.wait_change(seen, limit).await.unwrap();
        }
    };
    tokio::time::timeout(limit, found).await.expect("no shell prompt in time")
}

/// Types at the UEFI shell, letter for letter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_qemu_uefi_shell_echoes_what_is_typed() {
    if !Path::new(FIRMWARE).exists() {
        println!("skipped: {FIRMWARE} is missing");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("vnc.sock");
    let flash = format!("if=pflash,unit=0,format=raw,readonly=on,file={FIRMWARE}");
    let vnc = format!("unix:{}", socket.display());
    let Some(_qemu) = start(&["-m", "256", "-drive", &flash, "-vnc", &vnc]) else {
        return;
    };
    let stop = CancellationToken::new();
    let screen = Screen::connect(&VncEndpoint::Unix(socket), stop.clone()).await.unwrap();
    let pictures = pictures(directory.path());
    screen.save_png(&pictures.join("first.png")).await.unwrap();
    if screen.size() == (640, 480) {
        assert!(screen.is_blank(), "QEMU's notice counts as blank: see first.png");
    }

    let limit = Duration::from_secs(120);
    screen.wait_still(Duration::from_millis(500), limit).await.unwrap();
    assert_eq!(screen.size(), (1280, 800), "the firmware's own resolution");
    let row = wait_prompt(&screen, limit).await;
    let sample: Vec<Vec<bool>> = shell_text(&screen)[row][..5].to_vec();

    // `Shell` has a capital, and its letters can be compared with the prompt's.
    let command = parse("echo Shell<enter>").unwrap();
    let (events, interval) = (command.expand(), Duration::from_millis(50));
    let report = type_events(&screen, &events, interval, &Events::silent(), &stop).await.unwrap();
    assert_eq!(report.keys, events.len());
    assert!(report.typing >= command.duration(interval));
    let next = wait_prompt(&screen, limit).await;
    screen.save_png(&pictures.join("echo.png")).await.unwrap();
    let text = shell_text(&screen);
    let output = text[row..=next].iter().find(|line| line[..5] == sample && is_space(&line[5]));
    assert!(output.is_some(), "no line `Shell` below the prompt: see echo.png");
    assert_eq!(text[row][12..17], sample, "the command as typed: see echo.png");

    // The shell's `reset -s` powers the machine off: the connection must end with a reason.
    let off = parse("reset -s<enter>").unwrap().expand();
    let typed = type_events(&screen, &off, interval, &Events::silent(), &stop).await;
    let lost = tokio::time::timeout(limit, screen.lost()).await.unwrap();
    let text = lost.to_string();
    let ended = ["closed the connection", "Connection reset", "Broken pipe"];
    assert!(ended.iter().any(|words| text.contains(words)), "{typed:?} {lost}");
}

/// A password over TCP; SeaBIOS in text mode, whose cursor blinks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_qemu_password_and_blinking_cursor() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    if address.port() < 5900 {
        println!("skipped: the kernel chose a port below VNC's");
        return;
    }
    drop(listener);
    let Some(_qemu) = start(&[
        "-m",
        "64",
        "-object",
        "secret,id=password,data=s3cret-8",
        "-vnc",
        &format!("127.0.0.1:{},password-secret=password", address.port() - 5900),
    ]) else {
        return;
    };
    let stop = CancellationToken::new();
    let endpoint = |password: &str| VncEndpoint::Tcp(address, Secret::new(password));
    let screen = Screen::connect(&endpoint("s3cret-8"), stop.clone()).await.unwrap();
    screen.wait_still(Duration::from_secs(2), Duration::from_secs(60)).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    screen.save_png(&pictures(directory.path()).join("seabios.png")).await.unwrap();
    assert!(!screen.is_blank());

    let refused = Screen::connect(&endpoint("wrong"), stop.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("refuses"), "{refused}");
    assert!(!refused.to_string().contains("wrong"), "{refused}");

    stop.cancel();
    assert_eq!(screen.lost().await.kind().exit_code(), 130);
}
