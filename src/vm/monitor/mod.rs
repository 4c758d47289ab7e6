// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The monitor: the process that is one virtual machine.

mod config;
mod control;
mod driver;
mod log;
mod machine;
mod network;
mod passt;
mod privileges;
#[cfg(target_os = "linux")]
#[path = "sandbox_linux.rs"]
mod sandbox;
#[cfg(not(target_os = "linux"))]
#[path = "sandbox_none.rs"]
mod sandbox;
mod serve;

pub use config::{Hypervisor, MonitorConfig};
pub use control::{ControlSocket, Controls, Moved};
pub use driver::MonitorDriver;
pub use network::LinkNetwork;
pub use serve::serve;
