// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A zone whose kernel the model plays, and the real program in it.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use imgforge::build::{Journal, StateDirs};
use imgforge::vm::firmware::rom::{Profile, Rom};
use serde_json::{Value, json};

use super::code::Code;
use super::firmware;

/// Longest time for whatever is waited for.
const DEADLINE: Duration = Duration::from_secs(60);
pub const MAC: [u8; 6] = [2, 8, 0x20, 1, 2, 3];

/// A zone.
pub struct Zone {
    dir: tempfile::TempDir,
    version: u32,
    pub viona: u32,
    faults: String,
    /// Where the kernel's state is.
    kernel: PathBuf,
    pub cpus: u32,
    /// The link of the guest's network interface.
    pub link: Option<&'static str>,
    /// Names of machines begin so.
    pub stem: String,
}

/// Whether guests can run here. In CI they must.
pub fn has_kvm(test: &str) -> bool {
    if File::options().read(true).write(true).open("/dev/kvm").is_ok() {
        return true;
    }
    let why = format!("{test}: /dev/kvm cannot be opened here");
    assert!(!matches!(std::env::var("CI").as_deref(), Ok("true" | "1")), "{why}");
    eprintln!("skipped: {why}");
    false
}

impl Zone {
    /// A zone on a kernel of this version, whose viona has that one.
    pub fn new(version: u32, viona: u32) -> Self {
        // Sockets live below it and must have short names.
        let dir = tempfile::Builder::new().prefix("if-").tempdir_in("/tmp").unwrap();
        fs::write(dir.path().join("disk"), vec![0; 1 << 20]).unwrap();
        let (kernel, faults) = (dir.path().join("zone"), String::new());
        let stem = "imgforge-0badcafe".into();
        Self { dir, version, viona, faults, kernel, cpus: 1, link: None, stem }
    }

    /// The same zone, for another build in it.
    pub fn beside(other: &Self) -> Self {
        let kernel = other.kernel.clone();
        Self { kernel, ..Self::new(other.version, other.viona) }
    }

    /// Has the kernel do this, as the model's `fault` reads it.
    pub fn fault(&mut self, faults: &str) {
        self.faults = faults.to_owned();
    }

    /// A place in the zone's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What a file there says; nothing when it is not there.
    pub fn text(&self, name: &str) -> String {
        let bytes = fs::read(self.path(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Puts a guest into the zone.
    pub fn install(&self, program: &Code, handlers: &[(u8, Code)]) {
        let firmware = self.path("firmware");
        fs::write(&firmware, firmware::image(program, handlers)).unwrap();
        // As a build does it: the variables are a file of the machine's own.
        let rom = Rom::open(&firmware, Some(Profile::Bhyve), None).unwrap();
        fs::write(self.path("variables"), &rom.variables).unwrap();
    }

    /// A program in the zone.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mac: Vec<String> = MAC.iter().map(|byte| format!("{byte:x}")).collect();
        let wire = self.path("wire");
        let links = format!("vm0,7,{},unix:{}", mac.join(":"), wire.display());
        let mut command = Command::new(program.as_ref());
        command
            .env("LD_PRELOAD", model())
            .env("VMM_MODEL_STATE", &self.kernel)
            .env("VMM_MODEL_LOG", self.path("calls"))
            .env("VMM_MODEL_VERSION", self.version.to_string())
            .env("VMM_MODEL_VIONA", self.viona.to_string())
            .env("VMM_MODEL_LINKS", links)
            .env("VMM_MODEL_FAULTS", &self.faults)
            .env("VMM_MODEL_UID", "0")
            .env("IMGFORGE_STATE_DIR", self.path("state"))
            .env("IMGFORGE_RUN_DIR", self.path("run"))
            .env("IMGFORGE_CACHE_DIR", self.path("cache"))
            .env("NO_COLOR", "1");
        command
    }

    /// The machines that the zone's kernel has.
    pub fn machines(&self) -> Vec<String> {
        let mut list = self.command("ls");
        let output = list.env_remove("VMM_MODEL_FAULTS").arg("/dev/vmm").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// What a build tells its monitor.
    fn configuration(&self) -> Value {
        let place = |name: &str| self.path(name);
        json!({
            "name": "guest", "hypervisor": "bhyve", "kernel_name": self.stem,
            "cpus": self.cpus, "memory_mib": 256,
            "firmware": place("firmware"), "profile": "bhyve", "variables": place("variables"),
            "disk": place("disk"), "scratch_disk": true, "cdrom": null,
            "serial_log": place("serial"), "log": place("log"), "network": null,
            "link": self.link.map(|name| json!({ "name": name, "mtu": 1500 })),
            "mac": MAC, "control": place("control"), "vnc": place("vnc"),
            "stop_at_reset": false, "smartos": false,
        })
    }

    /// Starts a monitor.
    pub fn start(&self) -> Monitor<'_> {
        for name in ["control", "vnc"] {
            let _ = fs::remove_file(self.path(name));
        }
        let mut command = self.command(env!("CARGO_BIN_EXE_imgforge"));
        command.args(["vmm", "--pid-file"]).arg(self.path("pid"));
        command.stdin(Stdio::piped()).stderr(File::create(self.path("stderr")).unwrap());
        let mut child = command.spawn().unwrap();
        let told = serde_json::to_vec(&self.configuration()).unwrap();
        child.stdin.take().unwrap().write_all(&told).unwrap();
        Monitor { zone: self, child, lines: None, events: Vec::new() }
    }

    /// Starts a monitor whose guest runs, and has said something.
    pub fn start_until(&self, text: &str) -> Monitor<'_> {
        let mut monitor = self.start();
        monitor.begin();
        monitor.hears(text);
        monitor
    }

    /// Starts a monitor whose guest runs to its end.
    pub fn run(&self) -> Ended {
        let mut monitor = self.start();
        monitor.begin();
        monitor.end()
    }

    /// Waits until the kernel has come to something, as its log says.
    pub fn wait_for_call(&self, text: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !self.text("calls").contains(text) {
            assert!(Instant::now() < deadline, "no {text}\n{}", self.story());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// `imgforge clean`; what it said.
    pub fn clean(&self, words: &[&str]) -> String {
        let mut clean = self.command(env!("CARGO_BIN_EXE_imgforge"));
        clean.env_remove("VMM_MODEL_FAULTS").arg("clean").args(words);
        let output = clean.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A build that has died and left its journal, whose machines are this zone's.
    pub fn leave_journal(&mut self) {
        let dirs = StateDirs::at(self.path("state"), self.path("run"));
        let journal = Journal::create(&dirs, "departed").unwrap();
        journal.will_make_machine().unwrap();
        self.stem = journal.machine_name();
    }

    /// Everything that may explain a failure.
    pub fn story(&self) -> String {
        let tail = |name: &str| {
            let text = self.text(name);
            let lines: Vec<&str> = text.lines().collect();
            let first = lines.len().saturating_sub(30);
            format!("---- {name}\n{}\n", lines[first..].join("\n"))
        };
        let version = format!("version {}, viona {}\n", self.version, self.viona);
        version + &["stderr", "serial", "log", "calls"].map(tail).concat()
    }
}

/// A running monitor. Dropping it kills it.
pub struct Monitor<'a> {
    zone: &'a Zone,
    pub child: Child,
    lines: Option<(UnixStream, Receiver<Value>)>,
    events: Vec<Value>,
}

/// How a monitor ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stderr: String,
    pub serial: String,
    /// The events of its control socket.
    pub events: Vec<Value>,
}

impl Monitor<'_> {
    /// Connects to the control socket, unless the monitor ends before there is one.
    pub fn connect(&mut self) -> bool {
        let deadline = Instant::now() + DEADLINE;
        let stream = loop {
            if let Ok(stream) = UnixStream::connect(self.zone.path("control")) {
                break stream;
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            self.judge(Instant::now() < deadline, "no control socket");
            std::thread::sleep(Duration::from_millis(2));
        };
        let (sender, receiver) = channel();
        let reader = BufReader::new(stream.try_clone().unwrap());
        std::thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                let Ok(value) = serde_json::from_str(&line) else { return };
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        self.lines = Some((stream, receiver));
        self.ask("qmp_capabilities");
        true
    }

    /// Lets the guest run.
    pub fn begin(&mut self) {
        if self.connect() {
            self.ask("cont");
        }
    }

    /// Gives a command, without waiting for the answer.
    pub fn ask(&self, command: &str) {
        let Some((stream, _)) = &self.lines else { return };
        let line = json!({ "execute": command });
        let _ = (&*stream).write_all(format!("{line}\n").as_bytes());
    }

    /// Waits for the next line of the socket; none when it is closed.
    fn line(&self, deadline: Instant) -> Option<Value> {
        let (_, lines) = self.lines.as_ref()?;
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                self.judge(false, "the monitor says nothing");
                None
            }
        }
    }

    /// Waits until the guest has said something.
    pub fn hears(&mut self, text: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !self.zone.text("serial").contains(text) {
            let is_there = self.child.try_wait().unwrap().is_none();
            self.judge(is_there && Instant::now() < deadline, &format!("never heard {text:?}"));
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for the monitor's end.
    pub fn end(mut self) -> Ended {
        let deadline = Instant::now() + DEADLINE;
        while let Some(line) = self.line(deadline) {
            if line.get("event").is_some() {
                let is_last = line["event"] == "GUEST_PANICKED";
                self.events.push(line);
                // A crashed guest can still be looked at.
                if is_last {
                    self.ask("quit");
                }
            }
        }
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            self.judge(Instant::now() < deadline, "the monitor does not end");
            std::thread::sleep(Duration::from_millis(2));
        };
        Ended {
            code: status.code(),
            stderr: self.zone.text("stderr"),
            serial: self.zone.text("serial"),
            events: std::mem::take(&mut self.events),
        }
    }

    /// Ends it at once, as the system does when it needs its memory.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    #[track_caller]
    fn judge(&self, is_well: bool, what: &str) {
        assert!(is_well, "{what}\n{}", self.zone.story());
    }
}

impl Drop for Monitor<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// Names and reasons of the events.
    pub fn told(&self) -> Vec<String> {
        let word = |event: &Value| {
            let reason = &event["data"]["reason"];
            let reason = if reason.is_null() { &event["data"]["info"]["type"] } else { reason };
            let name = event["event"].as_str().unwrap_or_default();
            format!("{name} {}", reason.as_str().unwrap_or_default())
        };
        self.events.iter().map(word).collect()
    }
}

/// The model, which cargo has put beside the test.
fn model() -> PathBuf {
    let library = std::env::current_exe().unwrap().with_file_name("libvmm_model.so");
    assert!(library.exists(), "cargo builds {} before the tests", library.display());
    library
}
