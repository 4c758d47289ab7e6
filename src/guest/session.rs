// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A logged-in guest: commands with streamed output, and coming back after a restart.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use russh::client::Msg;
use russh::{ChannelReadHalf, ChannelWriteHalf, Disconnect};
use tokio::time::{Instant, interval, sleep_until, timeout};

use super::attempt::Connection;
use super::command::{Command, Ended};
use super::hostkeys::HostKeys;
use super::lifeline::Lifeline;
use super::lines::{LineCutter, Mask};
use super::received::{PidLine, Received};
use super::wait::{Wait, connect};
use crate::ui::{Event, Events, Failure, Outcome, Stream};

/// Longest wait for a channel; the peer is alive, so this is one round trip.
const CHANNEL_LIMIT: Duration = Duration::from_secs(60);
/// Longest time to kill a command that ran out of time.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for the process id of a command that is to be killed.
const PID_LIMIT: Duration = Duration::from_secs(5);
/// After a command's exit, the longest wait for the end of its output: a process that it left
/// behind may hold the other end open for ever.
const DRAIN_LIMIT: Duration = Duration::from_secs(3);
/// Bytes per packet to the guest.
const PIECE: usize = 32 * 1024;

/// A connection to the guest. Clones share it, and its replacement after a restart.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
    lifeline: Lifeline,
    deadline: Option<Instant>,
}

struct Shared {
    wait: Wait,
    connection: Mutex<Arc<Connection>>,
    mask: Mutex<Mask>,
}

/// What a command printed, up to a limit.
#[derive(Clone, Debug)]
pub struct Captured {
    /// How it ended.
    pub ended: Ended,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// One of the two was longer than the limit, and its rest is lost.
    pub cut: bool,
}

impl Captured {
    /// Standard output as text without surrounding white space.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }

    /// The output, or a failure that says what could not be done when the exit code is not 0.
    pub fn or_fail(self, what: &str) -> Outcome<Self> {
        if self.ended.good() {
            return Ok(self);
        }
        let said = String::from_utf8_lossy(&self.stderr).trim().to_owned();
        let failure = Failure::build(format!("cannot {what} in the guest: {}", self.ended));
        Err(if said.is_empty() { failure } else { failure.fact("guest", said) })
    }
}

/// What counts as being back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Return {
    /// Any login.
    Login,
    /// A login to a kernel other than the one with this boot id.
    Restart(String),
}

impl Session {
    pub(super) fn new(wait: Wait, connection: Connection) -> Self {
        let lifeline = wait.lifeline.clone();
        let shared = Shared {
            wait,
            connection: Mutex::new(Arc::new(connection)),
            mask: Mutex::new(Mask::default()),
        };
        Self { shared: Arc::new(shared), lifeline, deadline: None }
    }

    /// Hides these secrets in all output from now on.
    pub fn set_mask(&self, mask: Mask) {
        *locked(&self.shared.mask) = mask;
    }

    /// The mask in force.
    pub fn mask(&self) -> Mask {
        locked(&self.shared.mask).clone()
    }

    /// How this session was made: address, login, host keys.
    pub fn wait(&self) -> &Wait {
        &self.shared.wait
    }

    /// The build's host keys.
    pub fn host_keys(&self) -> &HostKeys {
        &self.shared.wait.keys
    }

    /// What ends this handle's waits.
    pub fn lifeline(&self) -> &Lifeline {
        &self.lifeline
    }

    /// A handle that goes on when the build is cancelled and its time is over, for cleaning up.
    #[must_use]
    pub fn ignoring_cancel(&self) -> Self {
        let lifeline = self.lifeline.ignoring_cancel();
        Self { shared: Arc::clone(&self.shared), lifeline, deadline: None }
    }

    /// A handle whose commands all end by `deadline`, whatever time they may take by themselves.
    #[must_use]
    pub fn until(&self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self.clone() }
    }

    /// The connection is gone.
    pub fn is_closed(&self) -> bool {
        self.connection().is_closed()
    }

    /// Says good-bye; commands fail from now on.
    pub async fn close(&self) {
        let connection = self.connection();
        let bye = connection.disconnect(Disconnect::ByApplication, "", "en");
        // The guest may be gone already, which is as good.
        let _ = timeout(Duration::from_secs(2), bye).await;
    }

    /// Runs a command and shows its output line by line as the output of `step`.
    pub async fn run(&self, command: &Command, step: &str, events: &Events) -> Outcome<Ended> {
        self.lines(command, &mut |stream, line| {
            events.emit(Event::Output { step: step.to_owned(), stream, line });
        })
        .await
    }

    /// Runs a command and hands each line of output to `give`, secrets masked.
    pub async fn lines(
        &self,
        command: &Command,
        give: &mut (dyn FnMut(Stream, String) + Send),
    ) -> Outcome<Ended> {
        let mask = self.mask();
        let mut out = LineCutter::new(mask.clone());
        let mut err = LineCutter::new(mask);
        let ended = self
            .bytes(command, &mut |stream, bytes| match stream {
                Stream::Stdout => out.push(bytes, &mut |line| give(Stream::Stdout, line)),
                Stream::Stderr => err.push(bytes, &mut |line| give(Stream::Stderr, line)),
            })
            .await;
        for (stream, rest) in [(Stream::Stdout, out.finish()), (Stream::Stderr, err.finish())] {
            if let Some(line) = rest {
                give(stream, line);
            }
        }
        ended
    }

    /// Runs a command and keeps its output, at most `limit` bytes of each stream.
    pub async fn capture(&self, command: &Command, limit: usize) -> Outcome<Captured> {
        let (mut stdout, mut stderr, mut cut) = (Vec::new(), Vec::new(), false);
        let ended = self
            .bytes(command, &mut |stream, bytes| {
                let kept = match stream {
                    Stream::Stdout => &mut stdout,
                    Stream::Stderr => &mut stderr,
                };
                let room = limit.saturating_sub(kept.len()).min(bytes.len());
                kept.extend_from_slice(&bytes[..room]);
                cut |= room < bytes.len();
            })
            .await?;
        Ok(Captured { ended, stdout, stderr, cut })
    }

    /// Runs a command and hands its output over as it comes.
    async fn bytes(
        &self,
        command: &Command,
        give: &mut (dyn FnMut(Stream, &[u8]) + Send),
    ) -> Outcome<Ended> {
        let (launcher, feed) = command.launch()?;
        let start = Instant::now();
        let own = start + command.timeout();
        let deadline = self.deadline.map_or(own, |cap| cap.min(own));
        let (mut reader, writer) = self.channel(launcher).await?;
        let mut feeding = Box::pin(feed_all(&writer, feed));
        let (mut fed, mut drain) = (false, None::<Instant>);
        let mut received = Received::default();
        let mut pid = PidLine::default();
        let stop = loop {
            let until = drain.unwrap_or(deadline);
            tokio::select! {
                biased;
                failure = self.lifeline.broken() => break Some(failure),
                () = sleep_until(until) => {
                    if drain.is_some() {
                        break None;
                    }
                    break Some(out_of_time(deadline.saturating_duration_since(start)));
                }
                message = reader.wait() => {
                    if !received.take(message, &mut pid, give) {
                        break None;
                    }
                    if received.ended.is_some() && drain.is_none() {
                        drain = Some(Instant::now() + DRAIN_LIMIT);
                    }
                }
                () = feeding.as_mut(), if !fed => fed = true,
            }
        };
        // It may hold the channel's window, which everything else on the connection waits for.
        drop(feeding);
        if stop.is_some() {
            await_pid(&mut reader, &mut received, &mut pid, give).await;
        }
        pid.finish(give);
        close(writer);
        if let Some(failure) = stop {
            self.kill(pid.pid()).await;
            return Err(failure);
        }
        match received.ended {
            Some(ended) => Ok(ended),
            None if command.expects_disconnect() => Ok(Ended::Disconnected),
            None => Err(self.gone()),
        }
    }

    async fn channel(&self, launcher: String) -> Outcome<(ChannelReadHalf, ChannelWriteHalf<Msg>)> {
        let connection = self.connection();
        let opening = async {
            let channel = connection.channel_open_session().await?;
            channel.exec(true, launcher).await?;
            Ok::<_, russh::Error>(channel)
        };
        match self.lifeline.guard(timeout(CHANNEL_LIMIT, opening)).await? {
            Ok(Ok(channel)) => Ok(channel.split()),
            Ok(Err(error)) => Err(self.gone().because(error)),
            Err(_) => Err(self.gone().fact("ssh", "no answer to a request for a channel")),
        }
    }

    fn gone(&self) -> Failure {
        Failure::build("the SSH connection to the guest ended")
            .fact("guest", self.shared.wait.address)
            .hint("a step that restarts the guest needs `expect_disconnect: true`")
    }

    /// Ends a command's process group: asks first, kills after five seconds.
    async fn kill(&self, pid: Option<u32>) {
        let Some(pid) = pid else { return };
        let text = format!(
            "kill -s TERM -- -{pid} 2>/dev/null || exit 0\n\
             for i in 1 2 3 4 5; do kill -s 0 -- -{pid} 2>/dev/null || exit 0; sleep 1; done\n\
             kill -s KILL -- -{pid} 2>/dev/null || :"
        );
        let command = Command::new(text).within(KILL_LIMIT);
        let last = self.ignoring_cancel();
        // The command is lost either way; its failure has been told already.
        let killing = Box::pin(last.capture(&command, 1024));
        let _ = timeout(KILL_LIMIT, killing).await;
    }

    /// The kernel's boot id, which is new after each restart; `None` where `/proc` has none.
    pub async fn boot_id(&self) -> Outcome<Option<String>> {
        let read = Command::new("cat /proc/sys/kernel/random/boot_id 2>/dev/null || :");
        let id = self.capture(&read, 128).await?.text();
        let good = id.len() >= 8 && id.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
        Ok(good.then_some(id))
    }

    /// Says whether systemd is on its way down.
    pub async fn is_stopping(&self) -> Outcome<bool> {
        let ask = Command::new("systemctl is-system-running 2>/dev/null || :");
        Ok(self.capture(&ask, 128).await?.text() == "stopping")
    }

    /// Waits until the connection is gone; false when it still stands after `limit`.
    pub async fn closed_within(&self, limit: Duration) -> Outcome<bool> {
        let gone = async {
            let mut tick = interval(Duration::from_millis(100));
            while !self.is_closed() {
                tick.tick().await;
            }
        };
        Ok(self.lifeline.guard(timeout(limit, gone)).await?.is_ok())
    }

    /// Logs in again, for this handle and all its clones, and waits at most `limit` for it.
    pub async fn reconnect(&self, back: &Return, limit: Duration, events: &Events) -> Outcome<()> {
        let deadline = Instant::now() + limit;
        let mut tick = interval(Duration::from_secs(1));
        loop {
            self.lifeline.guard(tick.tick()).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            let mut wait = self.shared.wait.clone();
            wait.lifeline = self.lifeline.clone();
            let fresh = connect(&wait, left, events).await.map_err(|f| f.within("reconnect"))?;
            let returned = match back {
                Return::Login => true,
                // A machine on its way down answers until the last moment, or not any more.
                Return::Restart(before) => {
                    matches!(fresh.boot_id().await, Ok(Some(now)) if now != *before)
                }
            };
            if returned {
                let connection = fresh.connection();
                *locked(&self.shared.connection) = connection;
                return Ok(());
            }
            fresh.close().await;
            events.emit(Event::Waiting {
                what: "the guest's restart".to_owned(),
                deadline_seconds: Some(left.as_secs_f64()),
            });
        }
    }

    fn connection(&self) -> Arc<Connection> {
        Arc::clone(&locked(&self.shared.connection))
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("wait", &self.shared.wait).finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn out_of_time(limit: Duration) -> Failure {
    Failure::build(format!("timed out after {:.1} s", limit.as_secs_f64()))
}

/// Waits a moment for the process id of a command that is to be killed: the guest may be slow.
async fn await_pid(
    reader: &mut ChannelReadHalf,
    received: &mut Received,
    pid: &mut PidLine,
    give: &mut (dyn FnMut(Stream, &[u8]) + Send),
) {
    let found = async {
        while pid.pid().is_none() && received.ended.is_none() {
            if !received.take(reader.wait().await, pid, give) {
                break;
            }
        }
    };
    // Without it, the end of its input is what may end the command.
    let _ = timeout(PID_LIMIT, found).await;
}

/// Has a channel closed behind what is being sent, however long a slow guest takes for that.
/// Closing one that is closed already is no error worth a word; the connection's end ends it.
fn close(writer: ChannelWriteHalf<Msg>) {
    tokio::spawn(async move { writer.close().await.unwrap_or_default() });
}

/// Sends everything, then the end of the stream. A command may end without reading it all.
async fn feed_all(writer: &ChannelWriteHalf<Msg>, feed: Vec<Bytes>) {
    for mut bytes in feed {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            if writer.data_bytes(piece).await.is_err() {
                return;
            }
        }
    }
    let _ = writer.eof().await;
}
