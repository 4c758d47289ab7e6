// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Holds a document against the JSON Schema of the types: every mistake at once, each with its
//! place, its field, what was expected, and an example. On the way, templates are filled in and
//! scalars become what the schema wants, so that the result can be read into the types.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::quantity;
use super::tree::{Entry, Node, Scalar, Value};
use crate::target::finding::{Finding, Position, suggestion};
use crate::target::template::TemplateError;

/// What the checker needs to know about templates.
pub(crate) trait Templates {
    /// Fills in a template of a field that must be known before the build.
    fn fill(&self, text: &str) -> Result<String, TemplateError>;
    /// Looks at a template that the build fills in later.
    fn inspect(&self, text: &str) -> Result<(), TemplateError>;
}

/// When the templates of a field are filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Load,
    Build,
    Never,
}

/// A document after the check.
pub(crate) struct Checked {
    /// The document as the types want it; only sound when there is no mistake.
    pub(crate) json: Json,
    /// The place of every field.
    pub(crate) places: BTreeMap<String, Position>,
    /// What was found.
    pub(crate) findings: Vec<Finding>,
}

/// Holds `node` against `schema` (a whole JSON Schema document).
pub(crate) fn check(node: &Node, schema: &Json, templates: &dyn Templates) -> Checked {
    let mut checker =
        Checker { root: schema, templates, places: BTreeMap::new(), findings: Vec::new() };
    let json = checker.value(node, schema, "", When::Load);
    Checked { json, places: checker.places, findings: checker.findings }
}

struct Checker<'a> {
    root: &'a Json,
    templates: &'a dyn Templates,
    places: BTreeMap<String, Position>,
    findings: Vec<Finding>,
}

impl Checker<'_> {
    fn mistake(&mut self, position: &Position, path: &str, message: String) -> Json {
        self.findings.push(Finding::error(position.clone(), path, message));
        Json::Null
    }

    fn value(&mut self, node: &Node, schema: &Json, path: &str, when: When) -> Json {
        self.places.insert(path.to_owned(), node.position.clone());
        let schema = self.resolve(schema);
        let when = match schema.get("x-template").and_then(Json::as_str) {
            Some("build") => When::Build,
            Some("none") => When::Never,
            _ => when,
        };
        if node.kind() == "nothing" && allows(&schema, "null") {
            return Json::Null;
        }
        if let Some(words) = words(&schema) {
            return self.word(node, &schema, &words, path, when);
        }
        if let Some(branches) = branches(&schema) {
            let branches: Vec<_> = branches.iter().map(|b| self.resolve(b)).collect();
            return match pick(node, &branches) {
                Some(branch) => {
                    let mut branch = branch.clone();
                    for key in ["examples", "description"] {
                        if let Some(outer) = schema.get(key) {
                            branch.insert(key.to_owned(), outer.clone());
                        }
                    }
                    self.value(node, &Json::Object(branch), path, when)
                }
                None => self.wrong_type(node, &schema, &branches, path),
            };
        }
        match &node.value {
            Value::Scalar(scalar) if scalar_wanted(&schema) && !scalar.is_null() => {
                self.scalar(node, scalar, &schema, path, when)
            }
            Value::Sequence(items) if allows(&schema, "array") => {
                self.sequence(node, items, &schema, path, when)
            }
            Value::Mapping(entries) if allows(&schema, "object") => {
                self.mapping(node, entries, &schema, path, when)
            }
            _ => self.wrong_type(node, &schema, &[], path),
        }
    }

    /// Follows `$ref`; what stands beside it wins.
    fn resolve(&self, schema: &Json) -> Map<String, Json> {
        let mut own = schema.as_object().cloned().unwrap_or_default();
        for _ in 0..8 {
            let Some(Json::String(reference)) = own.remove("$ref") else { break };
            let pointer = reference.trim_start_matches('#');
            let target = self.root.pointer(pointer).and_then(Json::as_object);
            for (key, value) in target.into_iter().flatten() {
                own.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        own
    }

    fn wrong_type(
        &mut self,
        node: &Node,
        schema: &Map<String, Json>,
        branches: &[Map<String, Json>],
        path: &str,
    ) -> Json {
        let wanted = if branches.is_empty() {
            kinds(schema)
        } else {
            let mut list: Vec<String> = branches.iter().map(kinds).collect();
            list.retain(|k| !k.is_empty());
            list.dedup();
            list.join(" or ")
        };
        let found = match &node.value {
            Value::Scalar(s) if !s.is_null() => format!("the text `{}`", shorten(&s.text)),
            _ => node.kind().to_owned(),
        };
        let message = format!("expected {wanted}, found {found}{}", example(schema));
        self.mistake(&node.position, path, message)
    }

    /// Fills in templates; `None` after a mistake.
    fn text(&mut self, node: &Node, scalar: &Scalar, path: &str, when: When) -> Option<String> {
        if when == When::Never || !scalar.text.contains("{{") {
            return Some(scalar.text.clone());
        }
        let result = match when {
            When::Build => self.templates.inspect(&scalar.text).map(|()| scalar.text.clone()),
            _ => self.templates.fill(&scalar.text),
        };
        match result {
            Ok(text) => Some(text),
            Err(error) => {
                let position = node.within(error.line, error.column);
                self.mistake(&position, path, error.message);
                None
            }
        }
    }

    fn word(
        &mut self,
        node: &Node,
        schema: &Map<String, Json>,
        words: &[String],
        path: &str,
        when: When,
    ) -> Json {
        let Value::Scalar(scalar) = &node.value else {
            let message = format!("expected {}, found {}", words.join(" or "), node.kind());
            return self.mistake(&node.position, path, message);
        };
        let Some(text) = self.text(node, scalar, path, when) else { return Json::Null };
        if words.contains(&text) {
            return Json::String(text);
        }
        if scalar.is_null() {
            return self.wrong_type(node, schema, &[], path);
        }
        let near = suggestion(&text, words.iter().map(String::as_str), "the words are");
        self.mistake(&node.position, path, format!("unknown word `{}`{near}", shorten(&text)))
    }

    fn scalar(
        &mut self,
        node: &Node,
        scalar: &Scalar,
        schema: &Map<String, Json>,
        path: &str,
        when: When,
    ) -> Json {
        let Some(text) = self.text(node, scalar, path, when) else { return Json::Null };
        if allows(schema, "integer") {
            return self.integer(node, &text, schema, path);
        }
        if schema.contains_key("x-boolean") {
            return match text.as_str() {
                "true" => Json::Bool(true),
                "false" => Json::Bool(false),
                _ => {
                    let message = format!("expected true or false, found `{}`", shorten(&text));
                    self.mistake(&node.position, path, message)
                }
            };
        }
        if let Some(format) = schema.get("format").and_then(Json::as_str)
            && let Err(message) = quantity::check(format, &text)
        {
            return self.mistake(&node.position, path, message);
        }
        Json::String(text)
    }

    fn integer(&mut self, node: &Node, text: &str, schema: &Map<String, Json>, path: &str) -> Json {
        let Ok(number) = text.parse::<i64>() else {
            let message = format!(
                "expected a whole number, found the text `{}`{}",
                shorten(text),
                example(schema)
            );
            return self.mistake(&node.position, path, message);
        };
        let bound = |key: &str| schema.get(key).and_then(Json::as_i64);
        let (low, high) = (bound("minimum"), bound("maximum"));
        if low.is_some_and(|l| number < l) || high.is_some_and(|h| number > h) {
            let range = match (low, high) {
                (Some(l), Some(h)) => format!("between {l} and {h}"),
                (Some(l), None) => format!("at least {l}"),
                (_, Some(h)) => format!("at most {h}"),
                (None, None) => String::new(),
            };
            return self.mistake(&node.position, path, format!("{number} is not {range}"));
        }
        Json::from(number)
    }

    fn sequence(
        &mut self,
        node: &Node,
        items: &[Node],
        schema: &Map<String, Json>,
        path: &str,
        when: When,
    ) -> Json {
        let least = schema.get("minItems").and_then(Json::as_u64).unwrap_or(0);
        if (items.len() as u64) < least {
            let message = format!("the list is empty{}", example(schema));
            return self.mistake(&node.position, path, message);
        }
        let anything = Json::Object(Map::new());
        let item_schema = schema.get("items").unwrap_or(&anything);
        Json::Array(
            items
                .iter()
                .enumerate()
                .map(|(i, item)| self.value(item, item_schema, &format!("{path}[{i}]"), when))
                .collect(),
        )
    }

    fn mapping(
        &mut self,
        node: &Node,
        entries: &[Entry],
        schema: &Map<String, Json>,
        path: &str,
        when: When,
    ) -> Json {
        let none = Map::new();
        let known = schema.get("properties").and_then(Json::as_object).unwrap_or(&none);
        let others = schema.get("additionalProperties").filter(|s| s.is_object());
        let mut object = Map::new();
        for entry in entries {
            let field = join(path, &entry.key);
            let Some(property) = known.get(&entry.key).or(others) else {
                let near = suggestion(&entry.key, known.keys().map(String::as_str), "known here");
                let message = format!("unknown key `{}`{near}", shorten(&entry.key));
                self.mistake(&entry.position, path, message);
                continue;
            };
            let value = self.value(&entry.node, property, &field, when);
            object.insert(entry.key.clone(), value);
        }
        let required = schema.get("required").and_then(Json::as_array);
        for key in required.into_iter().flatten().filter_map(Json::as_str) {
            if !entries.iter().any(|e| e.key == key) {
                let hint = known.get(key).map(|s| self.resolve(s)).map(|s| example(&s));
                let message = format!("`{key}` is missing{}", hint.unwrap_or_default());
                self.mistake(&node.position, path, message);
            }
        }
        Json::Object(object)
    }
}

/// `media` and `url` make `media.url`.
pub(crate) fn join(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    }
}

fn types(schema: &Map<String, Json>) -> Vec<&str> {
    match schema.get("type") {
        Some(Json::String(one)) => vec![one],
        Some(Json::Array(many)) => many.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

fn allows(schema: &Map<String, Json>, kind: &str) -> bool {
    let branches = branches(schema).map(Vec::as_slice).unwrap_or_default();
    types(schema).contains(&kind)
        || branches.iter().filter_map(Json::as_object).any(|b| types(b).contains(&kind))
}

fn scalar_wanted(schema: &Map<String, Json>) -> bool {
    ["string", "integer", "number", "boolean"].iter().any(|kind| allows(schema, kind))
}

fn branches(schema: &Map<String, Json>) -> Option<&Vec<Json>> {
    schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Json::as_array)
}

/// The words of an enumeration.
fn words(schema: &Map<String, Json>) -> Option<Vec<String>> {
    let word = |v: &Json| v.as_str().map(str::to_owned);
    if let Some(list) = schema.get("enum").and_then(Json::as_array) {
        return list.iter().map(word).collect();
    }
    branches(schema)?.iter().map(|b| b.get("const").and_then(word)).collect()
}

/// The branch that fits the kind of the value.
fn pick<'a>(node: &Node, branches: &'a [Map<String, Json>]) -> Option<&'a Map<String, Json>> {
    let mut real = branches.iter().filter(|b| types(b) != ["null"]);
    if let (Some(only), None) = (real.next(), real.next()) {
        return Some(only);
    }
    branches.iter().find(|b| match &node.value {
        Value::Scalar(s) => !s.is_null() && (scalar_wanted(b) || words(b).is_some()),
        Value::Sequence(_) => allows(b, "array"),
        Value::Mapping(_) => allows(b, "object"),
    })
}

fn kinds(schema: &Map<String, Json>) -> String {
    if let Some(words) = words(schema) {
        return words.join(" or ");
    }
    let format = schema.get("format").and_then(Json::as_str).unwrap_or_default();
    let types = types(schema);
    let mut names: Vec<&str> = Vec::new();
    for (kind, name) in [
        ("integer", "a whole number"),
        ("string", format.strip_prefix("imgforge-").map_or("text", article)),
        ("array", "a list"),
        ("object", "a mapping"),
    ] {
        if types.contains(&kind) && !(kind == "string" && types.contains(&"integer")) {
            names.push(name);
        }
    }
    if schema.contains_key("x-boolean") {
        names = vec!["true or false"];
    }
    names.join(" or ")
}

fn article(format: &str) -> &'static str {
    match format {
        "duration" => "a duration",
        "size" => "a size",
        "checksum" => "a checksum",
        "mode" => "a file mode",
        "name" => "a name",
        _ => "text",
    }
}

fn example(schema: &Map<String, Json>) -> String {
    let first = schema.get("examples").and_then(Json::as_array).and_then(|e| e.first());
    match first {
        Some(Json::String(text)) => format!("; for example `{text}`"),
        Some(value) => format!("; for example `{value}`"),
        None => String::new(),
    }
}

/// A text short enough for a message, on one line.
pub(crate) fn shorten(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(60) {
        Some((cut, _)) => format!("{}…", line.get(..cut).unwrap_or_default()),
        None => line,
    }
}
