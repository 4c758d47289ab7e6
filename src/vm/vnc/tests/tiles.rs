// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::protocol::Area;
use super::super::tiles::Tiles;

/// The tiles in some areas, by column and row; none twice.
fn tiles(areas: &[Area]) -> BTreeSet<(u16, u16)> {
    let mut tiles = BTreeSet::new();
    for area in areas {
        assert!(!area.is_empty() && area.height() <= 64, "{area:?}");
        for x in area.left / 64..area.right.div_ceil(64) {
            for y in area.top / 16..area.bottom.div_ceil(16) {
                assert!(tiles.insert((x, y)), "twice: {x},{y}");
            }
        }
    }
    tiles
}

proptest! {
    #[test]
    fn what_is_marked_is_taken_once(
        size in (1..700u16, 1..300u16),
        marks in proptest::collection::btree_set((0..11u16, 0..19u16), 0..60),
        (left, top, right, bottom) in (0..700u16, 0..300u16, 0..800u16, 0..400u16),
    ) {
        let mut set = Tiles::none(size);
        for (column, row) in &marks {
            set.mark((*column).into(), (*row).into());
        }
        let is_on = |(x, y): &(u16, u16)| x * 64 < size.0 && y * 16 < size.1;
        let marked: BTreeSet<_> = marks.into_iter().filter(is_on).collect();
        let area = Area { left, top, right, bottom };
        let touches = |(x, y): &(u16, u16)| {
            let (x, y) = (x * 64, y * 16);
            let is_in = left < size.0.min(right) && top < size.1.min(bottom);
            is_in && x + 64 > left && x < right && y + 16 > top && y < bottom
        };
        let wanted: BTreeSet<_> = marked.iter().copied().filter(touches).collect();
        prop_assert_eq!(set.touch(area), !wanted.is_empty());
        let taken = set.take(area, 4);
        prop_assert!(taken.iter().all(|area| area.right <= size.0 && area.bottom <= size.1));
        prop_assert_eq!(&tiles(&taken), &wanted);
        let whole = Area { left: 0, top: 0, right: u16::MAX, bottom: u16::MAX };
        let rest: BTreeSet<_> = marked.difference(&wanted).copied().collect();
        prop_assert_eq!(tiles(&set.take(whole, 4)), rest);
        prop_assert!(set.is_empty());
    }
}

#[test]
fn a_picture_in_too_many_pieces_is_taken_whole() {
    let whole = Area { left: 0, top: 0, right: u16::MAX, bottom: u16::MAX };
    let mut set = Tiles::none((u16::MAX, 1000));
    for column in (0..1024).step_by(2) {
        for row in (0..63).filter(|row| (row + column / 2) % 2 == 0) {
            set.mark(column, row);
        }
    }
    let areas = set.take(whole, 4);
    assert_eq!(areas.len(), 16);
    assert_eq!(tiles(&areas).len(), 1024 * 63);
}
