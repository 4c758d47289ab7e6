// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::os::unix::net::UnixStream;

use super::*;

#[derive(Default)]
struct Machine(Mutex<Vec<String>>);

impl Machine {
    fn note(&self, what: &str) {
        self.0.lock().unwrap().push(what.to_owned());
    }
}

impl Controls for Machine {
    fn begin(&self) {
        self.note("begin");
    }

    fn drives(&self) -> Vec<(&'static str, Moved)> {
        vec![("disk0", Moved { read: 5, written: 7 })]
    }

    fn eject(&self, drive: &str) -> Result<(), String> {
        self.note("eject");
        if drive == "cdrom" { Ok(()) } else { Err(format!("no drive {drive}")) }
    }

    fn power_button(&self) {
        self.note("button");
    }

    fn reset(&self) {
        self.note("reset");
    }

    fn quit(&self) {
        self.note("quit");
    }

    fn screenshot(&self, file: &Path) -> Result<(), String> {
        self.note(&file.display().to_string());
        Ok(())
    }

    fn status(&self) -> &'static str {
        "running"
    }
}

struct World {
    machine: Arc<Machine>,
    socket: ControlSocket,
    path: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qmp.sock");
    let machine = Arc::new(Machine::default());
    let controls: Arc<dyn Controls> = machine.clone();
    let socket = ControlSocket::listen(&path, controls).unwrap();
    World { machine, socket, path, _dir: dir }
}

struct Client(BufReader<UnixStream>);

impl Client {
    fn connect(world: &World) -> Self {
        let stream = UnixStream::connect(&world.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut client = Self(BufReader::new(stream));
        assert!(client.line()["QMP"].is_object());
        client
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or(Value::Null)
    }

    fn ask(&mut self, command: &Value) -> Value {
        writeln!(self.0.get_mut(), "{command}").unwrap();
        self.line()
    }
}

#[test]
fn commands_reach_the_machine_and_answers_carry_their_ids() {
    let world = world();
    let mut client = Client::connect(&world);
    let answer = client.ask(&json!({ "execute": "qmp_capabilities", "id": 1 }));
    assert_eq!(answer, json!({ "return": {}, "id": 1 }));
    client.ask(&json!({ "execute": "cont" }));
    client.ask(&json!({ "execute": "system_powerdown" }));
    let answer = client.ask(&json!({ "execute": "query-status" }));
    assert_eq!(answer["return"], json!({ "status": "running", "running": true }));
    let answer = client.ask(&json!({ "execute": "query-blockstats" }));
    assert_eq!(answer["return"][0]["stats"]["wr_bytes"], 7);
    let answer = client.ask(&json!({ "execute": "eject", "arguments": { "id": "cdrom" } }));
    assert_eq!(answer["return"], json!({}));
    let answer = client.ask(&json!({ "execute": "eject", "arguments": { "id": "b" }, "id": "x" }));
    assert_eq!((&answer["error"]["desc"], &answer["id"]), (&json!("no drive b"), &json!("x")));
    let answer = client.ask(&json!({ "execute": "device_add" }));
    assert_eq!(answer["error"]["class"], "CommandNotFound");
    client.ask(&json!({ "execute": "quit" }));
    assert_eq!(client.line(), Value::Null, "the connection is closed");
    let seen = world.machine.0.lock().unwrap().join(" ");
    assert_eq!(seen, "begin button eject eject quit");
}

#[test]
fn all_clients_hear_events_and_those_who_left_are_forgotten() {
    let world = world();
    let (mut first, mut second) = (Client::connect(&world), Client::connect(&world));
    // An answer shows that the client is in the list.
    first.ask(&json!({ "execute": "qmp_capabilities" }));
    second.ask(&json!({ "execute": "qmp_capabilities" }));
    world.socket.tell("RESET", &json!({ "guest": true }));
    assert_eq!(first.line()["event"], "RESET");
    assert_eq!(second.line()["data"]["guest"], true);
    drop(first);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while world.socket.clients.lock().unwrap().len() > 1 {
        world.socket.tell("STOP", &Value::Null);
        assert!(std::time::Instant::now() < deadline, "a client that left is still there");
    }
}

#[test]
fn a_client_that_never_reads_is_let_go_and_the_others_hear_everything() {
    let world = world();
    let (mut deaf, mut good) = (Client::connect(&world), Client::connect(&world));
    deaf.ask(&json!({ "execute": "qmp_capabilities" }));
    good.ask(&json!({ "execute": "qmp_capabilities" }));
    let data = json!("x".repeat(64 << 10));
    while world.socket.clients.lock().unwrap().len() > 1 {
        world.socket.tell("NOTE", &data);
        assert_eq!(good.line()["event"], "NOTE");
    }
    assert_eq!(good.ask(&json!({ "execute": "qmp_capabilities" })), json!({ "return": {} }));
}

#[test]
fn nonsense_ends_the_connection_and_nothing_else() {
    let world = world();
    for nonsense in [&b"{\n"[..], b"\xff\xfe\n", &[b'a'; 70_000]] {
        let mut client = Client::connect(&world);
        // The other side may close before it has read everything.
        let _ = client.0.get_mut().write_all(nonsense);
        assert!(client.line()["error"].is_object() || client.line().is_null());
    }
    assert_eq!(Client::connect(&world).ask(&json!([1]))["error"]["class"], "CommandNotFound");
    assert!(world.machine.0.lock().unwrap().is_empty());
}
