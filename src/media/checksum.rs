// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Sums files: what distributors publish beside an image, in all their notations.
//!
//! Read: GNU coreutils lines (`hex  name`, `hex *name`, escaped `\hex  na\nme`), BSD and OpenSSL
//! tagged lines (`SHA256 (name) = hex`), a lone digest (`image.iso.sha256`), `#` comments, and any
//! of these inside a PGP clear-signed message (RFC 9580 §7), whose signature block is skipped.

use std::collections::BTreeSet;

use super::digest::{algorithm_name, algorithm_of_length, algorithm_of_name, hex_length};
use super::iso::named_content;
use crate::target::Algorithm;
use crate::ui::{Failure, Outcome};

/// Largest sums file read, in bytes. Debian's biggest are below 100 KiB.
pub(super) const MAX_SUMS_BYTES: u64 = 4 << 20;
/// How many names a failure lists.
const NAMES_SHOWN: usize = 20;

/// One line of a sums file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// Algorithm: as tagged, or told by the digest's length.
    pub algorithm: Algorithm,
    /// Digest in lower-case hex.
    pub hex: String,
    /// File name as written, with its folders; `None` for a lone digest.
    pub name: Option<String>,
}

/// A parsed sums file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums {
    entries: Vec<Sum>,
    unsupported: BTreeSet<String>,
}

impl Sums {
    /// Reads a sums file. Lines that are no sum are passed over, so this cannot fail; a file
    /// without any sum is refused by [`Sums::find`].
    pub fn parse(text: &str) -> Self {
        let mut sums = Self::default();
        for line in signed_part(text) {
            let line = line.trim_end_matches(['\r', '\n']).trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let found = tagged_line(line, &mut sums.unsupported)
                .or_else(|| plain_line(line, &mut sums.unsupported));
            sums.entries.extend(found);
        }
        sums
    }

    /// All sums, in the file's order.
    pub fn entries(&self) -> &[Sum] {
        &self.entries
    }

    /// The strongest digest for the file called `name` (a base name).
    ///
    /// # Errors
    ///
    /// No line for that name (the names found are listed, the nearest one is suggested), two
    /// different digests for it, or only digests of algorithms that are not supported.
    pub fn find(&self, name: &str) -> Outcome<Sum> {
        let mut matching: Vec<&Sum> =
            self.entries.iter().filter(|sum| sum.base_name() == Some(name)).collect();
        if matching.is_empty() && self.entries.len() == 1 {
            matching = self.entries.iter().filter(|sum| sum.name.is_none()).collect();
        }
        let Some(best) = matching.iter().max_by_key(|sum| hex_length(sum.algorithm)) else {
            return Err(self.miss(name));
        };
        let contradiction =
            matching.iter().find(|sum| sum.algorithm == best.algorithm && sum.hex != best.hex);
        if let Some(other) = contradiction {
            return Err(Failure::build(format!("the sums file holds two digests for {name}"))
                .fact("first", best.shown())
                .fact("second", other.shown())
                .hint("give the digest itself as `checksum: sha256:…`"));
        }
        Ok((*best).clone())
    }

    fn miss(&self, name: &str) -> Failure {
        let names: BTreeSet<&str> = self.entries.iter().filter_map(Sum::base_name).collect();
        let failure = Failure::build(format!("the sums file has no line for {name}"));
        if names.is_empty() {
            let failure = failure.fact("found", "no file names at all");
            return match self.unsupported.is_empty() {
                true => failure,
                false => failure
                    .fact("unused", join(&self.unsupported))
                    .hint("md5, sha1, sha256 and sha512 are supported; choose another sums file"),
            };
        }
        let mut listed: Vec<&str> = names.iter().copied().take(NAMES_SHOWN).collect();
        let more = format!("… and {} more", names.len().saturating_sub(listed.len()));
        if names.len() > listed.len() {
            listed.push(&more);
        }
        let failure = failure.fact("found", listed.join("\n"));
        let nearest = names
            .iter()
            .map(|found| (strsim::jaro_winkler(found, name), *found))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        match nearest {
            Some((likeness, found)) if likeness > 0.85 => failure.hint(format!(
                "did you mean {found}? Distributors rename the file at each point release: \
                 set the target's media url to the name listed"
            )),
            _ => failure.hint("check that the sums file belongs to the same folder as the medium"),
        }
    }
}

impl Sum {
    fn base_name(&self) -> Option<&str> {
        self.name.as_deref().map(|name| name.rsplit('/').next().unwrap_or(name))
    }

    fn shown(&self) -> String {
        format!("{}:{}", algorithm_name(self.algorithm), self.hex)
    }
}

/// Reads a sums file's bytes, as fetched from `place`.
///
/// # Errors
///
/// Too long, not text, a web page or another file format instead of sums, or no sum in it.
pub(super) fn parse_bytes(bytes: &[u8], place: &str) -> Outcome<Sums> {
    let wrong = |what: String| {
        Failure::build(format!("{what}, not a sums file"))
            .fact("sums", place)
            .hint("open the address in a browser and correct the target's `checksum: file:…`")
    };
    if bytes.len() as u64 > MAX_SUMS_BYTES {
        return Err(wrong(format!("more than {} MiB", MAX_SUMS_BYTES >> 20)));
    }
    if let Some(what) = named_content(bytes) {
        return Err(wrong(what.to_owned()));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| wrong("binary data".to_owned()))?;
    let sums = Sums::parse(text);
    if sums.entries.is_empty() && sums.unsupported.is_empty() {
        return Err(wrong("no line with a digest".to_owned()));
    }
    Ok(sums)
}

fn join(words: &BTreeSet<String>) -> String {
    words.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// The lines that count: all of a plain file, or what a clear-signed message signs, unescaped.
fn signed_part(text: &str) -> impl Iterator<Item = &str> {
    #[derive(PartialEq)]
    enum Part {
        Plain,
        Headers,
        Body,
        Done,
    }
    let text = text.trim_start_matches('\u{feff}');
    let mut part = match text.trim_start().starts_with("-----BEGIN PGP SIGNED MESSAGE-----") {
        true => Part::Headers,
        false => Part::Plain,
    };
    text.lines().filter_map(move |line| match part {
        Part::Plain => Some(line),
        Part::Done => None,
        Part::Headers => {
            if line.trim().is_empty() {
                part = Part::Body;
            }
            None
        }
        Part::Body if line.starts_with("-----BEGIN PGP SIGNATURE-----") => {
            part = Part::Done;
            None
        }
        Part::Body => Some(line.strip_prefix("- ").unwrap_or(line)),
    })
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `SHA256 (name) = hex` and OpenSSL's `SHA2-256(name)= hex`.
fn tagged_line(line: &str, unsupported: &mut BTreeSet<String>) -> Option<Sum> {
    let (line, escaped) = strip_escape_mark(line);
    let (tag, rest) = line.split_once('(')?;
    let (name, hex) = rest.rsplit_once(')')?;
    let (tag, hex) = (tag.trim(), hex.trim().strip_prefix('=')?.trim());
    let tag_is_word = tag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !is_hex(hex) || tag.is_empty() || !tag_is_word {
        return None;
    }
    let Some(algorithm) = algorithm_of_name(tag) else {
        unsupported.insert(tag.to_owned());
        return None;
    };
    (hex.len() == hex_length(algorithm)).then(|| Sum {
        algorithm,
        hex: hex.to_ascii_lowercase(),
        name: file_name(name, escaped),
    })
}

/// `hex  name`, `hex *name`, or a lone `hex`.
fn plain_line(line: &str, unsupported: &mut BTreeSet<String>) -> Option<Sum> {
    let (line, escaped) = strip_escape_mark(line);
    let (hex, name) = match line.split_once([' ', '\t']) {
        Some((hex, name)) => (hex, name.trim_start()),
        None => (line, ""),
    };
    if !is_hex(hex) {
        return None;
    }
    let Some(algorithm) = algorithm_of_length(hex.len()) else {
        match hex.len() {
            56 => drop(unsupported.insert("sha224".to_owned())),
            96 => drop(unsupported.insert("sha384".to_owned())),
            _ => {}
        }
        return None;
    };
    let name = file_name(name.strip_prefix('*').unwrap_or(name), escaped);
    Some(Sum { algorithm, hex: hex.to_ascii_lowercase(), name })
}

fn strip_escape_mark(line: &str) -> (&str, bool) {
    line.strip_prefix('\\').map_or((line, false), |rest| (rest, true))
}

fn file_name(text: &str, escaped: bool) -> Option<String> {
    let text = text.trim_end();
    // `sha256sum < file` writes a dash for the name.
    if text.is_empty() || text == "-" {
        return None;
    }
    if !escaped {
        return Some(text.to_owned());
    }
    let mut name = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, character == '\\') {
            (_, true) => match characters.next() {
                Some('n') => name.push('\n'),
                Some('r') => name.push('\r'),
                Some(other) => name.push(other),
                None => {}
            },
            (character, false) => name.push(character),
        }
    }
    Some(name)
}

#[cfg(test)]
#[path = "checksum_tests.rs"]
mod tests;
