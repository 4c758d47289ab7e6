// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Templates of boot commands, answer files and documents: packer's `{{ .HTTPIP }}`, the target's
//! own variables, conditionals and functions.

mod functions;
mod parse;
mod render;

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Resolved;
use crate::ui::{Failure, Outcome, Secret};

pub(crate) use render::{Lookup, Scope, render, render_default};

/// Variables that only the build knows; a target cannot declare these names.
pub(crate) const LATE: [&str; 4] = ["HTTPIP", "HTTPPort", "SSHPublicKey", "RootPasswordHash"];
/// The target's name as a variable.
pub(crate) const NAME: &str = "Name";
/// [`super::Variable::source`] of a value that stands in the document.
pub(crate) const DEFAULT: &str = "default";
/// [`super::Variable::source`] of a default that is still a template: it uses [`LATE`] variables.
pub(crate) const LATE_DEFAULT: &str = "default, filled in during the build";

/// Most rounds of filling in a boot command until it stops changing.
const MAX_ROUNDS: usize = 8;

/// Why a template cannot be filled in, apart from its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// A mistake.
    Wrong,
    /// It uses a variable that only the build knows.
    Late,
    /// It uses a required variable that has no value.
    Unset(String),
}

/// A mistake in a template, with its place in the template's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TemplateError {
    /// Line, from 1.
    pub(crate) line: usize,
    /// Column in characters, from 1.
    pub(crate) column: usize,
    /// What is wrong.
    pub(crate) message: String,
    /// What kind of problem it is.
    pub(crate) problem: Problem,
}

impl TemplateError {
    pub(crate) fn at(source: &str, offset: usize, message: impl Into<String>) -> Self {
        let before = source.get(..offset.min(source.len())).unwrap_or(source);
        Self {
            line: before.matches('\n').count() + 1,
            column: before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1,
            message: message.into(),
            problem: Problem::Wrong,
        }
    }
}

/// What only the build knows.
#[derive(Debug, Clone)]
pub struct BuildValues {
    /// The answer-file server's address as the guest sees it.
    pub http_ip: String,
    /// The answer-file server's port; 0 when there is none.
    pub http_port: u16,
    /// Public half of the build's key, in OpenSSH's form.
    pub ssh_public_key: String,
    /// Hash of the build's root password, in crypt's form.
    pub root_password_hash: Secret,
}

impl BuildValues {
    /// Plausible values, to try templates without a build.
    pub fn example() -> Self {
        Self {
            http_ip: "10.0.2.2".to_owned(),
            http_port: 8080,
            ssh_public_key: "ssh-ed25519 AAAA imgforge".to_owned(),
            root_password_hash: Secret::new("$6$salt$hash"),
        }
    }
}

/// Fills in the texts of a resolved target that had to wait for the build.
#[derive(Debug, Clone)]
pub struct Expander {
    late: LateScope,
}

#[derive(Debug, Clone)]
struct LateScope {
    name: String,
    variables: BTreeMap<String, super::Variable>,
    values: BuildValues,
    port: String,
    now: Timestamp,
    env: BTreeMap<String, String>,
}

impl Scope for LateScope {
    fn lookup(&self, name: &str) -> Lookup<'_> {
        let value = match name {
            "HTTPIP" => &self.values.http_ip,
            "HTTPPort" => &self.port,
            "SSHPublicKey" => &self.values.ssh_public_key,
            "RootPasswordHash" => self.values.root_password_hash.reveal(),
            NAME => &self.name,
            name => match self.variables.get(name) {
                Some(v) if v.source == LATE_DEFAULT => return Lookup::Template(&v.value),
                Some(v) => &v.value,
                None => return Lookup::Unknown,
            },
        };
        Lookup::Value(Cow::Borrowed(value))
    }

    fn names(&self) -> Vec<&str> {
        let own = self.variables.keys().map(String::as_str);
        own.chain(LATE).chain([NAME]).collect()
    }

    fn env(&self) -> Option<&BTreeMap<String, String>> {
        Some(&self.env)
    }

    fn now(&self) -> Timestamp {
        self.now
    }
}

impl Expander {
    /// Makes an expander for one build. `timestamp` and `isotime` give the same moment throughout.
    pub fn new(target: &Resolved, values: BuildValues) -> Self {
        let port = values.http_port.to_string();
        Self {
            late: LateScope {
                name: target.name.clone(),
                variables: target.variables.clone(),
                values,
                port,
                now: Timestamp::now(),
                env: BTreeMap::new(),
            },
        }
    }

    /// Fills in `text` once. `origin` says in an error where the text comes from (an asset's path
    /// or a field such as `shutdown.command`).
    ///
    /// # Errors
    /// A mistake in the template, with line and column.
    pub fn expand(&self, origin: &str, text: &str) -> Outcome<String> {
        render(text, &self.late, false).map_err(|e| failure(origin, &e))
    }

    /// Fills in a boot command again and again until it stops changing, as packer does, so that a
    /// variable given on the command line may itself hold `{{ .HTTPIP }}`.
    ///
    /// # Errors
    /// As for [`Expander::expand`], and when the text still changes after eight rounds.
    pub fn expand_until_stable(&self, origin: &str, text: &str) -> Outcome<String> {
        let mut text = text.to_owned();
        for _ in 0..MAX_ROUNDS {
            let next = self.expand(origin, &text)?;
            if next == text {
                return Ok(text);
            }
            text = next;
        }
        Err(Failure::input("the text keeps changing as its variables are filled in")
            .fact("file", origin)
            .hint("a variable's value refers to itself"))
    }

    /// One variable in its final value.
    ///
    /// # Errors
    /// Unknown variable.
    pub fn variable(&self, name: &str) -> Outcome<String> {
        self.expand("variable", &format!("{{{{ var {name:?} }}}}"))
    }

    /// Every text that must not appear in any output: the sensitive variables and the password
    /// hash. Empty values are left out.
    pub fn secrets(&self) -> Vec<Secret> {
        let sensitive = self.late.variables.values().filter(|v| v.sensitive);
        let mut secrets: Vec<Secret> = sensitive
            .filter(|v| !v.value.is_empty())
            .map(|v| Secret::new(v.value.as_str()))
            .collect();
        secrets.push(self.late.values.root_password_hash.clone());
        secrets
    }

    /// Every branch of a template, taken or not.
    pub(crate) fn inspect(&self, text: &str) -> Result<(), TemplateError> {
        render(text, &self.late, true).map(drop)
    }

    /// The branches that would be taken, with the values that there are.
    pub(crate) fn try_out(&self, text: &str) -> Result<(), TemplateError> {
        render(text, &self.late, false).map(drop)
    }
}

/// A template's mistake as a failure.
fn failure(origin: &str, error: &TemplateError) -> Failure {
    Failure::input(&error.message).fact("file", format!("{origin}:{}:{}", error.line, error.column))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Fixed(BTreeMap<&'static str, &'static str>);

    impl Scope for Fixed {
        fn lookup(&self, name: &str) -> Lookup<'_> {
            match name {
                "HTTPIP" => Lookup::Late,
                "needed" => Lookup::Unset,
                "loop" => Lookup::Template("{{ .loop }}"),
                "both" => Lookup::Template("{{ .mirror }}/{{ env \"X\" }}"),
                name => match self.0.get(name) {
                    Some(value) => Lookup::Value(Cow::Borrowed(value)),
                    None => Lookup::Unknown,
                },
            }
        }
        fn names(&self) -> Vec<&str> {
            self.0.keys().copied().collect()
        }
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }
    }

    fn fill(text: &str) -> Result<String, String> {
        let scope = Fixed(BTreeMap::from([
            ("mirror", "http://deb.debian.org/debian"),
            ("ntp", "pool"),
            ("off", "false"),
            ("empty", ""),
        ]));
        render(text, &scope, false).map_err(|e| format!("{}:{}: {}", e.line, e.column, e.message))
    }

    #[test]
    fn fills_in_values_functions_and_conditions() {
        for (template, text) in [
            ("plain } text {", "plain } text {"),
            ("{{ .mirror }}!", "http://deb.debian.org/debian!"),
            ("{{.Vars.ntp}}{{ var \"ntp\" }}{{ user `ntp` }}", "poolpoolpool"),
            ("{{ url_host .mirror }} {{ url_path .mirror }}", "deb.debian.org /debian"),
            ("{{ .ntp | upper | quote }}", "'POOL'"),
            ("{{ if .ntp }}a{{ else }}b{{ end }}", "a"),
            ("{{ if .off }}a{{ else if .empty }}b{{ else }}c{{ end }}", "c"),
            ("{{ if and .ntp (not .off) }}x{{ end }}", "x"),
            ("{{ if eq .ntp \"pool\" \"x\" }}{{ if .empty }}a{{ else }}b{{ end }}{{ end }}", "b"),
            ("a\n{{- if .ntp }}\nb\n{{- end }}\nc", "a\nb\nc"),
            ("a {{- /* note */ -}} b", "ab"),
            ("{{ \"{{\" }} .x {{ `}}` }}", "{{ .x }}"),
            ("{{ .empty | default \"d\" }}{{ default \"d\" .ntp }}", "dpool"),
            ("{{ (upper (lower \"X\")) }}", "X"),
        ] {
            assert_eq!(fill(template).as_deref(), Ok(text), "{template}");
        }
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        for (template, message) in [
            ("a\n {{ .miror }}", "2:5: unknown variable `miror`; did you mean `mirror`?"),
            ("{{ .HTTPIP }}", "1:4: `HTTPIP` is known during the build only"),
            (
                "{{ .needed }}",
                "1:4: the variable `needed` has no value; give one with `--var needed=…`",
            ),
            ("{{ .loop }}", "1:4: the default of `loop` refers back"),
            ("{{ uper .ntp }}", "1:4: unknown function `uper`; did you mean `upper`?"),
            ("{{ upper }}", "1:4: write `upper TEXT`; here are 0 arguments"),
            ("{{ .a .b }}", "1:4: two values"),
            ("{{ .a | .b }}", "1:9: after `|` a function must follow"),
            ("{{ if .ntp }}", "1:1: this `if` has no `end`"),
            ("x{{ end }}", "1:2: `end` without `if`"),
            ("{{ if .ntp }}{{ else }}{{ else }}{{ end }}", "1:24: a second `else`"),
            ("{{ range .x }}{{ end }}", "1:1: `range` is not part"),
            ("{{ }}", "1:1: nothing stands"),
            ("{{ .x", "1:1: `{{` without `}}`"),
            ("{{ \"x }}", "1:4: this text has no closing quote"),
            ("{{ (upper .x }}", "1:4: `(` without `)`"),
            ("{{ upper .x) }}", "1:12: `)` without `(`"),
            ("{{ upper lower .x }}", "1:10: put parentheses around `lower`"),
            ("{{ $x := 1 }}", "1:4: `$` variables"),
            ("{{ .a.b }}", "1:4: `.a.b`: variables have no parts"),
            ("{{ url_host .ntp }}", "1:4: `pool` is not a URL"),
            ("{{ env \"X\" }}", "1:4: `env` is allowed"),
        ] {
            let said = fill(template).unwrap_err();
            assert!(said.starts_with(message), "{template}: {said}");
        }
        assert!(fill(&"{{ if .ntp }}".repeat(100)).unwrap_err().contains("nested"));
        assert!(fill(&format!("{{{{ {}", "(".repeat(100))).is_err());
        assert!(fill(&format!("{{{{ {}1{} }}}}", "(".repeat(100), ")".repeat(100))).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in "([{}|().\"`\\-a-c é\\n0/*]|\\{\\{|\\}\\}|if |else|end|upper |\\.mirror){0,60}") {
            let _ = fill(&text);
        }

        #[test]
        fn text_without_actions_is_kept(text in "[^{]{0,200}") {
            prop_assert_eq!(fill(&text), Ok(text));
        }

        #[test]
        fn quoted_words_survive_a_shell(word in "[ -~\\n]{0,40}") {
            let quoted = functions_quote(&word);
            let output = std::process::Command::new("/bin/sh")
                .args(["-c", &format!("printf %s {quoted}")]).output().unwrap();
            prop_assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }

    fn functions_quote(word: &str) -> String {
        let scope = Fixed(BTreeMap::new());
        let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        render(&format!("{{{{ quote \"{escaped}\" }}}}"), &scope, false).unwrap()
    }
}
