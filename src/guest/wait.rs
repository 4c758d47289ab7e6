// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Waiting for the first login, with the reason at every stage why it is not there yet.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::attempt::{Login, Stage, attempt};
use super::hostkeys::HostKeys;
use super::lifeline::Lifeline;
use super::session::Session;
use crate::ui::{Event, Events, Failure, Outcome};

/// Pause after the first try that failed; it grows by half each time …
const PAUSE_FIRST: Duration = Duration::from_millis(200);
/// … up to this.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Most stages told in a failure.
const HISTORY_MAX: usize = 12;

/// When a server that refuses our credentials is given up: after this many refusals over at
/// least this time. A system that still boots may not have its accounts yet.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Refusals.
    pub refusals: u32,
    /// Time from the first refusal.
    pub span: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { refusals: 10, span: Duration::from_secs(60) }
    }
}

/// Everything a wait for a login needs.
#[derive(Clone, Debug)]
pub struct Wait {
    /// Where the guest's SSH port answers.
    pub address: SocketAddr,
    /// Who logs in.
    pub login: Login,
    /// The build's host keys.
    pub keys: HostKeys,
    /// What ends the wait at once.
    pub lifeline: Lifeline,
    /// When to stop believing in a server that refuses us.
    pub patience: Patience,
}

/// Waits until the guest lets us in; `limit` is the longest wait. Each change of stage is an
/// [`Event::Waiting`]. Fails at once on a changed host key, a dead machine or a cancelled build.
pub async fn connect(wait: &Wait, limit: Duration, events: &Events) -> Outcome<Session> {
    let deadline = Instant::now() + limit;
    let mut story = Story::new(events, deadline);
    let mut pause = PAUSE_FIRST;
    loop {
        let trying = attempt(wait.address, &wait.login, &wait.keys, deadline);
        let reached = wait.lifeline.guard(trying).await.map_err(|f| story.tell(wait, f))?;
        match reached {
            Ok((connection, key)) => {
                if wait.keys.trust(key)
                    && let Some(print) = wait.keys.fingerprint()
                {
                    events.note(format!("SSH host key {print} is trusted for this build"));
                }
                return Ok(Session::new(wait.clone(), connection));
            }
            Err(stage @ Stage::KeyChanged { .. }) => {
                let failure = Failure::build(format!("SSH: {stage}")).hint(
                    "something else answers at the guest's address, or the guest made new host \
                     keys; make them before the first login",
                );
                return Err(story.tell(wait, failure));
            }
            Err(stage) => story.add(stage),
        }
        if let Some(failure) = story.out_of_patience(wait.patience) {
            return Err(story.tell(wait, failure));
        }
        let next = Instant::now() + pause;
        if next >= deadline {
            return Err(story.tell(wait, story.too_late(limit)));
        }
        wait.lifeline.guard(sleep_until(next)).await.map_err(|f| story.tell(wait, f))?;
        pause = (pause + pause / 2).min(PAUSE_MAX);
    }
}

/// What the wait has seen so far.
struct Story<'a> {
    events: &'a Events,
    start: Instant,
    deadline: Instant,
    chapters: Vec<(Duration, String)>,
    last: Option<Stage>,
    refusals: u32,
    first_refusal: Option<Instant>,
}

impl<'a> Story<'a> {
    fn new(events: &'a Events, deadline: Instant) -> Self {
        let story = Self {
            events,
            start: Instant::now(),
            deadline,
            chapters: Vec::new(),
            last: None,
            refusals: 0,
            first_refusal: None,
        };
        story.say("SSH login");
        story
    }

    fn say(&self, what: &str) {
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.events.emit(Event::Waiting {
            what: what.to_owned(),
            deadline_seconds: Some(left.as_secs_f64()),
        });
    }

    fn add(&mut self, stage: Stage) {
        if let Stage::Refused { .. } = stage {
            self.refusals += 1;
            self.first_refusal.get_or_insert_with(Instant::now);
        } else if !matches!(stage, Stage::Dropped) {
            self.refusals = 0;
            self.first_refusal = None;
        }
        let text = stage.to_string();
        if self.chapters.last().is_none_or(|(_, last)| *last != text) {
            self.say(&format!("SSH login: {text}"));
            self.chapters.push((self.start.elapsed(), text));
            if self.chapters.len() > HISTORY_MAX {
                self.chapters.remove(1);
            }
        }
        self.last = Some(stage);
    }

    fn out_of_patience(&self, patience: Patience) -> Option<Failure> {
        let since = self.first_refusal?.elapsed();
        let Some(Stage::Refused { offered, .. }) = &self.last else { return None };
        (self.refusals >= patience.refusals && since >= patience.span).then(|| {
            Failure::build(format!(
                "the guest refused the login {} times in {}",
                self.refusals,
                seconds(since)
            ))
            .hint(refused_hint(offered))
        })
    }

    fn too_late(&self, limit: Duration) -> Failure {
        let failure = Failure::build(format!("no SSH login within {}", seconds(limit)));
        let hint = match &self.last {
            None | Some(Stage::Unreachable(_)) => {
                "nothing forwards to the guest's SSH port: is the virtual machine up?".to_owned()
            }
            Some(Stage::PortClosed) => "no SSH server runs in the guest, or its network is not \
                                          up: look at the last screenshot and at `serial.log`"
                .to_owned(),
            Some(Stage::Refused { offered, .. }) => refused_hint(offered),
            Some(Stage::Installer) => {
                "the machine never left the installer: look at the last screenshot".to_owned()
            }
            Some(Stage::Dropped) => "the guest's SSH server ends connections before the login: \
                                       look at `serial.log` for what it lacks"
                .to_owned(),
            Some(_) => "the target's `ssh.port` may name another service".to_owned(),
        };
        failure.hint(hint).hint("a slow host may need more: raise the target's `ssh.timeout`")
    }

    /// Adds what the wait has seen to a failure.
    fn tell(&self, wait: &Wait, failure: Failure) -> Failure {
        let failure = failure.fact("ssh", format!("{}@{}", wait.login.username, wait.address));
        if self.chapters.is_empty() {
            return failure;
        }
        let lines: Vec<String> =
            self.chapters.iter().map(|(at, text)| format!("{:>6} {text}", seconds(*at))).collect();
        failure.fact("waited", lines.join("\n"))
    }
}

fn refused_hint(offered: &str) -> String {
    if offered.contains("password") || offered.contains("keyboard") {
        "the account has another password and no key of this build: does the answer file set \
         `{{ .SSHPublicKey }}` or the password hash for this user?"
            .to_owned()
    } else {
        "the server takes no password and does not know this build's key: does the answer file \
         put `{{ .SSHPublicKey }}` into the user's `authorized_keys`?"
            .to_owned()
    }
}

fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(10) {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{:.0} s", time.as_secs_f64())
    }
}
