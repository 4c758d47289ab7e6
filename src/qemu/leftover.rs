// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Ends a QEMU whose build was killed.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::time::{Instant, interval};

use super::argv::{PID_FILE, QMP_SOCKET};
use super::qmp::Qmp;
use crate::ui::{Failure, Outcome};

const ANSWERING: Duration = Duration::from_secs(2);
const GOING: Duration = Duration::from_secs(5);

/// Ends the QEMU that an earlier, killed build left running in `run_dir`; says whether there was
/// one. To be called only for a run directory whose build is gone. The process is known by its
/// control socket in that directory, so no other process is ever touched; one that no longer
/// answers there is killed by its process id, when `/proc` confirms that it is the same.
///
/// # Errors
/// It is there and cannot be ended.
pub async fn end_leftover(run_dir: &Path) -> Outcome<bool> {
    let process = leftover_process(run_dir);
    let mut found = false;
    if let Ok((qmp, _events)) = Qmp::connect(&run_dir.join(QMP_SOCKET), ANSWERING).await {
        found = true;
        // It may be gone before it answers.
        let _ = qmp.execute("quit", Value::Null, ANSWERING).await;
        if gone(run_dir, process, ANSWERING).await {
            return Ok(true);
        }
    }
    if let Some(pid) = process.filter(|_| leftover_process(run_dir) == process) {
        // It fails only when the process is gone, or not ours; both show below.
        let _ = kill(pid, Signal::SIGKILL);
        found = true;
    }
    if !found || gone(run_dir, process, GOING).await {
        return Ok(found);
    }
    let failure = Failure::build("a QEMU of an earlier build cannot be ended")
        .fact("path", run_dir.display());
    Err(match process {
        Some(pid) => failure.fact("pid", pid).hint(format!("end it with `kill -9 {pid}`")),
        None => failure,
    })
}

/// The process that the pid file names, when its command line names the pid file.
fn leftover_process(run_dir: &Path) -> Option<Pid> {
    let file = run_dir.join(PID_FILE);
    let pid: i32 = std::fs::read_to_string(&file).ok()?.trim().parse().ok()?;
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let wanted = file.to_str()?.replace(',', ",,");
    let named = command.split(|&byte| byte == 0).any(|word| word == wanted.as_bytes());
    (pid > 1 && named).then(|| Pid::from_raw(pid))
}

/// Waits until neither the process nor anyone at its socket is there.
async fn gone(run_dir: &Path, process: Option<Pid>, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    let mut ticks = interval(Duration::from_millis(10));
    loop {
        ticks.tick().await;
        let runs = process.is_some() && leftover_process(run_dir) == process;
        let socket = run_dir.join(QMP_SOCKET);
        let answers = tokio::net::UnixStream::connect(&socket).await.is_ok();
        if !runs && !answers {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
    }
}
