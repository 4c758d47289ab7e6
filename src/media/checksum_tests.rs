// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Tests of the sums parser on the layouts that distributors publish.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn hex_of(digit: char, algorithm: Algorithm) -> String {
    std::iter::repeat_n(digit, hex_length(algorithm)).collect()
}

#[test]
fn reads_debian_and_ubuntu() {
    let (a, b) = (hex_of('a', Algorithm::Sha512), hex_of('b', Algorithm::Sha256));
    let text = format!("{a}  debian-13.1.0-amd64-netinst.iso\n{b} *ubuntu-24.04-live-server.iso\n");
    let sums = Sums::parse(&text);
    let debian = sums.find("debian-13.1.0-amd64-netinst.iso").unwrap();
    assert_eq!((debian.algorithm, debian.hex), (Algorithm::Sha512, a));
    let ubuntu = sums.find("ubuntu-24.04-live-server.iso").unwrap();
    assert_eq!((ubuntu.algorithm, ubuntu.hex), (Algorithm::Sha256, b));
}

#[test]
fn reads_alma_clearsigned_bsd_with_comments_and_ignores_the_signature() {
    let (good, evil) = (hex_of('C', Algorithm::Sha256), hex_of('e', Algorithm::Sha256));
    let text = format!(
        "-----BEGIN PGP SIGNED MESSAGE-----\r\nHash: SHA256\r\n\r\n\
         # AlmaLinux-9-x86_64-minimal.iso: 2000000000 bytes\r\n\
         SHA256 (AlmaLinux-9-x86_64-minimal.iso) = {good}\r\n\
         - -----an escaped line\r\n\
         -----BEGIN PGP SIGNATURE-----\r\n\r\niQIzBAEBCAAdFiEE\r\n\
         SHA256 (AlmaLinux-9-x86_64-minimal.iso) = {evil}\r\n\
         -----END PGP SIGNATURE-----\r\n"
    );
    let sum = Sums::parse(&text).find("AlmaLinux-9-x86_64-minimal.iso").unwrap();
    assert_eq!(sum.hex, good.to_lowercase());
}

#[test]
fn reads_oracle_clearsigned_gnu_and_openssl() {
    let a = hex_of('1', Algorithm::Sha256);
    let text = format!(
        "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n\
         {a}  OracleLinux-R9-U6-x86_64-dvd.iso\n-----BEGIN PGP SIGNATURE-----\nabc\n"
    );
    assert_eq!(Sums::parse(&text).find("OracleLinux-R9-U6-x86_64-dvd.iso").unwrap().hex, a);
    let openssl = format!("SHA2-256(x (1).iso)= {a}\n");
    assert_eq!(Sums::parse(&openssl).find("x (1).iso").unwrap().hex, a);
}

#[test]
fn a_lone_digest_fits_any_name_but_only_alone() {
    let a = hex_of('2', Algorithm::Sha256);
    assert_eq!(Sums::parse(&format!("{a}\n")).find("any.iso").unwrap().hex, a);
    assert_eq!(Sums::parse(&format!("{a}  -\n")).find("any.iso").unwrap().hex, a);
    assert!(Sums::parse(&format!("{a}\n{a}  other.iso\n")).find("any.iso").is_err());
    assert!(Sums::parse(&format!("{a}  other.iso\n")).find("any.iso").is_err());
}

#[test]
fn matches_base_names_prefers_the_strongest_and_refuses_contradictions() {
    let (weak, strong) = (hex_of('3', Algorithm::Md5), hex_of('4', Algorithm::Sha512));
    let sums = Sums::parse(&format!("{weak}  ./isos/a.iso\n{strong}  ./isos/a.iso\n"));
    assert_eq!(sums.find("a.iso").unwrap().algorithm, Algorithm::Sha512);
    let (x, y) = (hex_of('5', Algorithm::Sha256), hex_of('6', Algorithm::Sha256));
    let failure = Sums::parse(&format!("{x}  a/i.iso\n{y}  b/i.iso\n")).find("i.iso").unwrap_err();
    assert!(failure.to_string().contains(&x) && failure.to_string().contains(&y), "{failure}");
    assert!(Sums::parse(&format!("{x}  a/i.iso\n{x}  b/i.iso\n")).find("i.iso").is_ok());
}

#[test]
fn a_miss_lists_the_names_and_suggests_the_nearest() {
    let a = hex_of('7', Algorithm::Sha256);
    let text = format!("{a}  debian-13.2.0-amd64-netinst.iso\n{a}  debian-edu-13.2.0.iso\n");
    let failure = Sums::parse(&text).find("debian-13.1.0-amd64-netinst.iso").unwrap_err();
    let shown = failure.to_string();
    assert!(shown.contains("debian-edu-13.2.0.iso"), "{shown}");
    assert!(shown.contains("did you mean debian-13.2.0-amd64-netinst.iso"), "{shown}");
}

#[test]
fn unsupported_algorithms_are_named() {
    let text = format!("SHA384 (a.iso) = {}\n", "a".repeat(96));
    let failure = Sums::parse(&text).find("a.iso").unwrap_err();
    assert!(failure.to_string().contains("SHA384"), "{failure}");
}

#[test]
fn what_is_no_sums_file_is_named() {
    for (bytes, word) in [
        (&b"<!DOCTYPE html><title>404</title>"[..], "web page"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"\xff\xfe\xfd", "binary"),
        (b"hello\nworld\n", "no line with a digest"),
        (b"", "empty"),
    ] {
        let failure = parse_bytes(bytes, "https://example.org/SUMS").unwrap_err();
        assert!(failure.to_string().contains(word), "{failure}");
    }
}

proptest! {
    #[test]
    fn never_panics(text in "\\PC*|[0-9a-f \\\\*()=\n-]{0,300}") {
        let _ = Sums::parse(&text).find("a.iso");
        let _ = parse_bytes(text.as_bytes(), "p");
    }

    #[test]
    fn what_is_written_is_found(
        name in "[A-Za-z0-9][A-Za-z0-9 ._()+-]{0,40}[A-Za-z0-9]",
        seed in any::<u64>(),
        which in 0_usize..4,
        style in 0_usize..4,
    ) {
        let algorithm = super::super::digest::ALGORITHMS[which];
        let hex: String = format!("{seed:016x}").repeat(8)[..hex_length(algorithm)].to_owned();
        let tag = algorithm_name(algorithm).to_uppercase();
        let line = match style {
            0 => format!("{hex}  {name}\n"),
            1 => format!("{hex} *{name}\r\n"),
            2 => format!("{tag} ({name}) = {hex}\n"),
            _ => format!("{tag}({name})= {hex}"),
        };
        let noise = format!("# comment\n\n{line}");
        prop_assert_eq!(
            Sums::parse(&noise).find(&name).unwrap(),
            Sum { algorithm, hex, name: Some(name) }
        );
    }
}
