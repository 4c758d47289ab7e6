// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A program on this host with its own process group, its output line by line.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command as Process};
use tokio::time::{Instant, sleep_until, timeout};

use super::lifeline::Lifeline;
use super::lines::{LineCutter, Mask};
use crate::ui::{Failure, Outcome, Stream};

/// From the polite signal to the deadly one.
const GRACE: Duration = Duration::from_secs(5);
/// After the program's end, the longest wait for the end of its output.
const DRAIN_LIMIT: Duration = Duration::from_secs(3);

/// A started program; dropping it kills its process group.
pub(super) struct Running {
    child: Child,
    group: Option<Pid>,
}

impl Running {
    /// Starts a program as the leader of a new process group, its output piped to us.
    pub(super) fn start(mut process: Process) -> std::io::Result<Self> {
        let child = process
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Ok(Self { child, group })
    }

    /// Waits for the end and hands every line to `give`; ends the whole group at the deadline
    /// and when the lifeline breaks.
    pub(super) async fn finish(
        mut self,
        lifeline: &Lifeline,
        deadline: Instant,
        mask: Mask,
        give: &mut (dyn FnMut(Stream, String) + Send),
    ) -> Outcome<ExitStatus> {
        let start = Instant::now();
        let mut out = Pipe::new(self.child.stdout.take(), Stream::Stdout, mask.clone());
        let mut err = Pipe::new(self.child.stderr.take(), Stream::Stderr, mask);
        let (mut status, mut until) = (None, deadline);
        let stop = loop {
            if let Some(status) = status
                && !out.open()
                && !err.open()
            {
                break Ok(status);
            }
            tokio::select! {
                biased;
                failure = lifeline.broken() => break Err(failure),
                more = out.read(), if out.open() => out.take(more, give),
                more = err.read(), if err.open() => err.take(more, give),
                ended = self.child.wait(), if status.is_none() => match ended {
                    Ok(ended) => {
                        status = Some(ended);
                        until = Instant::now() + DRAIN_LIMIT;
                    }
                    Err(error) => break Err(Failure::build("lost a program").because(error)),
                },
                () = sleep_until(until) => match status {
                    // Something that the program left behind holds its output open.
                    Some(status) => break Ok(status),
                    None => {
                        let took = deadline.saturating_duration_since(start).as_secs_f64();
                        break Err(Failure::build(format!("timed out after {took:.1} s")));
                    }
                },
            }
        };
        out.finish(give);
        err.finish(give);
        if stop.is_err() {
            self.end().await;
        }
        stop
    }

    async fn end(&mut self) {
        let Some(group) = self.group else { return };
        let _ = killpg(group, Signal::SIGTERM);
        let _ = timeout(GRACE, self.child.wait()).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The group outlives its leader when a member does not end with it.
        if let Some(group) = self.group {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// One stream of a program.
struct Pipe<R> {
    from: Option<R>,
    stream: Stream,
    lines: LineCutter,
    buffer: Box<[u8]>,
}

impl<R: AsyncRead + Unpin> Pipe<R> {
    fn new(from: Option<R>, stream: Stream, mask: Mask) -> Self {
        Self { from, stream, lines: LineCutter::new(mask), buffer: vec![0; 8192].into() }
    }

    fn open(&self) -> bool {
        self.from.is_some()
    }

    async fn read(&mut self) -> usize {
        match &mut self.from {
            Some(from) => from.read(&mut self.buffer).await.unwrap_or(0),
            None => 0,
        }
    }

    fn take(&mut self, count: usize, give: &mut (dyn FnMut(Stream, String) + Send)) {
        if count == 0 {
            self.from = None;
        }
        let stream = self.stream;
        self.lines.push(&self.buffer[..count], &mut |line| give(stream, line));
    }

    fn finish(&mut self, give: &mut (dyn FnMut(Stream, String) + Send)) {
        if let Some(line) = self.lines.finish() {
            give(self.stream, line);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;

    async fn shell(
        text: &str,
        limit: Duration,
        lifeline: &Lifeline,
    ) -> (Outcome<ExitStatus>, Vec<(Stream, String)>) {
        let mut process = Process::new("sh");
        process.args(["-c", text]).stdin(Stdio::null());
        let mut lines = Vec::new();
        let ended = Running::start(process)
            .unwrap()
            .finish(lifeline, Instant::now() + limit, Mask::default(), &mut |s, l| {
                lines.push((s, l));
            })
            .await;
        (ended, lines)
    }

    #[tokio::test]
    async fn streams_both_and_tells_the_exit() {
        let line = Lifeline::only_cancel(CancellationToken::new());
        let text = "echo a; echo b >&2; printf c; exit 3";
        let (ended, mut lines) = shell(text, Duration::from_secs(10), &line).await;
        assert_eq!(ended.unwrap().code(), Some(3));
        lines.sort_by(|a, b| a.1.cmp(&b.1));
        let texts: Vec<&str> = lines.iter().map(|(_, l)| l.as_str()).collect();
        assert_eq!(texts, ["a", "b", "c"]);
        assert_eq!(lines[1].0, Stream::Stderr);
    }

    #[tokio::test]
    async fn the_deadline_ends_the_whole_group() {
        let line = Lifeline::only_cancel(CancellationToken::new());
        let text = "sh -c 'echo $$; trap \"\" TERM; while :; do sleep 1; done' & wait";
        let (ended, lines) = shell(text, Duration::from_millis(500), &line).await;
        assert!(ended.unwrap_err().summary().contains("timed out after 0.5 s"));
        let pid = Pid::from_raw(lines[0].1.parse().unwrap());
        let start = Instant::now();
        // A killed orphan stays a zombie until it is reaped, so look at its state.
        let gone = |pid: Pid| {
            std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .map_or(true, |stat| stat.contains(") Z "))
        };
        while !gone(pid) {
            assert!(start.elapsed() < Duration::from_secs(5), "still alive");
            tokio::task::yield_now().await;
        }
    }
}
