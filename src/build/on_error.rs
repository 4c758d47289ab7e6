// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What happens when a step fails: clean up, keep the machine, or ask.

use std::io::{BufRead, IsTerminal, Write};

use clap::ValueEnum;

/// The user's choice for failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnError {
    /// Undo everything; logs and screenshots are kept.
    Cleanup,
    /// Leave the machine running and say how to reach it.
    Keep,
    /// Ask: retry the step, keep the machine, or give up.
    Ask,
}

/// What to do about one failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Retry,
    Keep,
    Abort,
}

impl OnError {
    /// Decides, asking on the terminal when told to; without a terminal, asking means cleanup.
    pub(crate) fn decide(self, problem: &crate::ui::Failure) -> Decision {
        match self {
            Self::Cleanup => Decision::Abort,
            Self::Keep => Decision::Keep,
            Self::Ask if std::io::stdin().is_terminal() => {
                eprintln!("{problem}\n");
                ask(&mut std::io::stdin().lock(), &mut std::io::stderr())
            }
            Self::Ask => Decision::Abort,
        }
    }
}

fn ask(input: &mut impl BufRead, output: &mut impl Write) -> Decision {
    loop {
        let prompt = write!(
            output,
            "[r]etry this step (files are read anew), [k]eep the machine running, [a]bort? "
        )
        .and_then(|()| output.flush());
        let mut line = String::new();
        if prompt.is_err() || !matches!(input.read_line(&mut line), Ok(count) if count > 0) {
            return Decision::Abort;
        }
        match line.trim().to_ascii_lowercase().as_str() {
            "r" | "retry" => return Decision::Retry,
            "k" | "keep" => return Decision::Keep,
            "a" | "abort" => return Decision::Abort,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(typed: &str) -> Decision {
        ask(&mut typed.as_bytes(), &mut Vec::new())
    }

    #[test]
    fn asks_until_the_answer_is_one_of_three() {
        assert_eq!(answer("what\n\nRetry\n"), Decision::Retry);
        assert_eq!(answer("k\n"), Decision::Keep);
        assert_eq!(answer("a\n"), Decision::Abort);
        assert_eq!(answer("what\n"), Decision::Abort, "end of input gives up");
    }
}
