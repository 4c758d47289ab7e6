// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The rules of IMGAPI v2 manifests, over any JSON: what servers and `imgadm` refuse, and what
//! they let pass though it breaks an image later (a size of 0, an upper-case digest).

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// A server or `imgadm` refuses the manifest, or machines made from it are wrong.
    Error,
    /// Accepted, but against the documentation or of no effect.
    Warning,
}

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Path of the field: `requirements.networks[0].name`.
    pub field: String,
    /// How bad.
    pub severity: Severity,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Finding {
    pub(super) fn error(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), severity: Severity::Error, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: {}: {}", self.field, self.message)
    }
}

/// Largest compressed image file that IMGAPI takes: 20 GiB.
const LARGEST_FILE: u64 = 20 << 30;

const REQUIRED: &[&str] =
    &["v", "uuid", "owner", "name", "version", "disabled", "state", "public", "type", "os"];
const KNOWN: &[&str] = &[
    "v",
    "uuid",
    "owner",
    "name",
    "version",
    "description",
    "homepage",
    "eula",
    "disabled",
    "published_at",
    "state",
    "public",
    "type",
    "os",
    "origin",
    "files",
    "acl",
    "requirements",
    "users",
    "billing_tags",
    "traits",
    "tags",
    "generate_passwords",
    "inherited_directories",
    "nic_driver",
    "disk_driver",
    "cpu_type",
    "image_size",
    "icon",
    "error",
    "urn",
];
const ZVOL_ONLY: &[&str] = &["nic_driver", "disk_driver", "cpu_type", "image_size"];

/// Every rule over one manifest. Empty when all is well.
pub(super) fn check(value: &Value) -> Vec<Finding> {
    let Some(manifest) = value.as_object() else {
        return vec![Finding::error("", "a manifest is a JSON object")];
    };
    let mut rules = Rules { manifest, findings: Vec::new() };
    rules.fields();
    rules.identity();
    rules.texts();
    rules.states();
    rules.files();
    rules.lists();
    rules.zvol();
    if let Some(requirements) = manifest.get("requirements") {
        super::requirements::check(requirements, &mut rules.findings);
    }
    rules.findings
}

struct Rules<'a> {
    manifest: &'a Map<String, Value>,
    findings: Vec<Finding>,
}

impl Rules<'_> {
    fn error(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.findings.push(Finding::error(field, message));
    }

    fn warn(&mut self, field: &str, message: impl Into<String>) {
        let (field, message) = (field.to_owned(), message.into());
        self.findings.push(Finding { field, severity: Severity::Warning, message });
    }

    fn fields(&mut self) {
        for name in REQUIRED {
            if !self.manifest.contains_key(*name) {
                self.error(*name, "is missing");
            }
        }
        for name in self.manifest.keys() {
            match name.as_str() {
                "channels" => self.error(
                    "channels",
                    "must not be in the file: imgadm fails on it; name the channel when importing",
                ),
                "activated" => self.error("activated", "is written by servers only"),
                "icon" | "error" => self.warn(name, "is written by servers only"),
                "urn" => self.warn(name, "is a field of old manifests"),
                known if KNOWN.contains(&known) => {}
                _ => self.error(name, "is not a field of IMGAPI manifests"),
            }
        }
    }

    fn identity(&mut self) {
        match self.manifest.get("v") {
            None => {}
            Some(v) if v.as_f64() == Some(2.0) => {}
            Some(_) => self.error("v", "must be the number 2"),
        }
        for name in ["uuid", "owner", "origin"] {
            if let Some(value) = self.manifest.get(name)
                && !is_uuid(value)
            {
                self.error(name, "must be a UUID in lower-case hex (8-4-4-4-12)");
            }
        }
    }

    fn texts(&mut self) {
        self.text("name", 1024, 512, "letters, digits, space and . _ / -", |c| " ._/-".contains(c));
        self.text("version", 512, 128, "letters, digits and . _ / + -", |c| "._/+-".contains(c));
        if self.manifest.get("version").and_then(Value::as_str).is_some_and(|v| v.contains('+')) {
            self.warn("version", "a `+` is refused by platforms before 20161118T231131Z");
        }
        self.length("description", 10240, 512);
        for name in ["homepage", "eula"] {
            let Some(value) = self.manifest.get(name) else { continue };
            if !value.as_str().is_some_and(is_web_url) {
                self.error(name, "must be a URL that starts with http:// or https://");
            }
            self.length(name, 1024, 128);
        }
    }

    fn text(&mut self, name: &str, most: usize, advised: usize, of: &str, also: fn(char) -> bool) {
        let Some(value) = self.manifest.get(name) else { return };
        let fits = |text: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || also(c))
        };
        if !value.as_str().is_some_and(fits) {
            self.error(name, format!("must be a text made of {of}"));
        }
        self.length(name, most, advised);
    }

    /// Servers count UTF-16 units.
    fn length(&mut self, name: &str, most: usize, advised: usize) {
        let Some(value) = self.manifest.get(name) else { return };
        let Some(text) = value.as_str() else {
            if !self.findings.iter().any(|f| f.field == name) {
                self.error(name, "must be a text");
            }
            return;
        };
        let length = text.encode_utf16().count();
        if length > most {
            self.error(name, format!("has {length} characters; at most {most} are allowed"));
        } else if length > advised {
            self.warn(name, format!("has {length} characters; the documentation says {advised}"));
        }
    }

    fn states(&mut self) {
        self.one_of("state", &["active", "unactivated", "disabled", "failed", "creating"]);
        self.one_of("type", &["zone-dataset", "zvol", "lx-dataset", "lxd", "docker", "other"]);
        self.one_of("os", &["smartos", "linux", "windows", "bsd", "illumos", "other"]);
        for name in ["public", "generate_passwords"] {
            if self.manifest.get(name).is_some_and(|v| !v.is_boolean()) {
                self.error(name, "must be true or false");
            }
        }
        match self.manifest.get("disabled") {
            None | Some(Value::Bool(_)) => {}
            Some(Value::String(text)) if text == "true" || text == "false" => {
                self.warn("disabled", "is accepted as a text, but should be true or false");
            }
            Some(_) => self.error("disabled", "must be true or false"),
        }
        match self.manifest.get("published_at") {
            None if self.is("state", "active") => {
                self.error("published_at", "is missing; an active image needs it");
            }
            Some(value) if !value.as_str().is_some_and(is_time) => self.error(
                "published_at",
                "must be a UTC time as YYYY-MM-DDTHH:MM:SSZ (or with three decimals)",
            ),
            _ => {}
        }
    }

    fn one_of(&mut self, name: &str, words: &[&str]) {
        if let Some(value) = self.manifest.get(name)
            && !value.as_str().is_some_and(|text| words.contains(&text))
        {
            self.error(name, format!("must be one of {}", words.join(", ")));
        }
    }

    fn is(&self, name: &str, text: &str) -> bool {
        self.manifest.get(name).and_then(Value::as_str) == Some(text)
    }

    fn files(&mut self) {
        let Some(files) = self.manifest.get("files") else {
            if self.is("state", "active") {
                self.error("files", "is missing; an active image needs it");
            }
            return;
        };
        let Some(files) = files.as_array() else {
            return self.error("files", "must be a list");
        };
        let most = if self.is("type", "lxd") { 2 } else { 1 };
        if files.len() > most {
            self.error("files", format!("has {} entries; at most {most} allowed", files.len()));
        }
        if files.is_empty() && self.is("state", "active") {
            self.error("files", "is empty; an active image has a file");
        }
        for (number, file) in files.iter().enumerate() {
            self.file(&format!("files[{number}]"), file);
        }
    }

    fn file(&mut self, place: &str, file: &Value) {
        if !file.is_object() {
            return self.error(place, "must be an object");
        }
        let is_sha1 = |text: &str| text.len() == 40 && text.chars().all(is_lower_hex);
        if !file["sha1"].as_str().is_some_and(is_sha1) {
            self.error(format!("{place}.sha1"), "must be 40 digits of lower-case hex");
        }
        match file["size"].as_u64() {
            None | Some(0) => {
                self.error(format!("{place}.size"), "must be the file's size in bytes, a number");
            }
            Some(size) if size > LARGEST_FILE => self.error(
                format!("{place}.size"),
                format!("{size} bytes; servers take 20 GiB at most"),
            ),
            Some(_) => {}
        }
        let kinds = ["gzip", "bzip2", "xz", "none"];
        if !file["compression"].as_str().is_some_and(|kind| kinds.contains(&kind)) {
            self.error(format!("{place}.compression"), "must be one of gzip, bzip2, xz, none");
        }
        if file.get("dataset_guid").is_some_and(|guid| !guid.is_string()) {
            self.error(format!("{place}.dataset_guid"), "must be a text");
        }
    }

    fn lists(&mut self) {
        self.each("acl", "a UUID in lower-case hex", is_uuid);
        self.each("users", "exactly {\"name\": …}", |user| {
            user.as_object().is_some_and(|u| u.len() == 1) && user["name"].is_string()
        });
        self.each("billing_tags", "a text of at most 128 characters", |tag| {
            tag.as_str().is_some_and(|text| text.encode_utf16().count() <= 128)
        });
        self.each("inherited_directories", "a text", Value::is_string);
        if self.manifest.contains_key("inherited_directories") && !self.is("type", "zone-dataset") {
            self.error("inherited_directories", "is only for type zone-dataset");
        }
        match self.manifest.get("traits") {
            None => {}
            Some(Value::Object(traits)) => {
                for (name, value) in traits {
                    if !(value.is_string() || value.is_boolean() || value.is_array()) {
                        let place = format!("traits.{name}");
                        self.error(place, "must be a text, true or false, or a list");
                    }
                }
            }
            Some(_) => self.error("traits", "must be an object"),
        }
        match self.manifest.get("tags") {
            None => {}
            Some(tags) if !tags.is_object() => self.error("tags", "must be an object"),
            Some(tags) if tags.to_string().encode_utf16().count() > 102_400 => {
                self.error("tags", "has more than 102400 characters as JSON");
            }
            Some(_) => {}
        }
    }

    fn each(&mut self, name: &str, what: &str, holds: fn(&Value) -> bool) {
        let Some(value) = self.manifest.get(name) else { return };
        let Some(list) = value.as_array() else {
            return self.error(name, "must be a list");
        };
        for (number, _) in list.iter().enumerate().filter(|(_, value)| !holds(value)) {
            self.error(format!("{name}[{number}]"), format!("must be {what}"));
        }
    }

    fn zvol(&mut self) {
        let zvol = self.is("type", "zvol");
        for name in ZVOL_ONLY {
            match self.manifest.get(*name) {
                None if zvol => self.error(*name, "is missing; a zvol image needs it"),
                Some(_) if !zvol => self.error(*name, "is only for type zvol"),
                Some(value) if *name == "image_size" && value.as_u64().is_some_and(|n| n > 0) => {}
                Some(_) if *name == "image_size" => {
                    self.error(*name, "must be the volume's size in MiB, a whole number");
                }
                Some(value) if value.as_str().is_none_or(str::is_empty) => {
                    self.error(*name, "must be a text");
                }
                _ => {}
            }
        }
    }
}

pub(super) fn is_lower_hex(c: char) -> bool {
    c.is_ascii_digit() || ('a'..='f').contains(&c)
}

fn is_uuid(value: &Value) -> bool {
    let groups = |text: &str| {
        text.chars().all(|c| c == '-' || is_lower_hex(c))
            && text.split('-').map(str::len).eq([8, 4, 4, 4, 12])
    };
    value.as_str().is_some_and(groups)
}

fn is_web_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        !rest.is_empty()
            && !rest.starts_with('/')
            && !rest.contains(|c: char| c.is_whitespace() || c.is_control())
    })
}

/// `YYYY-MM-DDTHH:MM:SSZ` or with exactly three decimals, and a date that exists.
fn is_time(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    matches!(shape.as_str(), "0000-00-00T00:00:00Z" | "0000-00-00T00:00:00.000Z")
        && text.parse::<jiff::Timestamp>().is_ok()
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
