// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Ansible from this host, the real one.

use std::collections::BTreeMap;

use super::*;
use crate::target::{Action, Ansible, AnsibleMode, Step};
use crate::ui::Kind;

const SITE: &str = "- hosts: all\n  gather_facts: false\n  tasks:\n    - name: Say hello\n      \
    ansible.builtin.copy:\n        content: \"{{ word }} {{ inventory_hostname }}\"\n        \
    dest: \"{{ place }}/hello\"\n        mode: \"0640\"\n";
const BAD: &str = "- hosts: all\n  gather_facts: false\n  tasks:\n    - name: Works\n      \
    ansible.builtin.ping:\n    - name: Breaks on purpose\n      \
    ansible.builtin.command: sh -c 'echo the reason >&2; exit 3'\n";
const SLOW: &str = "- hosts: all\n  gather_facts: false\n  tasks:\n    - name: Sleeps\n      \
    ansible.builtin.command: sleep 60\n";
const NOWHERE: &str = "- hosts: webservers\n  tasks: []\n";

fn stage() -> Stage {
    Stage::new(vec![
        ("play/site.yml", 0o644, SITE),
        ("play/bad.yml", 0o644, BAD),
        ("play/slow.yml", 0o644, SLOW),
        ("play/nowhere.yml", 0o644, NOWHERE),
    ])
}

fn play(playbook: &str, place: &Path) -> Step {
    let extra_vars = BTreeMap::from([
        ("place".into(), place.display().to_string()),
        ("word".into(), "it's {{ .Name }}".into()),
    ]);
    step(Action::Ansible(Ansible {
        mode: AnsibleMode::Host,
        directory: "play".into(),
        playbook: playbook.into(),
        extra_vars,
        extra_arguments: vec!["--diff".into()],
        env: BTreeMap::new(),
        command: String::new(),
    }))
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

#[tokio::test]
async fn a_playbook_changes_the_guest_and_leaves_nothing_here() {
    let (_server, session, _) = logged_in().await;
    let (stage, dir) = (stage(), tempfile::tempdir().unwrap());
    let report = stage.run(&session, play("site.yml", dir.path())).await.unwrap();
    assert_eq!(report.recap.unwrap().changed, 1, "{:?}", stage.lines());
    assert_eq!(report.summary, "ok=1 changed=1 failed=0");
    assert_eq!(std::fs::read(dir.path().join("hello")).unwrap(), b"it's tiny-1 tiny");
    assert!(stage.lines().iter().any(|line| line.starts_with("TASK [Say hello]")));
    assert!(is_empty(stage.run_dir.path()));

    let again = stage.run(&session, play("site.yml", dir.path())).await.unwrap();
    assert_eq!(again.recap.unwrap().changed, 0, "idempotent");
    // No shared connection of ansible's ssh outlives the step.
    let ps = Process::new("ps").args(["ax", "-o", "args"]).output().unwrap();
    let place = stage.run_dir.path().display().to_string();
    assert!(!String::from_utf8_lossy(&ps.stdout).contains(&place));
}

#[tokio::test]
async fn a_failing_playbook_names_task_and_reason() {
    let (_server, session, _) = logged_in().await;
    let (stage, dir) = (stage(), tempfile::tempdir().unwrap());
    let failure = stage.run(&session, play("bad.yml", dir.path())).await.unwrap_err();
    assert!(failure.summary().contains("failed at `Breaks on purpose`"), "{failure}");
    assert!(failure.to_string().contains("the reason"), "{failure}");
    let failure = stage.run(&session, play("nowhere.yml", dir.path())).await.unwrap_err();
    assert!(failure.summary().contains("ran on no host"), "{failure}");
    let failure = stage.run(&session, play("missing.yml", dir.path())).await.unwrap_err();
    assert_eq!(failure.kind(), Kind::Input);
    assert!(failure.to_string().contains("bad.yml, slow.yml"), "{failure}");
    assert!(is_empty(stage.run_dir.path()));
}

#[tokio::test]
async fn a_playbook_out_of_time_or_cancelled_is_ended() {
    let (_server, session, cancel) = logged_in().await;
    let (stage, dir) = (stage(), tempfile::tempdir().unwrap());
    let mut slow = play("slow.yml", dir.path());
    slow.timeout = Duration::from_secs(8);
    let failure = stage.run(&session, slow).await.unwrap_err();
    assert!(failure.summary().contains("timed out"), "{failure}");
    assert!(is_empty(stage.run_dir.path()));

    let seen = stage.lines().len();
    let (result, ()) = tokio::join!(stage.run(&session, play("slow.yml", dir.path())), async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        while !stage.lines()[seen..].iter().any(|line| line.starts_with("TASK [Sleeps]")) {
            tick.tick().await;
        }
        cancel.cancel();
    });
    assert_eq!(result.unwrap_err().kind(), Kind::Interrupted);
    assert!(is_empty(stage.run_dir.path()));
}

#[tokio::test]
async fn the_pinned_host_key_is_the_only_one_accepted() {
    let key = BuildKey::generate("test").unwrap();
    let mut setup = Setup::new();
    setup.authorized = Some(key.public_line().to_owned());
    let server = Server::start(&setup);
    let wait = wait_for(server.address, Some(key));
    let session = connect(&wait, Duration::from_secs(20), &Events::silent()).await.unwrap();
    drop(server);
    setup.host_key = BuildKey::generate("stranger").unwrap();
    let _stranger = Server::start(&setup);
    let (stage, dir) = (stage(), tempfile::tempdir().unwrap());
    let failure = stage.run(&session, play("site.yml", dir.path())).await.unwrap_err();
    assert!(failure.to_string().contains("Host key verification failed"), "{failure}");
    assert!(is_empty(dir.path()));
}
