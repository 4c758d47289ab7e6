// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `imgforge manifest`: holds IMGAPI manifests against the rules, before a server does.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::output;
use crate::export::{Finding, Severity, check_manifest};
use crate::ui::{Failure, Outcome};

/// Arguments of `imgforge manifest`.
#[derive(Debug, Args)]
pub(crate) struct ManifestArgs {
    #[command(subcommand)]
    verb: ManifestVerb,
}

#[derive(Debug, Subcommand)]
enum ManifestVerb {
    /// Check a manifest, and with `--file` the image that it describes
    Check(CheckArgs),
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// The manifest, JSON
    #[arg(value_name = "MANIFEST")]
    manifest: PathBuf,
    /// The compressed image: its size, SHA-1 and compression must be what the manifest says
    #[arg(long, value_name = "IMAGE")]
    file: Option<PathBuf>,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb. Findings go to standard output; a broken rule is exit code 2, a warning is not.
pub(super) fn run(args: &ManifestArgs) -> Outcome<()> {
    let ManifestVerb::Check(args) = &args.verb;
    let findings = check_manifest(&args.manifest, args.file.as_deref())?;
    let text = if args.json {
        format!("{:#}\n", serde_json::json!(findings))
    } else {
        findings.iter().map(|finding| format!("{finding}\n")).collect()
    };
    output::data(&text)?;
    let is_error = |finding: &&Finding| finding.severity == Severity::Error;
    match findings.iter().filter(is_error).count() {
        0 => Ok(()),
        count => Err(Failure::input(format!(
            "{} breaks {count} of the rules of IMGAPI manifests",
            args.manifest.display()
        ))
        .fact("file", args.manifest.display())
        .hint("correct the fields named above; `imgforge build` writes manifests that pass")),
    }
}
