// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What comes back on a command's channel: output, the exit, and the launcher's process id.

use russh::{ChannelMsg, Sig};

use super::command::{Ended, MARK};
use crate::ui::Stream;

/// Longest text before the launcher's mark: what the login shell's start-up files may print.
const HEAD_MAX: usize = 64 * 1024;
/// SSH's number for standard error (RFC 4254 §5.2).
const EXTENDED_STDERR: u32 = 1;

/// The state of a channel.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// How the command ended, once the guest has said so.
    pub(super) ended: Option<Ended>,
}

impl Received {
    /// Takes the next message; false when the channel is over.
    pub(super) fn take(
        &mut self,
        message: Option<ChannelMsg>,
        pid: &mut PidLine,
        give: &mut (dyn FnMut(Stream, &[u8]) + Send),
    ) -> bool {
        match message {
            None | Some(ChannelMsg::Close) => return false,
            Some(ChannelMsg::Data { data }) => give(Stream::Stdout, &data),
            Some(ChannelMsg::ExtendedData { data, ext: EXTENDED_STDERR }) => pid.push(&data, give),
            Some(ChannelMsg::ExitStatus { exit_status }) => {
                self.ended = Some(Ended::Code(i32::try_from(exit_status).unwrap_or(i32::MAX)));
            }
            Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                self.ended = Some(Ended::Signal(signal(&signal_name)));
            }
            // The server cannot start a shell.
            Some(ChannelMsg::Failure) => {
                self.ended.get_or_insert(Ended::Code(255));
                return false;
            }
            Some(_) => {}
        }
        true
    }
}

fn signal(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => name.chars().filter(|c| !c.is_control()).take(32).collect(),
        known => format!("{known:?}"),
    }
}

/// Standard error with the launcher's first line taken out.
#[derive(Debug, Default)]
pub(super) struct PidLine {
    head: Vec<u8>,
    found: bool,
    pid: Option<u32>,
}

impl PidLine {
    /// The process group of the command.
    pub(super) fn pid(&self) -> Option<u32> {
        self.pid
    }

    fn push(&mut self, bytes: &[u8], give: &mut (dyn FnMut(Stream, &[u8]) + Send)) {
        if self.found {
            give(Stream::Stderr, bytes);
            return;
        }
        self.head.extend_from_slice(bytes);
        let mark = MARK.as_bytes();
        let Some(start) = self.head.windows(mark.len()).position(|w| w == mark) else {
            if self.head.len() > HEAD_MAX {
                self.finish(give);
            }
            return;
        };
        let digits = start + mark.len();
        let Some(length) = self.head[digits..].iter().position(|b| *b == b'\n') else { return };
        self.pid = std::str::from_utf8(&self.head[digits..digits + length])
            .ok()
            .and_then(|text| text.parse().ok())
            .filter(|pid| *pid > 1);
        self.head.drain(start..=digits + length);
        self.finish(give);
    }

    /// Hands over what was held back.
    pub(super) fn finish(&mut self, give: &mut (dyn FnMut(Stream, &[u8]) + Send)) {
        self.found = true;
        if !self.head.is_empty() {
            give(Stream::Stderr, &std::mem::take(&mut self.head));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn takes_out_the_mark_wherever_the_pieces_are_cut(
            before in proptest::collection::vec(2u8.., 0..20),
            after in proptest::collection::vec(any::<u8>(), 0..20),
            at in 0usize..70,
            pid in 2u32..4_000_000,
        ) {
            let mut text = before.clone();
            text.extend_from_slice(format!("{MARK}{pid}\n").as_bytes());
            text.extend_from_slice(&after);
            let at = at.min(text.len());
            let mut out = Vec::new();
            let mut line = PidLine::default();
            for piece in [&text[..at], &text[at..]] {
                line.push(piece, &mut |_, bytes| out.extend_from_slice(bytes));
            }
            line.finish(&mut |_, bytes| out.extend_from_slice(bytes));
            prop_assert_eq!(line.pid(), Some(pid));
            prop_assert_eq!(out, [before, after].concat());
        }
    }
}
