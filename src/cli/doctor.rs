// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `imgforge doctor`: what this host lacks, and the remedy.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::build::{self, StateDirs};
use crate::host::{self, Bundle, Host, Places, Report, examine};
use crate::ui::{Failure, Outcome, Printer};

/// Arguments of `imgforge doctor`.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
    /// Where images will be written to
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub output: PathBuf,
    /// Write what is needed to find a fault from afar into a new text file: versions, devices, each
    /// call of a machine on trial, the ends of the last builds' logs; no secrets
    #[arg(long, value_name = "FILE", num_args = 0..=1,
          default_missing_value = "imgforge-bundle.txt")]
    pub bundle: Option<PathBuf>,
}

/// Examines this host and prints what it found to standard output. `cache` is the directory for
/// installer media; it need not exist.
///
/// # Errors
/// Something without which no build works is missing; exit code 1.
pub fn run(args: &DoctorArgs, cache: &Path, printer: &Printer) -> Outcome<()> {
    let places = Places {
        cache: cache.to_owned(),
        output: args.output.clone(),
        temporary: std::env::temp_dir(),
    };
    let report = examine(&Host::this(places));
    print(&report, args.json, &mut std::io::stdout().lock())?;
    if let Some(file) = &args.bundle {
        write_bundle(file, &bundle(&report, &args.output))?;
        printer.notice(&format!("wrote {}; read it before you send it", file.display()));
        return Ok(());
    }
    report.failure().map_or(Ok(()), Err)
}

fn bundle(report: &Report, output: &Path) -> Bundle {
    let builds = StateDirs::from_env().and_then(|dirs| {
        let builds = build::survey(&dirs)?;
        let text = serde_json::to_string_pretty(&builds)
            .map_err(|error| Failure::build("cannot describe the builds").because(error))?;
        Ok(format!("{text}\nmachines in no journal: {:?}", build::strangers(&dirs)?))
    });
    Bundle::default()
        .with("platform", host::platform())
        .with("doctor", report)
        .with("bhyve, a machine on trial", host::trial())
        .with("builds and what they left", builds.unwrap_or_else(|failure| failure.to_string()))
        .with("logs of the last builds", host::logs(output))
}

/// A new file, for its owner alone: nothing that exists is overwritten.
fn write_bundle(file: &Path, bundle: &Bundle) -> Outcome<()> {
    let write = || {
        let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        write!(to, "{bundle}")
    };
    write().map_err(|error: std::io::Error| {
        Failure::input("cannot write the bundle")
            .because(error)
            .fact("file", file.display())
            .hint("name a new file: `imgforge doctor --bundle FILE`")
    })
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
    fn a_bundle_is_a_new_private_file_with_all_sections() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("b.txt");
        let report = Report { findings: Vec::new() };
        let bundle = bundle(&report, dir.path());
        write_bundle(&file, &bundle).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read_to_string(&file).unwrap();
        for title in ["platform", "doctor", "bhyve, a machine on trial", "builds", "logs"] {
            assert!(text.contains(&format!("== {title}")), "{text}");
        }
        let again = write_bundle(&file, &bundle).unwrap_err().to_string();
        assert!(again.contains("b.txt") && again.contains("hint: name a new file"), "{again}");
    }

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
