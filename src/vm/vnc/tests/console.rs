// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The build's own client against the server.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Board, Paper, Place, SOON, VncServer, eventually, world};
use crate::console;
use crate::ui::Secret;
use crate::vm::VncEndpoint;

/// The picture in a screenshot, as the board has it.
fn pixels(screen: &console::Screen) -> Vec<u32> {
    let png = screen.screenshot().unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut bytes).unwrap();
    let samples = info.color_type.samples();
    let pixel = |bytes: &[u8]| u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
    bytes[..info.buffer_size()].chunks(samples).map(pixel).collect()
}

async fn connect(endpoint: &VncEndpoint) -> console::Screen {
    console::Screen::connect(endpoint, CancellationToken::new()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn sees_the_picture_follows_it_and_types() {
    let world = world(300, 200, None);
    let screen = connect(&VncEndpoint::Unix(world.path.clone())).await;
    assert_eq!(screen.size(), (300, 200));
    assert_eq!(pixels(&screen), world.board.pixels());

    let before = screen.fingerprint();
    world.board.set(10, 10, 0xab_cdef);
    screen.wait_change(before, SOON).await.unwrap();
    assert_eq!(pixels(&screen), world.board.pixels());

    for (keysym, down) in [(0xffe1, true), (0x41, true), (0x41, false)] {
        screen.send_key(keysym, down).await.unwrap();
    }
    screen.flush().await.unwrap();

    world.board.become_another(320, 240);
    eventually("the new size", || screen.size() == (320, 240));
    eventually("the new picture", || pixels(&screen) == world.board.pixels());
    screen.wait_still(Duration::from_millis(200), SOON).await.unwrap();

    drop(screen);
    let typed = [(0xffe1, true), (0x41, true), (0x41, false), (0xffe1, false)];
    eventually("the keys", || world.paper.keys() == typed);
}

#[tokio::test(flavor = "multi_thread")]
async fn knows_the_password_or_is_refused() {
    let board = Arc::new(Board::new(100, 50));
    let place = Place::Tcp("127.0.0.1:0".parse().unwrap());
    let password = Some(Secret::new("hunter2"));
    let paper = Arc::new(Paper::default());
    let server = VncServer::listen(&place, password, board.clone(), paper, "a machine").unwrap();
    let Place::Tcp(address) = *server.place() else { panic!("no address") };
    let screen = connect(&VncEndpoint::Tcp(address, Secret::new("hunter2"))).await;
    assert_eq!(pixels(&screen), board.pixels());
    let wrong = VncEndpoint::Tcp(address, Secret::new("hunter3"));
    let refused = console::Screen::connect(&wrong, CancellationToken::new()).await;
    assert!(refused.unwrap_err().to_string().contains("the password is wrong"));
    drop(server);
    assert!(screen.lost().await.to_string().contains("lost the guest's screen"));
}
