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

use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

pub(crate) use machine::{ChildMachine, Parts};
pub(crate) use process::{Process, on_path};
pub(crate) use qmp::{Qmp, QmpError, QmpEvent};

/// The control socket in the run directory.
pub(crate) const QMP_SOCKET: &str = "qmp.sock";
/// The screen's socket in the run directory.
pub(crate) const VNC_SOCKET: &str = "vnc.sock";
/// Written by the monitor into the run directory; its path is an argument of the monitor.
pub(crate) const PID_FILE: &str = "monitor.pid";
/// Name of the disk.
pub(crate) const DISK_ID: &str = "disk0";
/// Name of the CD drive.
pub(crate) const CDROM_ID: &str = "cdrom";

/// From exec to an answering control channel. A tenth of a second on an idle host.
pub(crate) const STARTING: Duration = Duration::from_secs(30);
/// How often the control channel is tried meanwhile.
const TRYING: Duration = Duration::from_millis(5);

/// Connects to a monitor as soon as it listens; ends early when it does.
pub(crate) async fn shake_hands(
    run_dir: &Path,
    process: &Process,
) -> Result<(Qmp, mpsc::Receiver<QmpEvent>), QmpError> {
    let socket = run_dir.join(QMP_SOCKET);
    let deadline = Instant::now() + STARTING;
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
            Err(QmpError::Silent { command: "connect".into(), after: STARTING })
        }),
        _ = end.wait() => Err(QmpError::Closed("the monitor ended".into())),
    }
}
