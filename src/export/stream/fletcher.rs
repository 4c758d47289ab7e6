// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Fletcher-4, the checksum of ZFS send streams: four sums, each of the one before it.

use pulp::{Arch, Simd, WithSimd};

/// Lanes that are summed apart; lane j takes the words j, j+4, j+8…
const LANES: usize = 4;
/// Words below which one sum is quicker than lanes and their joint.
const FEW: usize = 256;

/// The running checksum over little-endian 32-bit words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Fletcher4 {
    a: u64,
    b: u64,
    c: u64,
    d: u64,
}

impl Fletcher4 {
    /// Adds bytes, whose number must be a multiple of 4 (what is over is ignored).
    pub(super) fn update(&mut self, bytes: &[u8]) {
        let (words, _) = bytes.as_chunks::<4>();
        let (groups, rest) = words.as_chunks::<LANES>();
        if words.len() < FEW {
            self.add_words(words);
            return;
        }
        let sums = Arch::new().dispatch(Sum(groups));
        self.append((groups.len() * LANES) as u64, sums);
        self.add_words(rest);
    }

    fn add_words(&mut self, words: &[[u8; 4]]) {
        for word in words {
            self.a = self.a.wrapping_add(u64::from(u32::from_le_bytes(*word)));
            self.b = self.b.wrapping_add(self.a);
            self.c = self.c.wrapping_add(self.b);
            self.d = self.d.wrapping_add(self.c);
        }
    }

    /// Appends `words` words whose own checksum from zero is `next`.
    fn append(&mut self, words: u64, next: Self) {
        // No slice has 2^42 words, so that the products stay within 128 bits.
        let n = u128::from(words);
        let pairs = (n * (n + 1) / 2) as u64;
        let triples = (n * (n + 1) * (n + 2) / 6) as u64;
        let Self { a, b, c, d } = *self;
        let times = u64::wrapping_mul;
        self.a = a.wrapping_add(next.a);
        self.b = b.wrapping_add(times(words, a)).wrapping_add(next.b);
        self.c = c.wrapping_add(times(words, b)).wrapping_add(times(pairs, a)).wrapping_add(next.c);
        self.d = d
            .wrapping_add(times(words, c))
            .wrapping_add(times(pairs, b))
            .wrapping_add(times(triples, a))
            .wrapping_add(next.d);
    }

    /// As it stands in a record: 32 bytes, little-endian.
    pub(super) fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let (words, _) = bytes.as_chunks_mut::<8>();
        for (word, sum) in words.iter_mut().zip([self.a, self.b, self.c, self.d]) {
            *word = sum.to_le_bytes();
        }
        bytes
    }
}

/// Sums groups of words in lanes; compiled for the vector units of newer processors as well.
struct Sum<'a>(&'a [[[u8; 4]; LANES]]);

type Lanes = [u64; LANES];

impl WithSimd for Sum<'_> {
    type Output = Fletcher4;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Fletcher4 {
        let (mut a, mut b, mut c, mut d) = ([0; LANES], [0; LANES], [0; LANES], [0; LANES]);
        for group in self.0 {
            add(&mut a, &group.map(|word| u64::from(u32::from_le_bytes(word))));
            add(&mut b, &a);
            add(&mut c, &b);
            add(&mut d, &c);
        }
        join(a, b, c, d)
    }
}

#[inline(always)]
fn add(sums: &mut Lanes, terms: &Lanes) {
    for (sum, term) in sums.iter_mut().zip(terms) {
        *sum = sum.wrapping_add(*term);
    }
}

/// The checksum of the whole from those of its lanes.
fn join(a: Lanes, b: Lanes, c: Lanes, d: Lanes) -> Fletcher4 {
    let dot = |lanes: &Lanes, factors: [i64; LANES]| {
        lanes.iter().zip(factors).fold(0u64, |sum, (lane, factor)| {
            sum.wrapping_add(lane.wrapping_mul(factor.cast_unsigned()))
        })
    };
    Fletcher4 {
        a: dot(&a, [1; LANES]),
        b: dot(&b, [4; LANES]).wrapping_add(dot(&a, [0, -1, -2, -3])),
        c: dot(&c, [16; LANES])
            .wrapping_add(dot(&b, [-6, -10, -14, -18]))
            .wrapping_add(dot(&a, [0, 0, 1, 3])),
        d: dot(&d, [64; LANES])
            .wrapping_add(dot(&c, [-48, -64, -80, -96]))
            .wrapping_add(dot(&b, [4, 10, 20, 34]))
            .wrapping_add(dot(&a, [0, 0, 0, -1])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_sums_by_hand() {
        let mut sum = Fletcher4::default();
        sum.update(&[1, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(sum, Fletcher4 { a: 3, b: 4, c: 5, d: 6 });
    }

    proptest! {
        #[test]
        fn lanes_and_parts_make_no_difference(
            start in any::<[u64; 4]>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..12000),
            cut in 0usize..3000,
        ) {
            let [a, b, c, d] = start;
            let mut plain = Fletcher4 { a, b, c, d };
            let mut quick = plain;
            plain.add_words(bytes.as_chunks::<4>().0);
            let (left, right) = bytes.split_at((cut * 4).min(bytes.len() / 4 * 4));
            quick.update(left);
            quick.update(right);
            prop_assert_eq!(quick, plain);
        }
    }
}
