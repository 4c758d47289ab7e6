// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

use super::mini::Mini;
use super::world;

/// The security type, in the way of each version.
fn choose(client: &mut Mini, version: &[u8; 12], security: u8) {
    assert_eq!(client.take(12), b"RFB 003.008\n");
    client.say(version);
    if version < b"RFB 003.007\n" {
        assert_eq!(client.take(4), [0, 0, 0, security]);
    } else {
        assert_eq!(client.take(2), [1, security]);
        client.say(&[security]);
    }
}

const VERSIONS: [&[u8; 12]; 4] =
    [b"RFB 003.003\n", b"RFB 003.005\n", b"RFB 003.007\n", b"RFB 003.008\n"];

#[test]
fn lets_everybody_in_without_a_password_in_each_version() {
    let world = world(100, 50, None);
    for version in VERSIONS {
        let mut client = Mini::dial(&world);
        choose(&mut client, version, 1);
        if version == b"RFB 003.008\n" {
            assert_eq!(client.take(4), [0; 4]);
        }
        client.say(&[0]);
        client.init();
        assert_eq!(client.size, (100, 50));
    }
}

#[test]
fn asks_for_the_password_in_each_version() {
    let world = world(100, 50, Some("hunter2"));
    for version in VERSIONS {
        let mut client = Mini::dial(&world);
        choose(&mut client, version, 2);
        client.authenticate("hunter2");
        assert_eq!(client.take(4), [0; 4]);
        client.say(&[1]);
        client.init();

        let mut client = Mini::dial(&world);
        choose(&mut client, version, 2);
        client.authenticate("hunter3");
        assert_eq!(client.take(4), [0, 0, 0, 1]);
        let reason = client.rest();
        let has_reason = version == b"RFB 003.008\n";
        assert_eq!(reason.ends_with(b"the password is wrong"), has_reason);
    }
    world.paper.wait_note("refused: the password is wrong");
}

#[test]
fn eight_bytes_of_a_password_count() {
    let world = world(100, 50, Some("longer than eight"));
    let mut client = Mini::dial(&world);
    choose(&mut client, b"RFB 003.008\n", 2);
    client.authenticate("longer t");
    assert_eq!(client.take(4), [0; 4]);
}

#[test]
fn encrypts_like_other_clients() {
    let challenge = *b"0123456789abcdef";
    let response = super::super::auth::encrypt(&crate::ui::Secret::new("password"), challenge);
    // DES with the key 0e 86 ce ce ee f6 4e 26: each byte of the password, lowest bit first.
    let key = b"password".map(u8::reverse_bits);
    assert_eq!(hex::encode(key), "0e86ceceeef64e26");
    // From `openssl enc -des-ecb -nopad -provider legacy` with that key.
    assert_eq!(hex::encode(response), "5645abeb5f1e6475e8feb11beb66ea19");
}

#[test]
fn refuses_what_was_not_offered() {
    let world = world(100, 50, Some("secret"));
    let mut client = Mini::dial(&world);
    client.take(12);
    client.say(b"RFB 003.008\n");
    assert_eq!(client.take(2), [1, 2]);
    client.say(&[1]);
    assert_eq!(client.take(4), [0, 0, 0, 1]);
    assert!(client.rest().ends_with(b"not offered"));
    for version in [b"GET / HTTP/1", b"RFB 004.001\n", b"RFB 003.0x8\n", b"RFB 003.008 "] {
        let mut client = Mini::dial(&world);
        client.take(12);
        client.say(version);
        assert!(client.rest().is_empty());
    }
    world.paper.wait_note("no version of the protocol");
}
