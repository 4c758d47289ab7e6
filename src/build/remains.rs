// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What a build has, or has left, on this host, as `imgforge clean` tells it.

use serde::Serialize;

use crate::ui::Events;

/// One thing on the host that belongs to a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    /// `process`, `machine`, `dir`, `file` or `socket`.
    pub kind: &'static str,
    /// The path, or `name (pid N)`.
    pub what: String,
}

/// What undoing did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Undone {
    /// Things that existed and are gone now, in the order in which they went.
    pub removed: Vec<Item>,
    /// Things that could not or must not be removed, with the reason, in one line each.
    pub failed: Vec<String>,
}

impl Undone {
    /// Says what failed as warnings.
    pub(super) fn report(&self, events: &Events) {
        for line in &self.failed {
            events.warn(format!("cleaning up: {line}"));
        }
    }
}

/// In which condition a journal's build is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// Its process lives.
    Running,
    /// It ended without cleaning up.
    Dead,
    /// It ended and its user asked to keep what there is.
    Kept,
}

/// What a build has, or has left, on this host.
#[derive(Debug, Clone, Serialize)]
pub struct Remains {
    /// Build id.
    pub id: String,
    /// Target; empty when the journal was never begun.
    pub target: String,
    /// Process that ran or runs the build.
    pub pid: u32,
    /// Condition of the build.
    pub condition: Condition,
    /// What there is, newest first.
    pub items: Vec<Item>,
    /// What removing them did; absent when nothing was to be removed.
    pub undone: Option<Undone>,
}
