// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The pipeline of one build: steps, journal, undo, cancel.

mod cancel;
mod journal;
mod process;
mod record;
mod state;
mod undo;

pub use cancel::Cancel;
pub use journal::{Entry, Journal};
pub use process::BUILD_VARIABLE;
pub use state::{StateDirs, TargetLock};
pub use undo::{Condition, Item, Remains, Undone, clean, recover_dead, survey};
