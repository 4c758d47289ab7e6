// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A stage that failed while its machine may still run, and what becomes of the two.

use std::sync::Arc;

use super::context::Context;
use super::keep;
use super::on_error::{Decision, OnError};
use crate::ui::{Failure, Kind};
use crate::vm::Machine;

/// A failure together with the machine it happened in.
pub(crate) struct Broken {
    pub(crate) problem: Failure,
    pub(crate) machine: Option<Arc<dyn Machine>>,
}

impl From<Failure> for Broken {
    fn from(problem: Failure) -> Self {
        Self { problem, machine: None }
    }
}

impl Broken {
    pub(crate) fn with(problem: Failure, machine: Arc<dyn Machine>) -> Self {
        Self { problem, machine: Some(machine) }
    }

    pub(crate) fn within(self, place: &str) -> Self {
        Self { problem: self.problem.within(place), machine: self.machine }
    }
}

/// What the user's choice made of a failure.
pub(crate) enum Settled {
    /// The stage is to be tried again; its machine is gone.
    Retry,
    /// The build has failed; its machine is gone, or kept on purpose.
    Failed(Failure),
}

/// Asks, where asking is wanted, and does what the user wants done about a failed stage.
pub(crate) async fn settle(context: &Context, on_error: OnError, broken: Broken) -> Settled {
    let decision = match broken.problem.kind() {
        Kind::Build => on_error.decide(&broken.problem),
        Kind::Input | Kind::Interrupted => Decision::Abort,
    };
    match decision {
        Decision::Retry => {
            stop(broken.machine).await;
            Settled::Retry
        }
        decision => Settled::Failed(conclude(context, decision, broken).await),
    }
}

/// Ends a failed build: leaves its machine to the user, or ends that too.
pub(crate) async fn conclude(context: &Context, decision: Decision, broken: Broken) -> Failure {
    let Broken { problem, machine } = broken;
    match machine {
        Some(machine) if decision == Decision::Keep && machine.exited().is_none() => {
            leave(context, problem, &machine)
        }
        machine => {
            stop(machine).await;
            problem
        }
    }
}

async fn stop(machine: Option<Arc<dyn Machine>>) {
    if let Some(machine) = machine.filter(|machine| machine.exited().is_none()) {
        // Given up anyway: a monitor that does not answer is killed by the drop.
        let _ = machine.kill().await;
    }
}

fn leave(context: &Context, problem: Failure, machine: &Arc<dyn Machine>) -> Failure {
    match keep::keep(context, machine.as_ref()) {
        Ok(hints) => hints.into_iter().fold(problem, Failure::hint),
        Err(second) => problem.fact("keep", second.summary()),
    }
}
