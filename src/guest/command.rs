// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A command for the guest, and how it is handed over so that `ps` shows nothing of it.
//!
//! The process list of the guest shows only a launcher. The environment and the text of the
//! command follow on standard input; what the command itself reads comes after that, and when it
//! gets nothing, its standard input is `/dev/null`, so that a prompt fails instead of hanging.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::ui::{Failure, Outcome};

/// Before the process id that the launcher writes as its first line on standard error.
pub(super) const MARK: &str = "\u{1}imgforge-pid ";

/// Behind the text that the launcher reads; without it, the connection ended too early.
const END: &str = "imgforge-end";

/// A command for the guest's POSIX shell, `/bin/sh`.
#[derive(Clone, Debug)]
pub struct Command {
    text: String,
    env: BTreeMap<String, String>,
    stdin: Option<Bytes>,
    timeout: Duration,
    expect_disconnect: bool,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this exit code.
    Code(i32),
    /// By this signal (`KILL`).
    Signal(String),
    /// The connection ended first, as the command was allowed to cause.
    Disconnected,
}

impl Ended {
    /// Exit code 0.
    pub fn good(&self) -> bool {
        *self == Self::Code(0)
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(name) => write!(f, "killed by signal {name}"),
            Self::Disconnected => f.write_str("disconnected"),
        }
    }
}

impl Command {
    /// A script for `/bin/sh` (POSIX) that may take a minute.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            env: BTreeMap::new(),
            stdin: None,
            timeout: Duration::from_secs(60),
            expect_disconnect: false,
        }
    }

    /// Adds a variable to the environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Adds variables to the environment.
    #[must_use]
    pub fn envs(mut self, more: impl IntoIterator<Item = (String, String)>) -> Self {
        self.env.extend(more);
        self
    }

    /// What the command reads from its standard input.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Bytes>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// The longest time the command may take; it is killed then.
    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The connection may end before the command does (a reboot).
    #[must_use]
    pub fn may_disconnect(mut self, expect: bool) -> Self {
        self.expect_disconnect = expect;
        self
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn expects_disconnect(&self) -> bool {
        self.expect_disconnect
    }

    /// What the login shell is given, and what follows on standard input.
    pub(super) fn launch(&self) -> Outcome<(String, Vec<Bytes>)> {
        let text = format!("{}{}{END}", exports(&self.env)?, self.text);
        if text.contains('\0') {
            return Err(Failure::input("a command for the guest holds a zero byte"));
        }
        let mark = "printf '\\001imgforge-pid %s\\n' \"$$\" >&2";
        let (read, feed) = match &self.stdin {
            None => ("imgforge_text=$(cat); exec </dev/null".to_owned(), vec![text.into()]),
            Some(bytes) => {
                let read = format!("imgforge_text=$(dd bs=1 count={} 2>/dev/null)", text.len());
                (read, vec![text.into(), bytes.clone()])
            }
        };
        // Half a script must not run: a path cut short is another path.
        let whole = format!("case $imgforge_text in *{END}) ;; *) exit 1 ;; esac");
        let eval = format!("eval \"unset imgforge_text\n${{imgforge_text%{END}}}\"");
        let launcher = format!("{mark}; {read}; {whole}; {eval}");
        Ok((format!("exec /bin/sh -c {}", quote(&launcher)), feed))
    }
}

/// Lines that export an environment, for a POSIX shell.
pub(super) fn exports(env: &BTreeMap<String, String>) -> Outcome<String> {
    let mut text = String::new();
    for (name, value) in env {
        let good = name
            .chars()
            .enumerate()
            .all(|(at, c)| c == '_' || c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit()));
        if !good || name.is_empty() {
            return Err(Failure::input(format!("`{name}` cannot be an environment variable"))
                .hint("a name is made of letters, digits and `_` and starts with no digit"));
        }
        text.push_str(&format!("export {name}={}\n", quote(value)));
    }
    Ok(text)
}

/// One word for a POSIX shell, whatever it holds.
pub(super) fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;
    use std::process::{Output, Stdio};

    use proptest::prelude::*;

    use super::*;

    fn run(shell: &str, command: &Command) -> Output {
        let (launcher, feed) = command.launch().unwrap();
        let mut child = std::process::Command::new(shell)
            .args(["-c", &launcher])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        for piece in feed {
            stdin.write_all(&piece).unwrap();
        }
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    #[test]
    fn stdin_is_empty_or_exactly_what_was_given() {
        for shell in ["dash", "bash"] {
            let made = run(shell, &Command::new("cat; echo \"[$A]\"; exit 3").env("A", "it's"));
            assert_eq!(made.stdout, b"[it's]\n");
            assert_eq!(made.status.code(), Some(3));
            assert!(String::from_utf8_lossy(&made.stderr).starts_with(MARK));

            let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
            let made = run(shell, &Command::new("cat").env("A", "ä\n").stdin(bytes.clone()));
            assert_eq!(made.stdout, bytes);
        }
    }

    #[test]
    fn the_launcher_tells_nothing() {
        let command = Command::new("echo hidden").env("TOKEN", "t0ken").stdin("body");
        let (launcher, _) = command.launch().unwrap();
        assert!(!launcher.contains("hidden") && !launcher.contains("t0ken"), "{launcher}");
    }

    #[test]
    fn errexit_holds_inside() {
        let made = run("dash", &Command::new("set -e\nfalse\necho not here"));
        assert_eq!(made.status.code(), Some(1));
        assert!(made.stdout.is_empty());
    }

    #[test]
    fn half_a_text_does_not_run() {
        for command in [Command::new("echo a; echo b"), Command::new("echo a; echo b").stdin("c")] {
            let (launcher, feed) = command.launch().unwrap();
            for cut in 0..feed[0].len() {
                let mut child = std::process::Command::new("sh")
                    .args(["-c", &launcher])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap();
                child.stdin.take().unwrap().write_all(&feed[0][..cut]).unwrap();
                let made = child.wait_with_output().unwrap();
                assert_eq!((made.status.code(), made.stdout.len()), (Some(1), 0), "{cut}");
            }
        }
    }

    #[test]
    fn refuses_bad_names() {
        for name in ["", "1A", "A-B", "A=B", "A;x"] {
            let failure = Command::new("true").env(name, "x").launch().unwrap_err();
            assert_eq!(failure.kind(), crate::ui::Kind::Input);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_value_survives_the_shell(value in "[^\0]{0,60}[^\0\n]") {
            let made = run("sh", &Command::new("printf %s \"$V\"").env("V", value.as_str()));
            prop_assert_eq!(String::from_utf8_lossy(&made.stdout), value);
        }
    }
}
