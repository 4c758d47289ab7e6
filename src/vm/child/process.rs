// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The monitor's process: started in a process group of its own, heard to its last word, never left.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::ui::{Failure, Outcome};

/// How much of its standard error is kept: its end.
const KEPT: usize = 8 * 1024;
/// How long a killed process may take to go when its owner is dropped.
const GOING: Duration = Duration::from_secs(5);
/// How long standard error may stay open after the process has ended.
const DRAINING: Duration = Duration::from_millis(500);

/// A running or ended process. Dropping it kills it and waits until it is gone.
///
/// A thread of its own starts it, waits for it and kills it, so that no process id is used after
/// the kernel gave it to another process, and so that the "parent death signal", which Linux
/// sends when the *thread* that started a process ends, comes with our own end only.
pub(crate) struct Process {
    pid: u32,
    kill: mpsc::UnboundedSender<Order>,
    ended: watch::Receiver<Option<ExitStatus>>,
    gone: Arc<(Mutex<bool>, Condvar)>,
    words: Arc<LastWords>,
    /// It may outlive this handle.
    released: AtomicBool,
}

impl Process {
    /// Starts `program` with `input` on its standard input. `leash` is `setpriv` of util-linux when
    /// the host has it: the process then dies with us even when we are killed with signal 9.
    ///
    /// # Errors
    /// The program cannot be executed.
    pub(crate) async fn spawn(
        program: &Path,
        arguments: &[String],
        leash: Option<&Path>,
        input: Vec<u8>,
    ) -> Outcome<Self> {
        let mut command = match leash {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
        command.args(arguments).stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped());
        // Ctrl-C at the terminal is for us: the guest is stopped in order, not by accident.
        command.process_group(0).kill_on_drop(true);

        let (kill, kills) = mpsc::unbounded_channel();
        let (end, ended) = watch::channel(None);
        let (started, pid) = oneshot::channel();
        let words = Arc::new(LastWords::default());
        let gone = Arc::new((Mutex::new(false), Condvar::new()));
        let keeper = Keeper { kills, end, words: Arc::clone(&words) };
        let told = Arc::clone(&gone);
        let failed = |error: std::io::Error| {
            Failure::build("cannot start the virtual machine monitor")
                .because(error)
                .fact("file", program.display())
                .hint("run `imgforge doctor`")
        };
        std::thread::Builder::new()
            .name("monitor-keeper".to_owned())
            .spawn(move || {
                keep(command, input, keeper, started);
                *lock(&told.0) = true;
                told.1.notify_all();
            })
            .map_err(failed)?;
        let pid = match pid.await {
            Ok(answer) => answer.map_err(failed)?,
            Err(_) => return Err(failed(std::io::Error::other("the thread that starts it ended"))),
        };
        Ok(Self { pid, kill, ended, gone, words, released: AtomicBool::new(false) })
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// A handle with which to wait for its end.
    pub(crate) fn end(&self) -> End {
        End(self.ended.clone())
    }

    /// Sends SIGKILL, unless it has ended.
    pub(crate) fn kill(&self) {
        self.killer().kill();
    }

    /// Lets it run on when this handle is dropped.
    pub(crate) fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
        // The keeper is gone only when the process is.
        let _ = self.kill.send(Order::Release);
    }

    /// A handle with which to kill it.
    pub(crate) fn killer(&self) -> Killer {
        Killer(self.kill.clone())
    }

    /// The end of its standard error, fit to print.
    pub(crate) fn last_words(&self) -> Arc<LastWords> {
        Arc::clone(&self.words)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.released.load(Ordering::SeqCst) {
            return;
        }
        self.kill();
        let (gone, changed) = &*self.gone;
        let guard = lock(gone);
        // SIGKILL takes milliseconds; a process stuck in the kernel is left to the journal.
        let _ = changed.wait_timeout_while(guard, GOING, |gone| !*gone);
    }
}

/// What the keeper of a process is told.
enum Order {
    /// Kill it.
    Kill,
    /// Let it run on when nobody holds it any more.
    Release,
}

/// Kills a process.
pub(crate) struct Killer(mpsc::UnboundedSender<Order>);

impl Killer {
    /// Sends SIGKILL, unless the process has ended.
    pub(crate) fn kill(&self) {
        // The keeper is gone only when the process is.
        let _ = self.0.send(Order::Kill);
    }
}

/// Waits for a process's end.
#[derive(Clone)]
pub(crate) struct End(watch::Receiver<Option<ExitStatus>>);

impl End {
    /// Returns its status, or `None` when nobody could learn it.
    pub(crate) async fn wait(&mut self) -> Option<ExitStatus> {
        match self.0.wait_for(Option::is_some).await {
            Ok(status) => *status,
            Err(_) => None,
        }
    }
}

struct Keeper {
    kills: mpsc::UnboundedReceiver<Order>,
    end: watch::Sender<Option<ExitStatus>>,
    words: Arc<LastWords>,
}

/// The keeper thread: one small event loop around one child.
fn keep(
    mut command: Command,
    input: Vec<u8>,
    keeper: Keeper,
    started: oneshot::Sender<std::io::Result<u32>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    runtime.block_on(async move {
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        let Some(pid) = child.id() else { return };
        if started.send(Ok(pid)).is_err() {
            // Nobody waits any more; dropping the child kills it.
            return;
        }
        if let Some(mut stdin) = child.stdin.take() {
            tokio::spawn(async move {
                // One that does not read it ends with its own reason.
                let _ = stdin.write_all(&input).await;
            });
        }
        keep_child(&mut child, keeper).await;
    });
}

async fn keep_child(child: &mut Child, mut keeper: Keeper) {
    let words = Arc::clone(&keeper.words);
    let listening = child.stderr.take().map(|stderr| tokio::spawn(listen(stderr, words)));
    let mut owned = true;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            order = keeper.kills.recv(), if owned => {
                owned = order.is_some();
                match order {
                    Some(Order::Release) => owned = false,
                    // It fails only when the process has ended.
                    Some(Order::Kill) | None => drop(child.start_kill()),
                }
            }
        }
    };
    if let Some(listening) = listening {
        // A grandchild may hold standard error open.
        let _ = timeout(DRAINING, listening).await;
    }
    // Dropping the sender without a status tells that nobody knows it.
    if let Ok(status) = status {
        keeper.end.send_replace(Some(status));
    }
}

async fn listen(mut from: impl AsyncRead + Unpin, words: Arc<LastWords>) {
    let mut chunk = [0; 1024];
    while let Ok(count) = from.read(&mut chunk).await {
        if count == 0 {
            return;
        }
        words.add(chunk.get(..count).unwrap_or_default());
    }
}

/// The end of what a process said.
#[derive(Debug, Default)]
pub(crate) struct LastWords(Mutex<VecDeque<u8>>);

impl LastWords {
    fn add(&self, bytes: &[u8]) {
        let mut kept = lock(&self.0);
        kept.extend(bytes);
        let excess = kept.len().saturating_sub(KEPT);
        kept.drain(..excess);
    }

    /// Its last lines, without control characters and without the program's own name; empty when
    /// it said nothing.
    pub(crate) fn text(&self) -> String {
        let bytes: Vec<u8> = lock(&self.0).iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.strip_prefix("qemu-system-x86_64: ").unwrap_or(line).trim_end())
            .filter(|line| !line.is_empty())
            .map(|line| line.chars().map(|c| if c.is_control() { '?' } else { c }).collect())
            .collect();
        lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n")
    }
}

/// Finds a program in a `PATH`-like list.
pub(crate) fn on_path(name: &str, path: &std::ffi::OsStr) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let runs = |file: &PathBuf| {
        file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(path).filter(|dir| dir.is_absolute()).map(|d| d.join(name)).find(runs)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn alive(pid: u32) -> bool {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), None).is_ok()
    }

    async fn shell(script: &str) -> Process {
        let arguments = ["-c".to_owned(), script.to_owned()];
        Process::spawn(Path::new("/bin/sh"), &arguments, None, Vec::new()).await.unwrap()
    }

    #[tokio::test]
    async fn last_words_and_status_are_known() {
        let process = shell("echo 'qemu-system-x86_64: no \u{1b}[2Jsuch disk' >&2; exit 3").await;
        let status = process.end().wait().await.unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(process.last_words().text(), "no ?[2Jsuch disk");
    }

    #[tokio::test]
    async fn words_are_bounded() {
        let process = shell("yes 0123456789 | head -c 1000000 >&2; echo >&2; echo last >&2").await;
        process.end().wait().await.unwrap();
        let text = process.last_words().text();
        assert!(text.ends_with("\nlast") && text.len() < KEPT, "{text}");
        assert_eq!(text.lines().count(), 12);
    }

    #[tokio::test]
    async fn dropping_kills_and_waits() {
        let process = shell("exec sleep 1000").await;
        let pid = process.pid();
        assert!(alive(pid));
        let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid.cast_signed())));
        assert_eq!(group.unwrap().as_raw().cast_unsigned(), pid, "a group of its own");
        drop(process);
        assert!(!alive(pid));
    }

    #[tokio::test]
    async fn killing_is_seen_as_signal() {
        let process = shell("exec sleep 1000").await;
        process.kill();
        assert_eq!(process.end().wait().await.unwrap().signal(), Some(9));
    }

    #[tokio::test]
    async fn what_cannot_start_is_an_error_with_its_name() {
        let error =
            Process::spawn(Path::new("/no/such/qemu"), &[], None, Vec::new()).await.err().unwrap();
        assert!(error.to_string().contains("/no/such/qemu"), "{error}");
    }
}
