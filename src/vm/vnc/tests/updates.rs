// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

use std::time::{Duration, Instant};

use super::mini::{Format, Mini, NATIVE, Rectangle};
use super::{World, eventually, world};

const RAW: i32 = 0;
const ZLIB: i32 = 6;
const ZRLE: i32 = 16;
const DESKTOP_SIZE: i32 = -223;

const FORMATS: [Format; 9] = [
    NATIVE,
    Format(32, 24, true, [255; 3], [16, 8, 0]),
    Format(32, 24, false, [255; 3], [0, 8, 16]),
    Format(32, 24, false, [255; 3], [24, 16, 8]),
    Format(32, 24, true, [255; 3], [8, 16, 24]),
    Format(32, 30, false, [1023; 3], [20, 10, 0]),
    Format(16, 16, false, [31, 63, 31], [11, 5, 0]),
    Format(16, 15, true, [31; 3], [10, 5, 0]),
    Format(8, 8, false, [7, 7, 3], [0, 3, 6]),
];

fn assert_shows(client: &Mini, world: &World) {
    let wanted: Vec<u32> =
        world.board.pixels().into_iter().map(|pixel| client.format.of(pixel)).collect();
    assert!(client.canvas == wanted, "the picture differs");
}

#[test]
fn every_encoding_and_format_shows_the_picture_exactly() {
    // No multiple of a tile's size.
    let world = world(203, 149, None);
    for encoding in [RAW, ZLIB, ZRLE] {
        let mut client = Mini::connect(&world);
        client.set_encodings(&[-239, encoding, RAW]);
        for format in FORMATS {
            client.set_format(format);
            client.canvas.fill(0xdead_beef);
            client.request(false);
            let rectangles = client.update();
            assert!(rectangles.iter().all(|each| each.encoding == encoding));
            assert_shows(&client, &world);
        }
    }
}

#[test]
fn whoever_says_nothing_gets_raw_pixels() {
    let world = world(64, 16, None);
    let mut client = Mini::connect(&world);
    client.request(false);
    let whole = Rectangle { x: 0, y: 0, width: 64, height: 16, encoding: RAW };
    assert_eq!(client.update(), [whole]);
    assert_shows(&client, &world);
}

#[test]
fn incremental_updates_bring_what_changed_and_nothing_else() {
    let world = world(200, 100, None);
    let mut client = Mini::connect(&world);
    // The first one is whole, for the client has nothing yet.
    client.request(true);
    client.update();
    assert_shows(&client, &world);
    for (x, y, colour) in [(0, 0, 1), (199, 99, 2), (64, 16, 3), (63, 15, 4)] {
        world.board.set(x, y, colour);
        client.request(true);
        let rectangles = client.update();
        let [Rectangle { x: left, y: top, width, height, .. }] = rectangles[..] else {
            panic!("{rectangles:?}");
        };
        assert_eq!((left, top), (x as usize / 64 * 64, y as usize / 16 * 16));
        assert!(width <= 64 && height <= 16, "{width} x {height}");
        assert_shows(&client, &world);
    }
}

#[test]
fn an_update_waits_for_a_change_where_the_client_looks() {
    let world = world(200, 100, None);
    let mut client = Mini::connect(&world);
    client.request(false);
    client.update();
    client.request_area(true, [0, 0, 64, 16]);
    world.board.set(150, 50, 1);
    client.stream.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    let mut byte = [0];
    let nothing = std::io::Read::read(&mut client.stream, &mut byte);
    assert!(nothing.is_err(), "nothing changed there");
    client.stream.set_read_timeout(Some(super::SOON)).unwrap();
    world.board.set(1, 1, 1);
    assert_eq!(client.update().len(), 1);
    // What was seen elsewhere was not forgotten.
    client.request(true);
    client.update();
    assert_shows(&client, &world);
}

#[test]
fn the_screen_is_left_alone_while_nobody_waits() {
    let world = world(100, 100, None);
    let mut client = Mini::connect(&world);
    client.request(false);
    client.update();
    let before = world.board.copies();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(world.board.copies(), before);
    let begun = Instant::now();
    client.request(true);
    std::thread::sleep(Duration::from_secs(1));
    let samples = world.board.copies() - before;
    let most = begun.elapsed().as_millis() / 33 + 1;
    assert!((1..=most).contains(&(samples as u128)), "{samples} samples in a second");
}

#[test]
fn a_full_request_is_answered_with_what_the_screen_shows_now() {
    let world = world(100, 100, None);
    let mut client = Mini::connect(&world);
    client.request(false);
    client.update();
    for colour in 0..20 {
        world.board.set(50, 50, colour);
        client.request(false);
        client.update();
        assert_shows(&client, &world);
    }
}

#[test]
fn a_change_of_size_is_announced_and_followed_by_the_picture() {
    let world = world(100, 50, None);
    let mut client = Mini::connect(&world);
    client.set_encodings(&[ZRLE, DESKTOP_SIZE]);
    client.request(false);
    client.update();
    for (width, height) in [(130, 70), (40, 20), (100, 50)] {
        world.board.become_another(width, height);
        client.request(true);
        let (width, height) = (width as usize, height as usize);
        let resize = Rectangle { x: 0, y: 0, width, height, encoding: DESKTOP_SIZE };
        assert_eq!(client.update(), [resize]);
        client.request(true);
        client.update();
        assert_shows(&client, &world);
    }
}

#[test]
fn a_client_that_cannot_follow_keeps_its_size() {
    let world = world(100, 50, None);
    let mut client = Mini::connect(&world);
    client.request(false);
    client.update();
    for (width, height) in [(130, 70), (40, 20), (60, 90), (100, 50)] {
        world.board.become_another(width, height);
        client.request(true);
        client.update();
        assert_eq!(client.size, (100, 50));
        let pixels = world.board.pixels();
        for (at, seen) in client.canvas.iter().enumerate() {
            let (x, y) = (at % 100, at / 100);
            let is_inside = x < width as usize && y < height as usize;
            let wanted = if is_inside { pixels[y * width as usize + x] } else { 0 };
            assert_eq!(*seen, wanted, "at {x},{y} of {width}x{height}");
        }
    }
    // Once it can, it is told.
    world.board.become_another(64, 64);
    client.set_encodings(&[RAW, DESKTOP_SIZE]);
    client.request(true);
    assert_eq!(client.update()[0].encoding, DESKTOP_SIZE);
}

#[test]
fn a_slow_client_holds_up_nobody() {
    // More than a socket takes, so that the slow one's writer waits.
    let world = world(500, 300, None);
    let mut slow = Mini::connect(&world);
    for _ in 0..50 {
        slow.request(false);
    }
    let mut quick = Mini::connect(&world);
    quick.set_encodings(&[ZRLE]);
    for colour in 0..5 {
        world.board.set(400, 200, colour);
        quick.request(true);
        quick.update();
        assert_shows(&quick, &world);
    }
    // Later, the slow one sees the present, not the past.
    slow.update();
    eventually("the present", || {
        slow.request(false);
        slow.update();
        world.board.pixels() == slow.canvas
    });
}

#[test]
fn what_is_no_picture_is_no_change() {
    let world = world(100, 50, None);
    let mut client = Mini::connect(&world);
    client.request(false);
    client.update();
    let sound = world.board.picture.lock().unwrap().clone();
    for broken in [(0, 0, vec![]), (70_000, 1, vec![0; 70_000]), (10, 10, vec![0; 99])] {
        *world.board.picture.lock().unwrap() = broken;
        let before = world.board.copies();
        client.request(true);
        eventually("a sample", || world.board.copies() > before + 1);
    }
    *world.board.picture.lock().unwrap() = sound;
    world.board.set(0, 0, 77);
    assert_eq!(client.update().len(), 1);
    assert_shows(&client, &world);
}
