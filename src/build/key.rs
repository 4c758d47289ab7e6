// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Content keys: a digest over everything that can change a stage's result.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::context::Context;
use crate::target::{BuildValues, Expander};
use crate::ui::{Outcome, Secret};

/// Version of what the key covers; raised when the meaning of a stage changes.
const SCHEME: &str = "imgforge-install-1";

/// Collects labelled inputs; order and labels count.
struct Inputs(Sha256);

impl Inputs {
    fn add(&mut self, label: &str, value: &[u8]) {
        // Lengths keep neighbouring values apart.
        self.0.update((label.len() as u64).to_le_bytes());
        self.0.update(label);
        self.0.update((value.len() as u64).to_le_bytes());
        self.0.update(value);
    }
}

/// The key of an installation: medium, hardware, typed text and answer files, the last two with
/// placeholders for what differs from build to build.
pub(crate) fn install(context: &Context, medium_sha256: &str) -> Outcome<String> {
    let target = &context.target;
    let stable = BuildValues {
        http_ip: "http-ip".into(),
        http_port: 0,
        ssh_public_key: "ssh-public-key".into(),
        root_password_hash: Secret::new("root-password-hash"),
    };
    let expander = Expander::new(target, stable);
    let mut inputs = Inputs(Sha256::new());
    inputs.add("scheme", SCHEME.as_bytes());
    inputs.add("medium", medium_sha256.as_bytes());
    inputs.add("firmware", format!("{:?}", target.machine.firmware).as_bytes());
    inputs.add("disk", &target.machine.disk_mib.to_le_bytes());
    inputs.add("install", format!("{:?}", target.install.end).as_bytes());
    let typed = expander.expand_until_stable("boot.command", &target.boot.command)?;
    inputs.add("boot", typed.as_bytes());
    for (path, text) in super::install::answers(context, &expander)? {
        inputs.add(&path, text.as_bytes());
    }
    Ok(inputs.0.finalize().iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}
