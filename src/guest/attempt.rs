// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! One try to log in, and how far it came.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::client::{self, AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::{PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Disconnect, MethodKind, MethodSet};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::hostkeys::{HostKeys, Verdict, fingerprint};
use super::keys::BuildKey;
use super::opening::{Heard, Opening};
use crate::ui::Secret;

/// Longest wait for the TCP handshake and then for the server's first bytes.
const BANNER_LIMIT: Duration = Duration::from_secs(15);
/// Longest time from the banner to the end of authentication; an emulated guest is slow.
const LOGIN_LIMIT: Duration = Duration::from_secs(90);
/// The transport asks the peer for a sign of life this often …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// … and gives up after this many questions without an answer.
const KEEPALIVE_MAX: usize = 12;

/// Who logs in, and with what. The key is tried first, then the password.
#[derive(Clone, Debug)]
pub struct Login {
    /// User in the guest.
    pub username: String,
    /// The build's key.
    pub key: Option<BuildKey>,
    /// The build's password.
    pub password: Option<Secret>,
}

/// An open, authenticated connection.
pub(super) type Connection = Handle<Client>;

/// How far a try came that did not end in a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing listens, or nothing routes.
    Unreachable(String),
    /// The connection was taken and closed, or stayed silent: a port forward with nothing
    /// behind it in the guest.
    PortClosed,
    /// Something answers, but not with an SSH banner.
    NotSsh(String),
    /// The banner came and then the server went away.
    Dropped,
    /// Key exchange failed.
    Handshake(String),
    /// The installer's own SSH server answers.
    Installer,
    /// Another key than the one this build trusts.
    KeyChanged { trusted: String, shown: String },
    /// The server accepts none of our credentials.
    Refused { offered: String, tried: String },
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "nothing listens ({why})"),
            Self::PortClosed => f.write_str("the SSH port is closed in the guest"),
            Self::NotSsh(text) => write!(f, "the port answers with `{text}` instead of SSH"),
            Self::Dropped => f.write_str("the SSH server shows its banner, then hangs up"),
            Self::Handshake(why) => write!(f, "the SSH handshake fails ({why})"),
            Self::Installer => f.write_str("the installer's SSH server still answers"),
            Self::KeyChanged { trusted, shown } => {
                write!(f, "the host key changed from {trusted} to {shown}")
            }
            Self::Refused { offered, tried } => {
                write!(f, "login refused: tried {tried}, the server offers {offered}")
            }
        }
    }
}

/// The client side's callbacks: judges the host key and remembers it.
pub(super) struct Client {
    keys: HostKeys,
    shown: Arc<Mutex<Option<(PublicKey, Verdict)>>>,
}

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        shown: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        let key = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => key.clone(),
            PublicKeyOrCertificate::Certificate(certificate) => {
                PublicKey::new(certificate.public_key().clone(), "")
            }
        };
        let verdict = self.keys.judge(&key);
        let fine = verdict == Verdict::Fine;
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some((key, verdict));
        Ok(fine)
    }
}

/// Tries once to log in; never later than `deadline`.
pub(super) async fn attempt(
    address: SocketAddr,
    login: &Login,
    keys: &HostKeys,
    deadline: Instant,
) -> Result<(Connection, PublicKey), Stage> {
    let socket = open(address, deadline).await?;
    let silence = deadline.min(Instant::now() + BANNER_LIMIT);
    let until = deadline.min(Instant::now() + LOGIN_LIMIT);
    let shown = Arc::new(Mutex::new(None));
    let client = Client { keys: keys.clone(), shown: Arc::clone(&shown) };
    let heard = Arc::<Heard>::default();
    let socket = Opening::new(socket, Arc::clone(&heard));
    let handshake = client::connect_stream(Arc::new(config()), socket, client);
    let connected = tokio::select! {
        connected = timeout_at(until, handshake) => connected,
        other = heard.is_other(silence) => return Err(other),
    };
    let met = shown.lock().unwrap_or_else(PoisonError::into_inner).take();
    let connection = match (connected, &met) {
        (_, Some((_, Verdict::Installer))) => return Err(Stage::Installer),
        (_, Some((key, Verdict::Changed { trusted }))) => {
            let shown = fingerprint(key);
            return Err(Stage::KeyChanged { trusted: trusted.clone(), shown });
        }
        (Ok(Ok(connection)), _) => connection,
        (Ok(Err(error)), _) => return Err(heard.other().unwrap_or_else(|| lost(&error))),
        (Err(_), _) => {
            let silent = || Stage::Handshake("no answer in time".to_owned());
            return Err(heard.other().unwrap_or_else(silent));
        }
    };
    let Some((key, _)) = met else {
        return Err(Stage::Handshake("the server showed no host key".to_owned()));
    };
    let connection = timeout_at(until, authenticate(connection, login))
        .await
        .map_err(|_| Stage::Handshake("no answer to the login in time".to_owned()))??;
    Ok((connection, key))
}

/// Connects.
async fn open(address: SocketAddr, deadline: Instant) -> Result<TcpStream, Stage> {
    let until = deadline.min(Instant::now() + BANNER_LIMIT);
    let socket = match timeout_at(until, TcpStream::connect(address)).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => return Err(Stage::Unreachable(plain(&error))),
        Err(_) => return Err(Stage::Unreachable("no answer".to_owned())),
    };
    // Small packets both ways; without this, latency, not a failure.
    let _ = socket.set_nodelay(true);
    Ok(socket)
}

fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    }
}

fn config() -> client::Config {
    client::Config {
        keepalive_interval: Some(KEEPALIVE_INTERVAL),
        keepalive_max: KEEPALIVE_MAX,
        nodelay: true,
        ..client::Config::default()
    }
}

fn hung_up(error: &russh::Error) -> bool {
    matches!(
        error,
        russh::Error::Disconnect
            | russh::Error::HUP
            | russh::Error::SendError
            | russh::Error::IO(_)
    )
}

/// Key first, then the password by either of the two methods that carry one.
async fn authenticate(mut connection: Connection, login: &Login) -> Result<Connection, Stage> {
    let mut tried = Vec::new();
    let mut offered = MethodSet::empty();
    if let Some(key) = &login.key {
        tried.push("key");
        let key = PrivateKeyWithHashAlg::new(key.parsed(), None);
        let answer = connection.authenticate_publickey(&login.username, key).await;
        match took(answer)? {
            None => return Ok(connection),
            Some(methods) => offered = methods,
        }
    }
    if let Some(password) = &login.password {
        let plain = offered.is_empty() || offered.contains(&MethodKind::Password);
        if plain {
            tried.push("password");
            let answer = connection.authenticate_password(&login.username, password.reveal()).await;
            match took(answer)? {
                None => return Ok(connection),
                Some(methods) => offered = methods,
            }
        } else if offered.contains(&MethodKind::KeyboardInteractive) {
            tried.push("password (keyboard-interactive)");
            if interactive(&mut connection, login, password, &mut offered).await? {
                return Ok(connection);
            }
        }
    }
    // A courtesy; the connection goes away with its handle in any case.
    let _ = timeout(
        Duration::from_secs(1),
        connection.disconnect(Disconnect::ByApplication, "login refused", "en"),
    )
    .await;
    Err(Stage::Refused { offered: names(&offered), tried: tried.join(" and ") })
}

/// `None` when the server let us in; the methods it still offers otherwise.
fn took(answer: Result<AuthResult, russh::Error>) -> Result<Option<MethodSet>, Stage> {
    match answer {
        Ok(AuthResult::Success) => Ok(None),
        Ok(AuthResult::Failure { remaining_methods, .. }) => Ok(Some(remaining_methods)),
        Err(error) => Err(lost(&error)),
    }
}

fn lost(error: &russh::Error) -> Stage {
    if hung_up(error) { Stage::Dropped } else { Stage::Handshake(error.to_string()) }
}

/// Answers every prompt with the password, a few times at most.
async fn interactive(
    connection: &mut Connection,
    login: &Login,
    password: &Secret,
    offered: &mut MethodSet,
) -> Result<bool, Stage> {
    let mut answer = connection
        .authenticate_keyboard_interactive_start(&login.username, None)
        .await
        .map_err(|e| lost(&e))?;
    for _ in 0..3 {
        match answer {
            KeyboardInteractiveAuthResponse::Success => return Ok(true),
            KeyboardInteractiveAuthResponse::Failure { remaining_methods, .. } => {
                *offered = remaining_methods;
                return Ok(false);
            }
            KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => {
                let words = prompts.iter().map(|_| password.reveal().to_owned()).collect();
                answer = connection
                    .authenticate_keyboard_interactive_respond(words)
                    .await
                    .map_err(|e| lost(&e))?;
            }
        }
    }
    Ok(matches!(answer, KeyboardInteractiveAuthResponse::Success))
}

fn names(methods: &MethodSet) -> String {
    let names: Vec<String> = methods.iter().map(|m| String::from(<&str>::from(m))).collect();
    if names.is_empty() { "nothing that we know".to_owned() } else { names.join(", ") }
}
