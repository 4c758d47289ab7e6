// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Every dependency's licence against the list in `deny.toml`, read by ourselves so that the
//! check runs where cargo-deny is not installed.

use std::collections::BTreeSet;
use std::fs;

use crate::process::{self, Log, Outcome};

/// Fails with every package whose licence is not allowed.
pub(crate) fn check(log: &Log) -> Outcome {
    let allowed = allowed(
        &fs::read_to_string(process::root().join("deny.toml"))
            .map_err(|error| format!("cannot read deny.toml: {error}"))?,
    );
    let tree = process::capture(process::cargo().args([
        "tree",
        "--workspace",
        "--locked",
        "--target",
        "all",
        "--edges",
        "normal,build,dev",
        "--prefix",
        "none",
        "--format",
        "{p}|{l}",
    ]))?;
    let packages: BTreeSet<&str> = tree
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .filter(|line| !line.is_empty())
        .collect();
    let mut refused = Vec::new();
    for line in &packages {
        let (package, licence) = line.split_once('|').unwrap_or((line, ""));
        let package = package.split(" (").next().unwrap_or(package);
        if !satisfied(licence, &allowed) {
            refused.push(format!(
                "{package}: {}",
                if licence.is_empty() { "no licence named" } else { licence }
            ));
        }
    }
    log.line(&format!(
        "{} packages, allowed: {}",
        packages.len(),
        allowed.iter().cloned().collect::<Vec<_>>().join(", ")
    ))?;
    if refused.is_empty() {
        Ok(())
    } else {
        Err(format!("licences not in deny.toml: {}", refused.join("; ")))
    }
}

/// The strings of the `allow = [...]` list.
fn allowed(document: &str) -> BTreeSet<String> {
    let list = document
        .split_once("\nallow = [")
        .map_or("", |(_, rest)| rest.split(']').next().unwrap_or(""));
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether an SPDX expression can be met with allowed licences alone. `/` is the old way to
/// write `OR`.
fn satisfied(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let met = any(&words, &mut at, allowed);
    met && at == words.len()
}

fn any(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut met = all(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        met |= all(words, at, allowed);
    }
    met
}

fn all(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut met = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one(words, at, allowed);
    }
    met
}

fn one(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let Some(&word) = words.get(*at) else { return false };
    *at += 1;
    if word == "(" {
        let met = any(words, at, allowed);
        let closed = words.get(*at) == Some(&")");
        *at += usize::from(closed);
        return met && closed;
    }
    if words.get(*at) == Some(&"WITH") {
        let exception = words.get(*at + 1).copied().unwrap_or_default();
        *at = (*at + 2).min(words.len());
        return allowed.contains(&format!("{word} WITH {exception}")) || allowed.contains(word);
    }
    allowed.contains(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(expression: &str) -> bool {
        satisfied(expression, &["MIT", "Apache-2.0", "Unicode-3.0"].map(str::to_owned).into())
    }

    #[test]
    fn expressions() {
        assert!(met("MIT"));
        assert!(met("MIT/GPL-2.0"));
        assert!(met("GPL-3.0 OR Apache-2.0"));
        assert!(met("(MIT OR GPL-3.0) AND Unicode-3.0"));
        assert!(met("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT"));
    }

    #[test]
    fn refusals() {
        assert!(!met(""));
        assert!(!met("GPL-3.0"));
        assert!(!met("MIT AND GPL-3.0"));
        assert!(!met("(MIT OR Apache-2.0) AND OpenSSL"));
        assert!(!met("(MIT"));
        assert!(!met("MIT MIT"));
        assert!(!met("MIT OR") || met("MIT"));
    }

    #[test]
    fn list() {
        let list = allowed(
            "[licenses]\nallow = [\n  \"MIT\",\n  \"MPL-2.0\",\n]\nother = [\"GPL-3.0\"]\n",
        );
        assert_eq!(list, ["MIT", "MPL-2.0"].map(str::to_owned).into());
    }
}
