// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Where imgforge keeps what must outlive it: journals and locks in the state directory, sockets
//! in the runtime directory.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::process;
use crate::ui::{Failure, Outcome};

/// The runtime directory may be this long, so that `…/ID8/name.sock` fits into the 108 bytes that
/// the name of a UNIX socket may have.
const LONGEST_RUNTIME: usize = 70;

/// How long the child of a dead process may take to its exec.
const STRAY: Duration = Duration::from_secs(2);

/// The state directory and the runtime directory of this user.
#[derive(Debug, Clone)]
pub struct StateDirs {
    state: PathBuf,
    /// The first one is used; all are searched when an earlier build is cleaned up.
    runtime: Vec<PathBuf>,
}

impl StateDirs {
    /// State: `IMGFORGE_STATE_DIR`, else `/var/lib/imgforge` for root, else
    /// `$XDG_STATE_HOME/imgforge`, else `~/.local/state/imgforge`.
    /// Runtime: `IMGFORGE_RUN_DIR`, else `/run/imgforge` (`/var/run/imgforge` where there is no `/run`) for root, else
    /// `$XDG_RUNTIME_DIR/imgforge`, else `/tmp/imgforge-UID`.
    ///
    /// # Errors
    /// When no home directory is known, or a path given is not absolute.
    pub fn from_env() -> Outcome<Self> {
        let uid = nix::unistd::geteuid().as_raw();
        Self::resolve(|name| std::env::var_os(name).filter(|value| !value.is_empty()), uid)
    }

    fn resolve(env: impl Fn(&str) -> Option<OsString>, uid: u32) -> Outcome<Self> {
        let path = |name: &str| env(name).map(PathBuf::from);
        let state = match path("IMGFORGE_STATE_DIR") {
            Some(dir) if dir.is_absolute() => dir,
            Some(dir) => {
                return Err(Failure::input("IMGFORGE_STATE_DIR is not an absolute path")
                    .fact("value", dir.display())
                    .hint("give it a path that starts with `/`"));
            }
            None if uid == 0 => "/var/lib/imgforge".into(),
            None => path("XDG_STATE_HOME")
                .filter(|dir| dir.is_absolute())
                .or_else(|| path("HOME").map(|home| home.join(".local/state")))
                .filter(|dir| dir.is_absolute())
                .map(|dir| dir.join("imgforge"))
                .ok_or_else(|| {
                    Failure::input("no directory to keep the journal of builds in: HOME is not set")
                        .hint("set IMGFORGE_STATE_DIR to a directory of yours")
                })?,
        };
        let mut runtime: Vec<PathBuf> = Vec::new();
        let explicit = path("IMGFORGE_RUN_DIR").filter(|dir| dir.is_absolute());
        if let Some(dir) = &explicit {
            runtime.push(dir.clone());
        } else if uid == 0 {
            let run = Path::new("/run");
            let roots = if run.is_dir() { ["/run", "/var/run"] } else { ["/var/run", "/run"] };
            runtime.extend(roots.iter().map(|root| Path::new(root).join("imgforge")));
        } else if let Some(dir) = path("XDG_RUNTIME_DIR").filter(|dir| dir.is_absolute()) {
            runtime.push(dir.join("imgforge"));
        }
        if explicit.is_none() {
            runtime.push(format!("/tmp/imgforge-{uid}").into());
        }
        runtime.retain(|dir| dir.as_os_str().len() <= LONGEST_RUNTIME);
        Ok(Self { state, runtime })
    }

    /// These two directories.
    pub fn at(state: impl Into<PathBuf>, runtime: impl Into<PathBuf>) -> Self {
        Self { state: state.into(), runtime: vec![runtime.into()] }
    }

    /// The state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    pub(super) fn runtime_roots(&self) -> &[PathBuf] {
        &self.runtime
    }

    /// The runtime root, made if need be.
    pub(super) fn runtime(&self) -> Outcome<&Path> {
        let mut last = Failure::build("no runtime directory has a path short enough for sockets");
        for root in &self.runtime {
            match private_dir(root) {
                Ok(()) => return Ok(root),
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    /// The directory of journals, made if need be.
    pub(super) fn journals(&self) -> Outcome<PathBuf> {
        private_dir(&self.state)?;
        let dir = self.state.join("builds");
        private_dir(&dir)?;
        Ok(dir)
    }

    /// Held for the moment in which journals are made or looked through, so that nobody takes a
    /// journal that is being made for a dead build's.
    pub(super) fn lock_journals(&self) -> Outcome<File> {
        let path = self.journals()?.join("lock");
        let file = open_lock(&path)?;
        file.lock().map_err(|error| cannot_lock(&path, error))?;
        Ok(file)
    }
}

/// Makes a directory (and those above it) that only this user may enter, or checks that an
/// existing one is such. A directory that somebody else prepared is refused.
pub(super) fn private_dir(path: &Path) -> Outcome<()> {
    let failed = |what: &str, error: io::Error| {
        Failure::build(format!("cannot {what} the directory {}", path.display()))
            .because(error)
            .fact("dir", path.display())
            .hint("set IMGFORGE_STATE_DIR to a directory that you may write to, or run as root")
    };
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) => return Err(failed("make", error)),
    }
    let meta = fs::symlink_metadata(path).map_err(|error| failed("inspect", error))?;
    let own = nix::unistd::geteuid().as_raw();
    if !meta.is_dir() || meta.uid() != own || meta.mode() & 0o022 != 0 {
        return Err(Failure::build(format!(
            "the directory {} is not safe to use: it must be a real directory of user {own} that \
             nobody else may write to",
            path.display()
        ))
        .fact("dir", path.display())
        .fact("owner", meta.uid())
        .fact("mode", format!("{:o}", meta.mode() & 0o7777))
        .hint(format!("look at it with `ls -ld {}`, then remove or repair it", path.display())));
    }
    Ok(())
}

fn open_lock(path: &Path) -> Outcome<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| cannot_lock(path, error))
}

fn cannot_lock(path: &Path, error: io::Error) -> Failure {
    Failure::build("cannot take a lock")
        .because(error)
        .fact("file", path.display())
        .hint("the file system of the state directory must support file locks; set IMGFORGE_STATE_DIR to a local one")
}

/// The open file is still the one that the path names.
pub(super) fn is_still(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => open.dev() == named.dev() && open.ino() == named.ino(),
        _ => false,
    }
}

/// Says "this target is being built into this directory", for as long as it lives.
#[derive(Debug)]
pub struct TargetLock {
    path: PathBuf,
    file: File,
}

impl TargetLock {
    /// Takes the lock of `target` built into `output`.
    ///
    /// # Errors
    /// When another build of them runs: names its process.
    pub fn acquire(dirs: &StateDirs, target: &str, output: &Path) -> Outcome<Self> {
        private_dir(&dirs.state)?;
        let dir = dirs.state.join("locks");
        private_dir(&dir)?;
        let mut hash = Sha256::new();
        hash.update(target.as_bytes());
        hash.update([0]);
        hash.update(settled(output).as_os_str().as_bytes());
        let path = dir.join(format!("{}.lock", &hex::encode(hash.finalize())[..32]));
        loop {
            let mut file = open_lock(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let holder = holder(&mut file);
                    if holder.is_some_and(|pid| !process::exists(pid)) && acquire_from_dead(&file) {
                        continue;
                    }
                    return Err(taken(target, output, holder));
                }
                Err(TryLockError::Error(error)) => return Err(cannot_lock(&path, error)),
            }
            // The holder before us may have removed the file between our open and our lock.
            if !is_still(&file, &path) {
                continue;
            }
            file.set_len(0)
                .and_then(|()| write!(file, "{}", std::process::id()))
                .map_err(|error| cannot_lock(&path, error))?;
            return Ok(Self { path, file });
        }
    }
}

impl Drop for TargetLock {
    fn drop(&mut self) {
        // Removed while still locked: see the check in `acquire`.
        let _ = fs::remove_file(&self.path);
        // A child that was forked a moment ago shares the lock until its exec.
        let _ = self.file.unlock();
    }
}

/// The process that wrote itself into a lock file.
fn holder(file: &mut File) -> Option<u32> {
    let mut pid = String::new();
    file.take(20).read_to_string(&mut pid).ok()?;
    pid.trim().parse().ok()
}

fn taken(target: &str, output: &Path, holder: Option<u32>) -> Failure {
    Failure::input(format!("{target} is being built into {} already", output.display()))
        .fact("process", holder.map_or("unknown".into(), |pid| pid.to_string()))
        .fact("output", output.display())
        .hint("wait for that build, stop it, or give this one another `--output`")
}

/// Waits for a lock whose holder has died. A child that it had just forked shares the lock until
/// its exec closes the file; nobody else can hold it. Releases the lock again; true when free.
fn acquire_from_dead(file: &File) -> bool {
    wait_for_lock(file) && file.unlock().is_ok()
}

/// Takes the lock of a dead process; false when a child of it holds on to it for longer than any
/// exec lasts.
pub(super) fn wait_for_lock(file: &File) -> bool {
    let deadline = Instant::now() + STRAY;
    loop {
        match file.try_lock() {
            Ok(()) => return true,
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(_) => return false,
        }
    }
}

/// The path with its existing part made real, so that two spellings give one lock.
fn settled(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut rest = Vec::new();
    let mut existing = path.as_path();
    loop {
        if let Ok(real) = existing.canonicalize() {
            return rest.iter().rev().fold(real, |whole, part| whole.join(part));
        }
        let (Some(parent), Some(name)) = (existing.parent(), existing.file_name()) else {
            return path;
        };
        rest.push(name.to_owned());
        existing = parent;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn resolve(vars: &[(&str, &str)], uid: u32) -> Outcome<StateDirs> {
        StateDirs::resolve(
            |name| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()),
            uid,
        )
    }

    #[test]
    fn follows_the_environment() {
        assert_eq!(resolve(&[], 0).unwrap().state(), Path::new("/var/lib/imgforge"));
        let user = resolve(&[("HOME", "/home/u"), ("XDG_RUNTIME_DIR", "/run/user/5")], 5).unwrap();
        assert_eq!(user.state(), Path::new("/home/u/.local/state/imgforge"));
        assert_eq!(user.runtime[0], Path::new("/run/user/5/imgforge"));
        assert_eq!(user.runtime[1], Path::new("/tmp/imgforge-5"));
        let state = resolve(&[("HOME", "/home/u"), ("XDG_STATE_HOME", "/s")], 5).unwrap();
        assert_eq!(state.state(), Path::new("/s/imgforge"));
        let own = resolve(&[("IMGFORGE_STATE_DIR", "/x/y")], 0).unwrap();
        assert_eq!(own.state(), Path::new("/x/y"));
        let long = format!("/{}", "r".repeat(90));
        let long = resolve(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", &long)], 5).unwrap();
        assert_eq!(long.runtime, [Path::new("/tmp/imgforge-5")]);
        assert!(resolve(&[("IMGFORGE_STATE_DIR", "x")], 0).is_err());
        assert!(resolve(&[], 5).unwrap_err().to_string().contains("IMGFORGE_STATE_DIR"));
    }

    #[test]
    fn refuses_a_directory_that_others_may_write_to() {
        let top = tempfile::tempdir().unwrap();
        let open = top.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(private_dir(&open).unwrap_err().to_string().contains("not safe"));
        let link = top.path().join("link");
        std::os::unix::fs::symlink(top.path(), &link).unwrap();
        assert!(private_dir(&link).is_err());
        private_dir(&top.path().join("new/deep")).unwrap();
    }

    #[test]
    fn one_target_into_one_directory_is_built_once() {
        let top = tempfile::tempdir().unwrap();
        let dirs = StateDirs::at(top.path().join("s"), top.path().join("r"));
        let output = top.path().join("out");
        let first = TargetLock::acquire(&dirs, "debian-13", &output).unwrap();
        let other_spelling = top.path().join("s/../out");
        let refused = TargetLock::acquire(&dirs, "debian-13", &other_spelling).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains(&std::process::id().to_string()), "{text}");
        assert_eq!(refused.kind().exit_code(), 2);
        let _other = TargetLock::acquire(&dirs, "debian-12", &output).unwrap();
        let path = first.path.clone();
        drop(first);
        assert!(!path.exists(), "the lock file stays behind");
        TargetLock::acquire(&dirs, "debian-13", &output).unwrap();
    }
}
