// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The pipeline of one build: `media → install → provision → seal → export`.
//!
//! [`build`] is the story; the stages are told in files of their own. Effects on the host go
//! through the journal ([`journal`]) before they happen; a failure undoes them in reverse order
//! and keeps logs and screenshots as evidence.

pub mod cancel;
pub mod journal;
pub mod undo;

mod broken;
mod cache;
mod context;
mod disk;
mod finish;
mod identity;
mod install;
mod keep;
mod key;
mod ledger;
mod life;
mod on_error;
mod output;
mod pipeline;
mod provision;
mod seal;
mod serial;
mod watch;

pub use cache::Installations;
pub use on_error::OnError;
pub use pipeline::{Report, Request, build};
