// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.
#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::time::Duration;

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;

/// Events in short: `+61` down, `-61` up, `~1000` a wait in milliseconds, `S` for Left Shift.
fn short(text: &str) -> String {
    let events = parse(text).unwrap().expand();
    let name = |keysym: u32| match keysym {
        keysym::LEFT_SHIFT => "S".to_owned(),
        other => format!("{other:02X}"),
    };
    let words: Vec<String> = events
        .iter()
        .map(|event| match event {
            KeyEvent::Down(keysym) => format!("+{}", name(*keysym)),
            KeyEvent::Up(keysym) => format!("-{}", name(*keysym)),
            KeyEvent::Wait(_) => event.to_string().replace("wait ", "~").replace("ms", ""),
        })
        .collect();
    words.join(" ")
}

/// What typing `text` literally gives, worked out without the parser.
fn typed(text: &str) -> String {
    let mut words = Vec::new();
    for c in text.chars() {
        let code = format!("{:02X}", u32::from(c));
        let key = format!("+{code} -{code}");
        let shifted = c.is_ascii_uppercase() || "~!@#$%^&*()_+{}|:\"<>?".contains(c);
        words.push(if shifted { format!("+S {key} -S") } else { key });
    }
    words.join(" ")
}

/// `FF08` to `+FF08 -FF08`, several separated by spaces.
fn pressed(keysyms: &str) -> String {
    let words: Vec<String> = keysyms.split(' ').map(|k| format!("+{k} -{k}")).collect();
    words.join(" ")
}

#[test]
fn worked_examples_of_the_sheet() {
    let cases: &[(u32, &str, &str)] = &[
        (1, "abc", "+61 -61 +62 -62 +63 -63"),
        (2, "Ab!", "+S +41 -41 -S +62 -62 +S +21 -21 -S"),
        (3, "<enter>", "+FF0D -FF0D"),
        (4, "<ENTER><Return>", "+FF0D -FF0D +FF0D -FF0D"),
        (5, "<wait><wait5><wait10>", "~1000 ~5000 ~10000"),
        (6, "<wait1m30s><wait300ms><wait1h2m3s>", "~90000 ~300 ~3723000"),
        (7, "<wait0.5s>", "~500"),
        (
            8,
            "<wait05>",
            "+S +3C -3C -S +77 -77 +61 -61 +69 -69 +74 -74 +30 -30 +35 -35 +S +3E -3E -S",
        ),
        (10, "<Wait>", "+S +3C -3C -S +S +57 -57 -S +61 -61 +69 -69 +74 -74 +S +3E -3E -S"),
        (14, "<leftCtrlOn>c<leftCtrlOff>", "+FFE3 +63 -63 -FFE3"),
        (15, "<leftAltOn><f2><leftAltOff>", "+FFE9 +FFBF -FFBF -FFE9"),
        (16, "<leftShiftOn>aB c<leftShiftOff>", "+S +61 -61 +S +42 -42 -S +20 -20 +63 -63 -S"),
        (17, "<cOn><wait2><cOff>", "+63 ~2000 -63"),
        (18, "<<On>", "+S +3C"),
        (18, "<>off>", "-3E -S"),
        (19, "<fOn>", "+66"),
        (19, "<f1On>", "+FFBE"),
        (19, "<ooff>", "-6F"),
        (19, "<oOn>", "+6F"),
        (21, "<esc", "+S +3C -3C -S +65 -65 +73 -73 +63 -63"),
        (23, "<spacebarOn><spacebarOff>", "+20 -20"),
        (
            24,
            "<leftCtrlOn><leftAltOn><del><leftAltOff><leftCtrlOff>",
            "+FFE3 +FFE9 +FFFF -FFFF -FFE9 -FFE3",
        ),
        (25, "é", "+E9 -E9"),
        (26, "a\nb", "+61 -61 +0A -0A +62 -62"),
        (27, "<wait>x", "~1000 +78 -78"),
    ];
    for (number, text, wanted) in cases {
        assert_eq!(short(text), *wanted, "example {number}: {text}");
    }
    let literal: &[(u32, &str, usize)] = &[
        (9, "<wait1.5>", 9),
        (11, "<wait1m30>", 10),
        (13, "<wait-5>", 8),
        (20, "a < b > c", 9),
        (22, "<delete>", 8),
        (22, "<f13>", 5),
        (22, "<ctrl>", 6),
        (28, " ks=http://10.0.2.2:8123/k", 26),
    ];
    for (number, text, characters) in literal {
        assert_eq!(short(text), typed(text), "example {number}: {text}");
        assert_eq!(parse(text).unwrap().elements().len(), *characters, "example {number}");
    }
    let named: &[(u32, &str, &str)] = &[
        (
            29,
            "<bs><del><tab><esc><insert><home><end><pageUp><pageDown>",
            "FF08 FFFF FF09 FF1B FF63 FF50 FF57 FF55 FF56",
        ),
        (30, "<up><down><left><right>", "FF52 FF54 FF51 FF53"),
        (
            31,
            "<menu><leftCommand><rightCommand><leftOption><rightOption>",
            "FF67 FFE9 FFEA FFE7 FFE8",
        ),
    ];
    for (number, text, keysyms) in named {
        assert_eq!(short(text), pressed(keysyms), "example {number}: {text}");
    }
    let last = "<wait><wait20><wait3s><wait4m2ns>foo/bar > one 界<fon> b<fOff><foo><f3>";
    let wanted = format!(
        "~1000 ~20000 ~3000 ~240000.000002 {} +754C -754C +66 {} -66 {} {}",
        typed("foo/bar > one "),
        typed(" b"),
        typed("<foo>"),
        pressed("FFC0"),
    );
    assert_eq!(short(last), wanted, "example 32");
}

#[test]
fn waits_must_be_longer_than_zero() {
    for text in ["ab\nc<wait0>", "ab\nc<wait0s>", "ab\nc<wait-1m>", "ab\nc<wait0.0000000001s>"] {
        let command = parse(text).unwrap();
        let error = command.validate().unwrap_err();
        assert_eq!((error.line(), error.column()), (2, 2), "{error}");
        assert!(error.message().contains("longer than zero"), "{error}");
    }
    assert!(parse("<wait1ns>").unwrap().validate().is_ok());
}

#[test]
fn only_numbers_are_refused() {
    for (text, column, part) in [
        ("é<wait1m-2s>", 2, "sign inside"),
        ("<wait99999999999999999999>", 1, "too large"),
        ("<wait99999999999999999999 is text", 1, "too large"),
        ("<wait1s99999999999999999999>", 1, "too large"),
        ("<wait9999999999999s>", 1, "too long"),
        ("<wait9999999999999>", 1, "too long"),
        ("<wait2562047h48m>", 1, "too long"),
        ("<wait1m-2s is text", 1, "sign inside"),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!((error.line(), error.column()), (1, column), "{text}");
        assert!(error.message().contains(part), "{text}: {error}");
    }
    assert_eq!(short("<wait2562047h47m>"), "~9223372020000");
}

#[test]
fn durations_follow_go() {
    assert_eq!(short("<wait1.5h>"), "~5400000");
    assert_eq!(short("<wait1us><wait1µs>"), "~0.001 ~0.001");
    assert_eq!(short("<wait0.3333333333333333333333s>"), "~333.333333");
    assert_eq!(short("<wait1.001m>"), "~60060");
    for text in ["<wait.5s>", "<wait01s>", "<wait1d>", "<wait1S>", "<wait 5>", "<wait1.s>"] {
        assert_eq!(short(text), typed(text), "{text}");
    }
}

#[test]
fn a_capital_with_a_dot_is_an_i() {
    assert_eq!(short("<İNSERT>"), "+FF63 -FF63");
}

#[test]
fn prints_what_the_keys_verb_prints() {
    let lines: Vec<String> = parse("<enter><wait5><wait1500us>")
        .unwrap()
        .expand()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(lines, ["down 0xff0d", "up 0xff0d", "wait 5000ms", "wait 1.5ms"]);
}

#[test]
fn knows_its_duration() {
    let command = parse("abc<wait2>X").unwrap();
    assert_eq!(command.duration(Duration::from_millis(100)), Duration::from_secs(3));
    assert_eq!(command.duration(Duration::ZERO), Duration::from_secs(2));
}

/// Key events, waits and the first 16 digits of the event list's SHA-256.
fn fingerprint(text: &str) -> (usize, Duration, String) {
    let events = parse(text).unwrap().expand();
    let mut list = String::new();
    let (mut keys, mut waits) = (0, Duration::ZERO);
    for event in events {
        match event {
            KeyEvent::Down(keysym) => writeln!(list, "D {keysym:04X}").unwrap(),
            KeyEvent::Up(keysym) => writeln!(list, "U {keysym:04X}").unwrap(),
            KeyEvent::Wait(pause) => writeln!(list, "W {}", pause.as_millis()).unwrap(),
        }
        match event {
            KeyEvent::Wait(pause) => waits += pause,
            _ => keys += 1,
        }
    }
    (keys, waits, hex::encode(Sha256::digest(list))[..16].to_owned())
}

#[test]
fn upstream_templates_give_their_known_events() {
    let base = "http://10.0.0.1:8123";
    let el = |target: &str, arguments: &str| {
        format!(
            "c<wait>linuxefi /images/pxeboot/vmlinuz inst.repo=cdrom inst.text {arguments} \
             inst.ks={base}/{target}.ks<enter>initrdefi /images/pxeboot/initrd.img<enter>\
             boot<enter><wait>"
        )
    };
    for (target, keys, hash) in [
        ("almalinux-10", 354, "8470f530831eba02"),
        ("almalinux-8", 352, "826e840e41b9aabb"),
        ("almalinux-9", 352, "0138cf0ab8800885"),
        ("oraclelinux-10", 358, "30b5657898e22a6e"),
        ("oraclelinux-8", 356, "3c21f204d8fa3fd3"),
        ("oraclelinux-9", 356, "9d0c64833801cb89"),
        ("rocky-10", 346, "50ae3e84a77f9f8a"),
        ("rocky-9", 344, "146c9de6ad681a38"),
    ] {
        let text = el(target, "biosdevname=0 net.ifnames=0");
        assert_eq!(fingerprint(&text), (keys, Duration::from_secs(2), hash.to_owned()), "{target}");
    }
    let rocky_8 = el("rocky-8", "inst.nompath");
    let wanted = (314, Duration::from_secs(2), "37308b8068b5d623".to_owned());
    assert_eq!(fingerprint(&rocky_8), wanted);
    for (release, hash) in [("22.04", "f5e2975e855e3ac9"), ("24.04", "87067fe32d6ebf6b")] {
        let text = format!(
            "c<wait>linux /casper/vmlinuz --- autoinstall console=tty0 console=ttyS0,115200n8 \
             ds=\"nocloud-net;seedfrom={base}/ubuntu/{release}/\" tsc=reliable<enter><wait>\
             initrd /casper/initrd<enter><wait>boot<enter>"
        );
        let wanted = (362, Duration::from_secs(3), hash.to_owned());
        assert_eq!(fingerprint(&text), wanted, "{release}");
    }
}

proptest! {
    #[test]
    fn any_text_parses_or_says_where_it_fails(text in any::<String>()) {
        match parse(&text) {
            Ok(command) => {
                let length: usize = command.elements().iter().map(|e| e.span.len()).sum();
                prop_assert_eq!(length, text.len());
                let _ = (command.validate(), command.duration(Duration::from_millis(1)));
            }
            Err(error) => prop_assert!(error.line() >= 1 && error.column() >= 1),
        }
    }

    #[test]
    fn token_soup_never_panics(
        text in "(<|>|wait|On|off|-|[0-9]{1,20}|\\.|ns|us|µs|ms|s|m|h|f1|left|Alt|[a-zé\n ]){0,20}"
    ) {
        if let Ok(command) = parse(&text) {
            let _ = (command.validate(), command.expand());
        }
    }

    #[test]
    fn text_without_brackets_types_itself(text in "[^<]*") {
        let command = parse(&text).unwrap();
        let characters: String = command
            .elements()
            .iter()
            .map(|element| match element.action {
                Action::Char { c, stroke: Stroke::Press } => c,
                _ => '\0',
            })
            .collect();
        prop_assert_eq!(characters, text.clone());
        let mut held = Vec::new();
        for event in command.expand() {
            match event {
                KeyEvent::Down(keysym) => held.push(keysym),
                KeyEvent::Up(keysym) => prop_assert_eq!(held.pop(), Some(keysym)),
                KeyEvent::Wait(_) => prop_assert!(false, "no waits here"),
            }
        }
        prop_assert!(held.is_empty());
    }

    #[test]
    fn whole_waits_mean_seconds(seconds in 1_u32..100_000) {
        let command = parse(&format!("<wait{seconds}>")).unwrap();
        prop_assert_eq!(command.duration(Duration::ZERO), Duration::from_secs(seconds.into()));
        let same = parse(&format!("<wait{seconds}s>")).unwrap();
        prop_assert_eq!(command.expand(), same.expand());
    }
}
