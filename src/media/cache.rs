// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The media cache: names of its files, one lock per entry, and hashing that is done once.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::digest::{algorithm_name, digest_all, name_of};
use super::progress::Meter;
use super::record::{Digests, Fingerprint, Known, Verified, load, save};
use crate::target::Algorithm;
use crate::ui::{Event, Events, Failure, Outcome};

/// How often a held lock is tried again.
const LOCK_PERIOD: Duration = Duration::from_millis(100);

/// The name under which an entry is downloaded, locked and found again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key(String);

impl Key {
    /// The entry of a declared digest.
    pub(super) fn digest(algorithm: Algorithm, hex: &str) -> Self {
        Self(format!("{}-{hex}", algorithm_name(algorithm)))
    }

    /// The entry of an address without declared digest.
    pub(super) fn address(url: &str) -> Self {
        Self(format!("url-{}", name_of(url)))
    }

    /// Whether `sha256`, read from a record, can be this entry's content.
    fn may_be(&self, sha256: &str) -> bool {
        sha256.len() == 64
            && sha256.bytes().all(|byte| byte.is_ascii_hexdigit())
            && self.0.strip_prefix("sha256-").is_none_or(|own| own == sha256)
    }
}

/// A medium found in the cache.
#[derive(Debug)]
pub(super) struct Hit {
    pub(super) path: PathBuf,
    pub(super) url: String,
    pub(super) digests: Digests,
    pub(super) bytes: u64,
}

/// The cache directory.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache in `directory`; nothing is made yet.
    pub(super) fn new(directory: &Path) -> Self {
        Self { root: directory.join("media") }
    }

    /// Makes the directory.
    ///
    /// # Errors
    ///
    /// It cannot be made or is not a directory.
    pub(super) fn make(&self) -> Outcome<()> {
        fs::create_dir_all(&self.root).map_err(|error| {
            Failure::build("cannot make the media cache")
                .because(error)
                .fact("path", self.root.display())
                .hint("pass `--cache-dir DIR` with a directory you may write to")
        })
    }

    pub(super) fn content_path(&self, sha256: &str) -> PathBuf {
        self.root.join(format!("sha256-{sha256}.iso"))
    }

    pub(super) fn part_path(&self, key: &Key) -> PathBuf {
        self.root.join(format!("{}.part", key.0))
    }

    fn known_path(&self, key: &Key) -> PathBuf {
        self.root.join("known").join(format!("{}.json", key.0))
    }

    /// Where the digest that `sums` (an address) gives for `name` is remembered.
    pub(super) fn sums_path(&self, sums: &str, name: &str) -> PathBuf {
        self.root.join("sums").join(format!("{}.json", name_of(&format!("{sums}\n{name}"))))
    }

    /// The cached medium for `key`, hashed again only if its file changed. A file whose content
    /// no longer fits its name counts as absent; it is removed by who holds the entry's lock, as
    /// another build may just have replaced it.
    pub(super) async fn find(
        &self,
        key: &Key,
        lock: Option<&Lock>,
        watch: &Watch<'_>,
    ) -> Outcome<Option<Hit>> {
        let known = load::<Known>(&self.known_path(key)).or_else(|| {
            let sha256 = key.0.strip_prefix("sha256-")?.to_owned();
            Some(Known { sha256, url: "cache".to_owned() })
        });
        let Some(known) = known.filter(|known| key.may_be(&known.sha256)) else {
            return Ok(None);
        };
        let path = self.content_path(&known.sha256);
        if !path.is_file() {
            return Ok(None);
        }
        let (digests, bytes) = self.digests(&path, &[], watch).await?;
        if digests.of(Algorithm::Sha256) == known.sha256 {
            return Ok(Some(Hit { path, url: known.url, digests, bytes }));
        }
        if lock.is_some() {
            let text = format!("{} was damaged in the cache; it is removed", path.display());
            watch.events.warn(text);
            fs::remove_file(&path).map_err(|error| unusable(&path, "remove", error))?;
        }
        Ok(None)
    }

    /// Moves a finished part to its content's name and remembers what it is.
    pub(super) fn adopt(&self, key: &Key, digests: &Digests, url: &str) -> Outcome<PathBuf> {
        let part = self.part_path(key);
        let sha256 = digests.of(Algorithm::Sha256).to_owned();
        let path = self.content_path(&sha256);
        fs::rename(&part, &path).map_err(|error| unusable(&path, "write", error))?;
        self.forget_part(key);
        // Records only save work: the medium is good without them.
        if let Ok(metadata) = fs::metadata(&path) {
            self.remember(Fingerprint::of(&metadata), &path, digests);
        }
        let known = Known { sha256, url: url.to_owned() };
        let _ = save(&self.known_path(key), &known);
        for (algorithm, hex) in &digests.0 {
            let _ = save(&self.known_path(&Key::digest(*algorithm, hex)), &known);
        }
        Ok(path)
    }

    /// Digests of a finished part by every algorithm under which it may be asked for later, and
    /// its size.
    pub(super) async fn part_digests(
        &self,
        key: &Key,
        algorithms: &[Algorithm],
        watch: &Watch<'_>,
    ) -> Outcome<(Digests, u64)> {
        let part = self.part_path(key);
        let mut wanted = vec![Algorithm::Sha256, Algorithm::Sha512];
        wanted
            .extend(algorithms.iter().copied().filter(|a| !wanted.contains(a)).collect::<Vec<_>>());
        let size = fs::metadata(&part).map_err(|error| unusable(&part, "read", error))?.len();
        let (digests, fingerprint) = hash_file(&part, &wanted, size, watch).await?;
        Ok((digests, fingerprint.size))
    }

    /// Removes a part and what was known about it.
    pub(super) fn forget_part(&self, key: &Key) {
        let part = self.part_path(key);
        let _ = fs::remove_file(part_state_path(&part));
        let _ = fs::remove_file(part);
    }

    /// Digests of the file at `path` by SHA-256 and `algorithms`, and its size: remembered ones,
    /// when the file is the same as then.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is no regular file, or changes while it is read; the run is
    /// cancelled.
    pub(super) async fn digests(
        &self,
        path: &Path,
        algorithms: &[Algorithm],
        watch: &Watch<'_>,
    ) -> Outcome<(Digests, u64)> {
        let mut wanted = vec![Algorithm::Sha256];
        wanted.extend(algorithms.iter().copied().filter(|a| *a != Algorithm::Sha256));
        let metadata = fs::metadata(path).map_err(|error| unusable(path, "read", error))?;
        if !metadata.is_file() {
            return Err(Failure::input("the medium is not a regular file")
                .fact("path", path.display())
                .hint("name an ISO file in the target's media urls"));
        }
        let before = Fingerprint::of(&metadata);
        let record = self.root.join("verified").join(before.file_name());
        let remembered = load::<Verified>(&record)
            .filter(|record| record.fingerprint == before)
            .and_then(|record| record.digests(&wanted));
        if let Some(digests) = remembered {
            return Ok((digests, before.size));
        }
        let (digests, after) = hash_file(path, &wanted, before.size, watch).await?;
        if after != before {
            return Err(Failure::build("the medium changed while it was read")
                .fact("path", path.display())
                .hint("wait until nothing writes to the file any more, then try again"));
        }
        self.remember(after, path, &digests);
        Ok((digests, after.size))
    }

    fn remember(&self, fingerprint: Fingerprint, path: &Path, digests: &Digests) {
        let record = self.root.join("verified").join(fingerprint.file_name());
        // Without the record the file is hashed again next time, which is right but slower.
        let _ = save(&record, &Verified::new(fingerprint, path, digests));
    }

    /// Waits until this process alone works on `key`.
    ///
    /// # Errors
    ///
    /// The lock file cannot be made; the run is cancelled while another build holds the lock.
    pub(super) async fn lock(&self, key: &Key, watch: &Watch<'_>) -> Outcome<Lock> {
        let path = self.root.join(format!("{}.lock", key.0));
        let mut ticks = tokio::time::interval(LOCK_PERIOD);
        let mut said = false;
        loop {
            let options =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let mut file = options.map_err(|error| unusable(&path, "write", error))?;
            match file.try_lock() {
                Ok(()) if is_still_at(&file, &path) => {
                    let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
                    return Ok(Lock { path, _file: file, held: true });
                }
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    if !said {
                        watch.say_locked(&mut file);
                        said = true;
                    }
                    tokio::select! {
                        () = watch.cancel.cancelled() => return Err(watch.interrupted()),
                        _ = ticks.tick() => {}
                    }
                }
                Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {
                    watch.events.warn(format!(
                        "{} cannot be locked: do not build the same target twice at once",
                        path.display()
                    ));
                    return Ok(Lock { path, _file: file, held: false });
                }
                Err(TryLockError::Error(error)) => return Err(unusable(&path, "lock", error)),
            }
        }
    }
}

/// The record beside a part.
pub(super) fn part_state_path(part: &Path) -> PathBuf {
    part.with_extension("part.json")
}

/// An entry held by this process; given back, and its file removed, on drop.
pub(super) struct Lock {
    path: PathBuf,
    _file: File,
    held: bool,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while still locked: who waits on the old file sees that it is gone and opens
        // the new one.
        if self.held {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn is_still_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Who is told about work on a medium, and who can stop it.
#[derive(Clone, Copy)]
pub(super) struct Watch<'a> {
    pub(super) name: &'a str,
    pub(super) events: &'a Events,
    pub(super) cancel: &'a CancellationToken,
}

impl Watch<'_> {
    pub(super) fn interrupted(&self) -> Failure {
        Failure::interrupted(format!("interrupted while getting {}", self.name))
    }

    fn say_locked(&self, file: &mut File) {
        let mut holder = String::new();
        let _ = file.rewind().and_then(|()| file.take(20).read_to_string(&mut holder));
        let process = match holder.is_empty() {
            true => String::new(),
            false => format!(" (process {holder})"),
        };
        let name = self.name;
        self.events.note(format!("another build{process} is downloading {name}; waiting for it"));
        let what = format!("another build's download of {name}");
        self.events.emit(Event::Waiting { what, deadline_seconds: None });
    }
}

async fn hash_file(
    path: &Path,
    algorithms: &[Algorithm],
    size: u64,
    watch: &Watch<'_>,
) -> Outcome<(Digests, Fingerprint)> {
    let mut meter = Meter::start(watch.events, format!("checking {}", watch.name), 0, Some(size));
    let (file_path, algorithms, cancel) =
        (path.to_path_buf(), algorithms.to_vec(), watch.cancel.clone());
    let work = tokio::task::spawn_blocking(move || {
        let mut file = File::open(file_path)?;
        let digests = digest_all(&mut file, &algorithms, |done| {
            meter.advance(done);
            !cancel.is_cancelled()
        })?;
        Ok::<_, std::io::Error>((digests, Fingerprint::of(&file.metadata()?)))
    });
    match work.await {
        Ok(Ok((Some(digests), fingerprint))) => Ok((Digests(digests), fingerprint)),
        Ok(Ok((None, _))) => Err(watch.interrupted()),
        Ok(Err(error)) => Err(unusable(path, "read", error)),
        Err(error) => Err(Failure::build("the digest could not be computed").because(error)),
    }
}

/// A file of the cache or a local medium that cannot be read, written or locked.
pub(super) fn unusable(path: &Path, verb: &str, error: std::io::Error) -> Failure {
    let kind = error.kind();
    let summary = format!("cannot {verb} the medium's file");
    let failure = match (kind, verb) {
        (ErrorKind::NotFound, "read") => Failure::input(summary),
        _ => Failure::build(summary),
    };
    let failure = failure.because(error).fact("path", path.display());
    match (kind, verb) {
        (ErrorKind::NotFound, "read") => failure.hint("check the path in the target's media urls"),
        (ErrorKind::PermissionDenied, "read") => failure.hint("check who may read the file"),
        (ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem, _) => {
            failure.hint("pass `--cache-dir DIR` with a directory you may write to")
        }
        _ => failure,
    }
}
