// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Versions, security and the first words about the screen (RFC 6143 §7.1 to §7.3).

use std::io::{Read, Write};

use super::auth;
use super::pixel::PixelFormat;
use super::protocol::{Gone, take};
use crate::ui::Secret;

/// What the server speaks.
const GREETING: &[u8; 12] = b"RFB 003.008\n";
/// Security types (RFC 6143 §7.2).
const NONE: u8 = 1;
const VNC_AUTHENTICATION: u8 = 2;
/// Longest name of the desktop, in bytes.
const LONGEST_NAME: usize = 255;

/// Who may come in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Door<'a> {
    /// Everybody who can reach the socket.
    Open,
    /// Who knows the password.
    Locked(&'a Secret),
    /// Nobody, for this reason.
    Shut(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    V3,
    V7,
    V8,
}

/// Everything up to the client's ClientInit. Whether it wants to share the screen (§7.3.1) does
/// not matter: everybody does.
pub(super) fn admit(stream: &mut (impl Read + Write), door: Door<'_>) -> Result<(), Gone> {
    stream.write_all(GREETING)?;
    let version = version(take(stream)?)?;
    match door {
        Door::Open if agree(stream, version, NONE)? => {
            // Older clients are not told that nothing was asked.
            if version == Version::V8 {
                stream.write_all(&0_u32.to_be_bytes())?;
            }
        }
        Door::Locked(password) if agree(stream, version, VNC_AUTHENTICATION)? => {
            let challenge = auth::challenge();
            stream.write_all(&challenge)?;
            if !auth::is_right(password, challenge, take(stream)?) {
                return fail(stream, version, "the password is wrong");
            }
            stream.write_all(&0_u32.to_be_bytes())?;
        }
        Door::Open | Door::Locked(_) => {
            return fail(stream, version, "that security type was not offered");
        }
        Door::Shut(why) => {
            match version {
                Version::V3 => stream.write_all(&0_u32.to_be_bytes())?,
                Version::V7 | Version::V8 => stream.write_all(&[0])?,
            }
            say(stream, why)?;
            return Err(Gone::Refused(why));
        }
    }
    take(stream).map(|[_shared]| ())
}

/// ServerInit, §7.3.2.
pub(super) fn introduce(
    stream: &mut impl Write,
    (width, height): (u16, u16),
    name: &str,
) -> Result<(), Gone> {
    let mut init = [width.to_be_bytes(), height.to_be_bytes()].concat();
    init.extend(PixelFormat::NATIVE.to_bytes());
    stream.write_all(&init)?;
    let end = (0..=LONGEST_NAME.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
    say(stream, name.get(..end.unwrap_or_default()).unwrap_or_default())
}

/// Version numbers that the RFC does not know are taken as 3.3, as §7.1.1 asks.
fn version(bytes: [u8; 12]) -> Result<Version, Gone> {
    match &bytes {
        b"RFB 003.008\n" => Ok(Version::V8),
        b"RFB 003.007\n" => Ok(Version::V7),
        [b'R', b'F', b'B', b' ', b'0', b'0', b'3', b'.', minor @ .., b'\n']
            if minor.iter().all(u8::is_ascii_digit) =>
        {
            Ok(Version::V3)
        }
        _ => Err(Gone::Wrong("no version of the protocol".into())),
    }
}

/// Offers the one type of security there is; whether the client takes it. Version 3.3 has no
/// choice (§7.2).
fn agree(stream: &mut (impl Read + Write), version: Version, security: u8) -> Result<bool, Gone> {
    if version == Version::V3 {
        stream.write_all(&u32::from(security).to_be_bytes())?;
        return Ok(true);
    }
    stream.write_all(&[1, security])?;
    take(stream).map(|[chosen]| chosen == security)
}

/// SecurityResult of those who stay outside, §7.1.3. The reason is for version 3.8 only.
fn fail(stream: &mut impl Write, version: Version, why: &'static str) -> Result<(), Gone> {
    stream.write_all(&1_u32.to_be_bytes())?;
    if version == Version::V8 {
        say(stream, why)?;
    }
    Err(Gone::Refused(why))
}

fn say(stream: &mut impl Write, text: &str) -> Result<(), Gone> {
    let length = u32::try_from(text.len()).unwrap_or_default();
    stream.write_all(&length.to_be_bytes())?;
    Ok(stream.write_all(text.as_bytes())?)
}
