// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `imgforge list`: the targets there are.

use std::path::Path;

use clap::Args;
use serde_json::json;

use super::output;
use crate::target;
use crate::ui::Outcome;

/// Arguments of `imgforge list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints one line per target: name, description, and the file when it is not the program's own.
pub(super) fn run(args: &ListArgs) -> Outcome<()> {
    let listed = target::list(Path::new("."))?;
    if args.json {
        let list: Vec<_> = listed
            .iter()
            .map(|l| {
                json!({
                    "name": l.name,
                    "description": l.description,
                    "family": l.family,
                    "release": l.release,
                    "origin": l.origin,
                    "broken": l.broken,
                })
            })
            .collect();
        return output::data(&format!("{:#}\n", json!(list)));
    }
    let width = listed.iter().map(|l| l.name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for line in &listed {
        let origin = match line.origin.as_str() {
            "embedded" | "" => String::new(),
            file => format!("  ({file})"),
        };
        let broken = if line.broken { "cannot be read: " } else { "" };
        text.push_str(&format!("{:width$}  {broken}{}{origin}\n", line.name, line.description));
    }
    output::data(&text)
}
