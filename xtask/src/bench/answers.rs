// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Answer files for packer, which serves files as they are: the part of the targets' template
//! language that the benchmark's answer files use.

use std::collections::BTreeMap;

use super::Outcome;

/// Names and values.
#[derive(Debug, Clone, Default)]
pub(super) struct Variables(BTreeMap<String, String>);

impl<const N: usize> From<[(&str, &str); N]> for Variables {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl Variables {
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.into(), value.into());
    }

    fn get(&self, word: &str) -> Outcome<&str> {
        word.strip_prefix('.').and_then(|name| self.0.get(name)).map(String::as_str).ok_or_else(
            || format!("the answer file uses `{word}`, which the benchmark does not set"),
        )
    }
}

/// Replaces every `{{ … }}`: a variable, `url_host` or `url_path` of one, `if`/`else`/`end`.
pub(super) fn render(text: &str, variables: &Variables) -> Outcome<String> {
    let mut out = String::with_capacity(text.len());
    // One entry per open `if`: whether its current branch is shown.
    let mut shown: Vec<bool> = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, after) =
            after.split_once("}}").ok_or("the answer file has a `{{` without its `}}`")?;
        let visible = shown.iter().all(|&branch| branch);
        if visible {
            out.push_str(before);
        }
        let words: Vec<&str> = action.split_whitespace().collect();
        match words.as_slice() {
            ["if", word] => shown.push(!variables.get(word)?.is_empty()),
            ["else"] => {
                let branch =
                    shown.last_mut().ok_or("the answer file has an `else` without an `if`")?;
                *branch = !*branch;
            }
            ["end"] => {
                shown.pop().ok_or("the answer file has an `end` without an `if`")?;
            }
            _ if !visible => {}
            [word] => out.push_str(variables.get(word)?),
            ["url_host", word] => out.push_str(split_url(variables.get(word)?).0),
            ["url_path", word] => out.push_str(split_url(variables.get(word)?).1),
            _ => return Err(format!("the benchmark cannot render `{{{{{action}}}}}`")),
        }
        rest = after;
    }
    if !shown.is_empty() {
        return Err("the answer file has an `if` without its `end`".into());
    }
    out.push_str(rest);
    Ok(out)
}

/// Host (with its port) and path of a URL.
fn split_url(url: &str) -> (&str, &str) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find('/').map_or((rest, "/"), |at| rest.split_at(at))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        Variables::from([("a", "A"), ("none", ""), ("m", "http://h.example:81/debian")])
    }

    #[test]
    fn renders_what_answer_files_use() {
        for (text, expected) in [
            ("plain", "plain"),
            ("{{ .a }}-{{.a}}", "A-A"),
            ("{{ url_host .m }} {{ url_path .m }}", "h.example:81 /debian"),
            ("{{ if .a }}yes{{ else }}no{{ end }}!", "yes!"),
            ("{{ if .none }}yes {{ .a }}{{ else }}no{{ end }}!", "no!"),
            ("{{ if .none }}{{ if .a }}x{{ end }}y{{ end }}z", "z"),
        ] {
            assert_eq!(render(text, &variables()).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for text in [
            "{{ .b }}",
            "{{ a }}",
            "{{ upper .a }}",
            "{{ if .a }}",
            "{{ end }}",
            "{{ else }}",
            "{{ .a",
        ] {
            assert!(render(text, &variables()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_answer_files_of_the_benchmark_render() {
        let root = crate::process::root();
        for path in ["tests/data/tiny/answer.sh", "preseed/debian.cfg"] {
            let text = std::fs::read_to_string(root.join(path)).unwrap();
            let mut all = Variables::default();
            for name in [
                "Name",
                "hostname",
                "RootPasswordHash",
                "SSHPublicKey",
                "mirror",
                "security_mirror",
                "codename",
                "timezone",
                "ntp",
                "extra_packages",
                "kernel_args",
            ] {
                all.set(name, "http://x/y");
            }
            let rendered = render(&text, &all).unwrap();
            assert!(!rendered.contains("{{") && rendered.contains("http://x/y"), "{path}");
        }
    }
}
