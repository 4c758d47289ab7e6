// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What can be known about a target before anything runs: its files are there, its answer files
//! and texts can be filled in.

use std::sync::Arc;

use super::catalogue::Loaded;
use super::finding::{Finding, Position};
use super::resolved::Action;
use super::template::{BuildValues, Expander, TemplateError};
use super::{Assets, Library};
use crate::ui::Failure;

/// Looks at everything that a build would need from the target's files, with plausible values
/// for what only the build knows. The boot command is looked at by the console's own lint.
pub fn lint(loaded: &Loaded) -> Vec<Finding> {
    let mut linter = Linter {
        loaded,
        expander: Expander::new(&loaded.resolved, BuildValues::example()),
        findings: Vec::new(),
    };
    let target = &loaded.resolved;
    for (path, asset) in &target.http.files {
        linter.answer_file(&format!("http.files.{path}"), asset);
    }
    for (path, text) in &target.http.content {
        linter.text(&format!("http.content.{path}"), text);
    }
    linter.text("boot.command", &target.boot.command);
    linter.text("shutdown.command", &target.shutdown.command);
    for (index, step) in target.provision.iter().enumerate() {
        linter.step(&format!("provision[{index}]"), &step.action);
    }
    let typed = linter.expander.expand_until_stable("boot.command", &target.boot.command);
    let port = BuildValues::example().http_port.to_string();
    if typed.is_ok_and(|text| !text.contains(&port)) && !target.http.files.is_empty() {
        let message = "answer files are served, but the boot command never says `{{ .HTTPPort }}`";
        linter.findings.push(loaded.finding("boot.command", message, true));
    }
    linter.findings
}

struct Linter<'a> {
    loaded: &'a Loaded,
    expander: Expander,
    findings: Vec<Finding>,
}

impl Linter<'_> {
    fn assets(&self) -> &Library {
        &self.loaded.assets
    }

    fn failed(&mut self, field: &str, failure: &Failure) {
        let mut message = failure.summary().to_owned();
        for hint in failure.hints().iter().filter(|h| h.starts_with("did you mean")) {
            message.push_str("; ");
            message.push_str(hint);
        }
        self.findings.push(self.loaded.finding(field, &message, false));
    }

    fn answer_file(&mut self, field: &str, asset: &str) {
        let bytes = match self.assets().read(asset) {
            Ok(bytes) => bytes,
            Err(failure) => return self.failed(field, &failure),
        };
        let file: Arc<str> = self.assets().origin(asset).unwrap_or_else(|| asset.to_owned()).into();
        let Ok(text) = String::from_utf8(bytes) else {
            let message = "an answer file must be UTF-8 text";
            self.findings.push(Finding::error(Position::whole(&file), field, message));
            return;
        };
        if let Some(error) = self.mistake(&text) {
            let position =
                Position { file: Arc::clone(&file), line: error.line, column: error.column };
            self.findings.push(Finding::error(position, "", error.message));
        }
    }

    fn text(&mut self, field: &str, text: &str) {
        if let Some(error) = self.mistake(text) {
            self.findings.push(self.loaded.finding(field, &error.message, false));
        }
    }

    /// The first mistake of any branch, or else of the branches that would be taken.
    fn mistake(&self, text: &str) -> Option<TemplateError> {
        self.expander.inspect(text).and_then(|()| self.expander.try_out(text)).err()
    }

    fn step(&mut self, field: &str, action: &Action) {
        match action {
            Action::Shell(shell) => {
                self.text(&format!("{field}.shell.inline"), &shell.inline.join("\n"));
                if let Some(script) = &shell.script {
                    self.file(&format!("{field}.shell.script"), script);
                }
            }
            Action::File(file) => match &file.content {
                Some(content) => self.text(&format!("{field}.file.content"), content),
                None => self.tree(&format!("{field}.file.source"), &file.source),
            },
            Action::Ansible(ansible) => {
                let playbook = format!("{}/{}", ansible.directory, ansible.playbook);
                self.file(&format!("{field}.ansible.playbook"), &playbook);
                for (key, text) in &ansible.extra_vars {
                    self.text(&format!("{field}.ansible.extra_vars.{key}"), text);
                }
            }
        }
    }

    fn file(&mut self, field: &str, path: &str) {
        if let Err(failure) = self.assets().read(path) {
            self.failed(field, &failure);
        }
    }

    fn tree(&mut self, field: &str, path: &str) {
        if let Err(failure) = self.assets().tree(path) {
            self.failed(field, &failure);
        }
    }
}
