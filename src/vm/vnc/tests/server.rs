// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use super::super::server::{CLIENTS, REFUSED};
use super::mini::Mini;
use super::{Board, Paper, Place, VncServer, eventually, world};
use crate::ui::Secret;

#[test]
fn keys_arrive_in_order_and_come_up_when_the_client_leaves() {
    let world = world(100, 50, None);
    let mut client = Mini::connect(&world);
    let typed = [(0xffe3, true), (0xffe1, true), (0x41, true), (0x41, true), (0x41, false)];
    for (keysym, down) in typed {
        client.key(keysym, down);
    }
    // Neither concerns the machine.
    client.say(&[5, 1, 0, 10, 0, 10]);
    client.say(&[6, 0, 0, 0, 0, 0, 0, 3, b'a', b'b', b'c']);
    client.key(0x62, true);
    eventually("keys", || world.paper.keys().len() == 6);
    assert_eq!(world.paper.keys()[..5], typed);
    drop(client);
    world.paper.wait_note("hung up");
    let released = [(0x62, false), (0xffe1, false), (0xffe3, false)];
    assert_eq!(world.paper.keys()[6..], released);
}

#[test]
fn keys_come_up_when_the_server_ends_or_the_client_talks_nonsense() {
    for nonsense in [true, false] {
        let mut world = world(100, 50, None);
        let mut client = Mini::connect(&world);
        client.key(0xffe9, true);
        eventually("the key", || world.paper.keys().len() == 1);
        if nonsense {
            client.say(&[77]);
            world.paper.wait_note("unknown type 77");
        } else {
            let place = Place::Unix(world._dir.path().join("other"));
            let (board, paper) = (world.board.clone(), world.paper.clone());
            world.server = VncServer::listen(&place, None, board, paper, "").unwrap();
            assert!(!world.path.exists(), "the socket is gone");
        }
        assert!(client.rest().is_empty(), "the connection is closed");
        eventually("the key", || world.paper.keys() == [(0xffe9, true), (0xffe9, false)]);
    }
}

#[test]
fn a_client_cannot_hold_keys_without_end() {
    let world = world(100, 50, None);
    let mut client = Mini::connect(&world);
    for keysym in 0..1000 {
        client.key(keysym, true);
    }
    drop(client);
    world.paper.wait_note("hung up");
    let keys = world.paper.keys();
    assert_eq!(keys.len(), 128);
    assert_eq!(keys.iter().filter(|(_, down)| *down).count(), 64);
}

#[test]
fn there_is_room_for_so_many_clients_and_the_next_is_told() {
    let world = world(100, 50, None);
    let mut clients: Vec<Mini> = (0..CLIENTS).map(|_| Mini::connect(&world)).collect();
    for version in [b"RFB 003.003\n", b"RFB 003.007\n", b"RFB 003.008\n"] {
        let mut refused = Mini::dial(&world);
        refused.take(12);
        refused.say(version);
        let zeros = if version == b"RFB 003.003\n" { 4 } else { 1 };
        assert_eq!(refused.take(zeros), vec![0; zeros]);
        assert_eq!(&refused.rest()[4..], b"too many clients are connected");
    }
    // Those who do not even listen have little room as well.
    let silent: Vec<Mini> = (0..REFUSED + 3).map(|_| Mini::dial(&world)).collect();
    assert!(Mini::dial(&world).rest().is_empty());
    drop(silent);
    // Everybody is served.
    for client in &mut clients {
        client.request(false);
        client.update();
        assert_eq!(client.canvas, world.board.pixels());
    }
    clients.pop();
    eventually("room", || {
        let mut client = Mini::dial(&world);
        if client.greeting().is_none() {
            return false;
        }
        client.say(b"RFB 003.003\n");
        client.take(4) == [0, 0, 0, 1]
    });
}

#[test]
fn only_this_user_reaches_the_socket() {
    let world = world(100, 50, None);
    let mode = std::fs::metadata(&world.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(world.server.place(), &Place::Unix(world.path.clone()));
}

#[test]
fn does_not_listen_where_others_could_come_in() {
    let board = Arc::new(Board::new(10, 10));
    let listen = |address: &str, password: Option<&str>| {
        let place = Place::Tcp(address.parse().unwrap());
        let password = password.map(Secret::new);
        VncServer::listen(&place, password, board.clone(), Arc::new(Paper::default()), "x")
            .map(|_| ())
            .map_err(|failure| failure.to_string())
    };
    assert!(listen("0.0.0.0:0", Some("secret")).unwrap_err().contains("loopback"));
    assert!(listen("127.0.0.1:0", None).unwrap_err().contains("password"));
    assert!(listen("127.0.0.1:0", Some("")).unwrap_err().contains("empty"));
    assert_eq!(listen("127.0.0.1:0", Some("secret")), Ok(()));
}
