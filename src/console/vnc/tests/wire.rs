// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.
//! A server played by the test, byte by byte.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use crate::console::Screen;
use crate::ui::Outcome;

/// The server's end of a connection.
pub(super) struct Server {
    pub(super) stream: UnixStream,
}

/// A message from the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FromClient {
    Format,
    Encodings(Vec<i32>),
    Request { incremental: bool, width: u16, height: u16 },
    Key { keysym: u32, down: bool },
    Closed,
}

impl Server {
    /// Both ends; the client's is still to be opened.
    pub(super) fn pair() -> (Self, UnixStream) {
        let (stream, client) = UnixStream::pair().unwrap();
        (Self { stream }, client)
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        // The client may have hung up already; what it reports is what the test looks at.
        let _ = self.stream.write_all(bytes).await;
    }

    /// Version 3.8, no authentication, a screen of this size in 32-bit colour.
    pub(super) async fn shake_hands(&mut self, width: u16, height: u16) {
        self.send(b"RFB 003.008\n").await;
        self.stream.read_exact(&mut [0; 12]).await.unwrap();
        self.send(&[1, 1]).await;
        self.stream.read_exact(&mut [0; 1]).await.unwrap();
        self.send(&[0; 4]).await;
        self.stream.read_exact(&mut [0; 1]).await.unwrap();
        let mut init = [width.to_be_bytes(), height.to_be_bytes()].concat();
        init.extend([32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0]);
        init.extend([0, 0, 0, 1, b'x']);
        self.send(&init).await;
    }

    pub(super) async fn next(&mut self) -> FromClient {
        let Ok(kind) = self.stream.read_u8().await else { return FromClient::Closed };
        let mut body = vec![
            0;
            match kind {
                0 => 19,
                2 => 3,
                3 => 9,
                4 => 7,
                other => panic!("client message {other}"),
            }
        ];
        if self.stream.read_exact(&mut body).await.is_err() {
            return FromClient::Closed;
        }
        let number = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
        match kind {
            0 => FromClient::Format,
            2 => {
                let mut encodings = Vec::new();
                for _ in 0..number(1) {
                    encodings.push(self.stream.read_i32().await.unwrap());
                }
                FromClient::Encodings(encodings)
            }
            3 => FromClient::Request {
                incremental: body[0] != 0,
                width: number(5),
                height: number(7),
            },
            _ => FromClient::Key {
                keysym: (u32::from(number(3)) << 16) | u32::from(number(5)),
                down: body[0] != 0,
            },
        }
    }

    /// The next key, whatever comes before it; nothing when the client hangs up.
    pub(super) async fn next_key(&mut self) -> Option<(u32, bool)> {
        loop {
            match self.next().await {
                FromClient::Key { keysym, down } => return Some((keysym, down)),
                FromClient::Closed => return None,
                _ => {}
            }
        }
    }

    pub(super) async fn next_request(&mut self) -> FromClient {
        loop {
            let message = self.next().await;
            if matches!(message, FromClient::Request { .. } | FromClient::Closed) {
                return message;
            }
        }
    }

    /// An update of one rectangle in one colour.
    pub(super) async fn paint(&mut self, (x, y, width, height): (u16, u16, u16, u16), colour: u8) {
        let mut bytes = vec![0, 0, 0, 1];
        for number in [x, y, width, height] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend(0_i32.to_be_bytes());
        bytes.extend(vec![colour; usize::from(width) * usize::from(height) * 4]);
        self.send(&bytes).await;
    }

    pub(super) async fn announce_size(&mut self, width: u16, height: u16) {
        let mut bytes = vec![0, 0, 0, 1, 0, 0, 0, 0];
        bytes.extend(width.to_be_bytes());
        bytes.extend(height.to_be_bytes());
        bytes.extend((-223_i32).to_be_bytes());
        self.send(&bytes).await;
    }
}

pub(super) async fn open(client: UnixStream, stop: &CancellationToken) -> Outcome<Screen> {
    Screen::open(client, "test".into(), None, stop.clone()).await
}

/// A connected pair with a screen of 100 × 50 in one colour.
async fn connected() -> (Server, Screen, CancellationToken) {
    let (mut server, client) = Server::pair();
    let stop = CancellationToken::new();
    let serve = async {
        server.shake_hands(100, 50).await;
        assert_eq!(server.next().await, FromClient::Format);
        let encodings = FromClient::Encodings(vec![1, 0, -223, -224]);
        assert_eq!(server.next().await, encodings);
        let request = FromClient::Request { incremental: false, width: 100, height: 50 };
        assert_eq!(server.next().await, request);
        server.paint((0, 0, 100, 50), 7).await;
    };
    let (screen, ()) = tokio::join!(open(client, &stop), serve);
    (server, screen.unwrap(), stop)
}

#[tokio::test]
async fn shows_the_first_picture_and_sends_keys_in_order() {
    let (mut server, screen, _stop) = connected().await;
    assert_eq!(screen.size(), (100, 50));
    assert!(screen.is_blank());
    for (keysym, down) in [(0xffe1, true), (0x41, true), (0x41, false), (0xffe1, false)] {
        screen.send_key(keysym, down).await.unwrap();
    }
    screen.flush().await.unwrap();
    for wanted in [(0xffe1, true), (0x41, true), (0x41, false), (0xffe1, false)] {
        assert_eq!(server.next_key().await, Some(wanted));
    }
}

#[tokio::test]
async fn flush_means_that_the_socket_has_every_key() {
    let (mut server, screen, _stop) = connected().await;
    for _ in 0..3 {
        for _ in 0..50 {
            screen.send_key(0x61, true).await.unwrap();
            screen.send_key(0x61, false).await.unwrap();
        }
        screen.flush().await.unwrap();
        // Only what is in the socket already can be read without waiting.
        let mut keys = 0;
        while keys < 100 {
            let now = tokio::time::timeout(Duration::ZERO, server.next_key());
            assert!(now.await.unwrap().is_some(), "after {keys} keys");
            keys += 1;
        }
    }
}

#[tokio::test]
async fn held_keys_are_let_go_when_the_last_handle_is_dropped_or_on_cancel() {
    for cancel in [false, true] {
        let (mut server, screen, stop) = connected().await;
        screen.send_key(0xffe3, true).await.unwrap();
        screen.send_key(0x63, true).await.unwrap();
        screen.send_key(0x63, false).await.unwrap();
        if cancel {
            stop.cancel();
            assert_eq!(screen.lost().await.kind().exit_code(), 130);
            assert!(screen.send_key(0x61, true).await.is_err());
        }
        drop(screen);
        let mut keys = Vec::new();
        while let Some(key) = server.next_key().await {
            keys.push(key);
        }
        assert_eq!(keys, [(0xffe3, true), (0x63, true), (0x63, false), (0xffe3, false)]);
    }
}

#[tokio::test]
async fn follows_a_change_of_resolution() {
    let (mut server, screen, _stop) = connected().await;
    let before = screen.fingerprint();
    server.announce_size(200, 80).await;
    screen.wait_change(before, Duration::from_secs(5)).await.unwrap();
    assert_eq!(screen.size(), (200, 80));
    let wanted = FromClient::Request { incremental: false, width: 200, height: 80 };
    while server.next_request().await != wanted {}
    let black = screen.fingerprint();
    server.paint((0, 0, 200, 80), 9).await;
    screen.wait_change(black, Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn asks_for_updates_at_a_bounded_rate() {
    let (mut server, screen, _stop) = connected().await;
    let mut requests = 0;
    let mut colour = 0;
    let busy = async {
        loop {
            assert!(matches!(
                server.next_request().await,
                FromClient::Request { incremental: true, width: 100, height: 50 }
            ));
            requests += 1;
            colour += 1;
            server.paint((0, 0, 100, 50), colour).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(1), busy).await.is_err());
    assert!((5..=21).contains(&requests), "{requests} requests in a busy second");
    let mut idle = 0;
    let quiet = async {
        loop {
            server.next_request().await;
            idle += 1;
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(1500), quiet).await.is_err());
    assert!(idle <= 2, "{idle} requests from an idle screen");
    drop(screen);
}

#[tokio::test]
async fn rest_means_shown_and_unmoved_but_for_a_cursor() {
    let (mut server, screen, _stop) = connected().await;
    let quiet = Duration::from_millis(300);
    let blank = screen.wait_still(quiet, Duration::from_millis(600)).await.unwrap_err();
    assert!(blank.to_string().contains("blank"), "{blank}");
    server.paint((0, 0, 50, 50), 9).await;
    let blinking = async {
        loop {
            for colour in [20, 9] {
                server.paint((10, 10, 9, 16), colour).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    tokio::select! {
        () = blinking => {}
        still = screen.wait_still(quiet, Duration::from_secs(5)) => {
            assert!(still.unwrap() >= Duration::from_millis(250));
        }
    }
    let typing = async {
        let (mut x, mut colour) = (0, 0_u8);
        loop {
            (x, colour) = ((x + 9) % 90, colour.wrapping_add(1));
            server.paint((x, 0, 9, 16), colour).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = typing => {}
        still = async {
            tokio::time::sleep(Duration::from_millis(250)).await;
            screen.wait_still(Duration::from_secs(1), Duration::from_secs(2)).await
        } => assert!(still.unwrap_err().to_string().contains("still moving")),
    }
}

#[tokio::test]
async fn saves_what_it_last_saw_after_the_end() {
    let (server, screen, _stop) = connected().await;
    drop(server);
    let why = screen.lost().await.to_string();
    // Whoever notices first, the reader or the writer, says it in its own words.
    let ended = why.contains("closed the connection") || why.contains("Broken pipe");
    assert!(ended && why.contains("test"), "{why}");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("last.png");
    screen.save_png(&path).await.unwrap();
    assert!(std::fs::read(&path).unwrap().starts_with(b"\x89PNG"));
    let missing = directory.path().join("missing").join("last.png");
    let error = screen.save_png(&missing).await.unwrap_err().to_string();
    assert!(error.contains("missing") && error.contains("No such file"), "{error}");
}
