// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The variables of the environment that say what to play.

use std::path::PathBuf;
use std::sync::OnceLock;

/// What is played, fixed at the first call.
pub(crate) struct Config {
    /// `VMM_MODEL_STATE`: the directory that stands for the zone.
    pub(crate) state: PathBuf,
    /// `VMM_MODEL_VERSION`: what `VMM_INTERFACE_VERSION` answers; 0 is a kernel without it.
    pub(crate) version: u32,
    /// `VMM_MODEL_VIONA`: the version of viona; 0 is a kernel whose viona cannot say.
    pub(crate) viona: u32,
    /// `VMM_MODEL_LINKS`: the links that viona can attach, as [`crate::viona`] reads it.
    pub(crate) links: String,
    /// `VMM_MODEL_ZONE=global`: more than one machine may exist.
    pub(crate) is_global: bool,
    /// `VMM_MODEL_LOG`: a file to which every call is appended.
    pub(crate) log: Option<PathBuf>,
    /// `VMM_MODEL_FAULTS`, as [`crate::fault`] reads it.
    pub(crate) faults: String,
    /// `VMM_MODEL_UID`: who asks, instead of the process' own user.
    pub(crate) uid: u32,
}

/// The configuration of this process.
pub(crate) fn config() -> &'static Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    CONFIG.get_or_init(read)
}

fn read() -> Config {
    let number = |name: &str, default: u32| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    // SAFETY: asks for a number of this process and cannot fail.
    let uid = unsafe { libc::geteuid() };
    let state = std::env::var_os("VMM_MODEL_STATE")
        .map_or_else(|| std::env::temp_dir().join(format!("vmm-model-{uid}")), PathBuf::from);
    Config {
        state,
        version: number("VMM_MODEL_VERSION", 18),
        viona: number("VMM_MODEL_VIONA", 6),
        links: std::env::var("VMM_MODEL_LINKS").unwrap_or_default(),
        is_global: std::env::var_os("VMM_MODEL_ZONE").is_some_and(|zone| zone == "global"),
        log: std::env::var_os("VMM_MODEL_LOG").map(PathBuf::from),
        faults: std::env::var("VMM_MODEL_FAULTS").unwrap_or_default(),
        uid: number("VMM_MODEL_UID", uid),
    }
}
