// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What to build: schema, catalogue, variables, templates.

mod assets;
mod resolved;

pub use assets::{AssetFile, Assets};
pub use resolved::*;
