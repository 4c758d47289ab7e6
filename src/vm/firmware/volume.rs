// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What a firmware image shows of itself: the header of its first volume (PI 1.7 volume 3 §3.2.1)
//! and its last bytes.

/// GUID of a volume of variables, as it lies in the header.
pub(super) const VARIABLES: [u8; 16] =
    *b"\x8d\x2b\xf1\xff\x96\x76\x8b\x4c\xa9\x85\x27\x47\x07\x5b\x4f\x50";
/// GUID at the end of OVMF's table for loaders, 48 bytes before the image's end.
const LOADER_TABLE: [u8; 16] = *b"\xde\x82\xb5\x96\xb2\x1f\xf7\x45\xba\xea\xa3\x66\xc5\x5a\x08\x2d";
/// GUID of the only entry before there was a table, at the same place.
const RESET_BLOCK: [u8; 16] = *b"\xde\x71\xf7\x00\x7e\x1a\xcb\x4f\x89\x0e\x68\xc7\x7e\x2f\xb4\x4e";

/// What an image begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A volume of drivers.
    Code,
    /// A volume of variables, of so many bytes.
    Variables {
        /// Within the image, and a multiple of a page.
        size: usize,
    },
}

/// What the image begins with; none when there is no valid header.
pub(super) fn kind(image: &[u8]) -> Option<Kind> {
    let field = |at: usize, size: usize| image.get(at..at + size);
    if field(40, 4)? != b"_FVH" {
        return None;
    }
    let header = usize::from(u16::from_le_bytes(field(48, 2)?.try_into().ok()?));
    let sum = image.get(..header).filter(|header| header.len() >= 56)?.chunks(2).fold(
        0_u16,
        |sum, pair| {
            let high = pair.get(1).copied().unwrap_or_default();
            sum.wrapping_add(u16::from_le_bytes([pair[0], high]))
        },
    );
    let size = usize::try_from(u64::from_le_bytes(field(32, 8)?.try_into().ok()?)).ok()?;
    if sum != 0 || size > image.len() || size % 4096 != 0 || size == 0 {
        return None;
    }
    let is_variables = field(16, 16)? == VARIABLES;
    Some(if is_variables { Kind::Variables { size } } else { Kind::Code })
}

/// Whether something stands where a processor starts, 16 bytes before the end.
pub(super) fn has_reset_vector(code: &[u8]) -> bool {
    let Some(vector) = code.last_chunk::<16>() else { return false };
    !vector.iter().all(|byte| *byte == 0) && !vector.iter().all(|byte| *byte == 0xff)
}

/// Whether OVMF's table for loaders, or what was there before it, precedes the reset vector.
pub(super) fn has_loader_table(code: &[u8]) -> bool {
    let Some(tail) = code.last_chunk::<48>() else { return false };
    tail.starts_with(&LOADER_TABLE) || tail.starts_with(&RESET_BLOCK)
}
