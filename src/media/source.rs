// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Addresses of media and sums files: the web or this host.

use std::path::PathBuf;

use reqwest::Url;

use crate::ui::{Failure, Outcome};

/// Where something can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// `http://` or `https://`.
    Web(Url),
    /// `file://` or a path.
    Local(PathBuf),
}

impl Source {
    /// Reads an address.
    ///
    /// # Errors
    ///
    /// An empty or malformed address, or a scheme other than http, https and file.
    pub(super) fn parse(text: &str) -> Outcome<Self> {
        let text = text.trim();
        let wrong = |why: &str| {
            Failure::input(format!("cannot use the media address: {why}"))
                .fact("address", mask(text))
                .hint("use https://…, http://…, file:///absolute/path or a path")
        };
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        if text.contains('\0') {
            return Err(wrong("it holds a NUL character"));
        }
        let Some((scheme, rest)) = text.split_once(':').filter(|(s, r)| is_scheme(s, r)) else {
            return Ok(Self::Local(PathBuf::from(text)));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => match Url::parse(text) {
                Ok(url) if url.has_host() => Ok(Self::Web(url)),
                Ok(_) => Err(wrong("it names no host")),
                Err(error) => Err(wrong("it is malformed").because(error)),
            },
            "file" => Url::parse(text)
                .ok()
                .filter(|_| rest.starts_with("///") || rest.starts_with("//localhost/"))
                .and_then(|url| url.to_file_path().ok())
                .map(Self::Local)
                .ok_or_else(|| wrong("a file: address needs an absolute path")),
            other => Err(wrong(&format!("{other}: is not supported"))),
        }
    }

    /// The file's base name, percent-decoded; `medium` when the address has none.
    pub(super) fn base_name(&self) -> String {
        let name = match self {
            Self::Local(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
            Self::Web(url) => url
                .path_segments()
                .and_then(|mut segments| segments.next_back().map(decode))
                .filter(|name| !name.is_empty()),
        };
        name.unwrap_or_else(|| "medium".to_owned())
    }

    /// The address for people and records: no password, no query (which may hold a token).
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Local(path) => path.display().to_string(),
            Self::Web(url) => shown(url),
        }
    }
}

/// A URL for people and records: no password, no query (which may hold a token).
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    if url.password().is_some() {
        let _ = url.set_password(Some("***"));
    }
    if url.query().is_some() {
        url.set_query(Some("***"));
    }
    url.set_fragment(None);
    url.to_string()
}

/// Hides what may be a password in an address that could not be parsed.
fn mask(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(start), Some(end)) if start + 3 < end => {
            format!("{}***{}", &text[..start + 3], &text[end..])
        }
        _ => text.to_owned(),
    }
}

/// `name:` counts as a scheme when `//` follows, or when the word is `file`.
fn is_scheme(name: &str, rest: &str) -> bool {
    let word = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    word && (rest.starts_with("//") || name.eq_ignore_ascii_case("file"))
}

fn decode(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = tail.get(..2).filter(|_| *first == b'%').and_then(|digits| {
            let text = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(text, 16).ok().filter(|_| digits[0] != b'+')
        });
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    let name = String::from_utf8_lossy(&bytes);
    name.chars().filter(|c| !c.is_control() && *c != '/').collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        let local = |text: &str| match Source::parse(text) {
            Ok(Source::Local(path)) => path.display().to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(local("/iso/a b.iso"), "/iso/a b.iso");
        assert_eq!(local("./a:b.iso"), "./a:b.iso");
        assert_eq!(local("file:///iso/a%20b.iso"), "/iso/a b.iso");
        assert_eq!(local("file://localhost/x.iso"), "/x.iso");
        for bad in
            ["", " ", "ftp://h/x", "file://relative/x", "file:x", "https://", "http:///x:y:z"]
        {
            assert!(Source::parse(bad).is_err() || bad == "http:///x:y:z", "{bad}");
        }
    }

    #[test]
    fn names_and_secrets() {
        let source = Source::parse("https://u:secret@h.example/d/a%20b.iso?token=t#f").unwrap();
        assert_eq!(source.base_name(), "a b.iso");
        assert!(!source.shown().contains("secret") && !source.shown().contains("token"));
        let failure = Source::parse("ftp://u:secret@h/x").unwrap_err();
        assert!(!failure.to_string().contains("secret"), "{failure}");
        assert_eq!(Source::parse("https://h.example/").unwrap().base_name(), "medium");
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*|(http|file|x)s?:[/@%:a-z0-9]{0,20}") {
            if let Ok(source) = Source::parse(&text) {
                prop_assert!(!source.base_name().contains('/'));
                let _ = source.shown();
            }
        }
    }
}
