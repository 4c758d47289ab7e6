// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What a CD-ROM drive says about itself and its medium.

use super::scsi_cd::{Sense, be};

const VENDOR: &[u8; 8] = b"IMGFORGE";
const PRODUCT: &[u8; 16] = b"CD-ROM          ";
const REVISION: &[u8; 4] = b"1.0 ";
const SERIAL: &[u8; 4] = b"cd-0";

/// More blocks than a CD of 80 minutes has: a DVD.
const CD_BLOCKS: u64 = 360_000;
const PROFILE_CD: u16 = 0x0008;
const PROFILE_DVD: u16 = 0x0010;

/// Inquiry data (SPC-3, sections 6.4 and 7.6).
pub(super) fn inquiry(is_vital: bool, page: u8, is_lun: bool) -> Result<Vec<u8>, Sense> {
    // A device of type 5, or "no such unit".
    let kind = if is_lun { 0x05 } else { 0x7f };
    let body: Vec<u8> = match (is_vital, page) {
        (false, 0) => {
            let head = [kind, 0x80, 0x05, 0x02, 31, 0, 0, 0x02];
            return Ok([&head, VENDOR.as_slice(), PRODUCT, REVISION].concat());
        }
        (true, 0x00) => vec![0x00, 0x80, 0x83],
        (true, 0x80) => SERIAL.to_vec(),
        (true, 0x83) => {
            // One designator: ASCII, by vendor.
            let length = (VENDOR.len() + SERIAL.len()) as u8;
            [&[2, 1, 0, length], VENDOR.as_slice(), SERIAL].concat()
        }
        _ => return Err(Sense::BAD_FIELD),
    };
    Ok([&[kind, page, 0, body.len() as u8], body.as_slice()].concat())
}

/// Mode pages (MMC-3, section 5.5): error recovery and capabilities.
pub(super) fn mode(selector: u8, medium_type: u8, is_short: bool) -> Result<Vec<u8>, Sense> {
    let recovery = [0x01, 0x0a, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0];
    // Reads CDs and DVDs, several sessions; a tray with lock and eject; two volume levels, 256 KiB
    // of buffer, 32 times the speed of a CD.
    let capabilities = [
        0x2a, 0x14, 0x0b, 0, 0x70, 0, 0x29, 0, 0x16, 0x0d, 0, 2, 1, 0, 0x16, 0x0d, 0, 0, 0, 0, 0, 0,
    ];
    let chosen: &[&[u8]] = match selector & 0x3f {
        0x01 => &[&recovery],
        0x2a => &[&capabilities],
        0x3f => &[&recovery, &capabilities],
        _ => return Err(Sense::BAD_FIELD),
    };
    let mut pages = Vec::new();
    for page in chosen {
        match selector >> 6 {
            // What can be changed: nothing.
            1 => {
                pages.extend(page.iter().take(2));
                pages.extend(page.iter().skip(2).map(|_| 0));
            }
            3 => return Err(Sense::NO_SAVING),
            _ => pages.extend(*page),
        }
    }
    let length = pages.len() as u8;
    let header: &[u8] = match is_short {
        true => &[length + 3, medium_type, 0, 0],
        false => &[0, length + 6, medium_type, 0, 0, 0, 0, 0],
    };
    Ok([header, &pages].concat())
}

/// The table of contents of a disc with one data track (MMC-3, section 6.25).
pub(super) fn toc(cdb: &[u8; 32], blocks: u64) -> Result<Vec<u8>, Sense> {
    const LEAD_OUT: u8 = 0xaa;
    let is_msf = cdb[1] & 2 != 0;
    // Old drivers have the format in the control byte.
    let format = match cdb[2] & 0x0f {
        0 => cdb[9] >> 6,
        format => format,
    };
    let start = cdb[6];
    let track = |number: u8, block: u64| {
        let mut entry = vec![0, 0x14, number, 0];
        entry.extend(address(block, is_msf));
        entry
    };
    let entries = match format {
        0 if start <= 1 => [track(1, 0), track(LEAD_OUT, blocks)].concat(),
        0 if start == LEAD_OUT => track(LEAD_OUT, blocks),
        // Sessions: the first one, beginning with track 1.
        1 => track(1, 0),
        _ => return Err(Sense::BAD_FIELD),
    };
    Ok([&[0, entries.len() as u8 + 2, 1, 1], entries.as_slice()].concat())
}

fn address(block: u64, is_msf: bool) -> [u8; 4] {
    if !is_msf {
        return u32::try_from(block).unwrap_or(u32::MAX).to_be_bytes();
    }
    let frames = block.saturating_add(150);
    let minutes = u8::try_from(frames / (75 * 60)).unwrap_or(u8::MAX);
    [0, minutes, (frames / 75 % 60) as u8, (frames % 75) as u8]
}

/// Features (MMC-3, section 5.3): profiles, core, removable medium.
pub(super) fn configuration(start: usize, kind: u8, blocks: u64) -> Vec<u8> {
    let profile = match blocks {
        0 => 0,
        1..CD_BLOCKS => PROFILE_CD,
        _ => PROFILE_DVD,
    };
    let is_current = |one| u8::from(profile == one);
    let [dvd, cd] = [PROFILE_DVD, PROFILE_CD].map(u16::to_be_bytes);
    let features: [&[u8]; 3] = [
        &[
            0,
            0,
            3,
            8,
            dvd[0],
            dvd[1],
            is_current(PROFILE_DVD),
            0,
            cd[0],
            cd[1],
            is_current(PROFILE_CD),
            0,
        ],
        // Core, over SCSI.
        &[0, 1, 3, 4, 0, 0, 0, 1],
        // A tray that ejects and locks.
        &[0, 3, 3, 4, 0x29, 0, 0, 0],
    ];
    let mut body = Vec::new();
    for feature in features {
        let number = be(feature.get(..2).unwrap_or_default());
        // All, all that are current, or exactly one.
        if number == start || (kind != 2 && number > start) {
            body.extend(feature);
        }
    }
    let length = body.len() as u32 + 4;
    [&length.to_be_bytes(), [0, 0].as_slice(), &profile.to_be_bytes(), &body].concat()
}

/// Disc information (MMC-3, section 6.21): complete, one session, one track.
pub(super) fn disc() -> [u8; 34] {
    let mut answer = [0; 34];
    answer[1] = 32;
    answer[2] = 0x0e;
    answer[3..7].fill(1);
    answer[7] = 0x20;
    answer
}
