// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Keys of a US keyboard: from X11 keysyms, as RFB sends them, to scan codes of set 2, and from
//! set 2 to set 1 as the keyboard controller translates (IBM PS/2 technical reference, "Keyboard
//! and Auxiliary Device Controller").

/// What a key sends in scan code set 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// One byte.
    Plain(u8),
    /// E0 and one byte.
    Extended(u8),
    /// Print Screen, which pretends that Shift is held.
    Print,
    /// Pause, which sends nothing when it is released.
    Pause,
    /// Ctrl and Pause together; it sends nothing when it is released.
    Break,
}

use Key::{Break, Extended, Pause, Plain, Print};

impl Key {
    /// The key of a keysym; none for what a US keyboard has not. A shifted symbol is the key that
    /// bears it: whoever types holds Shift as well.
    pub(super) fn of(keysym: u32) -> Option<Self> {
        match keysym {
            0x20..=0x7e => u8::try_from(keysym).ok().and_then(of_ascii).map(Plain),
            0xff80..=0xffb9 => of_keypad(keysym),
            0xffbe..=0xffc9 => FUNCTION.get((keysym - 0xffbe) as usize).copied().map(Plain),
            _ => of_name(keysym),
        }
    }

    /// Bytes when the key goes down.
    pub(super) fn make(self) -> Vec<u8> {
        match self {
            Plain(code) => vec![code],
            Extended(code) => vec![0xe0, code],
            Print => vec![0xe0, 0x12, 0xe0, 0x7c],
            Pause => vec![0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77],
            Break => vec![0xe0, 0x7e, 0xe0, 0xf0, 0x7e],
        }
    }

    /// Bytes when it comes up.
    pub(super) fn release(self) -> Vec<u8> {
        match self {
            Plain(code) => vec![0xf0, code],
            Extended(code) => vec![0xe0, 0xf0, code],
            Print => vec![0xe0, 0xf0, 0x7c, 0xe0, 0xf0, 0x12],
            Pause | Break => vec![],
        }
    }
}

/// F1 to F12.
const FUNCTION: [u8; 12] = [0x05, 0x06, 0x04, 0x0c, 0x03, 0x0b, 0x83, 0x0a, 0x01, 0x09, 0x78, 0x07];

/// The main block: what a key bears without Shift and with it, and its code.
const MAIN: [(u8, u8, u8); 48] = [
    (b'`', b'~', 0x0e),
    (b'1', b'!', 0x16),
    (b'2', b'@', 0x1e),
    (b'3', b'#', 0x26),
    (b'4', b'$', 0x25),
    (b'5', b'%', 0x2e),
    (b'6', b'^', 0x36),
    (b'7', b'&', 0x3d),
    (b'8', b'*', 0x3e),
    (b'9', b'(', 0x46),
    (b'0', b')', 0x45),
    (b'-', b'_', 0x4e),
    (b'=', b'+', 0x55),
    (b'q', b'Q', 0x15),
    (b'w', b'W', 0x1d),
    (b'e', b'E', 0x24),
    (b'r', b'R', 0x2d),
    (b't', b'T', 0x2c),
    (b'y', b'Y', 0x35),
    (b'u', b'U', 0x3c),
    (b'i', b'I', 0x43),
    (b'o', b'O', 0x44),
    (b'p', b'P', 0x4d),
    (b'[', b'{', 0x54),
    (b']', b'}', 0x5b),
    (b'\\', b'|', 0x5d),
    (b'a', b'A', 0x1c),
    (b's', b'S', 0x1b),
    (b'd', b'D', 0x23),
    (b'f', b'F', 0x2b),
    (b'g', b'G', 0x34),
    (b'h', b'H', 0x33),
    (b'j', b'J', 0x3b),
    (b'k', b'K', 0x42),
    (b'l', b'L', 0x4b),
    (b';', b':', 0x4c),
    (b'\'', b'"', 0x52),
    (b'z', b'Z', 0x1a),
    (b'x', b'X', 0x22),
    (b'c', b'C', 0x21),
    (b'v', b'V', 0x2a),
    (b'b', b'B', 0x32),
    (b'n', b'N', 0x31),
    (b'm', b'M', 0x3a),
    (b',', b'<', 0x41),
    (b'.', b'>', 0x49),
    (b'/', b'?', 0x4a),
    (b' ', b' ', 0x29),
];

fn of_ascii(character: u8) -> Option<u8> {
    let found = MAIN.iter().find(|(low, high, _)| character == *low || character == *high);
    found.map(|(_, _, code)| *code)
}

/// The keypad, with Num Lock and without: the same keys.
fn of_keypad(keysym: u32) -> Option<Key> {
    Some(match keysym {
        0xff8d => Extended(0x5a),
        // Home, Left, Up, Right, Down, Page Up, Page Down, End, Begin, Insert, Delete.
        0xff95 | 0xffb7 => Plain(0x6c),
        0xff96 | 0xffb4 => Plain(0x6b),
        0xff97 | 0xffb8 => Plain(0x75),
        0xff98 | 0xffb6 => Plain(0x74),
        0xff99 | 0xffb2 => Plain(0x72),
        0xff9a | 0xffb9 => Plain(0x7d),
        0xff9b | 0xffb3 => Plain(0x7a),
        0xff9c | 0xffb1 => Plain(0x69),
        0xff9d | 0xffb5 => Plain(0x73),
        0xff9e | 0xffb0 => Plain(0x70),
        0xff9f | 0xffac | 0xffae => Plain(0x71),
        0xffaa => Plain(0x7c),
        0xffab => Plain(0x79),
        0xffad => Plain(0x7b),
        0xffaf => Extended(0x4a),
        _ => return None,
    })
}

/// Keys with names.
fn of_name(keysym: u32) -> Option<Key> {
    Some(match keysym {
        // Backspace, Tab and Shift-Tab, Enter and Line Feed, Escape.
        0xff08 => Plain(0x66),
        0xff09 | 0xfe20 => Plain(0x0d),
        0xff0a | 0xff0d => Plain(0x5a),
        0xff1b => Plain(0x76),
        // Pause, Scroll Lock, SysRq, Print, Break, Num Lock.
        0xff13 => Pause,
        0xff14 => Plain(0x7e),
        0xff15 => Plain(0x84),
        0xff61 => Print,
        0xff6b => Break,
        0xff7f => Plain(0x77),
        // Home, Left, Up, Right, Down, Page Up, Page Down, End, Insert, Delete.
        0xff50 => Extended(0x6c),
        0xff51 => Extended(0x6b),
        0xff52 => Extended(0x75),
        0xff53 => Extended(0x74),
        0xff54 => Extended(0x72),
        0xff55 => Extended(0x7d),
        0xff56 => Extended(0x7a),
        0xff57 => Extended(0x69),
        0xff63 => Extended(0x70),
        0xffff => Extended(0x71),
        // Shift, Ctrl, Caps Lock, Alt and AltGr.
        0xffe1 => Plain(0x12),
        0xffe2 => Plain(0x59),
        0xffe3 => Plain(0x14),
        0xffe4 => Extended(0x14),
        0xffe5 => Plain(0x58),
        0xffe9 => Plain(0x11),
        0xffea | 0xfe03 => Extended(0x11),
        // Meta and Super, Menu.
        0xffe7 | 0xffeb => Extended(0x1f),
        0xffe8 | 0xffec => Extended(0x27),
        0xff67 => Extended(0x2f),
        _ => return None,
    })
}

/// Set 2 to set 1, for bytes up to 7F.
const SET_1: [u8; 128] = [
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
];

/// One byte of set 2 in set 1. The prefix F0 is the caller's.
pub(super) fn translate(code: u8) -> u8 {
    match code {
        0x83 => 0x41,
        0x84 => 0x54,
        _ => SET_1.get(usize::from(code)).copied().unwrap_or(code),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_character_has_a_key_and_every_key_its_own_code() {
        assert!((0x20..=0x7e).all(|character| Key::of(character).is_some()));
        let codes: BTreeSet<u8> = MAIN.iter().map(|(_, _, code)| *code).collect();
        assert_eq!(codes.len(), MAIN.len());
        let keys: BTreeSet<Key> = (0..0x1_0000).filter_map(Key::of).collect();
        // A US keyboard has 104 keys; SysRq and Break have codes of their own.
        assert_eq!(keys.len(), 106);
    }

    #[test]
    fn the_boot_commands_names_are_keys() {
        for (name, keysym) in crate::console::keysym::NAMES {
            assert!(Key::of(*keysym).is_some(), "{name}");
        }
    }

    #[test]
    fn unknown_keysyms_are_none() {
        for keysym in [0, 0x1f, 0x7f, 0xe9, 0xff80, 0xffca, 0x0100_20ac, u32::MAX] {
            assert_eq!(Key::of(keysym), None);
        }
    }

    #[test]
    fn translation_is_one_to_one() {
        let codes: BTreeSet<u8> = SET_1.into_iter().collect();
        assert_eq!(codes.len(), SET_1.len());
        // Set 1 of known keys: Esc, Enter, Space, A, F7, F12, SysRq.
        let known = [0x76, 0x5a, 0x29, 0x1c, 0x83, 0x07, 0x84].map(translate);
        assert_eq!(known, [0x01, 0x1c, 0x39, 0x1e, 0x41, 0x58, 0x54]);
        assert_eq!([0xfa, 0xaa, 0xe0, 0xe1, 0xee].map(translate), [0xfa, 0xaa, 0xe0, 0xe1, 0xee]);
    }
}
