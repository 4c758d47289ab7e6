// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The command line: one file per verb.

mod build;
mod clean;
mod convert;
pub mod doctor;
mod inspect;
mod keys;
mod list;
mod man;
mod manifest;
mod output;
mod schema;
mod selection;
mod stream;
mod validate;
mod vmm;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ArgAction, Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::media;
use crate::ui::{Color, Format, Outcome, Printer, PrinterOptions};

pub(crate) use selection::Selection;

const AFTER_HELP: &str = "\
Examples:
  imgforge list                        what can be built
  imgforge build debian-13             build one image
  imgforge inspect debian-13           what a build would work from
  imgforge validate --all              check every target without building
  imgforge doctor                      what this host lacks

Exit codes:
  0    done
  1    a build failed, or the host lacks something
  2    the input is wrong: a flag, a target, a variable
  130  interrupted";

/// Builds virtual machine images from the distributors' own installers.
#[derive(Debug, Parser)]
#[command(name = "imgforge", version, max_term_width = 100, after_help = AFTER_HELP)]
#[command(
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// Flags of every verb.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// What a build says: lines for people, or JSON lines on standard output
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    log_format: Format,
    /// No live progress, also on a terminal
    #[arg(long, global = true)]
    no_progress: bool,
    /// Only warnings and failures
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Also waits, requests and screenshots
    #[arg(long, short, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// Colours; NO_COLOR in the environment turns them off, too
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: ColorChoice,
}

impl Global {
    /// The printer that these flags ask for.
    pub(crate) fn printer(&self) -> Printer {
        let options = PrinterOptions {
            format: self.log_format,
            progress: !self.no_progress,
            quiet: self.quiet,
            verbose: self.verbose > 0,
        };
        let color = match self.color {
            ColorChoice::Auto => Color::Auto,
            ColorChoice::Always => Color::Always,
            ColorChoice::Never => Color::Never,
        };
        Printer::with_color(options, color)
    }
}

/// The verbs. Their examples stand here, side by side.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Build images
    #[command(after_help = "\
Examples:
  imgforge build debian-13
  imgforge build debian-12 debian-13 --output images
  imgforge build debian-13 --var mirror=http://mirror.example.org/debian
  imgforge build web --target-file web/web.yaml --on-error ask
  imgforge build debian-13 --log-format json >events.jsonl")]
    Build(build::BuildArgs),
    /// List the targets
    #[command(after_help = "\
Targets come with the program and from ./targets/*.yaml; the latter win.

Examples:
  imgforge list
  imgforge list --json")]
    List(list::ListArgs),
    /// Check targets without building: documents, variables, answer files, boot commands
    #[command(after_help = "\
Every mistake is printed as FILE:LINE:COLUMN: message. The exit code is 2 when there is one.

Examples:
  imgforge validate debian-13
  imgforge validate --all
  imgforge validate --target-file web/web.yaml --var site=example.org")]
    Validate(validate::ValidateArgs),
    /// Show a target as a build would see it, secrets hidden
    #[command(after_help = "\
Examples:
  imgforge inspect debian-13
  imgforge inspect debian-13 --json | jq .media.urls
  imgforge inspect debian-13 --var ntp=pool.ntp.org")]
    Inspect(inspect::InspectArgs),
    /// Show the key events that a boot command makes
    #[command(after_help = "\
One event is printed per line: `down 0xff0d`, `up 0xff0d`, `wait 5000ms`.

Examples:
  imgforge keys '<esc><wait>auto<enter>'
  imgforge keys --target debian-13")]
    Keys(keys::KeysArgs),
    /// Say what this host lacks, and the remedy
    #[command(after_help = "\
Examples:
  imgforge doctor
  imgforge doctor --json
  imgforge doctor --bundle problem.txt    to send to somebody who knows")]
    Doctor(doctor::DoctorArgs),
    /// Remove what dead builds left behind, and what was kept with `--on-error keep`
    #[command(after_help = "\
Examples:
  imgforge clean --dry-run
  imgforge clean")]
    Clean(clean::CleanArgs),
    /// Check the manifest of an image against the rules of IMGAPI
    #[command(after_help = "\
Examples:
  imgforge manifest check output-debian-13-x86_64/manifest.json
  imgforge manifest check manifest.json --file debian-13.raw.gz")]
    Manifest(manifest::ManifestArgs),
    /// Convert a disk: raw, gzip, qcow2, and the send stream of a ZFS volume
    #[command(after_help = "\
Examples:
  imgforge convert debian-13-20260101.x86_64.zfs.gz debian-13.qcow2
  imgforge convert disk.raw disk.zfs.gz --name zones/web@final
  zfs send zones/IMAGE@final | imgforge convert - disk.raw --from zfs")]
    Convert(convert::ConvertArgs),
    /// Say what the ZFS send stream of a volume holds, and verify it
    #[command(after_help = "\
The exit code is 1 when the stream is damaged, cut, or none that a receiver should be given.

Examples:
  imgforge stream info debian-13-20260101.x86_64.zfs.gz
  zfs send zones/IMAGE@final | imgforge stream info - --json")]
    Stream(stream::StreamArgs),
    /// Be the virtual machine that standard input describes
    #[command(hide = true)]
    Vmm(vmm::VmmArgs),
    /// Print the JSON Schema of targets, for editors
    #[command(after_help = "\
Examples:
  imgforge schema >targets/schema.json

First line of a target, for editors with a YAML language server:
  # yaml-language-server: $schema=schema.json")]
    Schema,
    /// Print a completion script for a shell
    #[command(after_help = "\
Examples:
  imgforge completions bash >/etc/bash_completion.d/imgforge
  imgforge completions zsh >/usr/share/zsh/site-functions/_imgforge")]
    Completions(man::CompletionsArgs),
    /// Print the manual page
    #[command(after_help = "\
Examples:
  imgforge man | man -l -
  imgforge man build >imgforge-build.1")]
    Man(man::ManArgs),
}

/// Parses, runs, and says how it ended. The whole program.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let command = Cli::command().color(output::color_asked(&arguments));
    let parsed =
        command.try_get_matches_from(arguments).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe is no reason to complain about help that nobody reads.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    output::finish(run(&cli), &cli.global)
}

fn run(cli: &Cli) -> Outcome<()> {
    let global = &cli.global;
    match &cli.verb {
        Verb::Build(args) => build::run(args, global),
        Verb::List(args) => list::run(args),
        Verb::Validate(args) => validate::run(args, global),
        Verb::Inspect(args) => inspect::run(args, global),
        Verb::Keys(args) => keys::run(args, global),
        Verb::Doctor(args) => {
            let cache = media::cache_dir(None, |name| std::env::var_os(name))?;
            doctor::run(args, &cache, &global.printer())
        }
        Verb::Clean(args) => clean::run(args, global),
        Verb::Manifest(args) => manifest::run(args),
        Verb::Convert(args) => convert::run(args, global),
        Verb::Stream(args) => stream::run(args),
        Verb::Vmm(args) => vmm::run(args),
        Verb::Schema => schema::run(),
        Verb::Completions(args) => man::completions(args, Cli::command()),
        Verb::Man(args) => man::page(args, Cli::command()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_examples() {
        for verb in Cli::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:"), "{}", verb.get_name());
        }
    }
}
