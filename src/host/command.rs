// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A host's own commands: run with a time limit, in the C locale, their words kept.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::ui::{Failure, Outcome};
use crate::vm::child::on_path;

/// Where illumos has its administration commands, for users whose `PATH` does not.
const ALSO: &str = "/usr/sbin:/sbin";
/// Such commands take milliseconds; more than this is a daemon that does not answer.
const LIMIT: Duration = Duration::from_secs(10);
/// More than a link's or an address's description ever has.
const LONGEST: u64 = 1 << 20;

/// Where the command is, when the host has it.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    on_path(name, &places(std::env::var_os("PATH").unwrap_or_default()))
}

fn places(mut path: OsString) -> OsString {
    path.push(":");
    path.push(ALSO);
    path
}

/// What the command prints.
///
/// # Errors
/// When it is missing, fails (with its own words), or does not end in time.
pub(crate) fn run(name: &str, arguments: &[&str]) -> Outcome<String> {
    let Some(program) = find(name) else {
        return Err(Failure::build(format!("this host has no `{name}`"))
            .because("it belongs to illumos, and stands in /usr/sbin there"));
    };
    run_within(LIMIT, program.as_os_str(), arguments)
}

fn run_within(limit: Duration, program: &OsStr, arguments: &[&str]) -> Outcome<String> {
    let line = format!("{} {}", program.display(), arguments.join(" "));
    let failed = |what: &str| Failure::build(what).fact("command", &line);
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed("a command does not start").because(error))?;
    let (out, err) = (listen(child.stdout.take()), listen(child.stderr.take()));
    let begin = Instant::now();
    let left = || limit.saturating_sub(begin.elapsed());
    let texts = out.recv_timeout(limit).and_then(|out| Ok((out, err.recv_timeout(left())?)));
    let Ok((out, err)) = texts else {
        // It may be gone by itself.
        let _ = child.kill();
        let _ = child.wait();
        let why = format!("it has not answered for {} s", limit.as_secs());
        return Err(failed("a command does not end").because(why));
    };
    let status = child.wait().map_err(|error| failed("a command is lost").because(error))?;
    if status.success() {
        return Ok(out);
    }
    let words = if err.trim().is_empty() { out } else { err };
    Err(failed("a command fails").fact("status", status).fact("words", words.trim()))
}

/// Reads a pipe to its end in another thread.
fn listen(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, text) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // What was read before an error is shown all the same.
            let _ = pipe.take(LONGEST).read_to_end(&mut bytes);
        }
        // Nobody listens only when it took too long.
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shell(limit: Duration, script: &str) -> Outcome<String> {
        run_within(limit, OsStr::new("/bin/sh"), &["-c", script])
    }

    #[test]
    fn a_command_answers_fails_with_its_words_or_is_ended() {
        let long = Duration::from_secs(60);
        assert_eq!(shell(long, "echo $LC_ALL").unwrap(), "C\n");
        let text = shell(long, "echo no such link >&2; exit 3").unwrap_err().to_string();
        assert!(text.contains("no such link") && text.contains("exit status: 3"), "{text}");
        let begin = Instant::now();
        let text = shell(Duration::from_millis(20), "exec sleep 60").unwrap_err().to_string();
        assert!(text.contains("does not end"), "{text}");
        assert!(begin.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_missing_command_is_named() {
        let text = run("no-such-command-of-illumos", &[]).unwrap_err().to_string();
        assert!(text.contains("no-such-command-of-illumos"), "{text}");
        assert_eq!(places("/a".into()), "/a:/usr/sbin:/sbin");
    }
}
