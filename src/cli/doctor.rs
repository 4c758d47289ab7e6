// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `imgforge doctor`: what this host lacks, and the remedy.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::host::{Host, Places, Report, examine};
use crate::ui::{Failure, Outcome};

/// Arguments of `imgforge doctor`.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
    /// Where images will be written to
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub output: PathBuf,
}

/// Examines this host and prints what it found to standard output. `cache` is the directory for
/// installer media; it need not exist.
///
/// # Errors
/// Something without which no build works is missing; exit code 1.
pub fn run(args: &DoctorArgs, cache: &Path) -> Outcome<()> {
    let places = Places {
        cache: cache.to_owned(),
        output: args.output.clone(),
        temporary: std::env::temp_dir(),
    };
    let report = examine(&Host::this(places));
    print(&report, args.json, &mut std::io::stdout().lock())?;
    report.failure().map_or(Ok(()), Err)
}

fn print(report: &Report, json: bool, to: &mut impl Write) -> Outcome<()> {
    let text = if json {
        let text = serde_json::to_string_pretty(report)
            .map_err(|error| Failure::build("cannot print the findings").because(error))?;
        format!("{text}\n")
    } else {
        report.to_string()
    };
    let written = to.write_all(text.as_bytes()).and_then(|()| to.flush());
    written.map_err(|error| Failure::build("cannot print the findings").because(error))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn prints_text_and_json() {
        let report = Report { findings: Vec::new() };
        let mut out = Vec::new();
        print(&report, true, &mut out).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value, serde_json::json!({ "findings": [] }));
        out.clear();
        print(&report, false, &mut out).unwrap();
        assert!(out.is_empty());
    }
}
