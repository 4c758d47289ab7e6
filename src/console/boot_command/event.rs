// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What a boot command comes down to: keys going down and up, and pauses.

use std::fmt;
use std::time::Duration;

/// One key going down or up, or a pause. Prints as `down 0xff0d`, `up 0xff0d`, `wait 5000ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyEvent {
    /// The key with this keysym goes down.
    Down(u32),
    /// The key with this keysym goes up.
    Up(u32),
    /// Nothing happens for a while.
    Wait(Duration),
}

impl fmt::Display for KeyEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down(keysym) => write!(f, "down 0x{keysym:04x}"),
            Self::Up(keysym) => write!(f, "up 0x{keysym:04x}"),
            Self::Wait(pause) => {
                write!(f, "wait {}", pause.as_millis())?;
                let rest = pause.subsec_nanos() % 1_000_000;
                if rest != 0 {
                    write!(f, ".{}", format!("{rest:06}").trim_end_matches('0'))?;
                }
                f.write_str("ms")
            }
        }
    }
}
