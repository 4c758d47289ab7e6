// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The install stage: the distributor's installer writes the disk, untouched by human hands.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::broken::Broken;
use super::context::Context;
use super::ledger::Account;
use super::watch::{self, Watch};
use crate::console::{self, Screen, boot_command};
use crate::http::{Bounds, Content, Server};
use crate::media::Medium;
use crate::target::{Expander, InstallEnd};
use crate::ui::{Event, Failure, Kind, Outcome};
use crate::vm::{Exit, Machine};

/// How often the boot command is typed before giving up: a key lost while firmware hands the
/// keyboard over is the most common failure of all.
const TYPING_ATTEMPTS: u32 = 2;

/// Runs the installer until it restarts or powers off the machine.
pub(crate) async fn run(context: &Context, medium: &Medium) -> Result<String, Broken> {
    let server = serve(context).await?;
    let result = attempts(context, medium, &server).await;
    server.stop().await;
    result
}

async fn attempts(context: &Context, medium: &Medium, server: &Server) -> Result<String, Broken> {
    let mut attempt = 1;
    loop {
        let machine = start(context, medium).await?;
        let screen = match Screen::connect(&machine.vnc(), context.token.clone()).await {
            Ok(screen) => screen,
            Err(problem) => return Err(Broken::with(problem, machine)),
        };
        let problem = match one_attempt(context, machine.as_ref(), &screen, server, attempt).await {
            Ok(Step::Installed(note)) => return Ok(note),
            Ok(Step::NeverAsked) if attempt < TYPING_ATTEMPTS => {
                context.screenshot(&screen, "answer file never asked for").await;
                machine.kill().await?;
                context.events.warn(format!(
                    "the guest did not ask for its answer file: typing again, slower \
                     ({} of {TYPING_ATTEMPTS})",
                    attempt + 1
                ));
                super::disk::recreate(context)?;
                attempt += 1;
                continue;
            }
            Ok(Step::NeverAsked) => never_asked(context, server),
            Err(problem) if problem.kind() == Kind::Interrupted => {
                return Err(Broken::with(problem, machine));
            }
            Err(problem) => problem.fact("http", requests_in_words(server)),
        };
        return Err(Broken::with(context.with_evidence(problem, &screen).await, machine));
    }
}

enum Step {
    Installed(String),
    NeverAsked,
}

async fn one_attempt(
    context: &Context,
    machine: &dyn Machine,
    screen: &Screen,
    server: &Server,
    attempt: u32,
) -> Outcome<Step> {
    boot_wait(context, machine, attempt).await?;
    context.screenshot(screen, "before typing").await;
    type_command(context, screen, server, attempt).await?;
    context.screenshot(screen, "after typing").await;
    context.ledger.switch(Account::Guest);
    if !answer_fetched(context, machine, server).await? {
        return Ok(Step::NeverAsked);
    }
    context.screenshot(screen, "answer file fetched").await;
    let install = &context.target.install;
    let what = match install.end {
        InstallEnd::Reboot => "the installer's reboot",
        InstallEnd::PowerOff => "the installer's power-off",
    };
    let watch = Watch { what, timeout: install.timeout, stall: install.stall_timeout };
    let exit = watch::until_exit(context, machine, screen, Some(server), &watch).await?;
    context.screenshot(screen, "end of installation").await;
    context.ledger.switch(Account::Own);
    expect_end(install.end, &exit)?;
    machine.wait_exit().await?;
    let asked = server.requests().len();
    Ok(Step::Installed(format!("{asked} requests answered")))
}

async fn start(context: &Context, medium: &Medium) -> Outcome<Arc<dyn Machine>> {
    let mut spec = context.machine("install");
    spec.cdrom = Some(medium.path.clone());
    spec.stop_at_reset = true;
    spec.may_outlive_us = context.may_keep;
    let machine = context.start(spec).await?;
    context.events.emit(Event::Machine { what: "started with the installer's medium".into() });
    Ok(machine)
}

/// Lets the firmware and the boot menu come up. The guest's own end cuts it short.
async fn boot_wait(context: &Context, machine: &dyn Machine, attempt: u32) -> Outcome<()> {
    let wait = context.target.boot.wait * attempt;
    context.ledger.switch(Account::BootWait);
    context.events.emit(Event::Waiting {
        what: "the boot menu".into(),
        deadline_seconds: Some(wait.as_secs_f64()),
    });
    tokio::select! {
        () = context.token.cancelled() => Err(Failure::interrupted("interrupted")),
        () = tokio::time::sleep(wait) => Ok(()),
        exit = ended(machine) => Err(died(&exit)),
    }
}

async fn type_command(
    context: &Context,
    screen: &Screen,
    server: &Server,
    attempt: u32,
) -> Outcome<()> {
    let boot = &context.target.boot;
    context.ledger.switch(Account::Typing);
    let expander = context.expander(server.addr().port());
    let text = expander.expand_until_stable("boot.command", &boot.command)?;
    let command = boot_command::parse(&text).map_err(|error| {
        Failure::input("the boot command cannot be typed")
            .because(error)
            .fact("field", "boot.command")
    })?;
    let interval = boot.key_interval * attempt.pow(2);
    console::type_events(screen, &command.expand(), interval, &context.events, &context.token)
        .await?;
    Ok(())
}

/// Waits until the guest has asked for one of its answer files. A target without any has
/// nothing to ask for.
async fn answer_fetched(
    context: &Context,
    machine: &dyn Machine,
    server: &Server,
) -> Outcome<bool> {
    if context.target.http.files.is_empty() && context.target.http.content.is_empty() {
        return Ok(true);
    }
    let limit = context.target.install.answer_timeout;
    context.events.emit(Event::Waiting {
        what: "the guest's request for its answer file".into(),
        deadline_seconds: Some(limit.as_secs_f64()),
    });
    let names: Vec<String> = answer_paths(context);
    let fetched = server.wait_for(move |path| names.iter().any(|name| name == path), limit);
    tokio::select! {
        () = context.token.cancelled() => Err(Failure::interrupted("interrupted")),
        found = fetched => Ok(found.is_some()),
        exit = ended(machine) => Err(died(&exit)),
    }
}

fn answer_paths(context: &Context) -> Vec<String> {
    let http = &context.target.http;
    http.files.keys().chain(http.content.keys()).cloned().collect()
}

async fn ended(machine: &dyn Machine) -> Exit {
    loop {
        if let crate::vm::MachineEvent::Exited(exit) = machine.next_event().await {
            return exit;
        }
    }
}

fn died(exit: &Exit) -> Failure {
    Failure::build(format!("the machine ended before the installer started: {}", describe(exit)))
        .hint("a medium that is not bootable under this firmware does that; `imgforge doctor` checks the host")
}

fn expect_end(end: InstallEnd, exit: &Exit) -> Outcome<()> {
    match (end, exit) {
        (InstallEnd::Reboot, Exit::Reset) | (InstallEnd::PowerOff, Exit::PoweredOff) => Ok(()),
        (InstallEnd::Reboot, Exit::PoweredOff) => Err(Failure::build(
            "the installer powered the machine off, but the target says that it reboots",
        )
        .hint("say `install: {end: poweroff}` in the target, or let the answer file reboot")),
        (InstallEnd::PowerOff, Exit::Reset) => Err(Failure::build(
            "the installer rebooted the machine, but the target says that it powers off",
        )
        .hint("say `install: {end: reboot}` in the target, or let the answer file power off")),
        (_, exit) => Err(Failure::build(format!(
            "the machine ended in the middle of the installation: {}",
            describe(exit)
        ))),
    }
}

/// An exit in words.
pub(crate) fn describe(exit: &Exit) -> String {
    match exit {
        Exit::PoweredOff => "the guest powered off".into(),
        Exit::Reset => "the guest reset itself".into(),
        Exit::Panicked(text) => format!("the guest panicked: {text}"),
        Exit::Killed => "it was stopped by us".into(),
        Exit::Failed(text) => format!("the monitor died: {text}"),
    }
}

/// Starts the answer-file server on the build network.
async fn serve(context: &Context) -> Outcome<Server> {
    let address = context.driver.host_address();
    let make = |bound: SocketAddr| content(context, bound.port());
    Server::start_with(address, make, &context.events, Bounds::default()).await
}

fn content(context: &Context, port: u16) -> Outcome<Content> {
    let mut content = Content::new();
    for (path, text) in answers(context, &context.expander(port))? {
        content = content.page(&path, "text/plain; charset=utf-8", text)?;
    }
    for directory in &context.target.http.directories {
        content = content.directory(directory)?;
    }
    Ok(content)
}

/// Every answer file, rendered, by its path.
pub(crate) fn answers(context: &Context, expander: &Expander) -> Outcome<BTreeMap<String, String>> {
    let http = &context.target.http;
    let mut pages = BTreeMap::new();
    for (path, asset) in &http.files {
        let text = String::from_utf8(context.assets.read(asset)?).map_err(|error| {
            Failure::input("an answer file is not UTF-8 text").because(error).fact("file", asset)
        })?;
        pages.insert(path.clone(), expander.expand(asset, &text)?);
    }
    for (path, text) in &http.content {
        let place = format!("http.content.{path}");
        pages.insert(path.clone(), expander.expand(&place, text)?);
    }
    Ok(pages)
}

fn requests_in_words(server: &Server) -> String {
    let requests = server.requests();
    match requests.last() {
        None => "the guest asked for nothing".into(),
        Some(last) => format!(
            "{} requests, the last {} {} → {}",
            requests.len(),
            last.method,
            last.path,
            last.status
        ),
    }
}

fn never_asked(context: &Context, server: &Server) -> Failure {
    let wanted = answer_paths(context).join(", ");
    Failure::build(format!(
        "the guest never asked for its answer file within {} s after typing",
        context.target.install.answer_timeout.as_secs()
    ))
    .fact("wanted", wanted)
    .fact("http", requests_in_words(server))
    .hint("look at the screen: was the boot menu there when typing began, and is the line complete?")
    .hint(format!(
        "`imgforge keys --target {}` shows what was typed; raise `boot.wait` or `boot.key_interval` on a slow host",
        context.target.name
    ))
}
