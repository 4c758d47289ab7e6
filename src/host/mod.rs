// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What this host has and lacks.
//!
//! [`choose`] picks who runs the virtual machines and says why; [`examine`] checks everything that
//! a build will need and names the remedy for what is missing.

mod bundle;
pub(crate) mod command;
mod doctor;
mod hypervisor;

pub use bundle::{Bundle, logs, platform, trial};
pub use doctor::{Finding, Host, Places, Report, Severity, examine};
pub use hypervisor::{Choice, Needs, Requested, choose};
