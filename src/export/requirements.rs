// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The rules of `requirements`: what a machine made from an image must offer.

use serde_json::Value;

use super::rules::Finding;

const KNOWN: [&str; 8] = [
    "networks",
    "brand",
    "bootrom",
    "ssh_key",
    "min_ram",
    "max_ram",
    "min_platform",
    "max_platform",
];

pub(super) fn check(requirements: &Value, findings: &mut Vec<Finding>) {
    let Some(fields) = requirements.as_object() else {
        return findings.push(Finding::error("requirements", "must be an object"));
    };
    let mut error = |name: &str, message: &str| {
        findings.push(Finding::error(format!("requirements.{name}"), message));
    };
    for name in fields.keys().filter(|name| !KNOWN.contains(&name.as_str())) {
        error(name, "is not a requirement that IMGAPI knows");
    }
    networks(&requirements["networks"], &mut error);
    let brand = fields.get("brand");
    if brand.is_some_and(|brand| brand.as_str().is_none_or(str::is_empty)) {
        error("brand", "must be a text");
    }
    if let Some(bootrom) = fields.get("bootrom") {
        if !matches!(bootrom.as_str(), Some("bios" | "uefi")) {
            error("bootrom", "must be bios or uefi");
        }
        if brand.and_then(Value::as_str) != Some("bhyve") {
            error("bootrom", "is only allowed together with brand bhyve");
        }
    }
    if fields.get("ssh_key").is_some_and(|value| !value.is_boolean()) {
        error("ssh_key", "must be true or false");
    }
    for name in ["min_ram", "max_ram"] {
        if fields.get(name).is_some_and(|value| value.as_u64().is_none_or(|mib| mib == 0)) {
            error(name, "must be MiB, a whole number");
        }
    }
    if let (Some(least), Some(most)) =
        (requirements["min_ram"].as_u64(), requirements["max_ram"].as_u64())
        && least > most
    {
        error("min_ram", "is larger than max_ram");
    }
    for name in ["min_platform", "max_platform"] {
        if let Some(value) = fields.get(name) {
            platform(name, value, &mut error);
        }
    }
}

fn networks(networks: &Value, error: &mut impl FnMut(&str, &str)) {
    match networks {
        Value::Null => {}
        Value::Array(list) => {
            for (number, network) in list.iter().enumerate() {
                let exact = network.as_object().is_some_and(|fields| fields.len() == 2)
                    && network["name"].is_string()
                    && network["description"].is_string();
                if !exact {
                    let place = format!("networks[{number}]");
                    error(&place, "must be exactly {\"name\": …, \"description\": …}");
                }
            }
        }
        _ => error("networks", "must be a list"),
    }
}

/// SDC version → platform stamp.
fn platform(name: &str, value: &Value, error: &mut impl FnMut(&str, &str)) {
    let Some(versions) = value.as_object().filter(|versions| !versions.is_empty()) else {
        return error(name, "must be an object with at least one SDC version: {\"7.0\": …}");
    };
    for (version, stamp) in versions {
        if !stamp.as_str().is_some_and(is_stamp) {
            let place = format!("{name}.{version}");
            error(&place, "must be a platform stamp YYYYMMDDTHHMMSSZ of 2012 or later");
        }
    }
}

fn is_stamp(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "00000000T000000Z"
        && text.get(..4).and_then(|year| year.parse::<u32>().ok()).is_some_and(|year| year >= 2012)
}
