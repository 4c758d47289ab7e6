// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What a person or a CI log sees: failures with hints, secrets, the event stream, the printer.

mod events;
mod live;
mod logfile;
mod picture;
mod printer;
mod report;
mod secret;
mod text;

pub use events::{Event, Events, Split, Stage, Stream};
pub use logfile::LogFiles;
pub(crate) use picture::png;
pub use printer::{Color, Format, Printer, PrinterOptions};
pub use report::{Failure, Kind, Outcome};
pub use secret::Secret;
