// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Digests: the algorithms that distributors publish, computed piece by piece, several in one pass.

use std::io::Read;

use sha2::Digest as _;

use crate::target::Algorithm;

/// Every algorithm, strongest first.
pub(super) const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::Sha512, Algorithm::Sha256, Algorithm::Sha1, Algorithm::Md5];

/// The algorithm's name in lower case, as in `sha256:…`.
pub fn algorithm_name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Md5 => "md5",
        Algorithm::Sha1 => "sha1",
        Algorithm::Sha256 => "sha256",
        Algorithm::Sha512 => "sha512",
    }
}

/// Number of hex digits of a digest of this algorithm.
pub fn hex_length(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::Md5 => 32,
        Algorithm::Sha1 => 40,
        Algorithm::Sha256 => 64,
        Algorithm::Sha512 => 128,
    }
}

/// The algorithm whose digests have this many hex digits.
pub(super) fn algorithm_of_length(digits: usize) -> Option<Algorithm> {
    ALGORITHMS.into_iter().find(|algorithm| hex_length(*algorithm) == digits)
}

/// The algorithm of this name, in any case and with or without the dash (`SHA-256`, `sha2-256`).
pub(super) fn algorithm_of_name(name: &str) -> Option<Algorithm> {
    match name.to_ascii_lowercase().replace("sha2-", "sha").replace('-', "").as_str() {
        "md5" => Some(Algorithm::Md5),
        "sha1" => Some(Algorithm::Sha1),
        "sha256" => Some(Algorithm::Sha256),
        "sha512" => Some(Algorithm::Sha512),
        _ => None,
    }
}

enum State {
    Md5(md5::Md5),
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

/// One running digest.
pub struct Digester {
    state: State,
}

impl Digester {
    /// A digest of no bytes yet.
    pub fn new(algorithm: Algorithm) -> Self {
        let state = match algorithm {
            Algorithm::Md5 => State::Md5(md5::Md5::new()),
            Algorithm::Sha1 => State::Sha1(sha1::Sha1::new()),
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        };
        Self { state }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Md5(state) => state.update(bytes),
            State::Sha1(state) => state.update(bytes),
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest in lower-case hex.
    pub fn finish(self) -> String {
        match self.state {
            State::Md5(state) => hex::encode(state.finalize()),
            State::Sha1(state) => hex::encode(state.finalize()),
            State::Sha256(state) => hex::encode(state.finalize()),
            State::Sha512(state) => hex::encode(state.finalize()),
        }
    }
}

/// The SHA-256 of a short text, in hex; used for names in the cache.
pub(super) fn name_of(text: &str) -> String {
    let mut digester = Digester::new(Algorithm::Sha256);
    digester.update(text.as_bytes());
    digester.finish()
}

/// Digests all of `reader` once for every algorithm asked for; `step` hears the number of bytes
/// so far after each piece and stops the work by returning `false` (then the result is `None`).
pub(super) fn digest_all(
    reader: &mut impl Read,
    algorithms: &[Algorithm],
    mut step: impl FnMut(u64) -> bool,
) -> std::io::Result<Option<Vec<(Algorithm, String)>>> {
    let mut running: Vec<_> = algorithms.iter().map(|a| (*a, Digester::new(*a))).collect();
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0_u64;
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let piece = buffer.get(..count).unwrap_or_default();
        for (_, digester) in &mut running {
            digester.update(piece);
        }
        done = done.saturating_add(count as u64);
        if !step(done) {
            return Ok(None);
        }
    }
    Ok(Some(running.into_iter().map(|(a, digester)| (a, digester.finish())).collect()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn digests_equal_the_published_test_vectors() {
        let all = digest_all(&mut &b"abc"[..], &ALGORITHMS, |_| true).unwrap().unwrap();
        let of = |wanted| all.iter().find(|(a, _)| *a == wanted).unwrap().1.as_str();
        assert_eq!(of(Algorithm::Md5), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(of(Algorithm::Sha1), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(
            of(Algorithm::Sha256),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(of(Algorithm::Sha512).starts_with("ddaf35a193617abacc417349ae204131"));
        for (algorithm, hex) in &all {
            assert_eq!(hex.len(), hex_length(*algorithm));
        }
    }

    #[test]
    fn pieces_do_not_matter_and_a_stop_is_obeyed() {
        let text: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
        let mut whole = Digester::new(Algorithm::Sha256);
        whole.update(&text);
        let pieces =
            digest_all(&mut text.as_slice(), &[Algorithm::Sha256], |_| true).unwrap().unwrap();
        assert_eq!(pieces[0].1, whole.finish());
        assert!(digest_all(&mut text.as_slice(), &[Algorithm::Md5], |_| false).unwrap().is_none());
    }

    #[test]
    fn names_are_read_in_the_spellings_in_use() {
        assert_eq!(algorithm_of_name("SHA2-256"), Some(Algorithm::Sha256));
        assert_eq!(algorithm_of_name("SHA-512"), Some(Algorithm::Sha512));
        assert_eq!(algorithm_of_name("MD5"), Some(Algorithm::Md5));
        assert_eq!(algorithm_of_name("SHA224"), None);
    }
}
