// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The real monitor, unchanged, on bhyve: the model plays illumos' kernel in front of it, and a
//! guest of a few instructions runs, under every version of the interface.
#![cfg(target_os = "linux")]
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

#[path = "bhyve/code.rs"]
mod code;
#[path = "bhyve/ends.rs"]
mod ends;
#[path = "bhyve/faults.rs"]
mod faults;
#[path = "bhyve/firmware.rs"]
mod firmware;
#[path = "bhyve/kills.rs"]
mod kills;
#[path = "bhyve/many.rs"]
mod many;
#[path = "bhyve/net.rs"]
mod net;
#[path = "bhyve/zone.rs"]
mod zone;
