// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `imgforge keys`: the key events that a boot command makes.

use std::time::Duration;

use clap::Args;

use super::{Global, Selection, output};
use crate::console::boot_command::{self, BootCommand, KeyEvent};
use crate::console::lint as console_lint;
use crate::target::{BuildValues, Expander, Finding, Loaded};
use crate::ui::{Failure, Outcome};

/// Arguments of `imgforge keys`.
#[derive(Debug, Args)]
pub(crate) struct KeysArgs {
    /// Boot command
    #[arg(value_name = "TEXT", allow_hyphen_values = true,
          required_unless_present_any = ["target", "target_file"],
          conflicts_with_all = ["target", "target_file"])]
    text: Option<String>,
    /// Show the boot command of a target, with example values for what only a build knows
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    #[command(flatten)]
    selection: Selection,
}

/// Prints one event per line to standard output, and to standard error what looks doubtful.
pub(super) fn run(args: &KeysArgs, global: &Global) -> Outcome<()> {
    let text = match &args.text {
        Some(text) => text.clone(),
        None => {
            let given: Vec<String> = args.target.iter().cloned().collect();
            let names = args.selection.chosen(&given)?;
            let name = names.first().map(String::as_str).unwrap_or_default();
            typed(&args.selection.load(name)?)?
        }
    };
    let command = parse(&text)?;
    for finding in console_lint::lint(&command) {
        output::remark(&format!("warning: {finding}"), global);
    }
    let lines: String = command.expand().iter().map(line).collect();
    output::data(&lines)
}

/// A target's boot command as it would be typed, with example values.
fn typed(loaded: &Loaded) -> Outcome<String> {
    let expander = Expander::new(&loaded.resolved, BuildValues::example());
    expander.expand_until_stable("boot.command", &loaded.resolved.boot.command)
}

fn parse(text: &str) -> Outcome<BootCommand> {
    let parsed = boot_command::parse(text).and_then(|c| c.validate().map(|()| c));
    parsed
        .map_err(|e| Failure::input(e.message()).fact("line", e.line()).fact("column", e.column()))
}

fn line(event: &KeyEvent) -> String {
    match event {
        KeyEvent::Down(keysym) => format!("down {keysym:#06x}\n"),
        KeyEvent::Up(keysym) => format!("up {keysym:#06x}\n"),
        KeyEvent::Wait(length) => format!("wait {}ms\n", millis(*length)),
    }
}

/// Milliseconds, with a fraction only where there is one.
fn millis(length: Duration) -> String {
    let nanos = length.as_nanos();
    let (whole, part) = (nanos / 1_000_000, nanos % 1_000_000);
    match part {
        0 => whole.to_string(),
        part => format!("{whole}.{part:06}").trim_end_matches('0').to_owned(),
    }
}

/// What is wrong or doubtful in a target's boot command.
pub(super) fn lint(loaded: &Loaded) -> Vec<Finding> {
    let Ok(text) = typed(loaded) else {
        // The mistake in the template was found with the template.
        return Vec::new();
    };
    match parse(&text) {
        Err(failure) => vec![loaded.finding("boot.command", failure.summary(), false)],
        Ok(command) => console_lint::lint(&command)
            .into_iter()
            .map(|doubt| loaded.finding("boot.command", &doubt.message, true))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_events_one_per_line() {
        let lines: String = parse("<enter><wait5>A<wait1500us>")
            .map(|c| c.expand().iter().map(line).collect())
            .unwrap_or_default();
        let wanted = "down 0xff0d\nup 0xff0d\nwait 5000ms\ndown 0xffe1\ndown 0x0041\nup 0x0041\n\
                      up 0xffe1\nwait 1.5ms\n";
        assert_eq!(lines, wanted);
    }
}
