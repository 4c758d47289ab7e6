// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Machines that a kernel has by name, and that may be there when their monitor is gone: bhyve's
//! before version 4 of its interface, and any that something else still holds.
//!
//! All machines of a build have one name with a number behind it, which the journal holds before
//! the first one is made. By that name, and no other, they are found and destroyed.

use std::collections::BTreeSet;

use super::record::short_id;
use super::state::StateDirs;
use super::undo;
use crate::ui::Outcome;
use crate::vm::hv::bhyve;

/// The name of a build's machines.
pub(super) fn stem(id: &str) -> String {
    format!("{}{}", bhyve::PREFIX, short_id(id))
}

/// Those that are there.
pub(super) fn of(name: &str) -> Vec<String> {
    bhyve::machines_of(name)
}

/// Destroys the machines of a build; true when there were any.
pub(super) fn undo(name: &str, id: &str) -> Result<bool, String> {
    if name != stem(id) {
        return Err(format!("{name} is not the name of this build's machines; left alone"));
    }
    let machines = of(name);
    for machine in &machines {
        bhyve::destroy(machine)?;
    }
    Ok(!machines.is_empty())
}

/// Machines named as this program names them that are in no journal: those of a build whose
/// journal was lost, or of another user's. Nobody may touch them but their owner.
///
/// # Errors
/// When the journals cannot be read.
pub fn strangers(dirs: &StateDirs) -> Outcome<Vec<String>> {
    let there = bhyve::machines();
    if there.is_empty() {
        return Ok(there);
    }
    let known = undo::survey(dirs)?.into_iter().map(|remains| stem(&remains.id)).collect();
    Ok(unknown(there, &known))
}

fn unknown(there: Vec<String>, known: &BTreeSet<String>) -> Vec<String> {
    let is_known =
        |name: &String| name.rsplit_once('-').is_some_and(|(stem, _)| known.contains(stem));
    there.into_iter().filter(|name| name.starts_with(bhyve::PREFIX) && !is_known(name)).collect()
}

/// What to do with one of them.
pub fn remedy(name: &str) -> String {
    format!("when no build of yours uses it: `bhyvectl --vm={name} --destroy`")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ID: &str = "12345678-1111-4222-8333-444444444444";

    #[test]
    fn a_journal_speaks_of_its_own_machines_alone() {
        assert_eq!(stem(ID), "imgforge-12345678");
        for name in ["imgforge-87654321", "web01", "", "imgforge-12345678-0", "imgforge-"] {
            assert!(undo(name, ID).unwrap_err().contains("left alone"), "{name}");
        }
        // Nothing of that name is here, whatever this host is.
        assert_eq!(undo("imgforge-12345678", ID), Ok(false));
    }

    #[test]
    fn strangers_are_those_that_no_journal_names() {
        let there = ["imgforge-12345678-0", "imgforge-99999999-3", "web01", "imgforge-7-0"];
        let there = there.map(str::to_owned).to_vec();
        let known = BTreeSet::from([stem(ID)]);
        assert_eq!(unknown(there, &known), ["imgforge-99999999-3", "imgforge-7-0"]);
        assert!(remedy("imgforge-7-0").contains("bhyvectl --vm=imgforge-7-0 --destroy"));
    }
}
