// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::vm::Firmware;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/targets").join(name)
}

/// A directory whose `targets/` are the test data.
fn world() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(data(""), dir.path().join("targets")).unwrap();
    dir
}

fn options(dir: &Path) -> LoadOptions {
    LoadOptions { working_dir: dir.to_owned(), ..LoadOptions::default() }
}

fn from_file(name: &str) -> LoadOptions {
    LoadOptions { target_file: Some(data(name)), ..LoadOptions::default() }
}

fn var(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// What is said about a document.
fn said(text: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.yaml");
    std::fs::write(&file, text).unwrap();
    let options = LoadOptions { target_file: Some(file), ..options(dir.path()) };
    match examine("t", &options) {
        Ok(examined) => {
            let prefix = format!("{}/", dir.path().display());
            examined.findings.iter().map(|f| f.to_string().replace(&prefix, "")).collect()
        }
        Err(failure) => vec![failure.to_string()],
    }
}

#[test]
fn every_field_arrives() {
    let loaded = load("full", &from_file("full.yaml")).unwrap();
    let target = &loaded.resolved;
    assert_eq!((target.release.as_str(), target.family.as_str()), ("1.10", "example"));
    assert_eq!(
        target.media.urls,
        ["https://one.example.org/full.iso", "http://two.example.org/FULL.iso"]
    );
    assert_eq!(target.machine.firmware, Firmware::Bios);
    assert_eq!((target.machine.cpus, target.machine.memory_mib), (3, 1536));
    assert_eq!(target.machine.disk_mib, 20480);
    assert_eq!(target.boot.wait, Duration::from_secs(90));
    assert_eq!(target.install.end, InstallEnd::PowerOff);
    assert_eq!((target.ssh.username.as_str(), target.ssh.port), ("admin", 2222));
    assert_eq!(target.output.manifest.version, "1.0");
    assert_eq!(target.output.formats, [Format::Raw, Format::RawGz]);
    assert_eq!(
        target.variables["security"].value,
        "http://mirror.example.org:8080/debian/-security"
    );
    let Action::Ansible(ansible) = &target.provision[0].action else { panic!() };
    assert_eq!(ansible.extra_vars["on"], "true");
    let Action::Shell(shell) = &target.provision[1].action else { panic!() };
    assert_eq!(shell.inline, ["echo one", "echo two"]);
    assert_eq!(shell.valid_exit_codes, [0, 3]);
    let Action::File(file) = &target.provision[2].action else { panic!() };
    assert_eq!(file.mode, 0o640);
    assert_eq!(target.provision[1].name, "shell-2");
}

#[test]
fn late_texts_are_filled_in_by_the_build() {
    let loaded = load("full", &from_file("full.yaml")).unwrap();
    let expander = Expander::new(&loaded.resolved, BuildValues::example());
    let typed = expander.expand_until_stable("boot.command", &loaded.resolved.boot.command);
    assert_eq!(
        typed.unwrap(),
        "<esc><wait2>url=http://10.0.2.2:8080/answer.cfg pass=hunter2<enter>"
    );
    let answer = loaded.assets.read(&loaded.resolved.http.files["/answer.cfg"]).unwrap();
    let answer = expander.expand("answer.cfg", &String::from_utf8(answer).unwrap()).unwrap();
    assert!(
        answer.starts_with("host mirror.example.org:8080\ndirectory /debian\nno ntp\nkey ssh-")
    );
    assert!(answer.ends_with("hash $6$salt$hash\n"), "{answer}");
    let secrets = expander.secrets();
    assert!(secrets.iter().any(|s| s.reveal() == "hunter2"));
    assert!(secrets.iter().any(|s| s.reveal() == "$6$salt$hash"));
    assert_eq!(expander.variable("mirror").unwrap(), "http://mirror.example.org:8080/debian/");
}

#[test]
fn a_value_given_on_the_command_line_may_hold_late_variables() {
    let given = var("answer_url", "http://{{ .HTTPIP }}/x");
    let options = LoadOptions { vars: vec![given], ..from_file("full.yaml") };
    let loaded = load("full", &options).unwrap();
    let expander = Expander::new(&loaded.resolved, BuildValues::example());
    let typed = expander.expand_until_stable("b", &loaded.resolved.boot.command).unwrap();
    assert!(typed.contains("url=http://10.0.2.2/x"), "{typed}");
    let options = LoadOptions {
        vars: vec![var("answer_url", "x{{ .answer_url }}")],
        ..from_file("full.yaml")
    };
    let loaded = load("full", &options).unwrap();
    let expander = Expander::new(&loaded.resolved, BuildValues::example());
    let failure = expander.expand_until_stable("b", &loaded.resolved.boot.command).unwrap_err();
    assert!(failure.summary().contains("keeps changing"));
}

#[test]
fn a_target_extends_another() {
    let world = world();
    let options = LoadOptions { vars: vec![var("token", "abcdef")], ..options(world.path()) };
    let child = load("child", &options).unwrap().resolved;
    assert_eq!(child.name, "child");
    assert_eq!(child.media.urls, ["http://other.example.org/linux/installer.iso"]);
    assert_eq!((child.machine.cpus, child.machine.memory_mib), (1, 1536));
    assert_eq!(child.family, "example");
    assert_eq!(child.boot.wait, Duration::ZERO);
    assert!(!names(world.path()).unwrap().contains(&"_base".to_owned()));
    let missing = said("extends: nothing\nmedia: {}\n");
    assert_eq!(missing, ["t.yaml:1:10: extends: there is no target `nothing`"]);
}

#[test]
fn the_strongest_value_wins_and_says_where_it_came_from() {
    let dir = tempfile::tempdir().unwrap();
    let yaml = dir.path().join("a.yaml");
    let json = dir.path().join("b.json");
    std::fs::write(&yaml, "mirror: http://yaml\nntp: yaml\nsecurty: x\n").unwrap();
    std::fs::write(&json, "{\n\t\"ntp\": \"json\"\n}\n").unwrap();
    let env = [
        ("PKR_VAR_mirror", "http://packer"),
        ("IMGFORGE_VAR_cpus", "5"),
        ("PKR_VAR_cpus", "4"),
        ("PKR_VAR_other", "x"),
    ];
    let options = LoadOptions {
        vars: vec![var("password", "one"), var("password", "two")],
        var_files: vec![yaml, json],
        env: env.iter().map(|(k, v)| var(k, v)).collect(),
        ..from_file("full.yaml")
    };
    let loaded = load("full", &options).unwrap();
    let variables = &loaded.resolved.variables;
    let of = |name: &str| (variables[name].value.as_str(), variables[name].source.as_str());
    assert_eq!(of("mirror").0, "http://yaml");
    assert!(of("mirror").1.starts_with("--var-file "));
    assert_eq!(of("ntp").0, "json");
    assert_eq!(of("cpus"), ("5", "environment IMGFORGE_VAR_cpus"));
    assert_eq!(of("password"), ("two", "--var"));
    assert_eq!(of("security"), ("http://yaml-security", "default"));
    assert!(
        loaded.warnings.iter().any(|w| w.contains("did you mean `security`")),
        "{:?}",
        loaded.warnings
    );
}

#[test]
fn variables_that_are_wrong_or_missing_are_named() {
    let options = LoadOptions { vars: vec![var("miror", "x")], ..from_file("full.yaml") };
    let failure = load("full", &options).unwrap_err();
    assert_eq!(failure.summary(), "full has no variable `miror`; did you mean `mirror`?");
    let world = world();
    let failure = load(
        "child",
        &super::LoadOptions { working_dir: world.path().into(), ..Default::default() },
    )
    .unwrap_err();
    assert_eq!(failure.summary(), "child needs a value for: token");
    assert!(failure.to_string().contains("Access to the repository"), "{failure}");
    let failure = load(
        "debian-31",
        &super::LoadOptions { working_dir: world.path().into(), ..Default::default() },
    )
    .unwrap_err();
    assert!(failure.to_string().contains("did you mean `debian-13`"), "{failure}");
}

#[test]
fn the_key_interval_comes_from_packers_environment() {
    let text = "media: {url: x, checksum: none}\n";
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.yaml");
    std::fs::write(&file, text).unwrap();
    let interval = |env: &[(&str, &str)]| {
        let options = LoadOptions {
            target_file: Some(file.clone()),
            env: env.iter().map(|(k, v)| var(k, v)).collect(),
            ..LoadOptions::default()
        };
        load("t", &options).unwrap().resolved.boot.key_interval
    };
    assert_eq!(interval(&[]), Duration::from_millis(20));
    assert_eq!(interval(&[("PACKER_KEY_INTERVAL", "55ms")]), Duration::from_millis(55));
    assert_eq!(interval(&[("PACKER_KEY_INTERVAL", "fast")]), Duration::from_millis(20));
}

#[test]
fn secrets_are_hidden_in_what_is_shown() {
    let loaded = load("full", &from_file("full.yaml")).unwrap();
    let mut target = loaded.clone();
    target.resolved.shutdown.command = "echo hunter2".to_owned();
    let shown = inspect(&target).to_string();
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("***") && !format!("{:?}", loaded.resolved).is_empty());
}

#[test]
fn lint_finds_what_a_build_would_stumble_over() {
    let loaded = load("full", &from_file("full.yaml")).unwrap();
    let findings: Vec<String> = lint(&loaded).iter().map(ToString::to_string).collect();
    assert!(findings.iter().all(|f| f.contains("warning")), "{findings:?}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.yaml");
    std::fs::write(dir.path().join("a.cfg"), "fine\n  {{ .miror }}\n").unwrap();
    std::fs::write(
        &file,
        "variables: {mirror: x}\nmedia: {url: x, checksum: none}\nhttp:\n  files:\n    /a: a.cfg\n    \
         /b: b.cfg\nprovision:\n  - shell: {script: ../up.sh}\n",
    )
    .unwrap();
    let options = LoadOptions { target_file: Some(file), ..LoadOptions::default() };
    let findings: Vec<String> =
        lint(&load("t", &options).unwrap()).iter().map(ToString::to_string).collect();
    let prefix = dir.path().display();
    for wanted in [
        format!("{prefix}/a.cfg:2:6: unknown variable `miror`; did you mean `mirror`?"),
        format!("{prefix}/t.yaml:6:9: http.files./b: there is no file `b.cfg`"),
        format!(
            "{prefix}/t.yaml:8:21: provision[0].shell.script: the path `../up.sh` must not contain `..`"
        ),
    ] {
        assert!(findings.contains(&wanted), "{wanted}\n{findings:#?}");
    }
}

/// A document and what must be said about it.
const MISTAKES: &[(&str, &str)] = &[
    ("", "t.yaml: the file is empty"),
    ("- a\n", "t.yaml:1:1: a target is a mapping, this is a list"),
    (
        "media: {url: x, checksum: none}\nmachine: {memroy: 2G}\n",
        "t.yaml:2:11: machine: unknown key `memroy`; did you mean `memory`?",
    ),
    (
        "media: {url: x, checksum: none}\nmachine: {cpus: two}\n",
        "t.yaml:2:17: machine.cpus: expected a whole number, found the text `two`; for example `2`",
    ),
    (
        "media: {url: x, checksum: none}\nmachine: {cpus: 99}\n",
        "t.yaml:2:17: machine.cpus: 99 is not between 1 and 64",
    ),
    (
        "media: {url: x, checksum: none}\nmachine: {firmware: uefy}\n",
        "t.yaml:2:21: machine.firmware: unknown word `uefy`; did you mean `uefi`?",
    ),
    (
        "media: {url: x, checksum: none}\nmachine: {memory: 2048}\n",
        "t.yaml:2:19: machine.memory: `2048` is not a size; a unit is missing: `2048M` or `2048G`?",
    ),
    (
        "media: {url: x, checksum: none}\nboot: {wait: 10}\n",
        "t.yaml:2:14: boot.wait: `10` is not a duration; a unit is missing: `10s`?",
    ),
    (
        "media: {url: x, checksum: none}\nboot: {wait: [1]}\n",
        "t.yaml:2:14: boot.wait: expected a duration, found a list; for example `10s`",
    ),
    (
        "media: {url: x, checksum: none}\nboot: {command: {a: 1}}\n",
        "t.yaml:2:17: boot.command: expected text or a list, found a mapping; for example `<esc>auto<enter>`",
    ),
    ("media: [x]\n", "t.yaml:1:8: media: expected a mapping, found a list; for example `{\"url\":"),
    ("kind: linux\n", "t.yaml:1:1: `media` is missing; for example"),
    ("media: {url: x}\n", "t.yaml:1:8: media: `checksum` is missing; for example `sha256:"),
    ("media: {checksum: none}\n", "t.yaml:1:8: media: `url` is missing"),
    (
        "media: {url: ftp://x/y, checksum: none}\n",
        "t.yaml:1:14: media.url: `ftp://` cannot be fetched",
    ),
    (
        "media: {url: x, checksum: sha256:12}\n",
        "t.yaml:1:27: media.checksum: a sha256 sum has 64 hex digits, this one 2",
    ),
    (
        "media: {url: \"{{ .HTTPIP }}\", checksum: none}\n",
        "t.yaml:1:18: media.url: `HTTPIP` is known during the build only",
    ),
    (
        "media: {url: \"{{ .miror }}\", checksum: none}\nvariables: {mirror: x}\n",
        "t.yaml:1:18: media.url: unknown variable `miror`; did you mean `mirror`?",
    ),
    (
        "media: {url: {{ .x }}, checksum: none}\n",
        "t.yaml:1:15: a value that starts with `{{` needs quotes",
    ),
    (
        "media: {url: x, checksum: none}\nboot:\n  command: |\n    a\n    b {{ .x }}\n",
        "t.yaml:5:10: boot.command: unknown variable `x`",
    ),
    (
        "media: {url: x, checksum: none}\nvariables: {a-b: 1}\n",
        "t.yaml:2:13: variables: `a-b` is not a variable's name",
    ),
    (
        "media: {url: x, checksum: none}\nvariables: {HTTPIP: 1}\n",
        "t.yaml:2:13: variables: `HTTPIP` is a variable of imgforge itself",
    ),
    (
        "media: {url: x, checksum: none}\nvariables: {a: \"{{ .b }}\", b: \"{{ .a }}\"}\n",
        "t.yaml:2:20: variables.a: the default of `a` refers back to itself",
    ),
    (
        "media: {url: x, checksum: none}\nvariables: {a: {defualt: 1}}\n",
        "t.yaml:2:17: variables.a: unknown key `defualt`; did you mean `default`?",
    ),
    (
        "media: {url: x, checksum: none}\nprovision: [{name: x}]\n",
        "t.yaml:2:13: provision[0]: a step has exactly one of",
    ),
    (
        "media: {url: x, checksum: none}\nprovision: [{shell: {inline: [a], expect_disconnect: yes}}]\n",
        "t.yaml:2:54: provision[0].shell.expect_disconnect: expected true or false, found `yes`",
    ),
    (
        "media: {url: x, checksum: none}\nprovision: [{file: {content: a, destination: etc}}]\n",
        "t.yaml:2:46: provision[0].file.destination: the path in the guest starts with `/`",
    ),
    (
        "media: {url: x, checksum: none}\nprovision: [{file: {content: a, destination: /a, mode: 9}}]\n",
        "t.yaml:2:56: provision[0].file.mode: `9` is not a file mode",
    ),
    (
        "media: {url: x, checksum: none}\nhttp: {files: {a.cfg: b}}\n",
        "t.yaml:2:23: http.files.a.cfg: the path of a URL starts with `/`: `/a.cfg`",
    ),
    (
        "media: {url: x, checksum: none}\nhttp: {directories: [nowhere]}\n",
        "t.yaml:2:22: http.directories[0]: there is no directory `nowhere`",
    ),
    (
        "media: {url: x, checksum: none}\ninstall: {timeout: 0s}\n",
        "t.yaml:2:20: install.timeout: the time must be longer than zero",
    ),
    (
        "media: {url: x, checksum: none}\noutput: {formats: []}\n",
        "t.yaml:2:19: output.formats: the list is empty",
    ),
    (
        "media: {url: x, checksum: none}\noutput: {formats: [vhd]}\n",
        "t.yaml:2:20: output.formats[0]: unknown word `vhd`; the words are: raw, raw.gz, zfs.gz, qcow2",
    ),
    (
        "media: {url: x, checksum: none}\noutput: {manifest: {bootrom: uefi}}\n",
        "t.yaml:2:30: output.manifest.bootrom: only an image of brand",
    ),
    ("name: Other\nmedia: {url: x, checksum: none}\n", "t.yaml:1:7: name: `Other` is not a name"),
    (
        "name: other\nmedia: {url: x, checksum: none}\n",
        "t.yaml:1:7: name: this target is named `other`, not `t`",
    ),
];

#[test]
fn each_mistake_names_its_place() {
    for (text, wanted) in MISTAKES {
        let said = said(text);
        assert!(
            said.iter().any(|s| s.starts_with(wanted)),
            "{text}\nwanted {wanted}\nsaid {said:#?}"
        );
    }
}

#[test]
fn all_mistakes_are_found_at_once() {
    let text = "media: {url: x, checksum: none, sum: 1}\nboot: {wait: soon}\nmachin: {}\n";
    assert_eq!(said(text).iter().filter(|s| !s.contains("warning")).count(), 3);
}

#[test]
fn an_empty_section_is_no_mistake() {
    let text = "media: {url: x, checksum: none}\nboot:\n  wait:\n  command: ~\n";
    assert!(said(text).iter().all(|s| s.contains("warning")), "{:?}", said(text));
}

#[test]
fn the_json_schema_file_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("targets/schema.json");
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == format!("{:#}\n", schema()),
        "run `cargo run -- schema >targets/schema.json`"
    );
}

#[test]
fn every_target_of_the_program_is_sound() {
    let nowhere = tempfile::tempdir().unwrap();
    for listed in list(nowhere.path()).unwrap() {
        assert!(!listed.broken && !listed.description.is_empty(), "{listed:?}");
        let loaded = load(&listed.name, &options(nowhere.path())).unwrap();
        let findings: Vec<_> = lint(&loaded).into_iter().filter(|f| !f.warning).collect();
        assert!(findings.is_empty(), "{findings:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_document_makes_the_reader_panic(
        text in "((kind|name|media|machine|boot|http|variables|provision|extends|url|checksum|command|wait|cpus|a): ?(none|linux|[0-9]{1,3}|\"\\{\\{ \\.[a-c] \\}\\}\"|\\[a, b\\]|\\{a: 1\\}|[a-z]{1,5}|)\n( {2}|- )?){0,12}"
    ) {
        let _ = said(&text);
    }
}
