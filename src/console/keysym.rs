// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Keysyms: the numbers by which RFB names keys (RFC 6143 §7.5.4).
//!
//! Names are those of packer's boot command. Two of them are what packer sends rather than what
//! X11 would say: `leftCommand` and `rightCommand` are the Alt keys.

/// Left Shift, the shift key that typing holds.
pub const LEFT_SHIFT: u32 = 0xffe1;

/// Enter.
pub const ENTER: u32 = 0xff0d;

/// Key names with their keysyms, in the order in which the boot command tries them: the first
/// name that starts the text wins, so `f10` stands before `f1`.
pub const NAMES: &[(&str, u32)] = &[
    ("bs", 0xff08),
    ("del", 0xffff),
    ("enter", ENTER),
    ("esc", 0xff1b),
    ("f10", 0xffc7),
    ("f11", 0xffc8),
    ("f12", 0xffc9),
    ("f1", 0xffbe),
    ("f2", 0xffbf),
    ("f3", 0xffc0),
    ("f4", 0xffc1),
    ("f5", 0xffc2),
    ("f6", 0xffc3),
    ("f7", 0xffc4),
    ("f8", 0xffc5),
    ("f9", 0xffc6),
    ("return", ENTER),
    ("tab", 0xff09),
    ("up", 0xff52),
    ("down", 0xff54),
    ("spacebar", 0x0020),
    ("insert", 0xff63),
    ("home", 0xff50),
    ("end", 0xff57),
    ("pageUp", 0xff55),
    ("pageDown", 0xff56),
    ("leftAlt", 0xffe9),
    ("leftCtrl", 0xffe3),
    ("leftShift", LEFT_SHIFT),
    ("rightAlt", 0xffea),
    ("rightCtrl", 0xffe4),
    ("rightShift", 0xffe2),
    ("leftSuper", 0xffeb),
    ("rightSuper", 0xffec),
    ("leftCommand", 0xffe9),
    ("rightCommand", 0xffea),
    ("leftOption", 0xffe7),
    ("rightOption", 0xffe8),
    ("left", 0xff51),
    ("right", 0xff53),
    ("menu", 0xff67),
];

/// The keysym of a name, in whatever case it is written.
pub fn by_name(name: &str) -> Option<u32> {
    NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|&(_, keysym)| keysym)
}

/// How a person would write a key: its name in the boot command, else the character, else hex.
pub fn describe(keysym: u32) -> String {
    if keysym != 0x20
        && let Some((name, _)) = NAMES.iter().find(|&&(_, known)| known == keysym)
    {
        return format!("<{name}>");
    }
    match char::from_u32(keysym) {
        Some(c) if !c.is_control() => format!("`{c}`"),
        _ => format!("0x{keysym:04x}"),
    }
}

/// The keysym that packer sends for a character: its code point, whatever X11 says. Right for
/// Latin-1 only.
pub fn of_char(c: char) -> u32 {
    u32::from(c)
}

/// Whether typing the character holds Left Shift: upper-case letters (Unicode category Lu) and
/// the shifted symbols of the US keyboard.
pub fn needs_shift(c: char) -> bool {
    "~!@#$%^&*()_+{}|:\"<>?".contains(c) || is_upper_case_letter(c)
}

/// Rust counts Roman numerals and circled letters as upper case too; category Lu does not.
fn is_upper_case_letter(c: char) -> bool {
    c.is_uppercase()
        && !matches!(u32::from(c),
            0x2160..=0x216f | 0x24b6..=0x24cf | 0x1f130..=0x1f149 | 0x1f150..=0x1f169
            | 0x1f170..=0x1f189)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_hides_a_later_one() {
        for (i, (earlier, _)) in NAMES.iter().enumerate() {
            for (later, _) in &NAMES[i + 1..] {
                assert!(
                    !later.to_lowercase().starts_with(&earlier.to_lowercase()),
                    "{earlier} hides {later}"
                );
            }
        }
    }

    #[test]
    fn shift_follows_the_us_keyboard_and_category_lu() {
        let shifted: String = (' '..='~').filter(|&c| needs_shift(c)).collect();
        assert_eq!(shifted, "!\"#$%&()*+:<>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ^_{|}~");
        assert!(needs_shift('É') && !needs_shift('é') && !needs_shift('Ⅷ') && !needs_shift('Ⓐ'));
    }

    #[test]
    fn names_are_found_in_any_case_and_described() {
        assert_eq!(by_name("PAGEup"), Some(0xff55));
        assert_eq!(by_name("delete"), None);
        assert_eq!(describe(0xffe3), "<leftCtrl>");
        assert_eq!(describe(0x63), "`c`");
        assert_eq!(describe(0x0a), "0x000a");
    }
}
