// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! How a run ends: data on standard output, the failure on standard error, the exit code.

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::ColorChoice;

use super::Global;
use crate::ui::{Failure, Format, Kind, Outcome};

/// Writes a verb's result to standard output.
///
/// # Errors
/// Standard output cannot be written to; a closed pipe among them, which [`finish`] takes for
/// success: the reader has what it wanted.
pub(super) fn data(text: &str) -> Outcome<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|e| Failure::build("cannot write to standard output").because(e))
}

/// A line for people, on standard error.
pub(super) fn remark(text: &str, global: &Global) {
    if !global.quiet {
        // There is nowhere to say that this failed.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

/// Prints the failure, if there is one, and gives the exit code.
pub(super) fn finish(result: Outcome<()>, global: &Global) -> ExitCode {
    let Err(failure) = result else { return ExitCode::SUCCESS };
    if is_closed_pipe(&failure) {
        return ExitCode::SUCCESS;
    }
    if global.log_format == Format::Json {
        // The event stream ends with the failure; the text for people follows all the same.
        let _ = data(&format!("{}\n", json(&failure)));
    }
    global.printer().failure(&failure);
    ExitCode::from(failure.kind().exit_code())
}

/// What `--color` says, before the flags are parsed, since help is coloured as well.
pub(super) fn color_asked(arguments: &[OsString]) -> ColorChoice {
    let mut arguments = arguments.iter().map(|a| a.to_string_lossy());
    while let Some(argument) = arguments.next() {
        let word = match argument.strip_prefix("--color") {
            Some("") => arguments.next().unwrap_or_default().into_owned(),
            Some(rest) => rest.trim_start_matches('=').to_owned(),
            None => continue,
        };
        return match word.as_str() {
            "always" => ColorChoice::Always,
            "never" => ColorChoice::Never,
            _ => ColorChoice::Auto,
        };
    }
    ColorChoice::Auto
}

fn json(failure: &Failure) -> serde_json::Value {
    let kind = match failure.kind() {
        Kind::Build => "build",
        Kind::Input => "input",
        Kind::Interrupted => "interrupted",
    };
    let facts: Vec<_> = failure.facts().iter().map(|(l, v)| serde_json::json!([l, v])).collect();
    serde_json::json!({
        "event": "failed",
        "kind": kind,
        "error": failure.summary(),
        "causes": failure.causes(),
        "facts": facts,
        "hints": failure.hints(),
    })
}

fn is_closed_pipe(failure: &Failure) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = failure.source();
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.kind() == io::ErrorKind::BrokenPipe
                && failure.summary().contains("standard output");
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_colour_before_the_flags_are_parsed() {
        let asked =
            |words: &[&str]| color_asked(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(asked(&["imgforge", "--color", "never"]), ColorChoice::Never);
        assert_eq!(asked(&["imgforge", "list", "--color=always"]), ColorChoice::Always);
        assert_eq!(asked(&["imgforge", "--color"]), ColorChoice::Auto);
    }
}
