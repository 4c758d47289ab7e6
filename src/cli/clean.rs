// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `imgforge clean`: removes what dead builds left behind, and what was kept on purpose.

use clap::Args;

use super::{Global, output};
use crate::build::{self, Condition, Remains, StateDirs};
use crate::ui::{Failure, Outcome};

/// Arguments of `imgforge clean`.
#[derive(Debug, Args)]
pub(crate) struct CleanArgs {
    /// Only say what there is
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Undoes what the journals of dead builds name. Nothing else is touched; builds that run are
/// left alone.
///
/// # Errors
/// Something could not be removed.
pub(super) fn run(args: &CleanArgs, global: &Global) -> Outcome<()> {
    let dirs = StateDirs::from_env()?;
    let found = if args.dry_run { build::survey(&dirs)? } else { build::clean(&dirs)? };
    if args.json {
        let text = serde_json::to_string_pretty(&found)
            .map_err(|e| Failure::build("cannot print what was found").because(e))?;
        output::data(&format!("{text}\n"))?;
    } else {
        output::data(&found.iter().map(lines).collect::<String>())?;
        if found.is_empty() {
            output::remark("nothing is left of earlier builds", global);
        }
    }
    let failed: Vec<&str> = found
        .iter()
        .filter_map(|remains| remains.undone.as_ref())
        .flat_map(|undone| undone.failed.iter().map(String::as_str))
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    let failure = Failure::build("something could not be removed");
    Err(failed.into_iter().fold(failure, |failure, line| failure.fact("left", line)))
}

fn lines(remains: &Remains) -> String {
    let name = if remains.target.is_empty() { "a build" } else { &remains.target };
    let condition = match remains.condition {
        Condition::Running => "runs",
        Condition::Dead => "ended without cleaning up",
        Condition::Kept => "was kept",
    };
    let mut text = format!("{name} {} (process {}) {condition}\n", remains.id, remains.pid);
    let (label, items) = match &remains.undone {
        Some(undone) => ("removed", &undone.removed),
        None => ("has", &remains.items),
    };
    for item in items {
        text.push_str(&format!("  {label:<8} {} {}\n", item.kind, item.what));
    }
    text
}
