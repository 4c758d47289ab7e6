// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `imgforge stream`: what a volume's send stream is, and whether it is whole.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::output;
use crate::export::{open_stream, read_stream};
use crate::ui::Outcome;

/// Arguments of `imgforge stream`.
#[derive(Debug, Args)]
pub(crate) struct StreamArgs {
    #[command(subcommand)]
    verb: StreamVerb,
}

#[derive(Debug, Subcommand)]
enum StreamVerb {
    /// Read a stream to its end, verify every checksum and say what it holds
    Info(InfoArgs),
}

#[derive(Debug, Args)]
struct InfoArgs {
    /// The stream, compressed by gzip or not; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub(super) fn run(args: &StreamArgs) -> Outcome<()> {
    let StreamVerb::Info(args) = &args.verb;
    let mut reader = if args.file == Path::new("-") {
        read_stream(Box::new(io::stdin()), "standard input")?
    } else {
        open_stream(&args.file)?
    };
    let info = reader.verify()?;
    if args.json {
        return output::data(&format!("{:#}\n", serde_json::json!(info)));
    }
    let lines = info.lines();
    let width = lines.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    let text: String =
        lines.iter().map(|(key, value)| format!("{key:width$}  {value}\n")).collect();
    output::data(&text)
}
