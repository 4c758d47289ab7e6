// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.
//! Servers that mean no good, and ones that are none.

use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::wire::{Server, open};
use crate::console::Screen;
use crate::ui::{Failure, Secret};
use crate::vm::VncEndpoint;

async fn refused_by(bytes: &[u8]) -> Failure {
    let (mut server, client) = Server::pair();
    let serve = async {
        server.send(bytes).await;
        server.stream.shutdown().await.unwrap();
    };
    let stop = CancellationToken::new();
    let (screen, ()) = tokio::join!(open(client, &stop), serve);
    screen.unwrap_err()
}

#[tokio::test]
async fn says_what_is_wrong_with_a_server() {
    let oversized = [b"RFB 003.008\n".as_slice(), &[0, 0xff, 0xff, 0xff, 0xff]].concat();
    let reason = [b"RFB 003.008\n".as_slice(), &[0, 0, 0, 0, 4], b"no\x1b!"].concat();
    let cases: [(&[u8], &str); 7] = [
        (b"", "closed the connection"),
        (b"RFB 003.0", "closed the connection"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1.1 400"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "not a VNC server"),
        (&reason, "no\\u{1b}!"),
        (&oversized, "size limit"),
        (b"RFB 003.008\n\x01\x02", "password that nobody knows"),
    ];
    for (bytes, wanted) in cases {
        let failure = refused_by(bytes).await.to_string();
        assert!(failure.contains(wanted), "wanted {wanted}, got: {failure}");
    }
}

#[tokio::test]
async fn refuses_absurd_screens() {
    for (width, height) in [(0, 0), (u16::MAX, u16::MAX), (8193, 1), (4096, 2160)] {
        let (mut server, client) = Server::pair();
        let stop = CancellationToken::new();
        let serve = server.shake_hands(width, height);
        let (screen, ()) = tokio::join!(open(client, &stop), serve);
        let failure = screen.unwrap_err().to_string();
        assert!(failure.contains("not credible"), "{width}x{height}: {failure}");
    }
}

#[tokio::test]
async fn ends_with_a_reason_on_nonsense() {
    let outside = [&[0, 0, 0, 1, 0, 90, 0, 0, 0, 20, 0, 1, 0, 0, 0, 0][..], &[0; 80]].concat();
    let huge = [0, 0, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x21];
    let unasked = [0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 16];
    for bytes in [outside.as_slice(), &huge, &unasked, &[99]] {
        let (mut server, client) = Server::pair();
        let stop = CancellationToken::new();
        let serve = async {
            server.shake_hands(100, 50).await;
            server.paint((0, 0, 100, 50), 1).await;
        };
        let (screen, ()) = tokio::join!(open(client, &stop), serve);
        let screen = screen.unwrap();
        server.send(bytes).await;
        let lost = tokio::time::timeout(Duration::from_secs(5), screen.lost()).await.unwrap();
        assert!(lost.to_string().contains("sent something wrong"), "{lost}");
        assert_eq!(screen.size(), (100, 50));
    }
}

#[tokio::test]
async fn a_refused_password_is_said() {
    let (mut server, client) = Server::pair();
    let serve = async {
        server.send(b"RFB 003.008\n").await;
        server.stream.read_exact(&mut [0; 12]).await.unwrap();
        server.send(&[1, 2]).await;
        server.stream.read_exact(&mut [0; 1]).await.unwrap();
        server.send(&[5; 16]).await;
        server.stream.read_exact(&mut [0; 16]).await.unwrap();
        server.send(&[0, 0, 0, 1, 0, 0, 0, 5]).await;
        server.send(b"nope!").await;
    };
    let password = Secret::new("wrong-password");
    let opening = Screen::open(client, "test".into(), Some(&password), CancellationToken::new());
    let (screen, ()) = tokio::join!(opening, serve);
    let failure = screen.unwrap_err().to_string();
    assert!(failure.contains("nope!") && !failure.contains("wrong-password"), "{failure}");
}

#[tokio::test]
async fn a_cancel_ends_a_handshake_that_hangs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vnc.sock");
    let _listener = tokio::net::UnixListener::bind(&path).unwrap();
    let stop = CancellationToken::new();
    let endpoint = VncEndpoint::Unix(path);
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.cancel();
    };
    let (screen, ()) = tokio::join!(Screen::connect(&endpoint, stop.clone()), cancel);
    assert_eq!(screen.unwrap_err().kind().exit_code(), 130);
}

#[tokio::test]
async fn waits_for_a_server_that_is_not_there_yet() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vnc.sock");
    let endpoint = VncEndpoint::Unix(path.clone());
    let late = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut server = Server { stream };
        server.shake_hands(10, 10).await;
        server.paint((0, 0, 10, 10), 1).await;
        server
    };
    let (screen, _server) =
        tokio::join!(Screen::connect(&endpoint, CancellationToken::new()), late);
    assert_eq!(screen.unwrap().size(), (10, 10));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_after_the_handshake_end_in_a_reason(
        bytes in proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 0..400)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut server, client) = Server::pair();
            let stop = CancellationToken::new();
            let serve = async {
                server.shake_hands(16, 16).await;
                server.send(&bytes).await;
                drop(server);
            };
            let (screen, ()) = tokio::join!(open(client, &stop), serve);
            if let Ok(screen) = screen {
                let lost = tokio::time::timeout(Duration::from_secs(5), screen.lost()).await;
                assert!(lost.is_ok());
            }
        });
    }
}
