// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The monitor's control socket. It speaks QMP, QEMU's machine protocol (QEMU's
//! `docs/interop/qmp-spec`), as far as a build needs it: whoever drives QEMU drives this monitor,
//! the build's own driver first of all.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::ui::{Failure, Outcome};
use crate::vm::stream::Stream;

/// Longest command; they have some hundred bytes.
const LONGEST: u64 = 64 << 10;
/// Clients at a time, the build's driver and people with tools.
const CLIENTS: usize = 8;
/// How long a client may take to read what it is sent.
const READING: Duration = Duration::from_secs(2);

/// Bytes that a drive has moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// To the guest.
    pub read: u64,
    /// From the guest.
    pub written: u64,
}

/// What the control socket may ask of the machine. Called from the socket's threads.
pub trait Controls: Send + Sync {
    /// Lets the guest run for the first time.
    fn begin(&self);
    /// Drives by name.
    fn drives(&self) -> Vec<(&'static str, Moved)>;
    /// Takes the medium out of the CD drive; says what is wrong when there is none.
    fn eject(&self, drive: &str) -> Result<(), String>;
    /// Presses the ACPI power button.
    fn power_button(&self);
    /// Pulls the reset line.
    fn reset(&self);
    /// Ends the run and the monitor.
    fn quit(&self);
    /// Writes what the screen shows to a PNG file.
    fn screenshot(&self, file: &Path) -> Result<(), String>;
    /// `prelaunch`, `running` or `guest-panicked`.
    fn status(&self) -> &'static str;
}

/// The listening socket and its clients. Cheap to clone.
#[derive(Clone)]
pub struct ControlSocket {
    /// By number, for events.
    clients: Arc<Mutex<Clients>>,
}

type Clients = BTreeMap<u64, Arc<Stream>>;

impl ControlSocket {
    /// Listens at `path`, which only this user may reach, and serves in threads until the process
    /// ends.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn listen(path: &Path, controls: Arc<dyn Controls>) -> Outcome<Self> {
        let failed = |error: io::Error| {
            Failure::build("cannot make the control socket")
                .because(error)
                .fact("path", path.display())
        };
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let socket = Self { clients: Arc::default() };
        let serving = socket.clone();
        std::thread::Builder::new()
            .name("control".into())
            .spawn(move || serving.accept(&listener, &controls))
            .map_err(failed)?;
        Ok(socket)
    }

    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self, listener: &UnixListener, controls: &Arc<dyn Controls>) {
        for (number, client) in (0..).zip(listener.incoming().flatten()) {
            let Ok(client) = Stream::unix(client).map(Arc::new) else { continue };
            let events = Arc::clone(&client);
            let mut clients = self.clients();
            if clients.len() == CLIENTS {
                continue;
            }
            let controls = Arc::clone(controls);
            let all = self.clone();
            let served =
                std::thread::Builder::new().name("control-client".into()).spawn(move || {
                    // A client that is gone or talks nonsense is let go.
                    let _ = serve(&client, controls.as_ref());
                    client.close();
                    all.clients().remove(&number);
                });
            if served.is_ok() {
                clients.insert(number, events);
            }
        }
    }

    /// Tells every client of an event. One that does not read is let go.
    pub fn tell(&self, event: &str, data: &Value) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp = json!({
            "seconds": since.as_secs(),
            "microseconds": since.subsec_micros(),
        });
        let event = json!({ "event": event, "data": data, "timestamp": timestamp });
        self.clients().retain(|_, client| {
            let sent = send(client, &event);
            if sent.is_err() {
                client.close();
            }
            sent.is_ok()
        });
    }
}

fn serve(client: &Stream, controls: &dyn Controls) -> io::Result<()> {
    let version = json!({ "imgforge": env!("CARGO_PKG_VERSION") });
    send(client, &json!({ "QMP": { "version": version, "capabilities": [] } }))?;
    let mut reader = BufReader::new(client);
    loop {
        let mut line = Vec::new();
        if reader.by_ref().take(LONGEST).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let Ok(command) = serde_json::from_slice::<Value>(&line) else {
            send(client, &refusal("GenericError", "no JSON object in one line", &Value::Null))?;
            return Ok(());
        };
        let (answer, ends) = execute(&command, controls);
        send(client, &answer)?;
        if ends {
            controls.quit();
            return Ok(());
        }
    }
}

fn send(client: &Stream, value: &Value) -> io::Result<()> {
    client.send(format!("{value}\r\n").as_bytes(), READING)
}

fn refusal(class: &str, why: &str, id: &Value) -> Value {
    let mut answer = json!({ "error": { "class": class, "desc": why } });
    if !id.is_null() {
        answer["id"] = id.clone();
    }
    answer
}

/// Does what a command says; true when it ends the monitor.
fn execute(command: &Value, controls: &dyn Controls) -> (Value, bool) {
    let (id, arguments) = (&command["id"], &command["arguments"]);
    let name = command["execute"].as_str().unwrap_or_default();
    let text = |key: &str| arguments[key].as_str().unwrap_or_default();
    let result = match name {
        "qmp_capabilities" => Ok(json!({})),
        "cont" => {
            controls.begin();
            Ok(json!({}))
        }
        "query-status" => {
            let status = controls.status();
            Ok(json!({ "status": status, "running": status == "running" }))
        }
        "query-blockstats" => Ok(block_stats(controls)),
        "eject" => controls.eject(text("id")).map(|()| json!({})),
        "system_powerdown" => {
            controls.power_button();
            Ok(json!({}))
        }
        "system_reset" => {
            controls.reset();
            Ok(json!({}))
        }
        "screendump" => controls.screenshot(Path::new(text("filename"))).map(|()| json!({})),
        "quit" => Ok(json!({})),
        _ => {
            let why = format!("the command {name:?} is not known");
            return (refusal("CommandNotFound", &why, id), false);
        }
    };
    match result {
        Ok(value) => {
            let mut answer = json!({ "return": value });
            if !id.is_null() {
                answer["id"] = id.clone();
            }
            (answer, name == "quit")
        }
        Err(why) => (refusal("GenericError", &why, id), false),
    }
}

fn block_stats(controls: &dyn Controls) -> Value {
    let drive = |(name, moved): &(&str, Moved)| {
        json!({
            "qdev": name,
            "stats": { "rd_bytes": moved.read, "wr_bytes": moved.written },
        })
    };
    controls.drives().iter().map(drive).collect()
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
