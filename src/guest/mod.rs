// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Inside the guest: SSH and the provisioners.
//!
//! A build makes a key pair and a password ([`BuildKey`], [`random_password`]), waits for the
//! login ([`connect`]) and gets a [`Session`]: commands with streamed output, files and trees
//! into the guest, and coming back after a restart. What ends a wait early is a [`Lifeline`].

mod attempt;
mod command;
mod diagnose;
mod hostkeys;
mod keys;
mod lifeline;
mod lines;
mod local;
mod opening;
mod provision;
mod received;
mod scratch;
mod session;
mod upload;
mod wait;

pub use attempt::Login;
pub use command::{Command, Ended};
pub use diagnose::{GuestLog, collect_logs};
pub use hostkeys::HostKeys;
pub use keys::{BuildKey, crypt_sha512, random_password};
pub use lifeline::Lifeline;
pub use lines::Mask;
pub use provision::{Context, Recap, StepReport, run_step};
pub use session::{Captured, Return, Session};
pub use upload::{download, upload_bytes, upload_tree};
pub use wait::{Patience, Wait, connect};

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
