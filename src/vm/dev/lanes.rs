// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Registers as bytes in little-endian order, read and written at whatever width the guest likes.

/// Copies what `image` holds at `offset` into `data`; beyond the image, zeros.
pub(crate) fn read(image: &[u8], offset: u64, data: &mut [u8]) {
    data.fill(0);
    let from = usize::try_from(offset).ok().and_then(|start| image.get(start..)).unwrap_or(&[]);
    for (to, byte) in data.iter_mut().zip(from) {
        *to = *byte;
    }
}

/// Merges `data` into `image` at `offset`, each bit only where `mask` has it; the rest is lost.
pub(crate) fn write(image: &mut [u8], mask: &[u8], offset: u64, data: &[u8]) {
    let Ok(start) = usize::try_from(offset) else { return };
    let image = image.get_mut(start..).unwrap_or_default();
    let mask = mask.get(start..).unwrap_or_default();
    for ((to, mask), byte) in image.iter_mut().zip(mask).zip(data) {
        *to = (*to & !mask) | (byte & mask);
    }
}

/// Up to eight bytes as a number.
pub(crate) fn number(data: &[u8]) -> u64 {
    data.iter().take(8).rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Puts a number into an image that is known to hold it.
pub(crate) fn put<const N: usize>(image: &mut [u8], offset: usize, bytes: [u8; N]) {
    if let Some(place) = image.get_mut(offset..).and_then(|rest| rest.get_mut(..N)) {
        place.copy_from_slice(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_outside_are_zero_or_lost() {
        let mut image = [1, 2, 3, 4];
        let mut data = [0xff; 4];
        read(&image, 2, &mut data);
        assert_eq!(data, [3, 4, 0, 0]);
        read(&image, u64::MAX, &mut data);
        assert_eq!(data, [0; 4]);
        write(&mut image, &[0xff, 0xf0, 0], 1, &[0x55, 0x66, 0x77]);
        assert_eq!(image, [1, 0x52, 3, 4]);
        write(&mut image, &[0xff; 4], u64::MAX, &[9; 8]);
        put(&mut image, 3, 7u16.to_le_bytes());
        assert_eq!(image, [1, 0x52, 3, 4]);
        assert_eq!(number(&[0x34, 0x12]), 0x1234);
    }
}
