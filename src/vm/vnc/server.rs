// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The listening socket and its threads.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::handshake::Door;
use super::hub::Hub;
use super::{Input, Screen, client};
use crate::ui::{Failure, Outcome, Secret};
use crate::vm::stream::Stream;

/// Clients at a time.
pub(super) const CLIENTS: usize = 8;
/// Clients at a time that are told why they cannot come in. More are not even told.
pub(super) const REFUSED: usize = 4;
/// Until the next try when the host has no room for one more connection.
const RETRY: Duration = Duration::from_millis(200);

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A UNIX socket, which is made, and which only this user may reach.
    Unix(PathBuf),
    /// An address of this host's loopback interface. With port 0, the host chooses one.
    Tcp(SocketAddr),
}

/// A VNC server. It serves until it is dropped; then its clients are let go and the keys that
/// they hold come up.
pub struct VncServer {
    service: Arc<Service>,
    place: Place,
}

struct Service {
    hub: Hub,
    input: Arc<dyn Input>,
    password: Option<Secret>,
    name: String,
    /// By number, those who are refused too.
    clients: Mutex<BTreeMap<u64, Arc<Stream>>>,
}

impl VncServer {
    /// Shows `screen` under this name and sends keys to `input`. Of the password, RFB uses eight
    /// bytes.
    ///
    /// # Errors
    /// When the socket cannot be made, when a TCP address is open to other hosts or would need no
    /// password, and when the password is empty.
    pub fn listen(
        place: &Place,
        password: Option<Secret>,
        screen: Arc<dyn Screen>,
        input: Arc<dyn Input>,
        name: &str,
    ) -> Outcome<Self> {
        check(place, password.as_ref())?;
        let failed = |error: io::Error| Failure::build("cannot make the VNC server").because(error);
        let (listener, place) = Listener::bind(place).map_err(failed)?;
        let service = Arc::new(Service {
            hub: Hub::new(screen),
            input,
            password,
            name: name.to_owned(),
            clients: Mutex::default(),
        });
        let server = Self { service: Arc::clone(&service), place };
        let thread = |name: &str| std::thread::Builder::new().name(name.into());
        let sampler = Arc::clone(&service);
        thread("vnc-sampler").spawn(move || sampler.hub.sample()).map_err(failed)?;
        thread("vnc").spawn(move || service.accept(&listener)).map_err(failed)?;
        Ok(server)
    }

    /// Where it listens, with the port that the host chose.
    pub fn place(&self) -> &Place {
        &self.place
    }
}

impl Drop for VncServer {
    fn drop(&mut self) {
        self.service.hub.end();
        // Wakes the thread that accepts. Without a socket to connect to, it sleeps on.
        match &self.place {
            Place::Unix(path) => {
                let _ = UnixStream::connect(path);
                let _ = std::fs::remove_file(path);
            }
            Place::Tcp(address) => _ = TcpStream::connect_timeout(address, RETRY),
        }
        for stream in self.service.clients().values() {
            stream.close();
        }
    }
}

fn check(place: &Place, password: Option<&Secret>) -> Outcome<()> {
    let wrong = match (place, password) {
        (_, Some(password)) if password.reveal().is_empty() => "a VNC password cannot be empty",
        (Place::Tcp(address), _) if !address.ip().is_loopback() => {
            "VNC is for this host only: its address must be a loopback one"
        }
        (Place::Tcp(_), None) => {
            "VNC over TCP needs a password: every user of the host can connect"
        }
        _ => return Ok(()),
    };
    Err(Failure::input(wrong))
}

impl Service {
    fn clients(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Stream>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &Listener) {
        for number in 0.. {
            let stream = match listener.accept() {
                Ok(stream) => stream,
                Err(_) if self.hub.ends_within(RETRY) => return,
                Err(_) => continue,
            };
            if !self.admit(number, Arc::new(stream)) {
                return;
            }
        }
    }

    /// False at the end. Who is in the list by then is let go with the others.
    fn admit(self: &Arc<Self>, number: u64, stream: Arc<Stream>) -> bool {
        let mut clients = self.clients();
        if self.hub.ends_within(Duration::ZERO) {
            return false;
        }
        let is_full = clients.len() >= CLIENTS;
        if clients.len() >= CLIENTS + REFUSED {
            return true;
        }
        let (service, its) = (Arc::clone(self), Arc::clone(&stream));
        let thread = std::thread::Builder::new().name("vnc-client".into());
        // The thread's end finds the entry: the lock is held until it is there.
        let served = thread.spawn(move || {
            let _leaving = Leaving { service: &service, number };
            service.serve(&its, is_full);
        });
        if served.is_ok() {
            clients.insert(number, stream);
        }
        true
    }

    fn serve(&self, stream: &Stream, is_full: bool) {
        let door = match &self.password {
            _ if is_full => Door::Shut("too many clients are connected"),
            Some(password) => Door::Locked(password),
            None => Door::Open,
        };
        let gone = client::serve(&self.hub, stream, door, &self.name, self.input.as_ref());
        stream.close();
        self.input.note(&format!("a VNC client is gone: {gone}"));
    }
}

/// Forgets a client, however its thread ends.
struct Leaving<'a> {
    service: &'a Service,
    number: u64,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if let Some(stream) = self.service.clients().remove(&self.number) {
            stream.close();
        }
    }
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    fn bind(place: &Place) -> io::Result<(Self, Place)> {
        match place {
            Place::Unix(path) => Ok((Self::Unix(bind_private(path)?), place.clone())),
            Place::Tcp(address) => {
                let listener = TcpListener::bind(address)?;
                let address = listener.local_addr()?;
                Ok((Self::Tcp(listener), Place::Tcp(address)))
            }
        }
    }

    fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Unix(listener) => Stream::unix(listener.accept()?.0),
            Self::Tcp(listener) => Stream::tcp(listener.accept()?.0),
        }
    }
}

fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
