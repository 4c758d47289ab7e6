// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Ansible inside a guest: a whole Debian in a directory, with a mirror within reach.
//!
//! `debootstrap --include=openssh-server trixie DIR` makes one; these tests change it, so they
//! run only when `IMGFORGE_TEST_GUEST_ROOT` names it.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::target::{Action, Ansible, AnsibleMode, Step};

const SITE: &str = "- hosts: all\n  tasks:\n    - name: Write a marker\n      \
    ansible.builtin.copy:\n        content: \"{{ word }}\"\n        dest: /etc/marker\n        \
    mode: \"0644\"\n";
const BAD: &str = "- hosts: all\n  tasks:\n    - name: Breaks\n      ansible.builtin.fail:\n";
const TOOL: &str = "- hosts: all\n  tasks:\n    - name: Install a tool\n      \
    ansible.builtin.apt:\n        name: [yamllint, python3-jinja2]\n        update_cache: true\n        \
    install_recommends: false\n";

fn play(playbook: &str) -> Step {
    let mut step = step(Action::Ansible(Ansible {
        mode: AnsibleMode::Guest,
        directory: "play".into(),
        playbook: playbook.into(),
        extra_vars: BTreeMap::from([("word".into(), "{{ .Name }} – it's".into())]),
        extra_arguments: vec![],
        env: BTreeMap::new(),
        command: String::new(),
    }));
    step.timeout = Duration::from_secs(900);
    step
}

async fn paths(session: &Session) -> BTreeSet<String> {
    let find = Command::new("find / -xdev -path /tmp -prune -o -print");
    let got = session.capture(&find, 64 << 20).await.unwrap();
    String::from_utf8_lossy(&got.stdout).lines().map(str::to_owned).collect()
}

#[tokio::test]
#[ignore = "needs IMGFORGE_TEST_GUEST_ROOT and a package mirror"]
async fn everything_that_ansible_brought_is_gone_again() {
    let root = std::env::var_os("IMGFORGE_TEST_GUEST_ROOT").unwrap();
    let key = BuildKey::generate("test").unwrap();
    let mut setup = Setup::new();
    setup.authorized = Some(key.public_line().to_owned());
    setup.root = Some(root.into());
    let server = Server::start(&setup);
    let wait = wait_for(server.address, Some(key));
    let session = connect(&wait, Duration::from_secs(20), &Events::silent()).await.unwrap();
    let stage = Stage::new(vec![
        ("play/site.yml", 0o644, SITE),
        ("play/bad.yml", 0o644, BAD),
        ("play/tool.yml", 0o644, TOOL),
    ]);
    let before = paths(&session).await;

    let report = stage.run(&session, play("site.yml")).await;
    let report = report.unwrap_or_else(|f| panic!("{f}\n{}", stage.lines().join("\n")));
    assert!(report.removed.iter().any(|name| name == "ansible-core"), "{report:?}");
    assert!(report.kept.is_empty(), "{report:?}");
    let after = paths(&session).await;
    let new: Vec<&String> = after.difference(&before).collect();
    let lost: Vec<&String> = before.difference(&after).collect();
    println!("new {new:#?}\nlost {lost:#?}");
    assert!(lost.is_empty(), "{lost:?}");
    // The marker is the playbook's; the two others are made once in a system's life, the one by
    // the first package that needs it and the other by apt's first installation.
    let allowed = ["/etc/marker", "/etc/hosts", "/var/lib/apt/extended_states"];
    assert!(new.iter().all(|p| allowed.contains(&p.as_str())), "{new:#?}");

    let failure = stage.run(&session, play("bad.yml")).await.unwrap_err();
    assert!(failure.summary().contains("failed at `Breaks`"), "{failure}");
    let again = paths(&session).await;
    assert_eq!(again.symmetric_difference(&after).collect::<Vec<_>>(), Vec::<&String>::new());

    let report = stage.run(&session, play("tool.yml")).await.unwrap();
    println!("{report:#?}");
    assert!(report.removed.iter().any(|name| name == "ansible-core"), "{report:?}");
    assert!(report.removed.iter().any(|name| name == "python3-apt"), "{report:?}");
    let kept = report.kept.join("\n");
    assert!(kept.contains("python3-yaml (needed by yamllint)"), "{kept}");
    assert!(kept.contains("python3-jinja2 (the playbook asks for it)"), "{kept}");
    assert!(kept.contains("python3-markupsafe"), "{kept}");
    let works = Command::new("echo 'a: 1' | yamllint -d relaxed - && dpkg --audit");
    let works = session.capture(&works, 4096).await.unwrap();
    assert!(works.ended.good() && works.stdout.is_empty(), "{works:?}");
}
