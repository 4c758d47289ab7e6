// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Durations, sizes, checksums and permission bits as people write them.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use crate::target::{Algorithm, Checksum};

/// Longest duration that makes sense: a week.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// Makes a text type with a reader, a JSON Schema pattern and an example.
macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident($inner:ty), $read:path, $format:literal, $pattern:literal,
     $example:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
        #[serde(try_from = "String")]
        pub(crate) struct $name(pub(crate) $inner);

        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                $read(&text).map(Self)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "format": $format,
                    "pattern": concat!($pattern, r"|\{\{"),
                    "examples": [$example],
                })
            }
        }
    };
}

text_type!(
    /// A span of time in Go's notation: `90s`, `1m30s`, `500ms`; negative where that has a meaning.
    Span(Length),
    read_duration,
    "imgforge-duration",
    r"^-?([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)",
    "1m30s"
);
text_type!(
    /// An amount of memory or disk in MiB, written `512M`, `2G` or `1T` (powers of 1024).
    Size(u64),
    read_size,
    "imgforge-size",
    r"^[0-9]+(\.[0-9]+)? ?([kKmMgGtT](i?[bB])?)$",
    "10G"
);
text_type!(
    /// How to know that a medium is whole.
    Sum(Checksum),
    read_checksum,
    "imgforge-checksum",
    r"^(none|file:.+|(md5:|sha1:|sha256:|sha512:)?[0-9a-fA-F]+)$",
    "sha256:<64 hex digits>"
);
text_type!(
    /// Octal permission bits: `"0644"`.
    Mode(u32),
    read_mode,
    "imgforge-mode",
    "^0?[0-7]{3,4}$",
    "0644"
);

/// A duration that may be negative, which means "none" where it is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Length {
    /// It has a minus sign.
    pub(crate) negative: bool,
    /// Without the sign.
    pub(crate) length: Duration,
}

/// Reads a text of the JSON Schema format `format`; used to say at once what is wrong with it.
pub(crate) fn check(format: &str, text: &str) -> Result<(), String> {
    match format {
        "imgforge-duration" => read_duration(text).map(drop),
        "imgforge-size" => read_size(text).map(drop),
        "imgforge-checksum" => read_checksum(text).map(drop),
        "imgforge-mode" => read_mode(text).map(drop),
        "imgforge-name" => read_name(text),
        _ => Ok(()),
    }
}

/// A target's name becomes file and VM names, so it is kept plain.
pub(crate) fn read_name(text: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    let sound = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.chars().all(plain)
        && text.len() <= 63;
    if sound {
        return Ok(());
    }
    Err(format!(
        "`{text}` is not a name: lower-case letters, digits, `-` and `.`, at most 63, for example \
         `debian-13`"
    ))
}

/// Reads a duration as Go's `time.ParseDuration` does: number and unit, repeated; `0` alone.
pub(crate) fn read_duration(text: &str) -> Result<Length, String> {
    let wrong = || {
        let guess = match text.trim().parse::<u64>() {
            Ok(_) => format!("; a unit is missing: `{}s`?", text.trim()),
            Err(_) => ", for example `90s`, `1m30s` or `500ms`".to_owned(),
        };
        format!("`{text}` is not a duration{guess}")
    };
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(Length { negative: false, length: Duration::ZERO });
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(end);
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        seconds += number
            * match unit {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(wrong()),
            };
        rest = tail;
    }
    if seconds > LONGEST.as_secs_f64() {
        return Err(format!("`{text}` is longer than a week"));
    }
    // Nanoseconds are rounded, so that `4m2ns` is exact.
    let length = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
    Ok(Length { negative, length })
}

/// Writes a duration the way it is read.
pub(crate) fn write_duration(duration: Duration) -> String {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    let mut text = String::new();
    for (amount, unit) in [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")] {
        if amount != 0 {
            text.push_str(&format!("{amount}{unit}"));
        }
    }
    match nanos {
        0 if text.is_empty() => "0s".to_owned(),
        0 => text,
        n if n % 1_000_000 == 0 => format!("{text}{}ms", n / 1_000_000),
        n if n % 1_000 == 0 => format!("{text}{}us", n / 1_000),
        n => format!("{text}{n}ns"),
    }
}

/// Reads a size in MiB.
pub(crate) fn read_size(text: &str) -> Result<u64, String> {
    let wrong = || {
        let guess = match text.trim().parse::<u64>() {
            Ok(n) => format!("; a unit is missing: `{n}M` or `{n}G`?"),
            Err(_) => ", for example `512M` or `10G`".to_owned(),
        };
        format!("`{text}` is not a size{guess}")
    };
    let trimmed = text.trim();
    let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
    let (number, unit) = trimmed.split_at(end);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let kib = match unit.trim_end_matches('b').trim_end_matches('i') {
        "k" => 1.0,
        "m" => 1024.0,
        "g" => 1024.0 * 1024.0,
        "t" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(wrong()),
    };
    let mib = number * kib / 1024.0;
    if mib.fract() != 0.0 {
        return Err(format!("`{text}` is not a whole number of MiB"));
    }
    if !(1.0..=16.0 * 1024.0 * 1024.0).contains(&mib) {
        return Err(format!("`{text}` is not between 1M and 16T"));
    }
    // In range and whole, as just checked.
    Ok(mib as u64)
}

/// Writes a size the way it is read.
pub(crate) fn write_size(mib: u64) -> String {
    match mib {
        m if m != 0 && m % (1 << 20) == 0 => format!("{}T", m >> 20),
        m if m != 0 && m % (1 << 10) == 0 => format!("{}G", m >> 10),
        m => format!("{m}M"),
    }
}

/// Reads `sha256:HEX`, `file:URL`, `none`, or a bare digest, told by its length as packer does.
pub(crate) fn read_checksum(text: &str) -> Result<Checksum, String> {
    const KINDS: [(&str, usize, Algorithm); 4] = [
        ("md5", 32, Algorithm::Md5),
        ("sha1", 40, Algorithm::Sha1),
        ("sha256", 64, Algorithm::Sha256),
        ("sha512", 128, Algorithm::Sha512),
    ];
    let forms = "write `sha256:…`, `sha512:…`, `file:URL` of a sums file, or `none`";
    let text = text.trim();
    if text == "none" {
        return Ok(Checksum::None);
    }
    if let Some(url) = text.strip_prefix("file:") {
        // `file:URL` names a sums file; a lone `file:///path` is such a URL itself.
        let url = if url.starts_with("//") { text } else { url };
        return match url {
            "" => Err(format!("`file:` names no sums file; {forms}")),
            url => Ok(Checksum::File(url.to_owned())),
        };
    }
    let (kind, hex) = match text.split_once(':') {
        Some((name, hex)) => {
            let kind = KINDS.iter().find(|(n, ..)| *n == name).ok_or_else(|| {
                let near =
                    crate::target::finding::suggestion(name, KINDS.map(|k| k.0), "there are");
                format!("`{name}` is not a digest{near}")
            })?;
            (kind, hex)
        }
        None => {
            let kind = KINDS.iter().find(|(_, length, _)| *length == text.len());
            (kind.ok_or_else(|| format!("`{text}` is not a checksum; {forms}"))?, text)
        }
    };
    let (name, length, algorithm) = kind;
    if !hex.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(format!("the {name} sum `{hex}` is not made of hex digits"));
    }
    if hex.len() != *length {
        return Err(format!("a {name} sum has {length} hex digits, this one {}", hex.len()));
    }
    Ok(Checksum::Digest { algorithm: *algorithm, hex: hex.to_ascii_lowercase() })
}

impl Checksum {
    /// Reads `sha256:HEX`, `file:URL`, `none`, or a bare digest, told by its length.
    ///
    /// # Errors
    /// What is wrong with the text, and the forms that there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        read_checksum(text)
    }
}

/// Writes a checksum the way it is read.
pub(crate) fn write_checksum(checksum: &Checksum) -> String {
    match checksum {
        Checksum::None => "none".to_owned(),
        Checksum::File(url) => format!("file:{url}"),
        Checksum::Digest { algorithm, hex } => {
            let name = match algorithm {
                Algorithm::Md5 => "md5",
                Algorithm::Sha1 => "sha1",
                Algorithm::Sha256 => "sha256",
                Algorithm::Sha512 => "sha512",
            };
            format!("{name}:{hex}")
        }
    }
}

/// Reads octal permission bits.
pub(crate) fn read_mode(text: &str) -> Result<u32, String> {
    let sound = (3..=5).contains(&text.len()) && text.chars().all(|c| ('0'..='7').contains(&c));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if sound && mode <= 0o7777 => Ok(mode),
        _ => Err(format!("`{text}` is not a file mode, for example `\"0644\"`")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_go_durations() {
        for (text, seconds) in [
            ("90s", 90.0),
            ("1m30s", 90.0),
            ("1h2m3s", 3723.0),
            ("0.5s", 0.5),
            ("0", 0.0),
            (".5m", 30.0),
        ] {
            let read = read_duration(text).unwrap();
            assert!((read.length.as_secs_f64() - seconds).abs() < 1e-9, "{text}");
        }
        assert!(read_duration("-1s").unwrap().negative);
        assert_eq!(
            read_duration("10").unwrap_err(),
            "`10` is not a duration; a unit is missing: `10s`?"
        );
        for text in
            ["", "-", "s", "1x", "ten seconds", "1..2s", "1s2", "9999h", "NaNs", "1e9s", "10 s"]
        {
            assert!(read_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_sizes() {
        for (text, mib) in [
            ("512M", 512),
            ("2G", 2048),
            ("1.5G", 1536),
            ("1T", 1 << 20),
            ("4096MiB", 4096),
            ("10 GB", 10240),
            ("2048k", 2),
        ] {
            assert_eq!(read_size(text).unwrap(), mib, "{text}");
        }
        assert!(read_size("2048").unwrap_err().contains("`2048M`"));
        for text in ["", "G", "1.3M", "0M", "99999T", "1X", "-1G", "1k"] {
            assert!(read_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_checksums() {
        let hex = "AB".repeat(32);
        for text in [format!("sha256:{hex}"), hex.clone()] {
            assert_eq!(
                write_checksum(&read_checksum(&text).unwrap()),
                format!("sha256:{}", hex.to_lowercase())
            );
        }
        assert_eq!(read_checksum("none").unwrap(), Checksum::None);
        for (text, url) in [
            ("file:https://x/SHA256SUMS", "https://x/SHA256SUMS"),
            ("file:SUMS", "SUMS"),
            ("file:///a/SUMS", "file:///a/SUMS"),
            ("file:file:///a/SUMS", "file:///a/SUMS"),
        ] {
            assert_eq!(read_checksum(text).unwrap(), Checksum::File(url.to_owned()), "{text}");
        }
        assert!(read_checksum("sha265:00").unwrap_err().contains("did you mean `sha256`"));
        assert!(read_checksum("sha256:00").unwrap_err().contains("64 hex digits, this one 2"));
        assert!(read_checksum(&format!("sha256:{}", "xy".repeat(32))).is_err());
        assert!(read_checksum("file:").is_err());
    }

    #[test]
    fn reads_modes_and_names() {
        assert_eq!(read_mode("0644").unwrap(), 0o644);
        assert_eq!(read_mode("755").unwrap(), 0o755);
        assert!(["", "9", "0888", "rw", "77777"].iter().all(|t| read_mode(t).is_err()));
        assert!(
            read_name("debian-13").is_ok() && read_name("../x").is_err() && read_name("").is_err()
        );
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,30}") {
            for format in ["duration", "size", "checksum", "mode", "name"] {
                let _ = check(&format!("imgforge-{format}"), &text);
            }
        }

        #[test]
        fn durations_come_back(millis in 0u64..600_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(read_duration(&write_duration(duration)).unwrap().length, duration);
        }

        #[test]
        fn sizes_come_back(mib in 1u64..16 << 20) {
            prop_assert_eq!(read_size(&write_size(mib)).unwrap(), mib);
        }
    }
}
