// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The build network.
//!
//! Today QEMU's user-mode network, which needs no privileges and nothing of the host: the guest
//! sits behind an address translation of its own and reaches the host's loopback services at a
//! fixed address.

pub mod user;
