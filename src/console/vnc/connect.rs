// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.
//! Connects and shakes hands.

use std::future::Ready;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use vnc::{PixelFormat, VncClient, VncConnector, VncEncoding, VncError};

use super::link::Link;
use super::tap::{Record, Tap};
use super::{Screen, Shared, Status};
use crate::console::frame::Frame;
use crate::ui::{Failure, Outcome, Secret};
use crate::vm::VncEndpoint;

/// Longest time for the connection and the handshake.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Pause between attempts while nobody listens yet.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// How long a new connection waits for the first picture before it goes on without.
const FIRST_PICTURE: Duration = Duration::from_secs(3);

/// Commands in flight.
const COMMANDS: usize = 64;

impl Screen {
    /// Connects to a server on this host, trying for ten seconds while nobody listens there.
    ///
    /// Returns with the first picture, or without one when the server sends none for three
    /// seconds. Fails on a server that is none, that refuses, that wants another password, or
    /// whose screen is larger than 3840 × 2160 pixels in all. Of a password, RFB uses eight bytes.
    pub async fn connect(endpoint: &VncEndpoint, stop: CancellationToken) -> Outcome<Self> {
        let (place, password) = match endpoint {
            VncEndpoint::Unix(path) => (path.display().to_string(), None),
            VncEndpoint::Tcp(address, password) => (address.to_string(), Some(password)),
        };
        let deadline = Instant::now() + CONNECT_DEADLINE;
        let connected = async {
            let stream = dial(endpoint, deadline).await.map_err(|error| {
                Failure::build("cannot connect to the guest's screen")
                    .because(error)
                    .fact("vnc", &place)
            })?;
            Self::open(stream, place.clone(), password, stop.clone()).await
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                Err(Failure::interrupted("interrupted while connecting to the guest's screen"))
            }
            result = tokio::time::timeout_at(deadline, connected) => result.unwrap_or_else(|_| {
                Err(Failure::build("the VNC server does not answer").fact("vnc", &place).fact(
                    "waited",
                    format!("{} s", CONNECT_DEADLINE.as_secs()),
                ))
            }),
        }
    }

    /// Shakes hands on a stream and starts the task that keeps the picture.
    pub(super) async fn open<S>(
        stream: S,
        place: String,
        password: Option<&Secret>,
        stop: CancellationToken,
    ) -> Outcome<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static,
    {
        let tap = Arc::new(Record::default());
        let client = shake_hands(Tap::new(stream, Arc::clone(&tap)), password)
            .await
            .map_err(|error| refusal(error, &tap).fact("vnc", &place))?;
        let now = Instant::now();
        let (sender, mut status) = watch::channel(Status {
            seen: false,
            changes: 0,
            last_change: now,
            last_move: now,
            cursor: None,
            ended: None,
        });
        let shared =
            Arc::new(Shared { place, frame: Mutex::new(Frame::default()), status: sender });
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let link = Link::new(client, Arc::clone(&shared), receiver, Arc::clone(&tap));
        tokio::spawn(link.run(stop));
        let seen = status.wait_for(|status| status.seen || status.ended.is_some());
        let ended = match tokio::time::timeout(FIRST_PICTURE, seen).await {
            Ok(Ok(status)) => status.ended.clone(),
            Ok(Err(_)) | Err(_) => None,
        };
        if let Some(ended) = ended {
            return Err(shared.failure(&ended));
        }
        Ok(Self { shared, commands, status, tap })
    }
}

/// Connects. That a server begins to listen is no event, so this tries again until the deadline.
async fn dial(
    endpoint: &VncEndpoint,
    deadline: Instant,
) -> io::Result<Either<UnixStream, TcpStream>> {
    loop {
        let attempt = match endpoint {
            VncEndpoint::Unix(path) => UnixStream::connect(path).await.map(Either::Left),
            VncEndpoint::Tcp(address, _) => {
                let stream = TcpStream::connect(address).await;
                stream.and_then(|s| s.set_nodelay(true).map(|()| s)).map(Either::Right)
            }
        };
        match attempt {
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound)
                    && Instant::now() + RETRY_INTERVAL * 2 < deadline =>
            {
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            result => return result,
        }
    }
}

async fn shake_hands<S>(stream: Tap<S>, password: Option<&Secret>) -> Result<VncClient, VncError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static,
{
    let mut connector = VncConnector::<_, Ready<Result<String, VncError>>>::new(stream)
        .allow_shared(true)
        .set_pixel_format(PixelFormat::bgra())
        .add_encoding(VncEncoding::CopyRect)
        .add_encoding(VncEncoding::Raw)
        .add_encoding(VncEncoding::DesktopSizePseudo)
        .add_encoding(VncEncoding::LastRectPseudo);
    if let Some(password) = password {
        connector = connector.set_auth_method(std::future::ready(Ok(password.reveal().to_owned())));
    }
    connector.build()?.try_start().await?.finish()
}

/// What a failed handshake means.
fn refusal(error: VncError, tap: &Record) -> Failure {
    if let Some(greeting) = tap.strange_greeting() {
        return Failure::build("what answers there is not a VNC server").fact("it said", greeting);
    }
    match error {
        VncError::NoPassword => {
            Failure::build("the VNC server asks for a password that nobody knows")
        }
        VncError::WrongPassword => Failure::build("the VNC server refuses the password"),
        VncError::General(why) => Failure::build(format!(
            "the VNC server refuses the connection: {}",
            super::link::printable(&why)
        )),
        VncError::InvalidImageData => {
            Failure::build("the VNC server announces a screen of a size that is not credible")
        }
        error => match tap.end() {
            Some(why) => Failure::build(format!("no handshake with the VNC server: {why}")),
            None => Failure::build("no handshake with the VNC server").because(error),
        },
    }
}
