// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `imgforge completions` and `imgforge man`: made from the flags themselves.

use clap::{Args, Command};
use clap_complete::Shell;

use super::output;
use crate::ui::{Failure, Outcome};

/// Arguments of `imgforge completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Shell
    shell: Shell,
}

/// Arguments of `imgforge man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Verb to print the page of; the program's own page without one
    verb: Option<String>,
}

/// Prints a completion script.
pub(super) fn completions(args: &CompletionsArgs, mut command: Command) -> Outcome<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "imgforge", &mut script);
    output::data(&String::from_utf8_lossy(&script))
}

/// Prints a manual page.
pub(super) fn page(args: &ManArgs, command: Command) -> Outcome<()> {
    let command = match &args.verb {
        None => command,
        Some(verb) => {
            let verbs: Vec<String> =
                command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
            match command.get_subcommands().find(|c| c.get_name() == verb) {
                Some(found) => found.clone().name(format!("imgforge-{verb}")),
                None => {
                    return Err(Failure::input(format!("there is no verb `{verb}`"))
                        .fact("verbs", verbs.join(", ")));
                }
            }
        }
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut page)
        .map_err(|e| Failure::build("cannot write the manual page").because(e))?;
    output::data(&String::from_utf8_lossy(&page))
}
