// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The target document: its types, its JSON Schema, and reading it with every mistake named.

pub(crate) mod check;
pub(crate) mod document;
pub(crate) mod quantity;
pub(crate) mod tree;

use std::sync::LazyLock;

use schemars::transform::{RecursiveTransform, Transform};
use serde_json::Value as Json;

pub(crate) use document::Document;

use super::finding::{Finding, Position};

/// The JSON Schema of a target, generated from the types.
static SCHEMA: LazyLock<Json> = LazyLock::new(|| {
    let mut schema = schemars::schema_for!(Document);
    RecursiveTransform(let_templates_stand_for_numbers).transform(&mut schema);
    schema.to_value()
});

/// A number or boolean may also be given by a template: `cpus: "{{ .cpus }}"`.
fn let_templates_stand_for_numbers(schema: &mut schemars::Schema) {
    let kinds: Vec<String> = match schema.get("type") {
        Some(Json::String(one)) => vec![one.clone()],
        Some(Json::Array(many)) => {
            many.iter().filter_map(Json::as_str).map(str::to_owned).collect()
        }
        _ => return,
    };
    let typed = kinds.iter().any(|k| k == "integer" || k == "boolean");
    if !typed || kinds.iter().any(|k| k == "string") {
        return;
    }
    let mut kinds = kinds;
    let boolean = kinds.iter().any(|k| k == "boolean");
    kinds.push("string".to_owned());
    schema.insert("type".to_owned(), Json::from(kinds));
    schema.insert("pattern".to_owned(), Json::from(r"\{\{"));
    if boolean {
        schema.insert("x-boolean".to_owned(), Json::Bool(true));
    }
}

/// The JSON Schema of a target document, for editors; what `imgforge schema` prints.
pub fn schema() -> &'static Json {
    &SCHEMA
}

/// Reads a checked document into its types.
pub(crate) fn read(json: Json, position: &Position) -> Result<Document, Finding> {
    serde_json::from_value(json)
        .map_err(|e| Finding::error(position.clone(), "", format!("cannot be read: {e}")))
}
