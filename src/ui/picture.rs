// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A screen's picture as a PNG file.

use png::{BitDepth, ColorType, Compression, Encoder, EncodingError};

/// Encodes lines of pixels (blue, green, red, nothing) of a size in pixels.
pub(crate) fn png(
    (width, height): (u32, u32),
    pixels: impl Iterator<Item = [u8; 4]>,
) -> Result<Vec<u8>, EncodingError> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, width, height);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Fast);
    let bytes: Vec<u8> = pixels.flat_map(|[blue, green, red, _]| [red, green, blue]).collect();
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&bytes)?;
    writer.finish()?;
    Ok(file)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pixels_come_back() {
        let file =
            png((2, 1), [0x0012_3456, 0xffff_0001].map(u32::to_le_bytes).into_iter()).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut bytes).unwrap();
        assert_eq!(bytes, [0x12, 0x34, 0x56, 0xff, 0, 1]);
    }

    #[test]
    fn no_picture_is_an_error() {
        assert!(png((0, 0), std::iter::empty()).is_err());
        assert!(png((2, 2), std::iter::once([1, 0, 0, 0])).is_err());
    }
}
