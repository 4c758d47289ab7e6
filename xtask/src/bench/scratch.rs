// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A directory for the runs of one benchmark, which goes away with it.

use std::fs;
use std::path::{Path, PathBuf};

use super::Outcome;

/// The directory `run-PID`; removed when dropped.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes the directory under `parent`, and removes those of benchmarks that were killed.
    pub(super) fn make(parent: &Path) -> Outcome<Self> {
        let cannot = |error| format!("cannot write in {}: {error}", parent.display());
        fs::create_dir_all(parent).map_err(cannot)?;
        for entry in fs::read_dir(parent).map_err(cannot)?.flatten() {
            let name = entry.file_name();
            let owner = name.to_str().and_then(|name| name.strip_prefix("run-"));
            if owner.and_then(|pid| pid.parse().ok()).is_some_and(|pid| !alive(pid)) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let path = parent.join(format!("run-{}", std::process::id()));
        fs::create_dir(&path).map_err(cannot)?;
        Ok(Self(path))
    }

    /// An empty directory `name` in it, in place of an older one.
    pub(super) fn fresh(&self, name: &str) -> Outcome<PathBuf> {
        let path = self.0.join(name);
        if path.exists() {
            fs::remove_dir_all(&path)
                .map_err(|e| format!("cannot empty {}: {e}", path.display()))?;
        }
        fs::create_dir(&path).map_err(|e| format!("cannot make {}: {e}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("bench: cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Whether a process runs; where there is no procfs, each is taken to run.
fn alive(pid: u32) -> bool {
    !Path::new("/proc/self").exists() || Path::new(&format!("/proc/{pid}")).exists()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn goes_away_and_takes_the_dead_with_it() {
        let parent = std::env::temp_dir().join(format!("bench-scratch-{}", std::process::id()));
        // No process has this number: it is above the largest that Linux gives out.
        let dead = parent.join("run-4194999");
        fs::create_dir_all(&dead).unwrap();
        fs::create_dir_all(parent.join("kept")).unwrap();
        let scratch = Scratch::make(&parent).unwrap();
        assert!(!dead.exists() || !Path::new("/proc/self").exists());
        let inner = scratch.fresh("one").unwrap();
        fs::write(inner.join("file"), "x").unwrap();
        assert_eq!(fs::read_dir(scratch.fresh("one").unwrap()).unwrap().count(), 0);
        drop(scratch);
        assert!(!inner.exists() && parent.join("kept").exists());
        fs::remove_dir_all(parent).unwrap();
    }
}
