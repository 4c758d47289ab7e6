// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What a person would do at the guest's screen and keyboard.
//!
//! A boot command is parsed ([`boot_command::parse`]), checked for what is hardly meant
//! ([`lint::lint`]) and expanded to key events, which [`type_events`] types at a [`Keyboard`].
//! [`Screen`] is the keyboard and the picture of a running guest; it takes screenshots and waits
//! for the picture to rest or to change.

pub mod boot_command;
mod frame;
pub mod keysym;
pub mod lint;
mod screenshot;
mod typist;
mod vnc;

pub use typist::{Keyboard, TypingReport, type_events};
pub use vnc::Screen;
