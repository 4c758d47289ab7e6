// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A source cut into whole clusters, however it cuts itself.

use super::super::pipeline::{Feed, Piece};
use super::super::source::{CHUNK, Chunk, Source};
use crate::ui::{Failure, Outcome};

/// Pulls whole clusters out of a source; zeros are counted in clusters. The last one is filled up
/// with zeros.
pub(super) struct Clusters<'a> {
    source: &'a mut dyn Source,
    cluster: usize,
    /// Bytes that wait for their cluster to be full.
    carry: Vec<u8>,
    /// Zeros after `carry`.
    zeros: u64,
    size: u64,
}

impl<'a> Clusters<'a> {
    pub(super) fn new(source: &'a mut dyn Source, cluster: usize) -> Self {
        Self { source, cluster, carry: Vec::new(), zeros: 0, size: 0 }
    }

    /// Bytes that the source has given so far.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    fn grow(&mut self, count: u64) -> Outcome<()> {
        let size = self.size.checked_add(count).filter(|size| i64::try_from(*size).is_ok());
        self.size = size.ok_or_else(|| {
            Failure::input(format!("{} is larger than any disk", self.source.name()))
        })?;
        Ok(())
    }

    /// A piece of the zeros that wait; none are left when there is none.
    fn take_zeros(&mut self) -> Option<Piece> {
        let cluster = self.cluster as u64;
        let carried = self.carry.len() % self.cluster;
        if carried == 0 && self.carry.is_empty() && self.zeros >= cluster {
            let count = self.zeros / cluster;
            self.zeros %= cluster;
            return Some(Piece::Zeros(count));
        }
        let fill = (cluster - carried as u64).min(self.zeros);
        self.zeros -= fill;
        self.carry.resize(self.carry.len() + usize::try_from(fill).unwrap_or(0), 0);
        let full = !self.carry.is_empty() && self.carry.len().is_multiple_of(self.cluster);
        full.then(|| Piece::Data(std::mem::take(&mut self.carry)))
    }

    fn take_data(&mut self, data: Vec<u8>) -> Option<Piece> {
        if self.carry.is_empty() && data.len().is_multiple_of(self.cluster) && !data.is_empty() {
            return Some(Piece::Data(data));
        }
        self.carry.reserve(CHUNK);
        self.carry.extend_from_slice(&data);
        let whole = self.carry.len() - self.carry.len() % self.cluster;
        if whole == 0 {
            return None;
        }
        let rest = self.carry.split_off(whole);
        Some(Piece::Data(std::mem::replace(&mut self.carry, rest)))
    }

    fn rest(&mut self) -> Option<Piece> {
        if self.carry.is_empty() {
            return None;
        }
        let whole = self.carry.len().next_multiple_of(self.cluster);
        self.carry.resize(whole, 0);
        Some(Piece::Data(std::mem::take(&mut self.carry)))
    }
}

impl Feed for Clusters<'_> {
    fn next(&mut self, mut buffer: Vec<u8>) -> Outcome<Option<Piece>> {
        loop {
            if let Some(piece) = self.take_zeros() {
                return Ok(Some(piece));
            }
            match self.source.next(std::mem::take(&mut buffer))? {
                None => return Ok(self.rest()),
                Some(Chunk::Zeros(count)) => {
                    self.grow(count)?;
                    self.zeros = count;
                }
                Some(Chunk::Data(data)) => {
                    self.grow(data.len() as u64)?;
                    if let Some(piece) = self.take_data(data) {
                        return Ok(Some(piece));
                    }
                }
            }
        }
    }

    fn at(&self) -> Option<u64> {
        Some(self.size)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Given(Vec<Chunk>);

    impl Source for Given {
        fn name(&self) -> String {
            "given".into()
        }
        fn total(&self) -> Option<u64> {
            None
        }
        fn next(&mut self, _: Vec<u8>) -> Outcome<Option<Chunk>> {
            Ok(if self.0.is_empty() { None } else { Some(self.0.remove(0)) })
        }
    }

    #[test]
    fn many_zeros_cost_nothing_and_too_many_are_refused() {
        let mut given = Given(vec![Chunk::Zeros(1 << 62), Chunk::Zeros(1 << 62)]);
        let mut clusters = Clusters::new(&mut given, 512);
        assert_eq!(clusters.next(Vec::new()).unwrap(), Some(Piece::Zeros(1 << 53)));
        assert!(clusters.next(Vec::new()).is_err());
    }

    proptest! {
        #[test]
        fn the_bytes_are_the_same_and_the_last_cluster_is_full(
            chunks in proptest::collection::vec((any::<bool>(), 1usize..3000), 0..20),
        ) {
            let mut whole = Vec::new();
            let mut given = Vec::new();
            for (index, (zeros, length)) in chunks.iter().enumerate() {
                if *zeros {
                    whole.resize(whole.len() + length, 0);
                    given.push(Chunk::Zeros(*length as u64));
                } else {
                    let data = vec![index as u8 + 1; *length];
                    whole.extend(&data);
                    given.push(Chunk::Data(data));
                }
            }
            let size = whole.len() as u64;
            whole.resize(whole.len().next_multiple_of(512), 0);
            let mut given = Given(given);
            let mut clusters = Clusters::new(&mut given, 512);
            let mut bytes = Vec::new();
            while let Some(piece) = clusters.next(Vec::new()).unwrap() {
                match piece {
                    Piece::Zeros(count) => bytes.resize(bytes.len() + count as usize * 512, 0),
                    Piece::Data(data) => {
                        prop_assert!(!data.is_empty() && data.len() % 512 == 0);
                        bytes.extend(data);
                    }
                }
            }
            prop_assert_eq!(clusters.size(), size);
            prop_assert_eq!(bytes, whole);
        }
    }
}
