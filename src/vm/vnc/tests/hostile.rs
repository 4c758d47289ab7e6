// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

use std::io::{self, Cursor, Read, Write};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::converse;
use super::super::protocol::Gone;
use super::mini::Mini;
use super::{Board, Paper, eventually, world};

/// A client that says this and listens to everything.
struct Script(Cursor<Vec<u8>>);

impl Read for Script {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn run(bytes: Vec<u8>) -> (Gone, Vec<(u32, bool)>) {
    let paper = Paper::default();
    let gone = converse(Script(Cursor::new(bytes)), None, &Board::new(70, 40), &paper);
    (gone, paper.keys())
}

fn after_handshake(bytes: &[u8]) -> Vec<u8> {
    [b"RFB 003.008\n\x01\x01", bytes].concat()
}

/// Messages that begin well.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let any_of = |length| proptest::collection::vec(any::<u8>(), length);
    let format = (prop_oneof![Just(8), Just(16), Just(32)], any::<bool>(), 0..9u32, 0..24u8);
    prop_oneof![
        format.prop_map(|(bits, big, width, shift)| {
            let max = ((1u16 << width) - 1).to_be_bytes();
            let [high, low] = max;
            let maxima = [high, low, high, low, high, low];
            let head = vec![0, 0, 0, 0, bits, 24, u8::from(big), 1];
            [head, maxima.to_vec(), vec![shift, shift / 2, 0, 0, 0, 0]].concat()
        }),
        proptest::collection::vec(prop_oneof![Just(0), Just(6), Just(16), Just(-223)], 0..4)
            .prop_map(|list: Vec<i32>| {
                let numbers = list.iter().flat_map(|number| number.to_be_bytes());
                [2, 0, 0, list.len() as u8].into_iter().chain(numbers).collect()
            }),
        any_of(9).prop_map(|body| [vec![3], body].concat()),
        any_of(7).prop_map(|body| [vec![4], body].concat()),
        any_of(5).prop_map(|body| [vec![5], body].concat()),
        (0..30u8).prop_map(|length| {
            [vec![6, 0, 0, 0, 0, 0, 0, length], vec![1; length.into()]].concat()
        }),
        any_of(3),
    ]
}

proptest! {
    #[test]
    fn garbage_ends(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        run(bytes.clone());
        run(after_handshake(&bytes));
    }

    #[test]
    fn messages_of_all_kinds_end_with_all_keys_up(
        messages in proptest::collection::vec(message(), 0..30)
    ) {
        let (_, keys) = run(after_handshake(&messages.concat()));
        let mut held = std::collections::BTreeSet::new();
        for (keysym, down) in keys {
            if down { held.insert(keysym) } else { held.remove(&keysym) };
        }
        prop_assert!(held.is_empty());
    }
}

#[test]
fn says_what_was_wrong() {
    let says = |bytes: &[u8]| run(after_handshake(bytes)).0.to_string();
    assert_eq!(says(&[]), "it hung up");
    assert!(says(&[9]).contains("unknown type 9"));
    assert!(says(&[6, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]).contains("clipboard of 4294967295"));
    let format = |bits, true_colour, red: [u8; 2], shift| {
        let [high, low] = red;
        let head = [0, 0, 0, 0, bits, 24, 0, true_colour, high, low, 0, 7, 0, 7];
        says(&[&head[..], &[shift, 0, 0, 0, 0, 0]].concat())
    };
    assert!(format(32, 0, [0, 7], 0).contains("colour map"));
    assert_eq!(format(32, 1, [0, 7], 0), "it hung up");
    for (bits, red, shift) in
        [(24, [0, 7], 0), (8, [0, 7], 6), (32, [0, 0], 0), (32, [0, 6], 0), (32, [255, 255], 255)]
    {
        assert!(format(bits, 1, red, shift).contains("impossible"), "{bits} {red:?} {shift}");
    }
}

#[test]
fn nobody_else_notices() {
    let world = world(100, 50, None);
    let mut good = Mini::connect(&world);
    for garbage in [&[0; 100][..], &[6, 0, 0, 0, 255, 0, 0, 0], &[200; 3], &[2, 0, 0xff, 0xff]] {
        let mut bad = Mini::connect(&world);
        // The server may hang up before it has everything.
        let _ = bad.stream.write_all(garbage);
        let _ = bad.stream.shutdown(std::net::Shutdown::Write);
        bad.rest();
    }
    good.request(false);
    good.update();
    assert_eq!(good.canvas, world.board.pixels());
}

#[test]
#[ignore = "takes ten seconds"]
fn a_client_that_says_nothing_or_little_is_let_go() {
    let world = world(100, 50, None);
    let begun = Instant::now();
    let mut silent = Mini::dial(&world);
    let mut slow = Mini::dial(&world);
    slow.take(12);
    let mut words = b"RFB 003.008\n".iter();
    eventually("the slow one's end", || {
        std::thread::sleep(Duration::from_secs(1));
        words.next().is_none_or(|byte| slow.stream.write_all(&[*byte]).is_err())
    });
    silent.rest();
    assert!(begun.elapsed() < Duration::from_secs(14));
    world.paper.wait_note("did not answer in time");
}

#[test]
#[ignore = "takes ten seconds"]
fn a_client_that_does_not_read_is_let_go() {
    let world = world(1000, 500, None);
    let mut stuck = Mini::connect(&world);
    stuck.key(0xffe1, true);
    stuck.request(false);
    world.paper.wait_note("did not answer in time");
    assert_eq!(world.paper.keys(), [(0xffe1, true), (0xffe1, false)]);
}
