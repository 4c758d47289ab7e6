// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A place of its own for each test: directories, the real binary, and what it left behind.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// One test's own world: working directory, state, cache and run directories.
pub struct World {
    dir: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        // Sockets live below it and must have short names.
        let dir = tempfile::Builder::new().prefix("if-").tempdir_in("/tmp").unwrap();
        for name in ["work", "state", "cache", "run"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// The real binary in this world.
    pub fn imgforge(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imgforge"));
        command
            .current_dir(self.work())
            .env("IMGFORGE_STATE_DIR", self.path().join("state"))
            .env("IMGFORGE_CACHE_DIR", self.path().join("cache"))
            .env("IMGFORGE_RUN_DIR", self.path().join("run"))
            .env("NO_COLOR", "1")
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::null());
        command
    }

    /// Runs it with `args` to its end.
    pub fn run(&self, args: &[&str]) -> Done {
        Done::of(&self.imgforge().args(args).output().unwrap())
    }

    /// Starts it with `args`, output captured.
    pub fn spawn(&self, args: &[&str]) -> Child {
        let mut command = self.imgforge();
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs it at a terminal, which `script` makes; each question ends with `? ` and gets the next
    /// of `answers`. Standard output has what the terminal showed.
    pub fn at_a_terminal(&self, args: &[&str], answers: &[&str]) -> Done {
        let program = self.imgforge();
        let quoted = args.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''")));
        let line: Vec<String> = [program.get_program().to_string_lossy().into_owned()]
            .into_iter()
            .chain(quoted)
            .collect();
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", &line.join(" "), "/dev/null"]);
        command.current_dir(self.work()).stdin(Stdio::piped()).stdout(Stdio::piped());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let mut child = command.spawn().unwrap();
        let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut answers = answers.iter();
        let (mut shown, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            let count = output.read(&mut chunk).unwrap();
            if count == 0 {
                break;
            }
            shown.extend_from_slice(&chunk[..count]);
            if shown.ends_with(b"? ") {
                let answer = answers.next().copied().unwrap_or("a");
                input.write_all(format!("{answer}\n").as_bytes()).unwrap();
            }
        }
        let stdout = String::from_utf8_lossy(&shown).replace("\r\n", "\n");
        Done { code: child.wait().unwrap().code(), stdout, stderr: String::new() }
    }

    /// Waits for a process of this world whose command line has `name` in it; returns its id.
    #[track_caller]
    pub fn wait_for_process(&self, name: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            // The program itself, not the one that is about to become it.
            let is_program =
                |line: &String| line.split(' ').nth(1).is_some_and(|word| word.contains(name));
            let found = self.processes().into_iter().find(is_program);
            if let Some(line) = found {
                return line.split(' ').next().unwrap().to_owned();
            }
            assert!(Instant::now() < deadline, "no {name} was started");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Processes whose command line names this world: what a build has left behind.
    pub fn processes(&self) -> Vec<String> {
        let mark = self.path().display().to_string();
        let me = std::process::id().to_string();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let pid = entry.file_name().to_string_lossy().into_owned();
            if pid == me || !pid.bytes().all(|b| b.is_ascii_digit()) {
                continue;
            }
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&mark) {
                found.push(format!("{pid} {line}"));
            }
        }
        found
    }

    /// Fails when a process, a run directory, a scratch directory or an open journal is left.
    pub fn assert_nothing_left(&self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while !self.processes().is_empty() && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(self.processes(), Vec::<String>::new(), "processes are left");
        assert_eq!(
            names(&self.path().join("run")),
            Vec::<String>::new(),
            "run directories are left"
        );
        let scratch: Vec<_> =
            names(&self.work()).into_iter().filter(|name| name.contains(".imgforge-")).collect();
        assert_eq!(scratch, Vec::<String>::new(), "scratch directories are left");
    }
}

/// A finished run.
pub struct Done {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    pub fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub fn expect(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The value of a failure's fact, its first line.
    #[track_caller]
    pub fn fact(&self, label: &str) -> String {
        let found = self.stderr.lines().find_map(|line| {
            let rest = line.strip_prefix("  ")?.strip_prefix(label)?;
            rest.starts_with(' ').then(|| rest.trim_start().to_owned())
        });
        found.unwrap_or_else(|| panic!("no fact `{label}` in\n{}", self.stderr))
    }

    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        assert!(
            self.stderr.contains(text) || self.stdout.contains(text),
            "{text:?} is not in\nstdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }
}

/// An ISO with a boot catalogue for UEFI whose boot image is empty: it passes for a medium, and
/// firmware finds nothing to start.
pub fn hollow_medium() -> Vec<u8> {
    let mut image = vec![0_u8; 400 * 2048];
    let sectors = (image.len() / 2048) as u32;
    let mut put = |offset: usize, bytes: &[u8]| {
        image[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    put(16 * 2048, b"\x01CD001\x01");
    put(16 * 2048 + 80, &sectors.to_le_bytes());
    put(17 * 2048, b"\x00CD001\x01EL TORITO SPECIFICATION");
    put(17 * 2048 + 71, &20_u32.to_le_bytes());
    put(18 * 2048, b"\xffCD001\x01");
    // The validation entry for EFI with its checksum, and an entry without emulation.
    let sum = 0_u16.wrapping_sub(u16::from_le_bytes([1, 0xef]).wrapping_add(0xaa55));
    put(20 * 2048, &[1, 0xef]);
    put(20 * 2048 + 28, &sum.to_le_bytes());
    put(20 * 2048 + 30, &[0x55, 0xaa]);
    put(20 * 2048 + 32, &[0x88, 0, 0, 0, 0, 0, 4, 0, 30, 0, 0, 0]);
    image
}

/// Names in a directory, sorted; none when it is absent.
pub fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .map(|entries| {
            entries
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect()
        })
        .unwrap_or_default();
    names.sort();
    names
}

/// The tiny installer's medium, which `cargo xtask media tiny` makes.
#[track_caller]
pub fn tiny_medium() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/media/tiny.iso");
    assert!(path.is_file(), "{} is missing: run `cargo xtask media tiny`", path.display());
    path
}
