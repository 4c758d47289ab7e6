// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The provision stage: the installed system boots from its own disk, with empty firmware
//! variables as in production, and the target's steps run in it.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::broken::Broken;
use super::context::Context;
use super::ledger::Account;
use super::on_error::{Decision, OnError};
use crate::console::Screen;
use crate::guest::{self, HostKeys, Lifeline, Login, Mask, Patience, Session, StepReport};
use crate::target::{Expander, Step};
use crate::ui::{Event, Failure, Kind, Outcome};
use crate::vm::{Forward, Machine, MachineEvent};

/// The running installed system, logged in.
pub(crate) struct Guest {
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) screen: Screen,
    pub(crate) session: Session,
    pub(crate) vigil: Vigil,
}

/// Waits for the machine's end in the background, so that every wait in the guest ends with it.
pub(crate) struct Vigil(JoinHandle<()>);

impl Vigil {
    fn over(machine: &Arc<dyn Machine>) -> (Self, watch::Receiver<Option<String>>) {
        let (tell, death) = watch::channel(None);
        let machine = Arc::clone(machine);
        let waiting = tokio::spawn(async move {
            loop {
                if let MachineEvent::Exited(exit) = machine.next_event().await {
                    tell.send_replace(Some(super::install::describe(&exit)));
                    return;
                }
            }
        });
        (Self(waiting), death)
    }
}

impl Vigil {
    /// Stops waiting.
    pub(crate) fn end(&self) {
        self.0.abort();
    }
}

impl Drop for Vigil {
    fn drop(&mut self) {
        self.end();
    }
}

/// Boots the installed system and logs in.
pub(crate) async fn boot(context: &Context, host_keys: &HostKeys) -> Result<Guest, Broken> {
    let mut spec = context.machine("system");
    spec.may_outlive_us = context.may_keep;
    spec.forwards = vec![Forward { guest_port: context.target.ssh.port }];
    let machine = context.start(spec).await?;
    context.events.emit(Event::Machine { what: "started from its own disk".into() });
    context.ledger.switch(Account::Guest);
    let screen = match Screen::connect(&machine.vnc(), context.token.clone()).await {
        Ok(screen) => screen,
        Err(problem) => return Err(Broken::with(problem, machine)),
    };
    let (vigil, death) = Vigil::over(&machine);
    let logged_in = log_in(context, machine.as_ref(), host_keys, death).await;
    context.ledger.switch(Account::Own);
    match logged_in {
        Ok(session) => {
            context.screenshot(&screen, "first login").await;
            Ok(Guest { machine, screen, session, vigil })
        }
        Err(problem) if problem.kind() == Kind::Interrupted => Err(Broken::with(problem, machine)),
        Err(problem) => Err(Broken::with(context.with_evidence(problem, &screen).await, machine)),
    }
}

async fn log_in(
    context: &Context,
    machine: &dyn Machine,
    host_keys: &HostKeys,
    death: watch::Receiver<Option<String>>,
) -> Outcome<Session> {
    let ssh = &context.target.ssh;
    let address = machine.forwarded(ssh.port).ok_or_else(|| {
        Failure::build("the driver has no way to the guest's SSH").fact("port", ssh.port)
    })?;
    let login = Login {
        username: ssh.username.clone(),
        key: Some(context.identity.key.clone()),
        password: Some(context.identity.password.clone()),
    };
    let wait = guest::Wait {
        address,
        login,
        keys: host_keys.clone(),
        lifeline: Lifeline::new(context.token.clone(), death),
        patience: Patience::default(),
    };
    let session = guest::connect(&wait, ssh.timeout, &context.events).await.map_err(|problem| {
        problem.fact("guest", format!("port {} of the guest, reached at {address}", ssh.port))
    })?;
    session.set_mask(Mask::new(&context.secrets()));
    Ok(session)
}

/// A step that failed for good, and what the user wants done about it.
pub(crate) struct Stopped {
    pub(crate) problem: Failure,
    pub(crate) decision: Decision,
}

impl From<Failure> for Stopped {
    fn from(problem: Failure) -> Self {
        Self { problem, decision: Decision::Abort }
    }
}

/// Runs the target's steps in order.
pub(crate) async fn run(
    context: &Context,
    guest: &Guest,
    on_error: OnError,
) -> Result<String, Stopped> {
    let expander = context.expander(0);
    let mut notes = Vec::new();
    for step in &context.target.provision {
        context.check_cancelled()?;
        let report = one_step(context, guest, &expander, step, on_error).await?;
        notes.push(format!("{}: {}", report.name, report.summary));
    }
    Ok(notes.join(", "))
}

async fn one_step(
    context: &Context,
    guest: &Guest,
    expander: &Expander,
    step: &Step,
    on_error: OnError,
) -> Result<StepReport, Stopped> {
    let expand = |text: &str| expander.expand(&step.name, text);
    let work = guest::Context {
        session: &guest.session,
        events: &context.events,
        assets: context.assets.as_ref(),
        expand: &expand,
        http: None,
        build_name: &context.target.name,
        builder: context.driver.name(),
        run_dir: &context.run_dir,
    };
    loop {
        context.ledger.switch(Account::Guest);
        let result = guest::run_step(step, &work).await;
        context.ledger.switch(Account::Own);
        let problem = match result {
            Ok(report) => return Ok(report),
            Err(problem) if problem.kind() == Kind::Interrupted => return Err(problem.into()),
            Err(problem) => problem.within(&step.name),
        };
        let problem = match guest.machine.exited() {
            Some(exit) => problem.fact("machine", super::install::describe(&exit)),
            None => problem,
        };
        let problem = context.with_evidence(problem, &guest.screen).await;
        match on_error.decide(&problem) {
            Decision::Retry if guest.machine.exited().is_none() => {
                context.events.note(format!("trying `{}` again", step.name));
            }
            decision => return Err(Stopped { problem, decision }),
        }
    }
}
