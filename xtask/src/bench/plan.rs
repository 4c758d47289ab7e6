// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What both builders are given: medium, answer file, variables, template.

use std::path::{Path, PathBuf};

use super::Outcome;
use super::answers::Variables;
use crate::media::{self, Medium};
use crate::{mirror, process};

/// One target, as both sides build it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) name: &'static str,
    /// The project's top directory.
    pub(super) root: PathBuf,
    pub(super) iso: PathBuf,
    medium: Medium,
    /// packer's template.
    pub(super) template: PathBuf,
    /// Boot wait of packer when it is not the target's.
    pub(super) packer_boot_wait: Option<String>,
    /// Answer file, and the name that the boot command asks for.
    pub(super) answers: PathBuf,
    pub(super) served_as: &'static str,
    /// Variables that both sides get; the rest are the target's defaults.
    pub(super) given: Vec<(&'static str, String)>,
    /// All variables of the answer file but the key and the password.
    pub(super) variables: Variables,
    /// What names the target to `imgforge build`.
    pub(super) selection: Vec<String>,
}

impl Plan {
    /// Looks everything up before anything is built.
    pub(super) fn named(name: &str, root: &Path, iso: Option<PathBuf>) -> Outcome<Self> {
        let mut plan = match name {
            "tiny" => Self::tiny(root),
            "debian-13" => Self::debian_13(root)?,
            other => {
                return Err(format!("no benchmark for `{other}`; there are tiny and debian-13"));
            }
        };
        if let Some(iso) = iso {
            plan.iso = std::path::absolute(&iso).map_err(|e| format!("{}: {e}", iso.display()))?;
            if !plan.iso.is_file() {
                return Err(format!(
                    "there is no medium {}; without --iso, the medium is made",
                    plan.iso.display()
                ));
            }
        }
        Ok(plan)
    }

    /// Makes the medium unless it is there and newer than its recipe.
    pub(super) fn make_medium(&self) -> Outcome {
        if self.iso == self.medium.path() {
            media::make(self.medium, &self.iso, process::run)?;
        }
        Ok(())
    }

    fn tiny(root: &Path) -> Self {
        Self {
            name: "tiny",
            root: root.into(),
            iso: Medium::Tiny.path(),
            medium: Medium::Tiny,
            template: root.join("xtask/recipes/packer/tiny.json"),
            packer_boot_wait: None,
            answers: root.join("tests/data/tiny/answer.sh"),
            served_as: "answer.sh",
            given: Vec::new(),
            variables: Variables::from([("Name", "tiny"), ("hostname", "tiny")]),
            selection: vec![
                "tiny".into(),
                "--target-file".into(),
                root.join("tests/data/tiny/tiny.yaml").display().to_string(),
            ],
        }
    }

    fn debian_13(root: &Path) -> Outcome<Self> {
        let given =
            vec![("mirror", mirror::debian()?), ("security_mirror", mirror::security("trixie")?)];
        let mut variables = Variables::from([
            ("Name", "debian-13"),
            ("codename", "trixie"),
            ("timezone", "Etc/UTC"),
            ("ntp", ""),
            ("extra_packages", ""),
            ("kernel_args", ""),
        ]);
        for (name, value) in &given {
            variables.set(name, value);
        }
        Ok(Self {
            name: "debian-13",
            root: root.into(),
            iso: Medium::Debian13.path(),
            medium: Medium::Debian13,
            template: root.join("xtask/recipes/packer/debian-13.json"),
            packer_boot_wait: None,
            answers: root.join("preseed/debian.cfg"),
            served_as: "preseed.cfg",
            given,
            variables,
            selection: vec!["debian-13".into()],
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::process::root;

    /// The strings of a YAML or JSON list: the quoted part of each line up to `end`.
    fn strings<'a>(text: &'a str, start: &str, end: impl Fn(&str) -> bool) -> Vec<&'a str> {
        let from = text.find(start).unwrap() + start.len();
        text[from..]
            .lines()
            .skip(1)
            .take_while(|line| !end(line))
            .filter_map(|line| Some(line.split_once('"')?.1.rsplit_once('"')?.0))
            .collect()
    }

    fn scalar<'a>(text: &'a str, start: &str) -> &'a str {
        let rest = &text[text.find(start).unwrap() + start.len()..];
        rest.lines().next().unwrap().trim().trim_matches(['"', ',', ' '])
    }

    /// The benchmark is fair only while packer types what imgforge types.
    #[test]
    fn packer_types_what_the_target_types() {
        for (target, template, values) in [
            (
                "tests/data/tiny/tiny.yaml",
                "tiny.json",
                &[("mode", "normal"), ("boot_wait", "12s")][..],
            ),
            (
                "targets/debian-13.yaml",
                "debian-13.json",
                &[("locale", "en_US.UTF-8"), ("hostname", "debian-13"), ("domain", "localdomain")],
            ),
        ] {
            let mut target = std::fs::read_to_string(root().join(target)).unwrap();
            for (name, value) in values {
                target = target.replace(&format!("\"{{{{ .{name} }}}}\""), value);
                target = target.replace(&format!("{{{{ .{name} }}}}"), value);
            }
            let path = root().join("xtask/recipes/packer").join(template);
            let template = std::fs::read_to_string(path).unwrap();
            let ours = strings(&target, "\n  command:", |line| !line.starts_with("    ")).concat();
            assert!(ours.contains("HTTPIP"), "{ours}");
            assert_eq!(
                strings(&template, "\"boot_command\": [", |line| line.trim() == "],").concat(),
                ours
            );
            assert_eq!(scalar(&template, "\"boot_wait\":"), scalar(&target, "\n  wait:"));
            assert_eq!(scalar(&template, "\"cpus\":"), scalar(&target, "\n  cpus:"));
            assert_eq!(scalar(&template, "\"disk_size\":"), scalar(&target, "\n  disk:"));
        }
    }

    #[test]
    fn unknown_targets_and_absent_media_are_refused() {
        let problem = Plan::named("solaris", root(), None).unwrap_err();
        assert!(problem.contains("`solaris`"), "{problem}");
        let problem = Plan::named("tiny", root(), Some("/nonexistent.iso".into())).unwrap_err();
        assert!(problem.contains("/nonexistent.iso"), "{problem}");
    }
}
