// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `clean` and `manifest check` by the real binary.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use imgforge::build::{Journal, StateDirs};

fn imgforge(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_imgforge"))
        .args(arguments)
        .env_clear()
        .env("IMGFORGE_STATE_DIR", home.join("state"))
        .env("IMGFORGE_RUN_DIR", home.join("run"))
        .env("IMGFORGE_CACHE_DIR", home.join("cache"))
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn clean_tells_the_dead_from_the_living() {
    let home = tempfile::tempdir().unwrap();
    let dirs = StateDirs::at(home.path().join("state"), home.path().join("run"));
    let living = Journal::create(&dirs, "living").unwrap();
    let dead = Journal::create(&dirs, "departed").unwrap();
    let run_dir = dead.run_dir().to_owned();
    drop(dead);
    let dry = imgforge(home.path(), &["clean", "--dry-run", "--json", "--cache"]);
    let found: serde_json::Value = serde_json::from_slice(&dry.stdout).unwrap();
    let condition = |name: &str| {
        let builds = found["builds"].as_array().unwrap();
        builds.iter().find(|b| b["target"] == name).unwrap()["condition"].clone()
    };
    assert_eq!((condition("living"), condition("departed")), ("running".into(), "dead".into()));
    assert_eq!(found["cache"], serde_json::json!([]));
    assert!(run_dir.exists(), "a dry run removed something");
    let real = imgforge(home.path(), &["clean"]);
    assert_eq!(real.status.code(), Some(0), "{}", text(&real.stderr));
    let line = format!("removed dir {}", run_dir.display());
    assert!(text(&real.stdout).contains(&line), "{}", text(&real.stdout));
    assert!(!run_dir.exists());
    assert!(living.run_dir().exists(), "a living build lost its directory");
    let again = imgforge(home.path(), &["clean"]);
    assert!(!text(&again.stdout).contains("departed"), "{}", text(&again.stdout));
}

#[test]
fn manifest_check_names_field_and_rule() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("m.json");
    fs::write(&path, r#"{"v": 2, "uuid": "X", "type": "zvol", "channels": []}"#).unwrap();
    let broken = imgforge(home.path(), &["manifest", "check", path.to_str().unwrap()]);
    assert_eq!(broken.status.code(), Some(2));
    let found = text(&broken.stdout);
    assert!(found.contains("error: uuid: must be a UUID in lower-case hex"), "{found}");
    assert!(found.contains("error: image_size: is missing"), "{found}");
    assert!(text(&broken.stderr).starts_with("error: "), "{}", text(&broken.stderr));
    let json = imgforge(home.path(), &["manifest", "check", path.to_str().unwrap(), "--json"]);
    let found: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(found.as_array().unwrap().iter().any(|f| f["field"] == "channels"));
    let none = imgforge(home.path(), &["manifest", "check", "/nonexistent"]);
    assert_eq!(none.status.code(), Some(2));
}
