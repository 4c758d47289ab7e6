// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The verbs that only read, by the real binary: what they print, and how they refuse bad input.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const SOUND: &str = "media: {url: x.iso, checksum: none}\n";

/// An empty directory to run in.
struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// With a target `t` in `t.yaml`.
    fn with(text: impl AsRef<[u8]>) -> Self {
        let world = Self::new();
        fs::write(world.0.path().join("t.yaml"), text).unwrap();
        world
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imgforge"));
        command.args(arguments).current_dir(self.0.path()).env_clear();
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(&self.command(arguments).output().unwrap())
    }
}

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    #[track_caller]
    fn says(&self, code: i32, out: &str, err: &str) {
        assert_eq!(
            (self.code, self.out.as_str(), self.err.as_str()),
            (Some(code), out, err),
            "\n--- stdout\n{}\n--- stderr\n{}",
            self.out,
            self.err
        );
    }
}

#[test]
fn help_names_verbs_examples_and_exit_codes() {
    let world = World::new();
    let ran = world.run(&["--help"]);
    assert_eq!(ran.code, Some(0));
    for word in [
        "build ",
        "list ",
        "validate ",
        "inspect ",
        "keys ",
        "doctor ",
        "clean ",
        "Examples:",
        "130  interrupted",
    ] {
        assert!(ran.out.contains(word), "{word}\n{}", ran.out);
    }
    assert!(!ran.out.contains('\u{1b}'), "colour without a terminal");
    let ran = world.run(&["biuld"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("'build'"), "{}", ran.err);
    assert_eq!(world.run(&["list", "--color", "green"]).code, Some(2));
}

#[test]
fn list_shows_the_targets_of_program_and_directory() {
    let world = World::new();
    let targets = world.0.path().join("targets");
    fs::create_dir(&targets).unwrap();
    fs::write(targets.join("mine.yaml"), format!("description: My own\n{SOUND}")).unwrap();
    fs::write(targets.join("_part.yaml"), "boot: {wait: 1s}\n").unwrap();
    fs::write(targets.join("worse.yaml"), "a: [\n").unwrap();
    let ran = world.run(&["list"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert!(ran.out.contains("debian-13  Debian 13"), "{}", ran.out);
    assert!(ran.out.contains("mine       My own  (targets/mine.yaml)\n"), "{}", ran.out);
    assert!(ran.out.contains("worse      cannot be read: "), "{}", ran.out);
    assert!(!ran.out.contains("_part"));
    let json: serde_json::Value =
        serde_json::from_str(&world.run(&["list", "--json"]).out).unwrap();
    let mine = json.as_array().unwrap().iter().find(|t| t["name"] == "mine").unwrap();
    assert_eq!(mine["origin"], "targets/mine.yaml");
}

/// In processor time, which a busy host does not change; the shell's `times` gives that of its
/// children in its second line.
#[test]
fn list_is_quick() {
    let script = "for i in 1 2 3 4 5; do \"$0\" list >/dev/null; done; times";
    let milliseconds = |text: &str| -> f64 {
        let (minutes, seconds) = text.trim_end_matches('s').split_once('m').unwrap();
        minutes.parse::<f64>().unwrap() * 60e3 + seconds.parse::<f64>().unwrap() * 1e3
    };
    let quickest = (0..4)
        .map(|_| {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", script, env!("CARGO_BIN_EXE_imgforge")]);
            let out = String::from_utf8(shell.output().unwrap().stdout).unwrap();
            out.lines().nth(1).unwrap().split(' ').map(milliseconds).sum::<f64>() / 5.0
        })
        .fold(f64::MAX, f64::min);
    assert!(quickest < 20.0, "{quickest} ms");
}

#[test]
fn validate_lists_every_mistake_on_standard_output() {
    let world =
        World::with("media: {url: x.iso, checksum: none}\nbot: {}\nmachine: {cpus: many}\n");
    world.run(&["validate", "--target-file", "t.yaml"]).says(
        2,
        "t.yaml:2:1: unknown key `bot`; did you mean `boot`?\n\
         t.yaml:3:17: machine.cpus: expected a whole number, found the text `many`; for example `2`\n",
        "error: 2 mistakes in t\n",
    );
    let ran = world.run(&["validate", "--target-file", "t.yaml", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(
        (json[0]["line"].as_u64(), json[1]["field"].as_str()),
        (Some(2), Some("machine.cpus"))
    );
    let ran = World::new().run(&["validate", "--all"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("debian-13: good\n"));
    let world = World::new();
    fs::create_dir(world.0.path().join("targets")).unwrap();
    let text = format!("{SOUND}variables: {{key: {{required: true}}}}\n");
    fs::write(world.0.path().join("targets/needy.yaml"), text).unwrap();
    let ran = world.run(&["validate", "--all"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.out.contains("target needy: needy needs a value for: key\n"), "{}", ran.out);
    assert!(ran.err.contains("debian-13: good\n"));
}

#[test]
fn validate_reads_boot_commands_and_answer_files() {
    let world = World::with(format!(
        "{SOUND}boot: {{command: \"<entr>x{{{{ .HTTPPort }}}}\"}}\nhttp: {{files: {{/a: a.cfg}}}}\n"
    ));
    fs::write(world.0.path().join("a.cfg"), "x\n{{ if .HTTPIP }}\n").unwrap();
    let ran = world.run(&["validate", "--target-file", "t.yaml"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.out.contains("a.cfg:2:1: this `if` has no `end`\n"), "{}", ran.out);
    assert!(
        ran.out.contains("boot.command: `<entr>` is typed as text; did you mean `<enter>`?"),
        "{}",
        ran.out
    );
}

/// Documents that must be refused, and what must be said.
#[test]
fn bad_documents_are_refused_with_their_place() {
    let bomb = {
        let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..12 {
            let list = vec![format!("*a{}", i - 1); 10].join(",");
            text.push_str(&format!("a{i}: &a{i} [{list}]\n"));
        }
        text
    };
    let table: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), "the file is empty"),
        (b"media: {url: x}\nmedia: {url: y}\n".to_vec(), "t.yaml:2:1"),
        (b"media:\n\turl: x\n".to_vec(), "this line is indented with a tab"),
        (b"name: \xff\xfe\n".to_vec(), "byte 0xff is not UTF-8 text"),
        (vec![b' '; 10 << 20], "at most 1048576 are read"),
        (bomb.into_bytes(), "aliases count in full"),
        (format!("{SOUND}machine: {{memory: lots}}\n").into_bytes(), "`lots` is not a size"),
        (
            format!("{SOUND}boot: {{wait: 5 minutes}}\n").into_bytes(),
            "`5 minutes` is not a duration",
        ),
        (format!("{SOUND}boot: {{wiat: 5s}}\n").into_bytes(), "did you mean `wait`?"),
        (
            format!("{SOUND}variables: {{key: {{required: true}}}}\n").into_bytes(),
            "t needs a value for: key",
        ),
        (format!("{SOUND}extends: t\n").into_bytes(), "does not end"),
    ];
    for (text, wanted) in table {
        let world = World::with(&text);
        for verb in ["inspect", "build"] {
            let ran = world.run(&[verb, "t", "--target-file", "t.yaml"]);
            assert_eq!(ran.code, Some(2), "{}", ran.err);
            assert!(
                ran.err.starts_with("error: ") && ran.err.contains(wanted),
                "{wanted}\n{}",
                ran.err
            );
            let left: Vec<_> = fs::read_dir(world.0.path()).unwrap().collect();
            assert_eq!(left.len(), 1, "{verb} left something behind: {left:?}");
        }
    }
}

#[test]
fn an_unknown_target_gets_the_nearest_names() {
    let world = World::new();
    let ran = world.run(&["build", "debian-31"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""));
    assert!(ran.err.starts_with("error: there is no target `debian-31`\n"), "{}", ran.err);
    assert!(ran.err.contains("hint: did you mean `debian-13`?"), "{}", ran.err);
    for name in ["../t", "", "a/b", "DEBIAN", "\n"] {
        assert_eq!(world.run(&["inspect", name]).code, Some(2), "{name:?}");
    }
    let world = World::with(SOUND);
    let ran = world.run(&["inspect", "t.yaml"]);
    assert!(ran.err.contains("write `--target-file t.yaml`"), "{}", ran.err);
    let ran = world.run(&["inspect", "--target-file", "none.yaml"]);
    assert!(ran.err.contains("No such file"), "{}", ran.err);
}

#[test]
fn variables_are_checked() {
    let world = World::with(format!("{SOUND}variables: {{mirror: a}}\n"));
    let inspect = |more: &[&str]| {
        world.run(&[&["inspect", "--target-file", "t.yaml", "--json"], more].concat())
    };
    let ran = inspect(&["--var", "miror=x"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("t has no variable `miror`; did you mean `mirror`?"), "{}", ran.err);
    assert_eq!(inspect(&["--var", "mirror"]).code, Some(2));
    assert_eq!(inspect(&["--var-file", "none"]).code, Some(2));
    fs::write(world.0.path().join("vars"), "mirror: [1]\n").unwrap();
    assert!(inspect(&["--var-file", "vars"]).err.contains("vars:1:9"));
    let json: serde_json::Value =
        serde_json::from_str(&inspect(&["--var", "mirror=a=b"]).out).unwrap();
    assert_eq!(json["variables"]["mirror"]["value"], "a=b");
    assert_eq!(json["variables"]["mirror"]["from"], "--var");
}

#[test]
fn inspect_prints_yaml_without_secrets() {
    let world = World::with(format!(
        "{SOUND}variables: {{token: {{default: s3cret, sensitive: true}}}}\n\
         shutdown: {{command: \"echo {{{{ .token }}}}\"}}\nssh: {{username: \"{{{{ .token }}}}\"}}\n"
    ));
    let ran = world.run(&["inspect", "--target-file", "t.yaml"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(
        !ran.out.contains("s3cret") && ran.out.contains("username: '***'")
            || ran.out.contains("username: \"***\""),
        "{}",
        ran.out
    );
    assert!(ran.err.contains("warning: media.checksum: the medium is not checked"), "{}", ran.err);
}

#[test]
fn keys_prints_events() {
    let world = World::new();
    world.run(&["keys", "a<wait5><enter>"]).says(
        0,
        "down 0x0061\nup 0x0061\nwait 5000ms\ndown 0xff0d\nup 0xff0d\n",
        "",
    );
    let ran = world.run(&["keys", "<wait99999999999999999999>"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""));
    assert!(world.run(&["keys", "<f13>"]).err.contains("warning: line 1, column 1: "));
    let ran = world.run(&["keys", "--target", "debian-13"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.lines().count() > 200);
    assert_eq!(world.run(&["keys"]).code, Some(2));
}

#[test]
fn schema_completions_and_manual_are_printed() {
    let world = World::new();
    let schema: serde_json::Value = serde_json::from_str(&world.run(&["schema"]).out).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    assert!(world.run(&["completions", "bash"]).out.contains("complete -F _imgforge"));
    assert!(world.run(&["completions", "zsh"]).out.starts_with("#compdef imgforge"));
    assert!(world.run(&["man"]).out.contains(".TH imgforge 1"));
    assert!(world.run(&["man", "build"]).out.contains("on\\-error"));
    assert_eq!(world.run(&["man", "biuld"]).code, Some(2));
}

#[test]
fn failures_are_json_on_request() {
    let ran = World::new().run(&["--log-format", "json", "inspect", "debian-31"]);
    let json: serde_json::Value = serde_json::from_str(ran.out.trim()).unwrap();
    assert_eq!((json["event"].as_str(), json["kind"].as_str()), (Some("failed"), Some("input")));
    assert!(ran.err.starts_with("error: "));
}

#[test]
fn colour_is_a_choice() {
    let world = World::new();
    let painted = |arguments: &[&str]| world.run(arguments).err.contains('\u{1b}');
    assert!(!painted(&["inspect", "nothing"]));
    assert!(painted(&["inspect", "nothing", "--color", "always"]));
    assert!(!painted(&["inspect", "nothing", "--color=never"]));
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let world = World::new();
    let mut child =
        world.command(&["schema"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
}

#[test]
fn files_beside_the_target_win_over_those_of_the_program() {
    let world = World::new();
    let preseed = world.0.path().join("preseed");
    fs::create_dir(&preseed).unwrap();
    let from = |world: &World| {
        let json: serde_json::Value =
            serde_json::from_str(&world.run(&["inspect", "debian-13", "--json"]).out).unwrap();
        json["http"]["files"]["/preseed.cfg"]["from"].as_str().unwrap().to_owned()
    };
    assert_eq!(from(&world), "embedded:preseed/debian.cfg");
    fs::write(preseed.join("debian.cfg"), "x").unwrap();
    assert!(Path::new(&from(&world)).ends_with("preseed/debian.cfg"));
    assert!(!from(&world).starts_with("embedded:"));
}
