// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Commands over a session.

use super::*;
use crate::ui::{Event, Kind, Stream};

fn silent() -> Events {
    Events::silent()
}

#[tokio::test]
async fn streams_lines_of_both_streams_and_masks_secrets() {
    let (_server, session, _) = logged_in().await;
    session.set_mask(Mask::new(&[Secret::new("hunter22")]));
    let (events, list) = Events::recorded();
    let text = "echo out $SECRET; echo err >&2; printf 'no newline'; read x || echo empty; exit 7";
    let command = Command::new(text).env("SECRET", "hunter22");
    let ended = session.run(&command, "step", &events).await.unwrap();
    assert_eq!(ended, Ended::Code(7));
    let mut lines: Vec<(Stream, String)> = Vec::new();
    for event in list.lock().unwrap().iter() {
        let Event::Output { step, stream, line } = event else { panic!("{event:?}") };
        assert_eq!(step, "step");
        lines.push((*stream, line.clone()));
    }
    let of = |s: Stream| -> Vec<&str> {
        lines.iter().filter(|(stream, _)| *stream == s).map(|(_, l)| l.as_str()).collect()
    };
    assert_eq!(of(Stream::Stdout), ["out ***", "no newlineempty"]);
    assert_eq!(of(Stream::Stderr), ["err"]);
}

#[tokio::test]
async fn carries_much_data_both_ways_and_bounds_what_it_keeps() {
    let (_server, session, _) = logged_in().await;
    let bytes: Vec<u8> = (0..5_000_000u32).map(|n| (n ^ (n >> 8)) as u8).collect();
    let command = Command::new("cat").stdin(bytes.clone());
    let back = session.capture(&command, usize::MAX).await.unwrap();
    assert!(back.ended.good() && !back.cut);
    assert!(back.stdout == bytes, "{} bytes came back", back.stdout.len());
    let some = session.capture(&command, 1000).await.unwrap();
    assert!(some.cut);
    assert_eq!(some.stdout, &bytes[..1000]);
    // A command that does not read its input ends all the same.
    let deaf = Command::new("exit 4").stdin(bytes);
    assert_eq!(session.run(&deaf, "x", &silent()).await.unwrap(), Ended::Code(4));
}

#[tokio::test]
async fn tells_signals_from_exit_codes() {
    let (_server, session, _) = logged_in().await;
    let ended = session.run(&Command::new("kill -s KILL $$"), "x", &silent()).await.unwrap();
    assert_eq!(ended, Ended::Signal("KILL".into()));
}

#[tokio::test]
async fn a_background_process_that_keeps_the_output_open_does_not_hang_us() {
    let (_server, session, _) = logged_in().await;
    let start = Instant::now();
    let command = Command::new("setsid sleep 8 & echo started");
    let got = session.capture(&command, 100).await.unwrap();
    assert_eq!(got.text(), "started");
    assert!(start.elapsed() < Duration::from_secs(7));
}

/// Whether the process still exists, after ten seconds if need be: one that was killed does until
/// its parent has asked for its exit status.
async fn is_alive(session: &Session, pid: &str) -> bool {
    let ask = Command::new(format!(
        "i=0; while kill -0 {pid} 2>/dev/null; do\n\
         i=$((i + 1)); [ $i -lt 100 ] || {{ echo alive; exit; }}; sleep 0.1\ndone"
    ));
    session.ignoring_cancel().capture(&ask, 100).await.unwrap().text() == "alive"
}

#[tokio::test]
async fn timeout_kills_even_what_ignores_the_term_signal() {
    let (_server, session, _) = logged_in().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let text = format!("trap '' TERM; echo $$ > {}; while :; do sleep 1; done", file.display());
    let command = Command::new(text).within(Duration::from_millis(1500));
    let failure = session.run(&command, "x", &silent()).await.unwrap_err();
    assert!(failure.summary().contains("timed out after 1.5 s"), "{failure}");
    let pid = std::fs::read_to_string(file).unwrap();
    assert!(!is_alive(&session, pid.trim()).await);
}

#[tokio::test]
async fn cancel_ends_the_command_in_the_guest_too() {
    let (_server, session, cancel) = logged_in().await;
    let (events, list) = Events::recorded();
    let command = Command::new("echo $$; sleep 60; echo never");
    let (result, ()) = tokio::join!(session.run(&command, "x", &events), async {
        while list.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    });
    assert_eq!(result.unwrap_err().kind(), Kind::Interrupted);
    let Event::Output { line, .. } = list.lock().unwrap()[0].clone() else { panic!() };
    assert!(!is_alive(&session, &line).await);
    let failure = session.run(&Command::new("true"), "x", &events).await.unwrap_err();
    assert_eq!(failure.kind(), Kind::Interrupted);
}

#[tokio::test]
async fn a_lost_connection_is_an_error_unless_expected() {
    let (_server, session, _) = logged_in().await;
    let cut = Command::new("kill -s KILL $PPID; sleep 30");
    let failure = session.run(&cut, "x", &silent()).await.unwrap_err();
    assert!(failure.summary().contains("connection to the guest ended"), "{failure}");
    assert!(session.closed_within(Duration::from_secs(5)).await.unwrap());
    session.reconnect(&Return::Login, Duration::from_secs(20), &silent()).await.unwrap();
    let ended = session.run(&cut.may_disconnect(true), "x", &silent()).await.unwrap();
    assert_eq!(ended, Ended::Disconnected);
}

#[tokio::test]
async fn a_restart_is_proven_by_the_boot_id() {
    let key = BuildKey::generate("test").unwrap();
    let mut setup = Setup::new();
    setup.authorized = Some(key.public_line().to_owned());
    let server = Server::start(&setup);
    let wait = wait_for(server.address, Some(key));
    let session = connect(&wait, Duration::from_secs(20), &silent()).await.unwrap();
    let before = session.boot_id().await.unwrap().unwrap();
    assert_eq!(before, setup.boot_id);
    assert!(!session.is_stopping().await.unwrap());

    let back = Return::Restart(before);
    let clone = session.clone();
    let failure =
        session.reconnect(&back, Duration::from_millis(1500), &silent()).await.unwrap_err();
    assert!(failure.summary().contains("within"), "{failure}");

    drop(server);
    setup.boot_id = "22222222-aaaa-4bbb-8ccc-000000000002";
    let _server = Server::start(&setup);
    session.reconnect(&back, Duration::from_secs(20), &silent()).await.unwrap();
    assert_eq!(clone.boot_id().await.unwrap().as_deref(), Some(setup.boot_id));
}
