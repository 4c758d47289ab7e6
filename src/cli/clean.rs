// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `imgforge clean`: removes what dead builds left behind.

use std::path::PathBuf;

use clap::Args;

use serde_json::json;

use super::{Global, output};
use crate::build::{self, Condition, Installations, Remains, StateDirs};
use crate::media;
use crate::ui::{Failure, Outcome};

/// Arguments of `imgforge clean`.
#[derive(Debug, Args)]
pub(crate) struct CleanArgs {
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Remove the finished installations of the cache, too; media stay
    #[arg(long)]
    cache: bool,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

/// Undoes what the journals of dead builds name, what users asked to keep included.
pub(super) fn run(args: &CleanArgs, _global: &Global) -> Outcome<()> {
    let dirs = StateDirs::from_env()?;
    let remains = if args.dry_run { build::survey(&dirs)? } else { build::clean(&dirs)? };
    let strangers = build::strangers(&dirs)?;
    let cached = if args.cache { clean_cache(args.dry_run)? } else { Vec::new() };
    if args.json {
        let cached: Vec<_> =
            cached.iter().map(|(path, bytes)| json!({"path": path, "bytes": bytes})).collect();
        let found = json!({"builds": remains, "cache": cached, "other_machines": strangers});
        output::data(&format!("{found:#}\n"))?;
    } else {
        let mut text: String = remains.iter().map(|one| describe(one, args.dry_run)).collect();
        let verb = if args.dry_run { "has" } else { "removed" };
        for (path, bytes) in &cached {
            text.push_str(&format!("{verb} {} ({} MB)\n", path.display(), bytes / 1_000_000));
        }
        for name in &strangers {
            let remedy = build::remedy(name);
            text.push_str(&format!("left alone: {name}, a machine in no journal; {remedy}\n"));
        }
        output::data(&text)?;
    }
    let stuck: Vec<String> = remains
        .iter()
        .filter_map(|one| one.undone.as_ref())
        .flat_map(|u| u.failed.clone())
        .collect();
    if stuck.is_empty() {
        return Ok(());
    }
    Err(Failure::build("not everything could be removed")
        .fact("left", stuck.join("\n"))
        .hint("remove the cause and run `imgforge clean` again"))
}

fn describe(remains: &Remains, dry_run: bool) -> String {
    let state = match remains.condition {
        Condition::Running => "running, left alone",
        Condition::Dead => "dead",
        Condition::Kept => "kept for its user",
    };
    let mut text = format!("{} (build {}, {state})\n", remains.target, remains.id);
    let (verb, items) = match &remains.undone {
        Some(undone) => ("removed", &undone.removed),
        None if dry_run => ("has", &remains.items),
        None => return text,
    };
    for item in items {
        text.push_str(&format!("  {verb} {} {}\n", item.kind, item.what));
    }
    text
}

/// The cached installations with their sizes in bytes; removes them unless it is a dry run.
fn clean_cache(dry_run: bool) -> Outcome<Vec<(PathBuf, u64)>> {
    let cache = media::cache_dir(None, |name| std::env::var_os(name))?;
    let installations = Installations::new(&cache);
    let found = installations.list();
    if !dry_run {
        installations.clear()?;
    }
    Ok(found)
}
