// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Provisioning steps: one entry, one file per kind.
//!
//! Whatever a step needs in the guest is fed by standard input or put into a private directory
//! that is removed when the step ends, well or not.

mod ansible;
mod ansible_guest;
mod ansible_host;
mod file;
mod packages;
mod playbook;
mod settle;
mod shell;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

pub use playbook::Recap;

use super::session::{Return, Session};
use crate::target::{Action, Assets, Step};
use crate::ui::{Event, Events, Kind, Outcome};

/// Longest wait for a login between two tries of a step.
const RECONNECT_LIMIT: Duration = Duration::from_secs(120);

/// What every step works with.
pub struct Context<'a> {
    /// The guest; its mask hides secrets, its lifeline ends the step.
    pub session: &'a Session,
    /// Where output goes.
    pub events: &'a Events,
    /// Where scripts, files and playbooks come from.
    pub assets: &'a dyn Assets,
    /// Fills the late variables into a text.
    pub expand: &'a (dyn Fn(&str) -> Outcome<String> + Send + Sync),
    /// The answer-file server as the guest sees it.
    pub http: Option<SocketAddr>,
    /// Name of the build, usually the target's.
    pub build_name: &'a str,
    /// What runs the machine: `qemu`, `kvm`, `bhyve`.
    pub builder: &'a str,
    /// A private directory of the host (mode 0700) that the build removes in any case.
    pub run_dir: &'a Path,
}

/// How a step went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepReport {
    /// The step's name.
    pub name: String,
    /// Tries, at least 1.
    pub attempts: u32,
    /// Wall time of all tries.
    pub took: Duration,
    /// A few words for the summary line (`exit code 0`, `ok=12 changed=7`).
    pub summary: String,
    /// Ansible's own count.
    pub recap: Option<Recap>,
    /// Packages that the step brought for itself and removed again.
    pub removed: Vec<String>,
    /// Packages that the step brought for itself and had to leave, each with the reason.
    pub kept: Vec<String>,
}

impl Context<'_> {
    /// The variables that every script and playbook finds in its environment.
    fn build_env(&self) -> BTreeMap<String, String> {
        let mut pairs = vec![
            ("BUILD_NAME", self.build_name.to_owned()),
            ("BUILDER_TYPE", self.builder.to_owned()),
        ];
        if let Some(http) = self.http {
            pairs.push(("HTTP_ADDR", http.to_string()));
            pairs.push(("HTTP_IP", http.ip().to_string()));
            pairs.push(("HTTP_PORT", http.port().to_string()));
        }
        pairs
            .into_iter()
            .flat_map(|(name, value)| {
                [(format!("PACKER_{name}"), value.clone()), (format!("IMGFORGE_{name}"), value)]
            })
            .collect()
    }

    /// The build's variables and a step's own, expanded; the step's win.
    fn env(&self, own: &BTreeMap<String, String>) -> Outcome<BTreeMap<String, String>> {
        let mut env = self.build_env();
        env.extend(self.expand_map(own)?);
        Ok(env)
    }

    fn expand_map(&self, map: &BTreeMap<String, String>) -> Outcome<BTreeMap<String, String>> {
        map.iter().map(|(name, text)| Ok((name.clone(), (self.expand)(text)?))).collect()
    }

    fn expand_all(&self, texts: &[String]) -> Outcome<Vec<String>> {
        texts.iter().map(|text| (self.expand)(text)).collect()
    }
}

/// Runs one step, and runs it again as often as it allows when it fails. Its time limit holds
/// for all tries together.
pub async fn run_step(step: &Step, context: &Context<'_>) -> Outcome<StepReport> {
    let start = Instant::now();
    let deadline = start + step.timeout;
    let mut attempts = 1;
    loop {
        let failure = match run_once(step, context, deadline).await {
            Ok(report) => {
                let name = step.name.clone();
                return Ok(StepReport { name, attempts, took: start.elapsed(), ..report });
            }
            Err(failure) => failure,
        };
        let hopeless = failure.kind() != Kind::Build || attempts > step.max_retries;
        if hopeless || Instant::now() >= deadline {
            let tries = if attempts > 1 { format!(" (try {attempts})") } else { String::new() };
            return Err(failure.within(format!("step `{}`{tries}", step.name)));
        }
        context.events.warn(format!(
            "step `{}` failed ({}); try {} of {} follows",
            step.name,
            failure.summary(),
            attempts + 1,
            step.max_retries + 1
        ));
        before_next_try(context, attempts, deadline).await?;
        attempts += 1;
    }
}

/// A growing pause, for mirrors to recover; and a new login when the old one is gone.
async fn before_next_try(context: &Context<'_>, tries: u32, deadline: Instant) -> Outcome<()> {
    let pause = Duration::from_secs(u64::from(tries.min(5)) * 2).min(left(deadline));
    context.events.emit(Event::Waiting {
        what: "the next try".to_owned(),
        deadline_seconds: Some(pause.as_secs_f64()),
    });
    context.session.lifeline().guard(sleep(pause)).await?;
    if context.session.is_closed() {
        let limit = RECONNECT_LIMIT.min(left(deadline));
        context.session.reconnect(&Return::Login, limit, context.events).await?;
    }
    Ok(())
}

async fn run_once(step: &Step, context: &Context<'_>, deadline: Instant) -> Outcome<StepReport> {
    let session = &context.session.until(deadline);
    let context = &Context { session, ..*context };
    match &step.action {
        Action::Shell(shell) => shell::run(&step.name, shell, context, deadline).await,
        Action::File(upload) => file::run(upload, context).await,
        Action::Ansible(play) => ansible::run(&step.name, play, context, deadline).await,
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("build_name", &self.build_name).finish_non_exhaustive()
    }
}
