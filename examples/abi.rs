// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Prints what the raw layers of the illumos interface hold, one fact a line; see
//! [`imgforge::vm::hv::abi::lines`].

fn main() {
    for line in imgforge::vm::hv::abi::lines() {
        println!("{line}");
    }
}
