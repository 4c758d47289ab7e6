// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `imgforge convert`: a disk in another form.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Global;
use crate::build::Cancel;
use crate::export::{
    DEFAULT_LEVEL, ImageFormat, Place, SinkOptions, StreamOptions, check_content, open_source,
    write_sink,
};
use crate::ui::{Events, Failure, Format, Outcome};

/// Arguments of `imgforge convert`.
#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// The disk: a file, a device, or `-` for standard input
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// What to write: a file, or `-` for standard output
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Format of IN, when its name does not tell: raw, raw.gz, qcow2, zfs, zfs.gz
    #[arg(long, value_name = "FORMAT")]
    from: Option<ImageFormat>,
    /// Format of OUT, when its name does not tell
    #[arg(long, value_name = "FORMAT")]
    to: Option<ImageFormat>,
    /// Replace OUT, once the new one is whole
    #[arg(long)]
    force: bool,
    /// Compression level
    #[arg(long, value_name = "1-9", default_value_t = DEFAULT_LEVEL, value_parser = clap::value_parser!(u32).range(1..=9))]
    level: u32,
    /// Threads that compress; 0 means one per processor
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Compress the clusters of a qcow2 image
    #[arg(long)]
    compress: bool,
    /// Size in bytes of a raw disk on standard input
    #[arg(long, value_name = "BYTES")]
    size: Option<u64>,
    #[command(flatten)]
    stream: StreamFlags,
}

/// What a send stream says of itself.
#[derive(Debug, Args)]
#[command(next_help_heading = "Send streams")]
struct StreamFlags {
    /// Name of the snapshot; `zones/UUID@final` of a new UUID if not given
    #[arg(long, value_name = "DATASET@SNAPSHOT")]
    name: Option<String>,
    /// Block size of the volume: a power of two from 512 to 131072
    #[arg(long, value_name = "BYTES", default_value_t = 8192)]
    volblocksize: u32,
    /// The snapshot's guid; made up if not given
    #[arg(long, value_name = "NUMBER")]
    guid: Option<u64>,
    /// Creation time; with it the same disk gives the same bytes
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH")]
    source_date_epoch: Option<i64>,
}

/// Runs the verb.
pub(super) fn run(args: &ConvertArgs, global: &Global) -> Outcome<()> {
    let (from, to) = (Place::from(args.input.as_path()), Place::from(args.output.as_path()));
    let source_format = format("--from", args.from, &args.input)?;
    let sink_format = format("--to", args.to, &args.output)?;
    if let Place::File(path) = &from {
        check_content(path, source_format)?;
    }
    check_places(&from, &to)?;
    check_output(&to, args.force)?;
    let printer = global.printer();
    let is_mixed = to == Place::Standard && global.log_format == Format::Json;
    let events = if is_mixed { Events::silent() } else { printer.events("convert") };
    let say = global.printer();
    let cancel = Cancel::install(move |text| say.notice(text))?;
    let token = cancel.token();
    let mut source = open_source(source_format, &from, args.size, &token)?;
    let options = SinkOptions {
        level: args.level,
        threads: args.threads,
        compressed: args.compress,
        replace: args.force,
        stream: StreamOptions {
            name: args.stream.name.clone(),
            volblocksize: args.stream.volblocksize,
            guid: args.stream.guid,
            epoch: args.stream.source_date_epoch,
        },
    };
    let written = write_sink(sink_format, source.as_mut(), &to, &options, &events, &token);
    printer.finish();
    written.map(drop)
}

fn format(flag: &str, said: Option<ImageFormat>, path: &Path) -> Outcome<ImageFormat> {
    said.or_else(|| ImageFormat::of_path(path)).ok_or_else(|| {
        let names: Vec<&str> = ImageFormat::ALL.iter().map(|format| format.name()).collect();
        Failure::input(format!("the name {} tells no format", path.display()))
            .hint(format!("say it: `{flag} FORMAT`, one of {}", names.join(", ")))
    })
}

fn check_places(from: &Place, to: &Place) -> Outcome<()> {
    let (Place::File(from), Place::File(to)) = (from, to) else { return Ok(()) };
    match (from.canonicalize(), to.canonicalize()) {
        (Ok(one), Ok(other)) if one == other => {
            Err(Failure::input("input and output are the same file").fact("file", to.display()))
        }
        _ => Ok(()),
    }
}

/// Before hours of work.
fn check_output(to: &Place, force: bool) -> Outcome<()> {
    match to {
        Place::File(path) if !force && path.symlink_metadata().is_ok() => {
            Err(Failure::input(format!("{} exists already", path.display()))
                .hint("choose another name, or replace it with `--force`"))
        }
        _ => Ok(()),
    }
}
