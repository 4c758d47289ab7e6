// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Machines by name: those that are seen from here, and the end of one that nobody runs any more.

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::handle::{Control, exists};
use crate::vm::hv::node::is;

/// Where machines appear.
const DIRECTORY: &str = "/dev/vmm";
/// Machines of one build that are looked for: one for each of a guest's resets.
const NUMBERS: u32 = 64;
/// How long the end of a machine may take. The kernel waits for whoever holds it.
const ENDING: Duration = Duration::from_secs(20);

/// The machine of a number among those of one name.
pub(super) fn numbered(stem: &str, number: u32) -> String {
    format!("{stem}-{number}")
}

/// The machines that are seen from here: those of this zone, or all of them in the global one.
pub fn machines() -> Vec<String> {
    listed(Path::new(DIRECTORY))
}

fn listed(directory: &Path) -> Vec<String> {
    let Ok(directory) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<String> =
        directory.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The machines of one name. The kernel makes their nodes when somebody looks for them, so each is
/// looked for as well as listed.
pub fn machines_of(stem: &str) -> Vec<String> {
    let is_ours = |name: &String| {
        name.strip_prefix(stem)
            .and_then(|rest| rest.strip_prefix('-'))
            .is_some_and(|number| number.parse::<u32>().is_ok())
    };
    let mut found: Vec<String> = machines().into_iter().filter(is_ours).collect();
    let looked_for = (0..NUMBERS).map(|number| numbered(stem, number));
    found.extend(looked_for.filter(|name| exists(name)));
    found.sort();
    found.dedup();
    found
}

/// Destroys a machine that no process of ours holds; one that is gone already is no failure.
///
/// # Errors
/// When the kernel refuses, or something holds the machine; in one line, with the remedy.
pub fn destroy(name: &str) -> Result<(), String> {
    let done = begin(name)?;
    judge_in(&done, name, ENDING)
}

/// Ends of machines that have begun in this process and are not over, by name.
static BEGUN: Mutex<Vec<(String, Receiver<io::Result<()>>)>> = Mutex::new(Vec::new());

/// Begins to destroy a machine that this process still holds: it ends when it lets go.
/// [`wait_for_ends`] tells when.
pub(super) fn destroy_later(name: &str) {
    match begin(name) {
        Ok(done) => {
            let mut begun = BEGUN.lock().unwrap_or_else(PoisonError::into_inner);
            begun.push((name.to_owned(), done));
        }
        Err(why) => tracing::warn!("{why}"),
    }
}

/// Waits for the ends of machines that the kernel does not destroy by itself. Call it when nothing
/// of a machine is in use any more, before this process ends.
pub fn wait_for_ends() {
    let begun = std::mem::take(&mut *BEGUN.lock().unwrap_or_else(PoisonError::into_inner));
    let deadline = Instant::now() + ENDING;
    for (name, done) in begun {
        let left = deadline.saturating_duration_since(Instant::now());
        if let Err(why) = judge_in(&done, &name, left) {
            tracing::warn!("{why}");
        }
    }
}

/// Has a thread of its own make the call, which waits until nobody holds the machine.
fn begin(name: &str) -> Result<Receiver<io::Result<()>>, String> {
    let (sender, done) = channel();
    let machine = name.to_owned();
    let spawned = std::thread::Builder::new().name("bhyve-destroy".into()).spawn(move || {
        // Nobody listens only when it took too long.
        let _ = sender.send(Control::open().and_then(|control| control.destroy(&machine)));
    });
    match spawned {
        Ok(_) => Ok(done),
        Err(error) => Err(format!("no thread to destroy the virtual machine {name}: {error}")),
    }
}

fn judge_in(done: &Receiver<io::Result<()>>, name: &str, time: Duration) -> Result<(), String> {
    let by_hand = format!("`bhyvectl --vm={name} --destroy` does it by hand");
    match done.recv_timeout(time) {
        Ok(result) => judge(result)
            .map_err(|error| format!("the virtual machine {name} remains: {error}; {by_hand}")),
        Err(_) => Err(format!(
            "the virtual machine {name} has not ended within {} s, so a process holds it; end that \
             process (`fuser /dev/vmm/{name}`), then {by_hand}",
            ENDING.as_secs()
        )),
    }
}

/// Whether the machine is gone.
fn judge(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if is(&error, libc::ENOENT) || is(&error, libc::ENXIO) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_is_gone_is_no_failure() {
        let error = |errno| Err(io::Error::from_raw_os_error(errno));
        for gone in [Ok(()), error(libc::ENOENT), error(libc::ENXIO)] {
            judge(gone).unwrap();
        }
        assert!(judge(error(libc::EPERM)).is_err());
    }

    #[test]
    fn machines_are_listed_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["web01", "imgforge-1-0"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(listed(dir.path()), ["imgforge-1-0", "web01"]);
        assert!(listed(Path::new("/nonexistent")).is_empty());
        assert_eq!(numbered("imgforge-1", 0), "imgforge-1-0");
    }
}
