// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Commands in the guest: inline lines or a script, nothing left behind.

use tokio::time::Instant;

use super::settle::settle;
use super::{Context, StepReport, left};
use crate::guest::command::{Command, Ended, quote};
use crate::guest::scratch::{Scratch, after_removal};
use crate::guest::upload::upload_bytes;
use crate::target::Shell;
use crate::ui::{Failure, Outcome};

/// Where a script is put: memory first.
const PLACES: &[&str] = &["/run", "/dev/shm", "/tmp", "/var/tmp"];

pub(super) async fn run(
    name: &str,
    shell: &Shell,
    context: &Context<'_>,
    deadline: Instant,
) -> Outcome<StepReport> {
    let before = match shell.expect_disconnect {
        true => context.session.boot_id().await?,
        false => None,
    };
    let mut ended = Ended::Code(0);
    if !shell.inline.is_empty() {
        let lines = context.expand_all(&shell.inline)?.join("\n");
        let command = Command::new(format!("set -e\n{lines}\n"))
            .envs(context.env(&shell.env)?)
            .within(left(deadline))
            .may_disconnect(shell.expect_disconnect);
        ended = context.session.run(&command, name, context.events).await?;
        judge(shell, &ended)?;
    }
    if let Some(script) = &shell.script {
        ended = run_script(name, script, shell, context, before.clone(), deadline).await?;
    }
    if shell.expect_disconnect && shell.script.is_none() {
        after_disconnect(context, before, &ended, deadline).await?;
    }
    Ok(StepReport { summary: ended.to_string(), ..StepReport::default() })
}

/// Uploads a script, runs it by its own interpreter and removes it in any case. The interpreter
/// is named on the command line, since the directory may not allow execution.
async fn run_script(
    name: &str,
    path: &str,
    shell: &Shell,
    context: &Context<'_>,
    before: Option<String>,
    deadline: Instant,
) -> Outcome<Ended> {
    let bytes = context.assets.read(path)?;
    let interpreter = interpreter(&bytes).map_err(|why| {
        Failure::input(format!("the script's first line {why}")).fact("file", path)
    })?;
    let env = context.env(&shell.env)?;
    let scratch = Scratch::create(context.session, PLACES).await?;
    let work = async {
        let file = format!("{}/script", scratch.path());
        upload_bytes(context.session, &bytes, &file, 0o700).await?;
        let words: Vec<String> = interpreter.iter().map(|word| quote(word)).collect();
        let command = Command::new(format!("exec {} {}", words.join(" "), quote(&file)))
            .envs(env)
            .within(left(deadline))
            .may_disconnect(shell.expect_disconnect);
        let ended = context.session.run(&command, name, context.events).await?;
        judge(shell, &ended)?;
        if shell.expect_disconnect {
            after_disconnect(context, before, &ended, deadline).await?;
        }
        Ok(ended)
    }
    .await;
    let removal = scratch.remove(context.session, context.events).await;
    after_removal(work, removal, context.events)
}

fn judge(shell: &Shell, ended: &Ended) -> Outcome<()> {
    let codes: &[i32] =
        if shell.valid_exit_codes.is_empty() { &[0] } else { &shell.valid_exit_codes };
    match ended {
        Ended::Code(code) if codes.contains(code) => Ok(()),
        // What a system that goes down does to the commands it still runs.
        Ended::Disconnected | Ended::Signal(_) if shell.expect_disconnect => Ok(()),
        other => {
            let wanted: Vec<String> = codes.iter().map(i32::to_string).collect();
            Err(Failure::build(format!("the script ended with {other}"))
                .fact("wanted", format!("exit code {}", wanted.join(" or "))))
        }
    }
}

async fn after_disconnect(
    context: &Context<'_>,
    before: Option<String>,
    ended: &Ended,
    deadline: Instant,
) -> Outcome<()> {
    if settle(context, before, deadline).await? {
        return Ok(());
    }
    if let Ended::Signal(_) = ended {
        return Err(Failure::build(format!("the script ended with {ended}"))
            .fact("wanted", "the end of the connection, which still stands"));
    }
    context.events.note("the connection was allowed to end, but did not");
    Ok(())
}

/// The interpreter of a script and its argument, as the kernel reads them; `/bin/sh` without a
/// `#!` line.
fn interpreter(script: &[u8]) -> Result<Vec<String>, &'static str> {
    let first = script.split(|b| *b == b'\n').next().unwrap_or_default();
    let Some(line) = first.strip_prefix(b"#!") else {
        return Ok(vec!["/bin/sh".to_owned()]);
    };
    if line.ends_with(b"\r") {
        return Err("ends with a carriage return: save the script with UNIX line ends");
    }
    let line = std::str::from_utf8(line).map_err(|_| "is no UTF-8")?.trim();
    if !line.starts_with('/') || line.contains('\0') {
        return Err("does not name an interpreter by its absolute path");
    }
    let mut words = line.splitn(2, [' ', '\t']);
    let program = words.next().unwrap_or_default().to_owned();
    let argument = words.next().map(|rest| rest.trim().to_owned()).filter(|a| !a.is_empty());
    Ok(std::iter::once(program).chain(argument).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_interpreter_as_the_kernel_does() {
        let of = |text: &str| interpreter(text.as_bytes());
        assert_eq!(of("echo hi\n").unwrap(), ["/bin/sh"]);
        assert_eq!(of("#!/bin/bash\n").unwrap(), ["/bin/bash"]);
        assert_eq!(of("#! /usr/bin/env  python3 -u\n").unwrap(), ["/usr/bin/env", "python3 -u"]);
        assert_eq!(of("").unwrap(), ["/bin/sh"]);
        assert!(of("#!/bin/sh\r\necho\r\n").unwrap_err().contains("carriage return"));
        assert!(of("#!python\n").unwrap_err().contains("absolute"));
        assert!(of("#!\n").is_err());
    }
}
