// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Programs: where the project is, what is installed, how to run one with a log and a deadline.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

/// What a task returns: nothing, or the reason why it failed.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// The project's top directory.
pub(crate) fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// A recipe of the project.
pub(crate) fn recipe(name: &str) -> PathBuf {
    root().join("xtask/recipes").join(name)
}

/// The cargo that runs this task.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Where a program is, searched on `PATH` and where system programs live.
pub(crate) fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// Whether this process may do everything.
pub(crate) fn is_root() -> bool {
    capture(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// Runs a command with this terminal as its input and output.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let status = command.status().map_err(|error| cannot_start(command, &error))?;
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", show(command))) }
}

/// Runs a command and returns what it writes to standard output.
pub(crate) fn capture(command: &mut Command) -> Outcome<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| cannot_start(command, &error))?;
    if !output.status.success() {
        return Err(format!("{}: {}", show(command), output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn cannot_start(command: &Command, error: &std::io::Error) -> String {
    format!("cannot start {}: {error}", command.get_program().to_string_lossy())
}

/// A command as a person would type it.
pub(crate) fn show(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

/// A command's first words.
fn brief(command: &Command) -> String {
    let whole = show(command);
    match whole.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &whole[..end]),
        None => whole,
    }
}

/// A log file that commands append to.
pub(crate) struct Log {
    path: PathBuf,
}

impl Log {
    /// An empty log `target/xtask-logs/NAME.log`.
    pub(crate) fn create(name: &str) -> Outcome<Self> {
        let directory = root().join("target/xtask-logs");
        let path = directory.join(format!("{name}.log"));
        fs::create_dir_all(&directory)
            .and_then(|()| fs::write(&path, ""))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(Self { path })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn append(&self) -> Outcome<File> {
        OpenOptions::new()
            .append(true)
            .open(&self.path)
            .map_err(|error| format!("cannot write {}: {error}", self.path.display()))
    }

    /// Writes a line.
    pub(crate) fn line(&self, text: &str) -> Outcome {
        use std::io::Write;
        writeln!(self.append()?, "{text}").map_err(|error| format!("cannot write a log: {error}"))
    }

    /// Everything written so far.
    pub(crate) fn text(&self) -> String {
        fs::read(&self.path)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The last `count` lines.
    pub(crate) fn tail(&self, count: usize) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// Like [`Log::run`]; meanwhile new lines that start with `prefix` are printed, with the
    /// seconds since the start.
    pub(crate) fn run_shown(&self, seconds: u32, command: &Command, prefix: &str) -> Outcome {
        let begin = Instant::now();
        let mut seen = self.text().len();
        let mut show = || {
            let text = self.text();
            let fresh = text.get(seen..).unwrap_or_default();
            let whole = fresh.rfind('\n').map_or(0, |end| end + 1);
            for line in fresh[..whole].lines().filter(|line| line.starts_with(prefix)) {
                println!("     {:>5} s  {line}", begin.elapsed().as_secs());
            }
            seen += whole;
        };
        std::thread::scope(|scope| {
            let (done, is_done) = std::sync::mpsc::channel();
            let work = scope.spawn(move || {
                let result = self.run(seconds, command);
                let _ = done.send(());
                result
            });
            while is_done.recv_timeout(Duration::from_secs(2)) == Err(RecvTimeoutError::Timeout) {
                show();
            }
            show();
            work.join().unwrap_or_else(|_| Err("the thread that ran it panicked".into()))
        })
    }

    /// Runs a command with its output in the log; it is ended after `seconds`.
    pub(crate) fn run(&self, seconds: u32, command: &Command) -> Outcome {
        self.line(&format!("$ {}", show(command)))?;
        let mut limited = with_deadline(seconds, command);
        let status = limited
            .stdin(Stdio::null())
            .stdout(self.append()?)
            .stderr(self.append()?)
            .status()
            .map_err(|error| cannot_start(&limited, &error))?;
        match status.code() {
            Some(0) => Ok(()),
            Some(124 | 137) => Err(format!("{}: not done after {seconds} s", brief(command))),
            _ => Err(format!("{}: {status}", brief(command))),
        }
    }
}

/// The command under timeout(1).
fn with_deadline(seconds: u32, command: &Command) -> Command {
    under("timeout", &["--foreground", "-k", "20", &seconds.to_string()], command)
}

/// The command ahead of others on this machine, which root may ask for.
pub(crate) fn ahead(command: &Command) -> Command {
    under("nice", &["-n", "-10"], command)
}

/// A program that runs the command, with the command's directory and environment.
fn under(program: &str, options: &[&str], command: &Command) -> Command {
    let mut whole = Command::new(program);
    whole.args(options).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => whole.env(name, value),
            None => whole.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        whole.current_dir(directory);
    }
    whole
}

/// A command with arguments, in one expression.
pub(crate) fn command<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: &[S]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}
