// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Rebuilds the binary when a file of an embedded directory comes, goes or changes.

fn main() {
    for directory in ["targets", "preseed", "kickstart", "ansible"] {
        println!("cargo:rerun-if-changed={directory}");
    }
}
