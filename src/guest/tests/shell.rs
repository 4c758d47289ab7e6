// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The shell step.

use std::collections::BTreeMap;

use super::*;
use crate::target::{Action, Shell, Step};
use crate::ui::Kind;

fn inline(lines: &[&str]) -> Shell {
    Shell { inline: lines.iter().map(|l| (*l).to_owned()).collect(), ..Shell::default() }
}

fn shell(shell: Shell) -> Step {
    step(Action::Shell(shell))
}

#[tokio::test]
async fn inline_lines_are_one_script_with_the_builds_environment() {
    let (_server, session, _) = logged_in().await;
    let stage = Stage::new(vec![]);
    let mut lines = inline(&[
        "A=1",
        "echo \"$A {{ .Name }} $OWN $PACKER_HTTP_ADDR $IMGFORGE_HTTP_PORT\"",
        "echo $PACKER_BUILD_NAME $PACKER_BUILDER_TYPE",
        "cat",
    ]);
    lines.env = BTreeMap::from([("OWN".into(), "own of {{ .Name }}".into())]);
    let report = stage.run(&session, shell(lines)).await.unwrap();
    assert_eq!(report.summary, "exit code 0");
    assert_eq!(report.attempts, 1);
    assert_eq!(stage.lines(), ["1 tiny-1 own of tiny-1 10.0.2.2:8100 8100", "tiny qemu"]);

    let failure = stage.run(&session, shell(inline(&["false", "echo no"]))).await.unwrap_err();
    assert!(failure.summary().contains("the script ended with exit code 1"), "{failure}");
    assert_eq!(stage.lines().len(), 2, "errexit holds");
    let mut wanted = inline(&["exit 100"]);
    wanted.valid_exit_codes = vec![0, 100];
    assert_eq!(stage.run(&session, shell(wanted)).await.unwrap().summary, "exit code 100");
}

#[tokio::test]
async fn a_script_runs_by_its_own_interpreter_and_is_gone_after_it_in_every_case() {
    let (_server, session, cancel) = logged_in().await;
    let stage = Stage::new(vec![
        (
            "good.py",
            0o644,
            "#!/usr/bin/env python3\nimport sys, os\nprint(sys.argv[0], os.environ['X'])\n",
        ),
        ("bad.sh", 0o644, "#!/bin/sh\nls -ld \"$(dirname \"$0\")\"\nexit 9\n"),
        ("slow.sh", 0o644, "echo started\nsleep 60\n"),
        ("dos.sh", 0o644, "#!/bin/sh\r\necho\r\n"),
    ]);
    let script = |name: &str| {
        let env = BTreeMap::from([("X".into(), "seen".into())]);
        Shell { script: Some(name.into()), env, ..Shell::default() }
    };
    stage.run(&session, shell(script("good.py"))).await.unwrap();
    let line = stage.lines().pop().unwrap();
    assert!(line.starts_with("/run/imgforge-") && line.ends_with("/script seen"), "{line}");

    let failure = stage.run(&session, shell(script("bad.sh"))).await.unwrap_err();
    assert!(failure.summary().contains("exit code 9"), "{failure}");
    assert!(stage.lines().pop().unwrap().starts_with("drwx------"));
    let failure = stage.run(&session, shell(script("dos.sh"))).await.unwrap_err();
    assert!(failure.summary().contains("carriage return"), "{failure}");
    assert_eq!(failure.kind(), Kind::Input);
    assert_eq!(leftovers(&session).await, "");

    let mut slow = shell(script("slow.sh"));
    slow.timeout = Duration::from_secs(2);
    let failure = stage.run(&session, slow).await.unwrap_err();
    assert!(failure.summary().contains("timed out"), "{failure}");
    assert_eq!(leftovers(&session).await, "");

    let seen = stage.lines().len();
    let (result, ()) = tokio::join!(stage.run(&session, shell(script("slow.sh"))), async {
        while stage.lines().len() == seen {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    });
    assert_eq!(result.unwrap_err().kind(), Kind::Interrupted);
    assert_eq!(leftovers(&session).await, "");
}

#[tokio::test]
async fn a_failed_step_is_tried_again_as_often_as_it_says() {
    let (_server, session, _) = logged_in().await;
    let stage = Stage::new(vec![]);
    let dir = tempfile::tempdir().unwrap();
    let flag = dir.path().join("flag").display().to_string();
    let text = format!("[ -e {flag} ] || {{ touch {flag}; echo first; exit 1; }}; echo second");
    let mut again = shell(inline(&[&text]));
    again.max_retries = 1;
    let report = stage.run(&session, again).await.unwrap();
    assert_eq!(report.attempts, 2);
    assert_eq!(stage.lines(), ["first", "second"]);

    let mut never = shell(inline(&["exit 5"]));
    never.max_retries = 1;
    let failure = stage.run(&session, never).await.unwrap_err();
    assert!(failure.summary().starts_with("step `a step` (try 2): "), "{failure}");
}

#[tokio::test]
async fn an_expected_disconnect_is_followed_by_a_new_login() {
    let (_server, session, _) = logged_in().await;
    let stage = Stage::new(vec![]);
    let cut = inline(&["kill -s KILL $PPID", "sleep 30"]);
    let failure = stage.run(&session, shell(cut.clone())).await.unwrap_err();
    assert!(failure.hints().iter().any(|h| h.contains("expect_disconnect")), "{failure}");
    session.reconnect(&Return::Login, Duration::from_secs(20), &stage.events).await.unwrap();

    let cut = Shell { expect_disconnect: true, ..cut };
    stage.run(&session, shell(cut)).await.unwrap();
    stage.run(&session, shell(inline(&["echo back"]))).await.unwrap();
    assert_eq!(stage.lines(), ["back"]);
}

#[tokio::test]
async fn logs_are_collected_from_a_cancelled_build_and_masked() {
    let (_server, session, cancel) = logged_in().await;
    session.set_mask(Mask::new(&[Secret::new("load average")]));
    cancel.cancel();
    let logs = collect_logs(&session).await;
    let state = logs.iter().find(|log| log.name == "guest-state.log").unwrap();
    assert!(state.text.contains("Linux") && !state.text.contains("load average"));
    session.close().await;
    assert!(session.closed_within(Duration::from_secs(5)).await.is_err(), "cancelled");
}
