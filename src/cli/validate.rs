// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `imgforge validate`: every mistake of a target, without building it.

use std::collections::HashSet;

use clap::Args;
use serde_json::json;

use super::{Global, Selection, keys, output};
use crate::target::{self, Finding, Position};
use crate::ui::{Failure, Kind, Outcome};

/// Arguments of `imgforge validate`.
#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// Targets to check
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Check every target of the catalogue
    #[arg(long, conflicts_with_all = ["targets", "target_file"])]
    all: bool,
    #[command(flatten)]
    selection: Selection,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// Prints the findings to standard output, as compilers do.
///
/// # Errors
/// [`Kind::Input`](crate::ui::Kind::Input) when there is a mistake.
pub(super) fn run(args: &ValidateArgs, global: &Global) -> Outcome<()> {
    let names =
        if args.all { args.selection.names()? } else { args.selection.chosen(&args.targets)? };
    let mut all: Vec<(String, Finding)> = Vec::new();
    let mut failed = Vec::new();
    let mut seen = HashSet::new();
    for name in &names {
        let mut sound = true;
        let found = match findings(name, &args.selection) {
            Err(failure) if names.len() > 1 && failure.kind() == Kind::Input => {
                vec![unloadable(name, &failure)]
            }
            found => found?,
        };
        for finding in found {
            sound &= finding.warning;
            // Targets share answer files; a mistake there is said once.
            if seen.insert(finding.to_string()) {
                all.push((name.clone(), finding));
            }
        }
        if sound {
            output::remark(&format!("{name}: good"), global);
        } else {
            failed.push(name.as_str());
        }
    }
    print(&all, args.json)?;
    if failed.is_empty() {
        return Ok(());
    }
    let mistakes = all.iter().filter(|(_, f)| !f.warning).count();
    let plural = if mistakes == 1 { "mistake" } else { "mistakes" };
    Err(Failure::input(format!("{mistakes} {plural} in {}", failed.join(", "))))
}

fn findings(name: &str, selection: &Selection) -> Outcome<Vec<Finding>> {
    let examined = selection.examine(name)?;
    let mut findings = examined.findings;
    if let Some(loaded) = &examined.loaded {
        findings.extend(target::lint(loaded));
        findings.extend(keys::lint(loaded));
    }
    findings.sort_by(|a, b| a.position.cmp(&b.position));
    Ok(findings)
}

/// A target that cannot be loaded does not keep the others from being checked.
fn unloadable(name: &str, failure: &Failure) -> Finding {
    let position = Position { file: format!("target {name}").into(), line: 0, column: 0 };
    let (field, message) = (String::new(), failure.summary().to_owned());
    Finding { position, field, message, warning: false }
}

fn print(findings: &[(String, Finding)], as_json: bool) -> Outcome<()> {
    if as_json {
        let list: Vec<_> = findings
            .iter()
            .map(|(target, f)| {
                json!({
                    "target": target,
                    "file": &*f.position.file,
                    "line": f.position.line,
                    "column": f.position.column,
                    "field": f.field,
                    "message": f.message,
                    "warning": f.warning,
                })
            })
            .collect();
        return output::data(&format!("{:#}\n", json!(list)));
    }
    let text: String = findings.iter().map(|(_, finding)| format!("{finding}\n")).collect();
    output::data(&text)
}
