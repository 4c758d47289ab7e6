// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! From a target's media declaration to a checked file: addresses in order, cache, download.

use reqwest::Url;
use tokio_util::sync::CancellationToken;

use super::cache::{Cache, Hit, Key, Watch};
use super::client::{Downgrade, client};
use super::digest::algorithm_name;
use super::download::{Job, Stop};
use super::record::Digests;
use super::source::{Source, shown};
use super::wanted::Wanted;
use super::{FetchOptions, Medium, Origin};
use crate::target::{Algorithm, Media};
use crate::ui::{Events, Failure, Kind, Outcome};

/// Gets the medium that `media` declares: its addresses are tried in order, and the first whole
/// and right one is the result. See [`crate::media`] for what the cache keeps.
///
/// # Errors
///
/// The checksum cannot be found out; no address gives the medium (the failure tells for each one
/// why); no room; `cancel` was triggered ([`Kind::Interrupted`]; a started part is kept and
/// continued by the next run).
pub async fn fetch(
    media: &Media,
    options: &FetchOptions,
    events: &Events,
    cancel: CancellationToken,
) -> Outcome<Medium> {
    let sources = media.urls.iter().map(|url| Source::parse(url)).collect::<Outcome<Vec<_>>>()?;
    let mut names: Vec<String> = Vec::new();
    for name in sources.iter().map(Source::base_name) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let Some(name) = names.first() else {
        return Err(Failure::input("the target names no medium")
            .hint("give at least one address under `media.urls`"));
    };
    let cache = Cache::new(&options.cache_dir);
    let watch = Watch { name, events, cancel: &cancel };
    let wanted = Wanted::find(&media.checksum, &names, &cache, options, &watch).await?;
    let run = Run { cache: &cache, options, watch, wanted: wanted.as_ref() };
    let mut failures = Vec::new();
    for source in &sources {
        let gotten = match source {
            Source::Local(path) => run.local(path, source).await.map_err(Stop::Address),
            Source::Web(url) => run.web(url).await,
        };
        match gotten {
            Ok(medium) => {
                if let Some(wanted) = &wanted {
                    wanted.remember(&cache);
                }
                return Ok(medium);
            }
            Err(Stop::Run(failure)) => return Err(failure),
            Err(Stop::Address(failure)) if failure.kind() == Kind::Interrupted => {
                return Err(failure);
            }
            Err(Stop::Address(failure)) => {
                if failures.len() + 1 < sources.len() {
                    let why = failure.summary();
                    events.warn(format!("{}: {why}; the next address is tried", source.shown()));
                }
                failures.push((source.shown(), failure));
            }
        }
    }
    Err(all_failed(name, failures))
}

/// One failure that tells all.
fn all_failed(name: &str, mut failures: Vec<(String, Failure)>) -> Failure {
    if failures.len() == 1
        && let Some((_, failure)) = failures.pop()
    {
        return failure;
    }
    let count = failures.len();
    let mut all = Failure::build(format!("none of {count} addresses gives {name}"));
    let mut hints: Vec<String> = Vec::new();
    for (place, failure) in failures {
        let mut lines = vec![place.clone(), failure.summary().to_owned()];
        lines.extend(failure.causes().into_iter().map(|cause| format!("because {cause}")));
        let facts = failure.facts().iter().filter(|(_, value)| *value != place);
        lines.extend(facts.map(|(label, value)| format!("{label} {value}")));
        all = all.fact("address", lines.join("\n"));
        for hint in failure.hints() {
            if !hints.contains(hint) {
                hints.push(hint.clone());
            }
        }
    }
    hints.into_iter().fold(all, Failure::hint)
}

struct Run<'a> {
    cache: &'a Cache,
    options: &'a FetchOptions,
    watch: Watch<'a>,
    wanted: Option<&'a Wanted>,
}

impl Run<'_> {
    fn algorithms(&self) -> Vec<Algorithm> {
        self.wanted.iter().map(|wanted| wanted.algorithm).collect()
    }

    /// A file of this host, used where it lies and never changed or removed.
    async fn local(&self, path: &std::path::Path, source: &Source) -> Outcome<Medium> {
        let path = std::path::absolute(path).map_err(|error| {
            Failure::build("cannot read the medium's file")
                .because(error)
                .fact("path", path.display())
        })?;
        let (digests, bytes) = self.cache.digests(&path, &self.algorithms(), &self.watch).await?;
        if bytes == 0 {
            return Err(Failure::build("the medium is an empty file").fact("path", path.display()));
        }
        self.compare(&digests, &source.shown())?;
        let hit = Hit { path, url: source.shown(), digests, bytes };
        Ok(self.medium(hit, source.base_name(), Origin::InPlace))
    }

    fn key(&self, url: &Url) -> Key {
        match self.wanted {
            Some(wanted) => Key::digest(wanted.algorithm, &wanted.hex),
            None => Key::address(url.as_str()),
        }
    }

    /// From the cache, or over the network into the cache.
    async fn web(&self, url: &Url) -> Result<Medium, Stop> {
        let key = self.key(url);
        let name = Source::Web(url.clone()).base_name();
        if let Some(hit) = self.cache.find(&key, None, &self.watch).await.map_err(Stop::Run)? {
            return Ok(self.cached(hit, name));
        }
        if self.options.offline {
            return Err(Stop::Address(
                Failure::build(format!("{name} is not in the cache, and the build works offline"))
                    .fact("url", shown(url))
                    .fact("cache", self.options.cache_dir.display())
                    .hint("run the build once without `--offline`"),
            ));
        }
        self.cache.make().map_err(Stop::Run)?;
        let lock = self.cache.lock(&key, &self.watch).await.map_err(Stop::Run)?;
        // Another build may have finished it while this one waited.
        let found = self.cache.find(&key, Some(&lock), &self.watch).await;
        if let Some(hit) = found.map_err(Stop::Run)? {
            return Ok(self.cached(hit, name));
        }
        self.download(url, &key, name).await
    }

    fn cached(&self, hit: Hit, name: String) -> Medium {
        if self.wanted.is_none() {
            let path = hit.path.display();
            self.watch
                .events
                .note(format!("{name} comes from the cache; remove {path} to download it again"));
        }
        self.medium(hit, name, Origin::Cached)
    }

    async fn download(&self, url: &Url, key: &Key, name: String) -> Result<Medium, Stop> {
        let downgrade = match self.wanted {
            Some(_) => Downgrade::Allowed,
            None => Downgrade::Refused,
        };
        let client = client(self.options, downgrade, url).map_err(Stop::Address)?;
        let part = self.cache.part_path(key);
        let job = Job {
            client: &client,
            url,
            part: &part,
            limits: &self.options.limits,
            watch: self.watch,
            digest_known: self.wanted.is_some(),
        };
        // A part that was begun earlier, or at another mirror, can spoil the whole: once more.
        let mut whole_from_here = !part.exists();
        loop {
            job.run().await?;
            let hashed = self.cache.part_digests(key, &self.algorithms(), &self.watch).await;
            let (digests, bytes) = hashed.map_err(Stop::Run)?;
            match self.compare(&digests, &shown(url)) {
                Ok(()) => {
                    let path = self.cache.adopt(key, &digests, &shown(url)).map_err(Stop::Run)?;
                    let hit = Hit { path, url: shown(url), digests, bytes };
                    return Ok(self.medium(hit, name, Origin::Downloaded));
                }
                Err(failure) => {
                    self.cache.forget_part(key);
                    if whole_from_here {
                        return Err(Stop::Address(failure));
                    }
                    self.watch
                        .events
                        .warn(format!("the continued download of {name} is wrong; it starts anew"));
                    whole_from_here = true;
                }
            }
        }
    }

    fn compare(&self, digests: &Digests, place: &str) -> Outcome<()> {
        let Some(wanted) = self.wanted else { return Ok(()) };
        let found = digests.of(wanted.algorithm);
        if found == wanted.hex {
            return Ok(());
        }
        let name = algorithm_name(wanted.algorithm);
        Err(Failure::build("the medium's checksum is wrong")
            .fact("url", place)
            .fact("expected", format!("{name}:{}", wanted.hex))
            .fact("found", format!("{name}:{found}"))
            .hint(
                "if the distributor published a new file, correct the target's checksum; \
                 otherwise use another mirror",
            ))
    }

    fn medium(&self, hit: Hit, name: String, origin: Origin) -> Medium {
        let sha256 = hit.digests.of(Algorithm::Sha256).to_owned();
        let (algorithm, digest) = match self.wanted {
            Some(wanted) => (wanted.algorithm, wanted.hex.clone()),
            None => (Algorithm::Sha256, sha256.clone()),
        };
        Medium {
            path: hit.path,
            name,
            algorithm,
            digest,
            sha256,
            bytes: hit.bytes,
            url: hit.url,
            origin,
            checked: self.wanted.is_some(),
        }
    }
}
