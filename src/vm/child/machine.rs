// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! One running monitor as a [`Machine`].

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::CDROM_ID;
use super::counters::{block_counters, process_counters};
use super::process::{End, Killer, LastWords, Process};
use super::qmp::{Qmp, QmpError, QmpEvent};
use crate::ui::{Failure, Outcome};
use crate::vm::{Exit, Machine, MachineEvent, MachineStats, VncEndpoint};

/// Longest time for a command; they take milliseconds on an idle host.
const ANSWERING: Duration = Duration::from_secs(20);
/// From the monitor's farewell to the end of the process; it may still write back a disk.
const LEAVING: Duration = Duration::from_secs(120);
/// From the loss of the control channel to the end of the process.
const HANGING_UP: Duration = Duration::from_secs(10);
/// How long `quit` may take before SIGKILL.
const QUITTING: Duration = Duration::from_secs(3);
/// Events kept for a build that does not ask for them; the oldest go first.
const EVENTS_KEPT: usize = 1024;

/// What the driver hands over.
pub(crate) struct Parts {
    pub(crate) process: Process,
    pub(crate) qmp: Qmp,
    pub(crate) events: mpsc::Receiver<QmpEvent>,
    pub(crate) ports: BTreeMap<u16, SocketAddr>,
    pub(crate) vnc: PathBuf,
    pub(crate) disk: PathBuf,
    pub(crate) has_cdrom: bool,
    /// Processes that the machine needs and that end with it.
    pub(crate) helpers: Vec<Process>,
}

/// A machine that another process runs. After a guest's panic QEMU stays, paused, so that the screen can
/// still be read, until `wait_exit`, `kill` or drop.
pub(crate) struct ChildMachine {
    process: Process,
    qmp: Qmp,
    ports: BTreeMap<u16, SocketAddr>,
    vnc: PathBuf,
    disk: PathBuf,
    has_cdrom: bool,
    helpers: Vec<Process>,
    shared: Arc<Shared>,
    exit: watch::Receiver<Option<Exit>>,
    watching: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<VecDeque<MachineEvent>>,
    arrived: Notify,
    /// We are ending the run.
    killing: AtomicBool,
    /// We, not the guest, opened the tray, which has not been closed since.
    ejecting: AtomicBool,
}

impl Shared {
    fn tell(&self, event: MachineEvent) {
        let mut queue = lock(&self.queue);
        if queue.len() == EVENTS_KEPT {
            queue.pop_front();
        }
        queue.push_back(event);
        drop(queue);
        self.arrived.notify_waiters();
    }
}

impl ChildMachine {
    pub(crate) fn new(parts: Parts) -> Self {
        let shared = Arc::new(Shared::default());
        let (sender, exit) = watch::channel(None);
        let watcher = Watcher {
            events: parts.events,
            end: parts.process.end(),
            killer: parts.process.killer(),
            words: parts.process.last_words(),
            shared: Arc::clone(&shared),
            exit: sender,
            farewell: None,
        };
        Self {
            process: parts.process,
            qmp: parts.qmp,
            ports: parts.ports,
            vnc: parts.vnc,
            disk: parts.disk,
            has_cdrom: parts.has_cdrom,
            helpers: parts.helpers,
            shared,
            exit,
            watching: tokio::spawn(watcher.run()),
        }
    }

    async fn command(&self, name: &str, arguments: Value, purpose: &str) -> Outcome<Value> {
        self.qmp.execute(name, arguments, ANSWERING).await.map_err(|error| {
            let failure = Failure::build(format!("cannot {purpose}"));
            let words = self.process.last_words().text();
            let closed = matches!(error, QmpError::Closed(_));
            let failure = failure.because(error);
            if closed && !words.is_empty() { failure.fact("monitor", words) } else { failure }
        })
    }

    async fn gone_within(&self, patience: Duration) -> bool {
        let mut end = self.process.end();
        timeout(patience, end.wait()).await.is_ok()
    }
}

impl Drop for ChildMachine {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

#[async_trait]
impl Machine for ChildMachine {
    fn pid(&self) -> u32 {
        self.process.pid()
    }

    fn vnc(&self) -> VncEndpoint {
        VncEndpoint::Unix(self.vnc.clone())
    }

    fn forwarded(&self, guest_port: u16) -> Option<SocketAddr> {
        self.ports.get(&guest_port).copied()
    }

    async fn next_event(&self) -> MachineEvent {
        loop {
            let arrived = self.shared.arrived.notified();
            tokio::pin!(arrived);
            // From here on no arrival is missed, whatever the looks below see.
            arrived.as_mut().enable();
            if let Some(event) = lock(&self.shared.queue).pop_front() {
                return event;
            }
            if let Some(exit) = self.exited() {
                return MachineEvent::Exited(exit);
            }
            arrived.await;
        }
    }

    fn exited(&self) -> Option<Exit> {
        self.exit.borrow().clone()
    }

    /// The sync is left out after [`Exit::Killed`] and [`Exit::Failed`]: nobody uses that disk.
    async fn wait_exit(&self) -> Outcome<Exit> {
        let mut known = self.exit.clone();
        let exit = match known.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone(),
            Err(_) => None,
        };
        let exit =
            exit.unwrap_or_else(|| Exit::Failed("nobody watches the monitor any more".to_owned()));
        if matches!(exit, Exit::Panicked(_)) {
            self.process.kill();
        }
        if !self.gone_within(LEAVING).await {
            return Err(Failure::build("the monitor does not end").fact("pid", self.process.pid()));
        }
        if !matches!(exit, Exit::Killed | Exit::Failed(_)) {
            sync(&self.disk).await?;
        }
        Ok(exit)
    }

    async fn eject(&self) -> Outcome<()> {
        if !self.has_cdrom {
            return Ok(());
        }
        self.shared.ejecting.store(true, Ordering::SeqCst);
        let arguments = json!({ "id": CDROM_ID, "force": true });
        self.command("eject", arguments, "take the medium out of the CD drive").await.map(drop)
    }

    async fn power_button(&self) -> Outcome<()> {
        self.command("system_powerdown", Value::Null, "press the power button").await.map(drop)
    }

    async fn stats(&self) -> Outcome<MachineStats> {
        let answer = self.command("query-blockstats", Value::Null, "read the counters").await?;
        let (read_bytes, written_bytes) = block_counters(&answer);
        let (cpu_time, peak_rss) = process_counters(self.process.pid());
        Ok(MachineStats { read_bytes, written_bytes, cpu_time, peak_rss })
    }

    fn detach(&self) {
        self.process.release();
        self.helpers.iter().for_each(Process::release);
    }

    async fn kill(&self) -> Outcome<()> {
        self.shared.killing.store(true, Ordering::SeqCst);
        if !self.process.has_ended() {
            // What it answers does not matter: SIGKILL follows.
            let _ = self.qmp.execute("quit", Value::Null, QUITTING).await;
        }
        if !self.gone_within(QUITTING).await {
            self.process.kill();
            if !self.gone_within(QUITTING).await {
                return Err(Failure::build("the monitor does not end, even when killed")
                    .fact("pid", self.process.pid()));
            }
        }
        let mut known = self.exit.clone();
        // The watcher hears of it within milliseconds.
        let _ = timeout(QUITTING, known.wait_for(Option::is_some)).await;
        Ok(())
    }
}

/// Makes events of the monitor's and decides how the run ended.
struct Watcher {
    events: mpsc::Receiver<QmpEvent>,
    end: End,
    killer: Killer,
    words: Arc<LastWords>,
    shared: Arc<Shared>,
    exit: watch::Sender<Option<Exit>>,
    /// The reason of the `SHUTDOWN` event.
    farewell: Option<String>,
}

impl Watcher {
    async fn run(mut self) {
        let status = loop {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.take(event),
                    None => break self.leave(HANGING_UP).await,
                },
                status = self.end.wait() => break status,
            }
            if self.farewell.is_some() {
                break self.leave(LEAVING).await;
            }
        };
        // What the monitor said before it ended may still be in the socket.
        while let Ok(Some(event)) = timeout(Duration::from_secs(2), self.events.recv()).await {
            self.take(event);
        }
        let exit = self.verdict(status);
        self.publish(exit);
    }

    /// Waits for the end that has been announced; a process that stays is killed.
    async fn leave(&mut self, patience: Duration) -> Option<ExitStatus> {
        if let Ok(status) = timeout(patience, self.end.wait()).await {
            return status;
        }
        self.killer.kill();
        self.end.wait().await
    }

    fn take(&mut self, (name, data): QmpEvent) {
        let says = |key: &str| data.get(key).and_then(Value::as_str).unwrap_or_default();
        match name.as_str() {
            "RESET" if says("reason") == "guest-reset" => self.shared.tell(MachineEvent::Reset),
            "DEVICE_TRAY_MOVED" if says("id") == CDROM_ID => {
                let open = data.get("tray-open").and_then(Value::as_bool).unwrap_or_default();
                // Our own eject is not the guest's doing; it counts until the tray closes.
                let ours = self.shared.ejecting.fetch_and(open, Ordering::SeqCst);
                if !(open && ours) {
                    self.shared.tell(MachineEvent::Tray { open });
                }
            }
            "GUEST_PANICKED" => {
                self.publish(Exit::Panicked(panic_text(&data)));
            }
            "SHUTDOWN" => self.farewell = Some(says("reason").to_owned()),
            _ => {}
        }
    }

    /// Says how the run ended, once.
    fn publish(&self, exit: Exit) {
        let first = self.exit.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(exit);
            }
            first
        });
        if first {
            self.shared.arrived.notify_waiters();
        }
    }

    fn verdict(&self, status: Option<ExitStatus>) -> Exit {
        let killing = self.shared.killing.load(Ordering::SeqCst);
        match self.farewell.as_deref() {
            Some("guest-shutdown") => Exit::PoweredOff,
            Some("guest-reset") => Exit::Reset,
            Some("guest-panic") => Exit::Panicked("the guest panicked".to_owned()),
            _ if killing => Exit::Killed,
            Some("host-signal") => {
                Exit::Failed("the monitor was ended by a signal from outside".into())
            }
            Some("host-qmp-quit") => {
                Exit::Failed("the monitor was told to quit from outside".into())
            }
            Some(reason) => Exit::Failed(format!("the monitor ended: {reason}")),
            None => Exit::Failed(last_words(&self.words, status)),
        }
    }
}

fn last_words(words: &LastWords, status: Option<ExitStatus>) -> String {
    let status = status.map_or_else(|| "status unknown".to_owned(), |status| status.to_string());
    let text = words.text();
    if text.is_empty() {
        format!("the monitor ended ({status})")
    } else {
        format!("{text} ({status})")
    }
}

fn panic_text(data: &Value) -> String {
    let info = data.get("info");
    let text = |key: &str| info.and_then(|info| info.get(key)).and_then(Value::as_str);
    let panicked = match text("type") {
        Some(kind) => format!("the guest panicked ({kind})"),
        None => "the guest panicked".to_owned(),
    };
    match text("registers") {
        Some(registers) => format!("{panicked}\n{registers}"),
        None => panicked,
    }
}

/// Makes the disk durable: the one sync after a run in which flushes completed at once.
async fn sync(disk: &Path) -> Outcome<()> {
    let path = disk.to_owned();
    let synced = tokio::task::spawn_blocking(move || {
        std::fs::OpenOptions::new().write(true).open(path)?.sync_all()
    });
    let failed = |failure: Failure| {
        failure.fact("file", disk.display()).hint("check the disk's file system with `df -h`")
    };
    match synced.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            Err(failed(Failure::build("the guest's disk could not be written out").because(error)))
        }
        Err(error) => {
            Err(failed(Failure::build("the guest's disk was not written out").because(error)))
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;

    async fn watched() -> (Watcher, Arc<Shared>, watch::Receiver<Option<Exit>>, Process) {
        let process = Process::spawn(Path::new("/bin/sleep"), &["1000".into()], None, Vec::new())
            .await
            .unwrap();
        let shared = Arc::new(Shared::default());
        let (sender, exit) = watch::channel(None);
        let (_, events) = mpsc::channel(1);
        let watcher = Watcher {
            events,
            end: process.end(),
            killer: process.killer(),
            words: process.last_words(),
            shared: Arc::clone(&shared),
            exit: sender,
            farewell: None,
        };
        (watcher, shared, exit, process)
    }

    fn tray(open: bool) -> QmpEvent {
        let data = json!({ "device": "", "id": CDROM_ID, "tray-open": open });
        ("DEVICE_TRAY_MOVED".to_owned(), data)
    }

    #[tokio::test]
    async fn the_guests_tray_is_told_and_our_own_eject_is_not() {
        let (mut watcher, shared, _exit, _process) = watched().await;
        watcher.take(tray(true));
        watcher.take(tray(false));
        shared.ejecting.store(true, Ordering::SeqCst);
        watcher.take(tray(true));
        watcher.take(tray(false));
        watcher.take(tray(true));
        watcher.take(("DEVICE_TRAY_MOVED".into(), json!({ "id": "other", "tray-open": true })));
        watcher.take(("DEVICE_TRAY_MOVED".into(), json!(null)));
        let told: Vec<_> = lock(&shared.queue).drain(..).collect();
        let expected = [true, false, false, true].map(|open| MachineEvent::Tray { open });
        assert_eq!(told, expected);
    }

    #[tokio::test]
    async fn unread_events_are_bounded() {
        let (mut watcher, shared, _exit, _process) = watched().await;
        for _ in 0..2 * EVENTS_KEPT {
            watcher.take(("RESET".into(), json!({ "guest": true, "reason": "guest-reset" })));
        }
        assert_eq!(lock(&shared.queue).len(), EVENTS_KEPT);
    }

    #[tokio::test]
    async fn a_monitor_that_says_farewell_but_stays_is_killed() {
        let (mut watcher, _shared, mut exit, process) = watched().await;
        watcher.take(("SHUTDOWN".into(), json!({ "guest": true, "reason": "guest-shutdown" })));
        let status = watcher.leave(Duration::from_millis(50)).await;
        assert!(process.has_ended());
        assert_eq!(watcher.verdict(status), Exit::PoweredOff);
        watcher.farewell = None;
        let Exit::Failed(text) = watcher.verdict(status) else { panic!("not failed") };
        assert!(text.contains("signal: 9"), "{text}");
        watcher.publish(Exit::Killed);
        watcher.publish(Exit::PoweredOff);
        assert_eq!(exit.wait_for(Option::is_some).await.unwrap().clone(), Some(Exit::Killed));
    }
}
