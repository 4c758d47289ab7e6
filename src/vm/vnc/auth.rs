// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! VNC authentication (RFC 6143 §7.2.2): the client encrypts what the server made up, with the
//! password as the key of DES. It keeps other users of this host out; it protects nothing else.

use std::hint::black_box;

use des::Des;
use des::cipher::{Block, BlockCipherEncrypt, KeyInit};

use crate::ui::Secret;

/// What the client is to encrypt.
pub(super) type Challenge = [u8; 16];

/// A new challenge.
pub(super) fn challenge() -> Challenge {
    rand::random()
}

/// Whether this is the challenge encrypted with the password. Takes the same time for every
/// wrong answer.
pub(super) fn is_right(password: &Secret, challenge: Challenge, response: Challenge) -> bool {
    let wanted = encrypt(password, challenge);
    let difference = wanted.iter().zip(response).fold(0, |sum, (a, b)| black_box(sum | (a ^ b)));
    black_box(difference) == 0
}

/// Of the password, eight bytes count; a shorter one goes on with zeros. Each byte's bits are
/// taken in the opposite order, lowest first, as every client does (erratum 4951 of the RFC).
pub(super) fn encrypt(password: &Secret, mut challenge: Challenge) -> Challenge {
    let mut key = [0; 8];
    for (to, from) in key.iter_mut().zip(password.reveal().bytes()) {
        *to = from.reverse_bits();
    }
    let des = Des::new(&key.into());
    for half in challenge.chunks_exact_mut(8) {
        let mut block = Block::<Des>::default();
        block.copy_from_slice(half);
        des.encrypt_block(&mut block);
        half.copy_from_slice(&block);
    }
    challenge
}
