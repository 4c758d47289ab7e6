// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! URL paths: decoded once, and refused unless they can only mean a name below the root.

/// Longest path accepted, in bytes as sent.
const MAX_LENGTH: usize = 2048;

/// The segments of a request's path, percent-decoded (RFC 3986 §2.1). Empty and `.` segments are
/// dropped, as templates write `//preseed.cfg`. `None` for everything that could mean something
/// else than a name: `..`, an encoded slash, NUL or another control character, a broken escape,
/// bytes that are not UTF-8.
pub(super) fn segments(raw: &str) -> Option<Vec<String>> {
    if raw.len() > MAX_LENGTH || !raw.starts_with('/') {
        return None;
    }
    let mut segments = Vec::new();
    for segment in raw.split('/') {
        let name = decode(segment)?;
        let evil = |c: char| c == '/' || c.is_control();
        match name.as_str() {
            "" | "." => {}
            ".." => return None,
            _ if name.contains(evil) => return None,
            _ => segments.push(name),
        }
    }
    Some(segments)
}

/// Segments as one path: `/a/b`.
pub(super) fn join(segments: &[String]) -> String {
    format!("/{}", segments.join("/"))
}

fn decode(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
            bytes.push(high << 4 | low);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decodes_names_and_refuses_the_rest() {
        let path = |raw| segments(raw).map(|found| join(&found));
        assert_eq!(path("/preseed.cfg").as_deref(), Some("/preseed.cfg"));
        assert_eq!(path("//a/./b%20c/").as_deref(), Some("/a/b c"));
        assert_eq!(path("/%c3%A4+~%25").as_deref(), Some("/ä+~%"));
        assert_eq!(path("/%252e%252e/x").as_deref(), Some("/%2e%2e/x"));
        assert_eq!(path("/.../..a").as_deref(), Some("/.../..a"));
        for evil in [
            "",
            "a",
            "/..",
            "/../x",
            "/a/../b",
            "/%2e%2e/x",
            "/.%2E",
            "/a%2fb",
            "/%2F",
            "/a%00",
            "/%0a",
            "/%7f",
            "/%",
            "/%2",
            "/%zz",
            "/%+1",
            "/%ff",
            "/%c0%af",
        ] {
            assert_eq!(path(evil), None, "{evil}");
        }
        assert_eq!(path(&format!("/{}", "a".repeat(MAX_LENGTH))), None);
    }

    proptest! {
        #[test]
        fn what_is_accepted_stays_below_the_root(raw in "/([a.%/~]|%2[eEfF]|%00|\\PC){0,60}") {
            for name in segments(&raw).unwrap_or_default() {
                prop_assert!(!name.is_empty() && name != "." && name != "..");
                prop_assert!(!name.contains('/') && !name.contains('\0'));
            }
        }

        #[test]
        fn an_encoded_name_comes_back(name in "[^/\\pC]{1,30}") {
            prop_assume!(name != "." && name != "..");
            let encoded: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(segments(&format!("/{encoded}")).unwrap(), [name]);
        }
    }
}
