// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The functions of templates. Every value is a text.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Largest text that a function or a template may make, in bytes.
pub(super) const MAX_TEXT: usize = 4 << 20;

/// A function's name, how it is written, and how many arguments it takes.
pub(super) struct Function {
    name: &'static str,
    pub(super) usage: &'static str,
    pub(super) least: usize,
    pub(super) most: usize,
}

const fn f(name: &'static str, usage: &'static str, least: usize, most: usize) -> Function {
    Function { name, usage, least, most }
}

const FUNCTIONS: &[Function] = &[
    f("and", "and A B…", 1, 16),
    f("b64enc", "b64enc TEXT", 1, 1),
    f("contains", "contains PART TEXT", 2, 2),
    f("default", "default VALUE TEXT", 2, 2),
    f("env", "env \"NAME\"", 1, 1),
    f("eq", "eq A B…", 2, 16),
    f("isotime", "isotime [LAYOUT]", 0, 1),
    f("lower", "lower TEXT", 1, 1),
    f("ne", "ne A B", 2, 2),
    f("not", "not A", 1, 1),
    f("or", "or A B…", 1, 16),
    f("quote", "quote TEXT", 1, 1),
    f("replace", "replace OLD NEW [COUNT] TEXT", 3, 4),
    f("replace_all", "replace_all OLD NEW TEXT", 3, 3),
    f("split", "split TEXT SEPARATOR INDEX", 3, 3),
    f("strftime", "strftime FORMAT", 1, 1),
    f("timestamp", "timestamp", 0, 0),
    f("trim", "trim TEXT", 1, 1),
    f("upper", "upper TEXT", 1, 1),
    f("url_host", "url_host URL", 1, 1),
    f("url_path", "url_path URL", 1, 1),
    f("url_scheme", "url_scheme URL", 1, 1),
    f("user", "user \"VARIABLE\"", 1, 1),
    f("uuid", "uuid", 0, 0),
    f("var", "var \"VARIABLE\"", 1, 1),
];

/// The function of that name.
pub(super) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|f| f.name == name)
}

/// All names.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|f| f.name)
}

/// Whether a text counts as true in a condition: everything but the empty text and `false`, `no`,
/// `off` and `0`, so that `--var ntp=false` does what it says.
pub(super) fn holds(text: &str) -> bool {
    !matches!(text.trim().to_ascii_lowercase().as_str(), "" | "false" | "no" | "off" | "0")
}

/// What functions need of their surroundings.
pub(super) struct Surroundings<'a> {
    /// One moment for the whole template.
    pub(super) now: Timestamp,
    /// The environment, where it may be read.
    pub(super) env: Option<&'a BTreeMap<String, String>>,
}

/// Calls a function other than `var` and `user` (which the renderer knows). The number of
/// arguments was checked when the template was read.
///
/// # Errors
/// What is wrong with the arguments.
pub(super) fn call(
    name: &str,
    arguments: &[String],
    surroundings: &Surroundings<'_>,
) -> Result<String, String> {
    let arg = |i: usize| arguments.get(i).map(String::as_str).unwrap_or_default();
    let truth = |b: bool| Ok(if b { "true" } else { "false" }.to_owned());
    match name {
        "upper" => Ok(arg(0).to_uppercase()),
        "lower" => Ok(arg(0).to_lowercase()),
        "trim" => Ok(arg(0).trim().to_owned()),
        "quote" => Ok(quote(arg(0))),
        "b64enc" => {
            use base64::Engine as _;
            Ok(base64::engine::general_purpose::STANDARD.encode(arg(0)))
        }
        "default" => Ok(if arg(1).is_empty() { arg(0) } else { arg(1) }.to_owned()),
        "contains" => truth(arg(1).contains(arg(0))),
        "eq" => truth(arguments.iter().skip(1).any(|a| a == arg(0))),
        "ne" => truth(arg(0) != arg(1)),
        "not" => truth(!holds(arg(0))),
        "and" => Ok(first_or_last(arguments, |a| !holds(a))),
        "or" => Ok(first_or_last(arguments, holds)),
        "replace" if arguments.len() == 4 => {
            let count = arg(2).parse::<i64>().map_err(|_| not_a_number("replace", arg(2)))?;
            replace(arg(3), arg(0), arg(1), usize::try_from(count).ok())
        }
        "replace" | "replace_all" => replace(arg(2), arg(0), arg(1), None),
        "split" => split(arg(0), arg(1), arg(2)),
        "url_scheme" => Ok(url(arg(0))?.0.to_owned()),
        "url_host" => Ok(url(arg(0))?.1.to_owned()),
        "url_path" => Ok(url(arg(0))?.2.to_owned()),
        "uuid" => Ok(uuid::Uuid::new_v4().to_string()),
        "timestamp" => Ok(surroundings.now.as_second().to_string()),
        "isotime" if arguments.is_empty() => strftime(surroundings, "%Y-%m-%dT%H:%M:%SZ"),
        "isotime" => strftime(surroundings, &go_layout(arg(0))),
        "strftime" => strftime(surroundings, arg(0)),
        "env" => match surroundings.env {
            Some(env) => Ok(env.get(arg(0)).cloned().unwrap_or_default()),
            None => Err("`env` is allowed in the default of a variable only".to_owned()),
        },
        other => Err(format!("unknown function `{other}`")),
    }
}

fn not_a_number(function: &str, text: &str) -> String {
    format!("`{function}` wants a number, not `{text}`")
}

fn first_or_last(arguments: &[String], wanted: impl Fn(&str) -> bool) -> String {
    let first = arguments.iter().find(|a| wanted(a));
    first.or(arguments.last()).cloned().unwrap_or_default()
}

/// One word for a POSIX shell.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn replace(text: &str, old: &str, new: &str, count: Option<usize>) -> Result<String, String> {
    let most = count.unwrap_or(usize::MAX);
    let times = text.matches(old).take(most).count();
    if text.len() + times.saturating_mul(new.len()) > MAX_TEXT {
        return Err(format!("the text grows beyond {MAX_TEXT} bytes"));
    }
    Ok(text.replacen(old, new, most))
}

fn split(text: &str, separator: &str, index: &str) -> Result<String, String> {
    if separator.is_empty() {
        return Err("`split` wants a separator".to_owned());
    }
    let index: usize = index.parse().map_err(|_| not_a_number("split", index))?;
    let part = text.split(separator).nth(index);
    part.map(str::to_owned).ok_or_else(|| format!("`{text}` has no part {index}"))
}

/// Scheme, host with port, and path with its leading slash and without a trailing one.
fn url(text: &str) -> Result<(&str, &str, &str), String> {
    let wrong = || format!("`{text}` is not a URL, for example `http://deb.debian.org/debian`");
    let (scheme, rest) = text.trim().split_once("://").ok_or_else(wrong)?;
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    if scheme.is_empty() || host.is_empty() || host.contains(char::is_whitespace) {
        return Err(wrong());
    }
    let path = path.trim_end_matches('/');
    Ok((scheme, host, if path.is_empty() { "/" } else { path }))
}

fn strftime(surroundings: &Surroundings<'_>, format: &str) -> Result<String, String> {
    let zoned = surroundings.now.to_zoned_datetime(TimeZone::UTC);
    jiff::fmt::strtime::format(format, &zoned).map_err(|e| format!("`{format}`: {e}"))
}

/// Go's reference-time layout (`2006-01-02 15:04:05`) as a strftime format.
fn go_layout(layout: &str) -> String {
    const PARTS: [(&str, &str); 17] = [
        ("January", "%B"),
        ("Monday", "%A"),
        ("Z07:00", "Z"),
        ("-0700", "%z"),
        ("2006", "%Y"),
        ("Jan", "%b"),
        ("Mon", "%a"),
        ("MST", "%Z"),
        ("01", "%m"),
        ("02", "%d"),
        ("03", "%I"),
        ("04", "%M"),
        ("05", "%S"),
        ("06", "%y"),
        ("15", "%H"),
        ("PM", "%p"),
        ("%", "%%"),
    ];
    let mut format = String::new();
    let mut rest = layout;
    'next: while !rest.is_empty() {
        for (part, code) in PARTS {
            if let Some(tail) = rest.strip_prefix(part) {
                format.push_str(code);
                rest = tail;
                continue 'next;
            }
        }
        let mut chars = rest.chars();
        format.extend(chars.next());
        rest = chars.as_str();
    }
    format
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn run(name: &str, arguments: &[&str]) -> Result<String, String> {
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        let now = Timestamp::from_second(1_000_000_000).unwrap();
        call(name, &arguments, &Surroundings { now, env: None })
    }

    #[test]
    fn every_function_is_wired() {
        for function in FUNCTIONS.iter().filter(|f| !["var", "user"].contains(&f.name)) {
            let arguments = vec!["1"; function.least];
            if let Err(message) = run(function.name, &arguments) {
                assert!(!message.contains("unknown function"), "{}", function.name);
            }
        }
    }

    #[test]
    fn splits_mirror_urls() {
        for (text, host, path) in [
            ("http://deb.debian.org/debian", "deb.debian.org", "/debian"),
            ("http://deb.debian.org/debian/", "deb.debian.org", "/debian"),
            ("https://user:pw@[::1]:8080/a/b?x#y", "[::1]:8080", "/a/b"),
            ("http://mirror", "mirror", "/"),
        ] {
            assert_eq!(run("url_host", &[text]).unwrap(), host);
            assert_eq!(run("url_path", &[text]).unwrap(), path);
        }
        assert!(run("url_host", &["deb.debian.org"]).unwrap_err().contains("not a URL"));
        assert!(run("url_host", &["http:///x"]).is_err());
    }

    #[test]
    fn works_on_text_and_time() {
        assert_eq!(run("quote", &["it's"]).unwrap(), r"'it'\''s'");
        assert_eq!(run("replace", &["a", "b", "1", "aaa"]).unwrap(), "baa");
        assert_eq!(run("replace", &["a", "b", "-1", "aaa"]).unwrap(), "bbb");
        assert_eq!(run("split", &["a,b", ",", "1"]).unwrap(), "b");
        assert_eq!(run("isotime", &[]).unwrap(), "2001-09-09T01:46:40Z");
        assert_eq!(run("isotime", &["20060102-150405"]).unwrap(), "20010909-014640");
        assert_eq!(run("strftime", &["%Y%m"]).unwrap(), "200109");
        assert_eq!(run("or", &["", "no", "x"]).unwrap(), "x");
        assert_eq!(run("and", &["x", "false", "y"]).unwrap(), "false");
        assert!(run("env", &["HOME"]).unwrap_err().contains("default of a variable"));
        let long = "a".repeat(1 << 20);
        assert!(run("replace_all", &["a", &long, &long]).unwrap_err().contains("grows"));
    }
}
