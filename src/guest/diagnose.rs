// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! After a failure: the guest's own logs, as far as it still answers.

use std::time::Duration;

use tokio::time::Instant;

use super::command::Command;
use super::session::Session;

/// Most bytes of one log.
const LOG_MAX: usize = 256 * 1024;
/// Longest time for all of them.
const LIMIT: Duration = Duration::from_secs(30);

/// File name in the output directory, and the command that prints the log's end.
const LOGS: &[(&str, &str)] = &[
    ("guest-journal.log", "journalctl --no-pager --boot --lines 1000 2>/dev/null"),
    ("guest-kernel.log", "dmesg 2>/dev/null | tail -n 500"),
    (
        "guest-installer.log",
        "for f in /var/log/installer/syslog /var/log/installer/subiquity-server-debug.log \
         /var/log/anaconda/anaconda.log /tmp/anaconda.log /tmp/program.log; do\n\
         [ -r \"$f\" ] || continue; echo \"== $f\"; tail -c 65536 \"$f\"; done",
    ),
    (
        "guest-state.log",
        "uname -a; uptime; df -h; ip addr; ps ax 2>/dev/null || ps; \
         systemctl --no-pager --failed 2>/dev/null",
    ),
];

/// One log of the guest's, secrets masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestLog {
    /// A name for its file.
    pub name: &'static str,
    /// Its text, cut to 256 KiB.
    pub text: String,
}

/// Fetches what the guest can still tell, in at most half a minute; nothing when it is dead.
/// Works on a cancelled build too.
pub async fn collect_logs(session: &Session) -> Vec<GuestLog> {
    let session = session.ignoring_cancel().until(Instant::now() + LIMIT);
    let mask = session.mask();
    let mut logs = Vec::new();
    for (name, text) in LOGS {
        if session.is_closed() {
            break;
        }
        let command = Command::new(*text).within(LIMIT / 2);
        // A log that cannot be had is no news beside the failure that made us ask.
        if let Ok(got) = session.capture(&command, LOG_MAX).await
            && !got.stdout.is_empty()
        {
            logs.push(GuestLog { name, text: mask.apply(&String::from_utf8_lossy(&got.stdout)) });
        }
    }
    logs
}
