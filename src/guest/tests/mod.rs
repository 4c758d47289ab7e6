// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Tests against OpenSSH's own server.
//!
//! It runs as root on loopback in a mount namespace of its own, where `/run`, `/root`, the
//! shadow file and the boot id are private copies: the machine that runs the tests is the
//! "guest", and nothing of it is touched but what a test names by an absolute path.

mod ansible;
mod ansible_guest;
mod files;
mod login;
mod session;
mod shell;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::ui::{Events, Secret};

/// What the server is like.
pub(super) struct Setup {
    pub(super) port: u16,
    pub(super) authorized: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) host_key: BuildKey,
    pub(super) boot_id: &'static str,
    /// A root file system for the server and its commands instead of this machine's.
    pub(super) root: Option<std::path::PathBuf>,
}

impl Setup {
    pub(super) fn new() -> Self {
        Self {
            port: free_port(),
            authorized: None,
            password: None,
            host_key: BuildKey::generate("host").unwrap(),
            boot_id: "11111111-aaaa-4bbb-8ccc-000000000001",
            root: None,
        }
    }
}

/// A running server; dropping it ends it.
pub(super) struct Server {
    child: Child,
    pub(super) address: SocketAddr,
    _dir: TempDir,
}

pub(super) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

impl Server {
    pub(super) fn start(setup: &Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path();
        setup.host_key.write_private(&place.join("host")).unwrap();
        let authorized = setup.authorized.clone().unwrap_or_default();
        std::fs::write(place.join("authorized"), format!("{authorized}\n")).unwrap();
        std::fs::write(place.join("boot_id"), format!("{}\n", setup.boot_id)).unwrap();
        let hash = setup.password.as_ref().map_or("*".into(), |p| crypt_sha512(p).unwrap());
        std::fs::write(place.join("shadow"), format!("root:{hash}:19000:0:99999:7:::\n")).unwrap();
        let passwords = if setup.password.is_some() { "yes" } else { "no" };
        let config = format!(
            "Port {}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\n\
             PasswordAuthentication {passwords}\nKbdInteractiveAuthentication no\nUsePAM no\n\
             PermitRootLogin yes\nPermitUserEnvironment yes\nStrictModes no\nPidFile none\nUseDNS no\n\
             Subsystem sftp internal-sftp\n",
            setup.port,
            place.join("host").display(),
            place.join("authorized").display(),
        );
        std::fs::write(place.join("config"), config).unwrap();
        let child = match &setup.root {
            None => spawn(place),
            Some(root) => spawn_in(root, place),
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, setup.port));
        let mut server = Self { child, address, _dir: dir };
        server.until_up();
        server
    }

    fn until_up(&mut self) {
        let start = Instant::now();
        while std::net::TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait().unwrap() {
                let mut text = String::new();
                let mut log = self.child.stderr.take().unwrap();
                std::io::Read::read_to_string(&mut log, &mut text).unwrap();
                panic!("sshd (root and openssh-server are needed) ended with {status}: {text}");
            }
            assert!(start.elapsed() < Duration::from_secs(20), "sshd never listened");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn spawn(place: &Path) -> Child {
    let script = "set -e\n\
        mount -t tmpfs tmpfs /run && mkdir /run/sshd\n\
        mount -t tmpfs tmpfs /root\n\
        mount --bind \"$1/shadow\" /etc/shadow\n\
        mount --bind \"$1/boot_id\" /proc/sys/kernel/random/boot_id\n\
        cd / && exec /usr/sbin/sshd -D -e -f \"$1/config\"";
    Process::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(place)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The same inside another root, where the server's files are seen under the same path.
fn spawn_in(root: &Path, place: &Path) -> Child {
    let script = "set -e\n\
        mount -t proc proc \"$2/proc\"\n\
        mount --rbind /dev \"$2/dev\"\n\
        mount -t tmpfs tmpfs \"$2/run\" && mkdir \"$2/run/sshd\"\n\
        mount -t tmpfs tmpfs \"$2/tmp\" && mkdir -p \"$2$1\"\n\
        mount --bind \"$1\" \"$2$1\"\n\
        cd / && exec chroot \"$2\" /usr/sbin/sshd -D -e -f \"$1/config\"";
    Process::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(place)
        .arg(root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A wait for root with a key, with little patience.
pub(super) fn wait_for(address: SocketAddr, key: Option<BuildKey>) -> Wait {
    Wait {
        address,
        login: Login { username: "root".into(), key, password: None },
        keys: HostKeys::new(),
        lifeline: Lifeline::only_cancel(CancellationToken::new()),
        patience: Patience { refusals: 3, span: Duration::from_millis(300) },
    }
}

/// A server that knows a key, and a session with it.
pub(super) async fn logged_in() -> (Server, Session, CancellationToken) {
    let key = BuildKey::generate("test").unwrap();
    let mut setup = Setup::new();
    setup.authorized = Some(key.public_line().to_owned());
    let server = Server::start(&setup);
    let cancel = CancellationToken::new();
    let mut wait = wait_for(server.address, Some(key));
    wait.lifeline = Lifeline::only_cancel(cancel.clone());
    let session = connect(&wait, Duration::from_secs(30), &Events::silent()).await.unwrap();
    (server, session, cancel)
}

/// Assets from a list of path, mode and text.
pub(super) struct Listed(pub(super) Vec<(&'static str, u32, &'static str)>);

impl crate::target::Assets for Listed {
    fn read(&self, path: &str) -> crate::ui::Outcome<Vec<u8>> {
        let found = self.0.iter().find(|(name, ..)| *name == path);
        let missing = || crate::ui::Failure::input(format!("there is no file `{path}`"));
        Ok(found.ok_or_else(missing)?.2.as_bytes().to_vec())
    }

    fn tree(&self, path: &str) -> crate::ui::Outcome<Vec<crate::target::AssetFile>> {
        let root = format!("{path}/");
        let files: Vec<_> = self
            .0
            .iter()
            .filter_map(|(name, mode, text)| {
                let path = name.strip_prefix(root.as_str())?.to_owned();
                Some(crate::target::AssetFile {
                    path,
                    mode: *mode,
                    bytes: text.as_bytes().to_vec(),
                })
            })
            .collect();
        if files.is_empty() {
            return Err(crate::ui::Failure::input(format!("there is no directory `{path}`")));
        }
        Ok(files)
    }
}

/// A place for steps to run in, with `{{ .Name }}` as the only late variable.
pub(super) struct Stage {
    pub(super) assets: Listed,
    pub(super) run_dir: TempDir,
    pub(super) events: Events,
    pub(super) list: std::sync::Arc<std::sync::Mutex<Vec<crate::ui::Event>>>,
}

impl Stage {
    pub(super) fn new(assets: Vec<(&'static str, u32, &'static str)>) -> Self {
        let (events, list) = Events::recorded();
        Self { assets: Listed(assets), run_dir: tempfile::tempdir().unwrap(), events, list }
    }

    pub(super) async fn run(
        &self,
        session: &Session,
        step: crate::target::Step,
    ) -> crate::ui::Outcome<StepReport> {
        let context = Context {
            session,
            events: &self.events,
            assets: &self.assets,
            expand: &|text| Ok(text.replace("{{ .Name }}", "tiny-1")),
            http: Some("10.0.2.2:8100".parse().unwrap()),
            build_name: "tiny",
            builder: "qemu",
            run_dir: self.run_dir.path(),
        };
        run_step(&step, &context).await
    }

    /// All lines of output so far.
    pub(super) fn lines(&self) -> Vec<String> {
        let list = self.list.lock().unwrap();
        list.iter()
            .filter_map(|event| match event {
                crate::ui::Event::Output { line, .. } => Some(line.clone()),
                _ => None,
            })
            .collect()
    }
}

pub(super) fn step(action: crate::target::Action) -> crate::target::Step {
    crate::target::Step {
        name: "a step".into(),
        timeout: Duration::from_secs(60),
        max_retries: 0,
        action,
    }
}

/// What our private directories have left in the guest.
pub(super) async fn leftovers(session: &Session) -> String {
    let look = "ls -d /run/imgforge-* /dev/shm/imgforge-* /tmp/imgforge-* /var/tmp/imgforge-* 2>/dev/null || :";
    session.ignoring_cancel().capture(&Command::new(look), 4096).await.unwrap().text()
}
