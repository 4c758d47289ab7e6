// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Leaving a machine running after a failure, and saying how to reach it.

use std::sync::atomic::Ordering;

use super::context::Context;
use crate::ui::Outcome;
use crate::vm::{Machine, VncEndpoint};

/// Leaves the machine running; returns hints that say how to reach and how to end it.
pub(crate) fn keep(context: &Context, machine: &dyn Machine) -> Outcome<Vec<String>> {
    let key = context.run_dir.join("id_ed25519");
    context.identity.key.write_private(&key)?;
    let ssh = &context.target.ssh;
    let mut hints = Vec::new();
    if let Some(address) = machine.forwarded(ssh.port) {
        hints.push(format!(
            "log in: `ssh -F none -i {} -o IdentitiesOnly=yes -o UserKnownHostsFile=/dev/null \
             -o StrictHostKeyChecking=no -p {} {}@{}`",
            key.display(),
            address.port(),
            ssh.username,
            address.ip()
        ));
    }
    if let VncEndpoint::Unix(socket) = machine.vnc() {
        hints.push(format!("see the screen: a VNC viewer on the socket {}", socket.display()));
    }
    hints.push(format!("serial log: {}", context.serial_log().display()));
    hints.push("end it and remove what it holds: `imgforge clean`".into());
    context.journal.keep("the user asked to keep the machine after a failure")?;
    machine.detach();
    context.kept.store(true, Ordering::Relaxed);
    Ok(hints)
}
