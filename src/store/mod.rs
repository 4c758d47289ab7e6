// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Where the disk of a build lives.
//!
//! Today a sparse raw file in a directory: made once per build, frozen (copied with its holes)
//! when a step ends, cloned from the frozen file when a step starts from it.

mod file;
mod space;
mod sparse;

pub use file::FileStore;
pub(crate) use space::mebibytes;
pub use space::{allocated, free_space, require_space};
pub use sparse::{Copied, copy_sparse};
