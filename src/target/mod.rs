// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What to build: the YAML document and its schema, the catalogue, variables, templates, assets.
//!
//! The way of a target: [`load`] finds the document by name (working directory before binary),
//! reads it into a tree that knows every place, decides the variables, holds the tree against the
//! JSON Schema of the types while filling in the templates that need nothing but variables, and
//! resolves defaults. The templates that need what only the build knows are filled in by
//! [`Expander`].

mod assets;
mod catalogue;
mod finding;
mod inspect;
mod lint;
mod resolve;
mod resolved;
mod schema;
mod source;
mod template;
#[cfg(test)]
mod tests;
mod variables;

pub use assets::{AssetFile, Assets, Library};
pub use catalogue::{
    Examined, Listed, LoadOptions, Loaded, examine, list, load, name_in_file, names,
};
pub use finding::{Finding, Position};
pub use inspect::inspect;
pub use lint::lint;
pub use resolved::*;
pub use schema::schema;
pub use template::{BuildValues, Expander};
