// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! One running QEMU as a [`Machine`].

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

use super::argv::{CDROM_ID, DISK_ID};
use super::process::{End, Killer, LastWords, Process};
use super::qmp::{Qmp, QmpError, QmpEvent};
use crate::ui::{Failure, Outcome};
use crate::vm::{Exit, Machine, MachineEvent, MachineStats, VncEndpoint};

/// Longest time for a command; they take milliseconds on an idle host.
const ANSWERING: Duration = Duration::from_secs(20);
/// From QEMU's farewell to the end of the process; it may still write back a disk.
const LEAVING: Duration = Duration::from_secs(120);
/// From the loss of the control channel to the end of the process.
const HANGING_UP: Duration = Duration::from_secs(10);
/// How long `quit` may take before SIGKILL.
const QUITTING: Duration = Duration::from_secs(3);
/// Events kept for a build that does not ask for them; the oldest go first.
const EVENTS_KEPT: usize = 1024;

/// What the driver hands over.
pub(super) struct Parts {
    pub(super) process: Process,
    pub(super) qmp: Qmp,
    pub(super) events: mpsc::Receiver<QmpEvent>,
    pub(super) ports: BTreeMap<u16, SocketAddr>,
    pub(super) vnc: PathBuf,
    pub(super) disk: PathBuf,
    pub(super) has_cdrom: bool,
}

/// A machine that QEMU runs. After a guest's panic QEMU stays, paused, so that the screen can
/// still be read, until `wait_exit`, `kill` or drop.
pub(super) struct QemuMachine {
    process: Process,
    qmp: Qmp,
    ports: BTreeMap<u16, SocketAddr>,
    vnc: PathBuf,
    disk: PathBuf,
    has_cdrom: bool,
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

impl QemuMachine {
    pub(super) fn new(parts: Parts) -> Self {
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
            if closed && !words.is_empty() { failure.fact("qemu", words) } else { failure }
        })
    }

    async fn gone_within(&self, patience: Duration) -> bool {
        let mut end = self.process.end();
        timeout(patience, end.wait()).await.is_ok()
    }
}

impl Drop for QemuMachine {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

#[async_trait]
impl Machine for QemuMachine {
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
        let exit = exit.unwrap_or_else(|| Exit::Failed("nobody watches QEMU any more".to_owned()));
        if matches!(exit, Exit::Panicked(_)) {
            self.process.kill();
        }
        if !self.gone_within(LEAVING).await {
            return Err(Failure::build("QEMU does not end").fact("pid", self.process.pid()));
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

    async fn kill(&self) -> Outcome<()> {
        self.shared.killing.store(true, Ordering::SeqCst);
        if !self.process.has_ended() {
            // What it answers does not matter: SIGKILL follows.
            let _ = self.qmp.execute("quit", Value::Null, QUITTING).await;
        }
        if !self.gone_within(QUITTING).await {
            self.process.kill();
            if !self.gone_within(QUITTING).await {
                return Err(Failure::build("QEMU does not end, even when killed")
                    .fact("pid", self.process.pid()));
            }
        }
        let mut known = self.exit.clone();
        // The watcher hears of it within milliseconds.
        let _ = timeout(QUITTING, known.wait_for(Option::is_some)).await;
        Ok(())
    }
}

/// Makes events of QEMU's and decides how the run ended.
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
        // What QEMU said before it ended may still be in the socket.
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
            Some("host-signal") => Exit::Failed("QEMU was ended by a signal from outside".into()),
            Some("host-qmp-quit") => Exit::Failed("QEMU was told to quit from outside".into()),
            Some(reason) => Exit::Failed(format!("QEMU ended: {reason}")),
            None => Exit::Failed(last_words(&self.words, status)),
        }
    }
}

fn last_words(words: &LastWords, status: Option<ExitStatus>) -> String {
    let status = status.map_or_else(|| "status unknown".to_owned(), |status| status.to_string());
    let text = words.text();
    if text.is_empty() { format!("QEMU ended ({status})") } else { format!("{text} ({status})") }
}

fn panic_text(data: &Value) -> String {
    let detail = data.get("info").and_then(|info| info.get("type")).and_then(Value::as_str);
    match detail {
        Some(kind) => format!("the guest panicked ({kind})"),
        None => "the guest panicked".to_owned(),
    }
}

/// Bytes read from disk and CD, and written to the disk.
fn block_counters(answer: &Value) -> (u64, u64) {
    let mut sums = (0u64, 0u64);
    for device in answer.as_array().map(Vec::as_slice).unwrap_or_default() {
        // A device is named by its id, or by a path that holds it.
        let owner = device.get("qdev").and_then(Value::as_str).unwrap_or_default();
        let disk = owner.split('/').any(|part| part == DISK_ID);
        let cdrom = owner.split('/').any(|part| part == CDROM_ID);
        let count = |key: &str| {
            device.get("stats").and_then(|s| s.get(key)).and_then(Value::as_u64).unwrap_or_default()
        };
        if disk || cdrom {
            sums.0 = sums.0.saturating_add(count("rd_bytes"));
        }
        if disk {
            sums.1 = sums.1.saturating_add(count("wr_bytes"));
        }
    }
    sums
}

/// Processor time and peak memory of a process from Linux's `/proc`; zero where there is none.
fn process_counters(pid: u32) -> (Duration, u64) {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}"));
    (
        read("stat").ok().and_then(|text| cpu_time(&text)).unwrap_or_default(),
        read("status").ok().and_then(|text| peak_rss(&text)).unwrap_or_default(),
    )
}

/// User and system time in `/proc/PID/stat`: fields 14 and 15, in hundredths of a second (`USER_HZ`
/// on every architecture here); the name in field 2 may hold blanks and parentheses.
fn cpu_time(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis(user.checked_add(system)?.checked_mul(10)?))
}

fn peak_rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
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
    use super::*;

    #[test]
    fn counters_come_from_the_disk_and_the_cd() {
        let device = |qdev: &str, read: u64, written: u64| json!({"qdev": qdev, "stats": {"rd_bytes": read, "wr_bytes": written}});
        let answer = json!([
            device("/machine/system.flash1", 1000, 1000),
            device("/machine/peripheral/disk0/virtio-backend", 5, 7),
            device("cdrom", 11, 0),
        ]);
        assert_eq!(block_counters(&answer), (16, 7));
        assert_eq!(block_counters(&json!("?")), (0, 0));
        assert_eq!(block_counters(&json!([null, {"qdev": 1}, {"qdev": "cdrom"}])), (0, 0));
    }

    #[test]
    fn process_counters_survive_odd_names() {
        let stat = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0";
        assert_eq!(cpu_time(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu_time("12 (x"), None);
        assert_eq!(peak_rss("VmPeak:\t 1 kB\nVmHWM:\t  2048 kB\n"), Some(2 << 20));
        assert_eq!(peak_rss(""), None);
        assert_eq!(process_counters(u32::MAX), (Duration::ZERO, 0));
    }
}
