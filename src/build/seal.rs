// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The seal stage: what the build needed goes out of the guest, free space goes back to the
//! host, and the guest powers off in order.

use std::time::{Duration, Instant};

use super::context::Context;
use super::ledger::Account;
use super::provision::Guest;
use crate::guest::{Command, Session};
use crate::ui::{Event, Failure, Outcome};
use crate::vm::{Exit, Machine, MachineEvent};

/// Longest time for the sealing script: `fstrim` of a slow disk dominates.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(600);
/// Longest time between the end of the shutdown and the monitor's own exit.
const EXIT_TIMEOUT: Duration = Duration::from_secs(60);
/// Most of a command's output that is kept for a failure.
const OUTPUT_LIMIT: usize = 16 * 1024;

/// POSIX sh, fed on standard input, so that nothing of it stays in the guest. `$1` is the
/// build key's base64 field, `$2` the build password's hash: whoever has it gets locked.
const SCRIPT: &str = r#"
set -eu
key=$1
for file in "$HOME"/.ssh/authorized_keys; do
    [ -f "$file" ] || continue
    grep -vF "$key" "$file" > "$file.imgforge" || true
    cat "$file.imgforge" > "$file"
    rm -f "$file.imgforge"
    [ -s "$file" ] || rm -f "$file"
done
if command -v passwd >/dev/null 2>&1 && [ -w /etc/shadow ]; then
    user=$(id -un)
    current=$(sed -n "s/^$user:\([^:]*\):.*/\1/p" /etc/shadow)
    if [ "$current" = "$2" ]; then
        passwd -d "$user" >/dev/null 2>&1 || true
        passwd -l "$user" >/dev/null 2>&1 || true
        current=$(sed -n "s/^$user:\([^:]*\):.*/\1/p" /etc/shadow)
        case $current in '' ) sed -i "s/^$user:[^:]*:/$user:!!:/" /etc/shadow ;; esac
    fi
fi
rm -f "$HOME"/.bash_history "$HOME"/.ash_history
if grep -rqsF "$key" /root /etc /home 2>/dev/null; then
    echo "the build key is still in: $(grep -rlsF "$key" /root /etc /home 2>/dev/null | tr '\n' ' ')" >&2
    exit 3
fi
if grep -qsF "$2" /etc/shadow /etc/shadow-; then
    sed -i "s|^\([^:]*\):[^:]*:|\1:!!:|" /etc/shadow- 2>/dev/null || true
    grep -qsF "$2" /etc/shadow && { echo "the build password is still in /etc/shadow" >&2; exit 4; }
fi
sync
if command -v fstrim >/dev/null 2>&1; then
    fstrim -a 2>/dev/null || for mount in / /boot /boot/efi; do fstrim "$mount" 2>/dev/null || true; done
fi
sync
"#;

/// Removes the build's credentials, discards free space and powers the guest off.
pub(crate) async fn run(context: &Context, guest: &Guest) -> Outcome<String> {
    context.ledger.switch(Account::Guest);
    remove_credentials(context, &guest.session).await?;
    // From here on the machine's end is what we wait for.
    guest.vigil.end();
    let how = power_off(context, guest.machine.as_ref(), &guest.session).await?;
    context.ledger.switch(Account::Own);
    guest.machine.wait_exit().await?;
    Ok(how)
}

async fn remove_credentials(context: &Context, session: &Session) -> Outcome<()> {
    let key = key_field(context.identity.key.public_line());
    let hash = &context.identity.password_hash;
    // The hash goes in by the environment of a script on standard input: no file, no argument.
    let script = format!("set -- '{key}' '{hash}'\n{SCRIPT}");
    let command = Command::new("/bin/sh -s").stdin(script).within(SCRIPT_TIMEOUT);
    let done = session.capture(&command, OUTPUT_LIMIT).await?;
    done.or_fail("remove the build's credentials").map(drop)
}

/// The base64 field of an OpenSSH public key line.
fn key_field(line: &str) -> &str {
    line.split_ascii_whitespace().nth(1).unwrap_or(line)
}

/// By command first; by the ACPI button when the command brought nothing; never by a power cut.
async fn power_off(context: &Context, machine: &dyn Machine, session: &Session) -> Outcome<String> {
    let shutdown = &context.target.shutdown;
    if !shutdown.command.is_empty() {
        let command = Command::new(&shutdown.command).may_disconnect(true).within(shutdown.timeout);
        let asked = session.capture(&command, OUTPUT_LIMIT).await;
        if let Err(problem) = asked {
            context.events.warn(format!("`{}`: {}", shutdown.command, problem.summary()));
        }
        if let Some(how) = wait(context, machine, shutdown.timeout, "the guest's power-off").await?
        {
            return Ok(format!("{how} by command"));
        }
        context.events.warn(format!(
            "`{}` did not power the guest off within {} s: pressing the ACPI power button",
            shutdown.command,
            shutdown.timeout.as_secs()
        ));
    }
    machine.power_button().await?;
    let limit = shutdown.timeout.max(EXIT_TIMEOUT);
    match wait(context, machine, limit, "the guest's power-off after the ACPI button").await? {
        Some(how) => Ok(format!("{how} by ACPI button")),
        None => Err(Failure::build("the guest does not power off")
            .fact("tried", format!("`{}`, then the ACPI power button", shutdown.command))
            .hint(
                "check `shutdown.command` in the target; raise `shutdown.timeout` on a slow host",
            )),
    }
}

async fn wait(
    context: &Context,
    machine: &dyn Machine,
    limit: Duration,
    what: &str,
) -> Outcome<Option<&'static str>> {
    let deadline = Instant::now() + limit;
    context.events.emit(Event::Waiting {
        what: what.to_owned(),
        deadline_seconds: Some(limit.as_secs_f64()),
    });
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = tokio::select! {
            () = context.token.cancelled() => return Err(Failure::interrupted("interrupted")),
            event = tokio::time::timeout(left, machine.next_event()) => event,
        };
        match event {
            Err(_) => return Ok(None),
            Ok(MachineEvent::Exited(Exit::PoweredOff)) => return Ok(Some("powered off")),
            Ok(MachineEvent::Exited(exit)) => {
                return Err(Failure::build(format!(
                    "the machine ended badly during shutdown: {}",
                    super::install::describe(&exit)
                )));
            }
            Ok(MachineEvent::Reset) => {
                return Err(Failure::build("the guest restarted instead of powering off")
                    .hint("check `shutdown.command` in the target"));
            }
            Ok(MachineEvent::Tray { .. }) => {}
        }
    }
}
