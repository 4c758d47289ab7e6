// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The pipeline of one build: `media → install → provision → seal → export`.
//!
//! [`build`] is the story; the stages are told in files of their own. Effects on the host go
//! through the [`Journal`] before they happen; a failure undoes them in reverse order and keeps
//! logs and screenshots as evidence.

mod broken;
mod cache;
mod cancel;
mod context;
mod disk;
mod finish;
mod identity;
mod install;
mod journal;
mod keep;
mod key;
mod ledger;
mod life;
mod machines;
mod on_error;
mod output;
mod pipeline;
mod process;
mod provision;
mod record;
mod remains;
mod seal;
mod serial;
mod state;
mod undo;
mod watch;

pub use cache::Installations;
pub use cancel::Cancel;
pub use journal::{Entry, Journal};
pub use machines::{remedy, strangers};
pub use on_error::OnError;
pub use pipeline::{Report, Request, build};
pub use process::BUILD_VARIABLE;
pub use remains::{Condition, Item, Remains, Undone};
pub use state::{StateDirs, TargetLock};
pub use undo::{clean, recover_dead, survey};
