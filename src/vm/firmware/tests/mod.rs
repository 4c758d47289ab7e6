// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

#![allow(clippy::unwrap_used)]

mod identity;
mod images;
mod patching;
mod tables;

use std::path::Path;
use std::process::Command;

/// Runs a tool; its output, or none when it is not installed. A failure fails the test.
fn run(program: &str, arguments: &[&str], directory: &Path) -> Option<String> {
    let output = match Command::new(program).args(arguments).current_dir(directory).output() {
        Ok(output) => output,
        Err(error) => {
            println!("skipped: {program}: {error}");
            return None;
        }
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    Some(text)
}
