// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Runs a test's body again in a process of its own, with the model in `LD_PRELOAD`, once for each
//! version of the interface. There the body is a client like any other: it makes C's calls.
#![allow(dead_code, unsafe_code, clippy::unwrap_used, unreachable_pub)]

pub mod client;
pub mod guest;
pub mod nic;
pub mod number;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Every version that the model plays.
pub const ALL: RangeInclusive<u32> = 1..=18;
/// Says to the process inside that it is there, and which test it runs.
const INSIDE: &str = "VMM_MODEL_TEST";
/// Longest time for one body.
const DEADLINE: Duration = Duration::from_secs(120);

/// How a body is run.
pub struct Rule {
    name: &'static str,
    versions: Vec<u32>,
    viona: Vec<u32>,
    variables: Vec<(String, String)>,
    needs_kvm: bool,
}

/// The rule of that name, which must be the test's, under these versions.
pub fn rule(name: &'static str, versions: impl IntoIterator<Item = u32>) -> Rule {
    let versions = versions.into_iter().collect();
    Rule { name, versions, viona: vec![6], variables: Vec::new(), needs_kvm: false }
}

impl Rule {
    /// Sets a variable for the model; `{state}` in it is the directory of its state.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Runs the body also once for each of these versions of viona.
    pub fn under_viona(mut self, versions: &[u32]) -> Self {
        self.viona = versions.to_vec();
        self
    }

    /// The body runs a guest.
    pub fn needs_kvm(mut self) -> Self {
        self.needs_kvm = true;
        self
    }

    /// Runs the body: inside, or in a process for each version.
    pub fn run(self, body: impl FnOnce()) {
        if std::env::var_os(INSIDE).is_some_and(|name| name == self.name) {
            return body();
        }
        if self.needs_kvm && !has_kvm() {
            let why = format!("{}: /dev/kvm cannot be opened here", self.name);
            assert!(!matches!(std::env::var("CI").as_deref(), Ok("true" | "1")), "{why}");
            eprintln!("skipped: {why}");
            return;
        }
        for version in &self.versions {
            self.viona.iter().for_each(|viona| self.process(*version, *viona));
        }
    }

    fn process(&self, version: u32, viona: u32) {
        let state = tempfile::tempdir().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", self.name, "--nocapture", "--test-threads=1"])
            .env(INSIDE, self.name)
            .env("LD_PRELOAD", library())
            .env("VMM_MODEL_STATE", state.path())
            .env("VMM_MODEL_LOG", state.path().join("log"))
            .env("VMM_MODEL_VERSION", version.to_string())
            .env("VMM_MODEL_VIONA", viona.to_string())
            .envs(self.variables.iter().map(|(name, value)| {
                (name, value.replace("{state}", &state.path().display().to_string()))
            }))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let id = child.id();
        let (sender, ended) = mpsc::channel();
        std::thread::spawn(move || sender.send(child.wait_with_output()));
        let output = ended.recv_timeout(DEADLINE).unwrap_or_else(|_| {
            client::kill(id);
            ended.recv().unwrap()
        });
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        let log = std::fs::read_to_string(state.path().join("log")).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(40).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        assert!(
            output.status.success() && said.contains("1 passed"),
            "under version {version}, viona {viona}: {}\n{said}{errors}the model's log ends so:\n{}",
            output.status,
            tail.join("\n"),
        );
    }
}

fn has_kvm() -> bool {
    std::fs::File::options().read(true).write(true).open("/dev/kvm").is_ok()
}

/// The model, which cargo has put beside the test.
fn library() -> PathBuf {
    let library = std::env::current_exe().unwrap().with_file_name("libvmm_model.so");
    assert!(library.exists(), "cargo builds {} before the tests", library.display());
    library
}

/// The version that is played.
pub fn version() -> u32 {
    std::env::var("VMM_MODEL_VERSION").unwrap().parse().unwrap()
}

/// The version of viona that is played.
pub fn viona_version() -> u32 {
    std::env::var("VMM_MODEL_VIONA").unwrap().parse().unwrap()
}

/// Waits until something is so.
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "no {what}");
        std::thread::yield_now();
    }
}
