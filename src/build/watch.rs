// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Waiting for a running guest: for its end, or for one event, with an eye on its life.

use std::time::{Duration, Instant};

use super::context::Context;
use super::life::{Pulse, Signs};
use super::serial::SerialLog;
use crate::console::Screen;
use crate::http::Server;
use crate::ui::{Event, Failure, Outcome};
use crate::vm::{Exit, Machine, MachineEvent};

/// How often signs of life are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What to wait for and for how long.
pub(crate) struct Watch<'a> {
    /// The event as a noun phrase: `the installer's reboot`.
    pub(crate) what: &'a str,
    /// Longest time in all.
    pub(crate) timeout: Duration,
    /// Longest time without a sign of life.
    pub(crate) stall: Duration,
}

/// The guest's end, or why it did not come.
pub(crate) async fn until_exit(
    context: &Context,
    machine: &dyn Machine,
    screen: &Screen,
    server: Option<&Server>,
    watch: &Watch<'_>,
) -> Outcome<Exit> {
    let started = Instant::now();
    context.events.emit(Event::Waiting {
        what: watch.what.to_owned(),
        deadline_seconds: Some(watch.timeout.as_secs_f64()),
    });
    let mut pulse = Pulse::new(started);
    let mut serial = SerialLog::follow(&context.serial_log());
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            () = context.token.cancelled() => return Err(Failure::interrupted("interrupted")),
            event = machine.next_event() => match event {
                MachineEvent::Exited(exit) => return Ok(exit),
                MachineEvent::Reset => context.events.emit(Event::Machine { what: "reset".into() }),
                MachineEvent::Tray { open } => {
                    let what = if open { "CD tray opened" } else { "CD tray closed" };
                    context.events.emit(Event::Machine { what: what.into() });
                }
            },
            _ = look.tick() => {
                if let Some(line) = serial.new_panic() {
                    return Err(Failure::build("the guest's kernel panicked").fact("panic", line));
                }
                let signs = signs(machine, screen, server, &serial).await;
                let silent = pulse.observe(signs, Instant::now());
                if silent >= watch.stall {
                    return Err(stalled(watch, silent, signs));
                }
                if started.elapsed() >= watch.timeout {
                    return Err(late(watch, silent));
                }
            }
        }
    }
}

async fn signs(
    machine: &dyn Machine,
    screen: &Screen,
    server: Option<&Server>,
    serial: &SerialLog,
) -> Signs {
    let stats = machine.stats().await.unwrap_or_default();
    Signs {
        disk_bytes: stats.read_bytes + stats.written_bytes,
        serial_bytes: serial.size(),
        http_requests: server.map_or(0, |server| server.requests().len() as u64),
        screen: Some(screen.fingerprint()),
    }
}

fn stalled(watch: &Watch<'_>, silent: Duration, signs: Signs) -> Failure {
    let disk = format!("{} bytes moved in all, none lately", signs.disk_bytes);
    Failure::build(format!(
        "stalled: no sign of life for {} s while waiting for {}",
        silent.as_secs(),
        watch.what
    ))
    .fact("disk", disk)
    .hint("the installer probably asks a question: look at the screen and answer it in the answer file")
    .hint("if the guest was only slow, raise `install.stall_timeout` in the target")
}

fn late(watch: &Watch<'_>, silent: Duration) -> Failure {
    Failure::build(format!("{} did not come within {} s", watch.what, watch.timeout.as_secs()))
        .fact("life", format!("last sign of life {} s ago", silent.as_secs()))
        .hint("raise `install.timeout` in the target if the host is only slow")
}
