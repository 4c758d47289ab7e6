// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `imgforge inspect`: a target as a build would see it.

use clap::Args;

use super::{Global, Selection, output};
use crate::target;
use crate::ui::{Failure, Outcome};

/// Arguments of `imgforge inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Target to show
    #[arg(value_name = "TARGET", required_unless_present = "target_file")]
    target: Option<String>,
    #[command(flatten)]
    selection: Selection,
    /// Print JSON instead of YAML
    #[arg(long)]
    json: bool,
}

/// Prints the resolved target; sensitive values are `***`.
pub(super) fn run(args: &InspectArgs, global: &Global) -> Outcome<()> {
    let given: Vec<String> = args.target.iter().cloned().collect();
    for name in args.selection.chosen(&given)? {
        let loaded = args.selection.load(&name)?;
        for warning in &loaded.warnings {
            output::remark(&format!("warning: {warning}"), global);
        }
        let json = target::inspect(&loaded);
        let text = if args.json {
            format!("{json:#}\n")
        } else {
            serde_saphyr::to_string(&json)
                .map_err(|e| Failure::build("cannot write the target as YAML").because(e))?
        };
        output::data(&text)?;
    }
    Ok(())
}
