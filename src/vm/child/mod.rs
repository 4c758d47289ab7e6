// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A monitor as a child process, be it QEMU or this program's own: started paused in a process
//! group of its own, spoken to over QMP, heard to its last word, never left.

mod counters;
mod machine;
mod process;
mod qmp;
mod wire;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

pub(crate) use machine::{ChildMachine, Parts};
pub(crate) use process::{Process, on_path};
pub(crate) use qmp::{Qmp, QmpError, QmpEvent};

use crate::ui::{Failure, Outcome};

/// The control socket in the run directory.
pub(crate) const QMP_SOCKET: &str = "qmp.sock";
/// The screen's socket in the run directory.
pub(crate) const VNC_SOCKET: &str = "vnc.sock";
/// The firmware's variables in the run directory.
pub(crate) const VARIABLES: &str = "vars.fd";
/// Written by the monitor into the run directory; its path is an argument of the monitor.
pub(crate) const PID_FILE: &str = "monitor.pid";
/// Name of the disk.
pub(crate) const DISK_ID: &str = "disk0";
/// Name of the CD drive.
pub(crate) const CDROM_ID: &str = "cdrom";

/// From exec to an answering control channel. A tenth of a second on an idle host.
pub(crate) const STARTING: Duration = Duration::from_secs(30);
/// From a closed control channel to the end of the process.
const ENDING: Duration = Duration::from_secs(2);
/// How often the control channel is tried meanwhile.
const TRYING: Duration = Duration::from_millis(5);

/// Makes the run directory ready: private, without old sockets, with a fresh variable store. The
/// store is written anew, not copied with its template's permissions, which may be read-only.
pub(crate) fn prepare(run_dir: &Path, variables: Option<&[u8]>) -> Outcome<()> {
    let failed = |error: std::io::Error| {
        Failure::build("cannot prepare the machine's run directory")
            .because(error)
            .fact("path", run_dir.display())
    };
    let mode = run_dir.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Failure::build("the machine's run directory is open to others")
            .fact("path", run_dir.display())
            .fact("mode", format!("{:o}, needed 700", mode & 0o7777)));
    }
    for socket in [QMP_SOCKET, VNC_SOCKET] {
        match std::fs::remove_file(run_dir.join(socket)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(error));
            }
            _ => {}
        }
    }
    match variables {
        Some(variables) => std::fs::write(run_dir.join(VARIABLES), variables).map_err(failed),
        None => Ok(()),
    }
}

/// What a monitor said that failed to start.
pub(crate) async fn words_after(process: &Process, error: &QmpError) -> String {
    if matches!(error, QmpError::Closed(_)) {
        // It is ending by itself; its last words come with its end.
        let _ = timeout_at(Instant::now() + ENDING, process.end().wait()).await;
    }
    process.last_words().text()
}

/// Connects to a monitor as soon as it listens, which takes at most as long as said; ends early when
/// it does.
pub(crate) async fn shake_hands(
    run_dir: &Path,
    process: &Process,
    starting: Duration,
) -> Result<(Qmp, mpsc::Receiver<QmpEvent>), QmpError> {
    let socket = run_dir.join(QMP_SOCKET);
    let deadline = Instant::now() + starting;
    let mut end = process.end();
    let mut ticks = interval(TRYING);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let connect = async {
        loop {
            ticks.tick().await;
            if socket.exists() {
                match Qmp::connect(&socket, STARTING).await {
                    // Bound but not yet listening, or gone again with the process.
                    Err(QmpError::Closed(_)) => {}
                    answer => return answer,
                }
            }
        }
    };
    tokio::select! {
        answer = timeout_at(deadline, connect) => answer.unwrap_or_else(|_| {
            Err(QmpError::Silent { command: "connect".into(), after: starting })
        }),
        _ = end.wait() => Err(QmpError::Closed("the monitor ended".into())),
    }
}
