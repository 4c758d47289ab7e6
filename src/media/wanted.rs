// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Which digest a medium must have: declared, or looked up in a sums file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::FetchOptions;
use super::cache::{Cache, Watch};
use super::checksum::{MAX_SUMS_BYTES, Sums, parse_bytes};
use super::client::{Downgrade, client};
use super::digest::{algorithm_name, algorithm_of_name, hex_length};
use super::download::{Job, Stop, small};
use super::record::{RememberedSum, load, save};
use super::source::Source;
use crate::target::{Algorithm, Checksum};
use crate::ui::{Failure, Outcome};

/// The digest a medium must have, and how it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) algorithm: Algorithm,
    pub(super) hex: String,
    /// To remember once the medium proved right: the sums file's address and the name looked up.
    looked_up: Option<(String, String)>,
}

impl Wanted {
    /// Finds out the digest; `None` when none is declared.
    ///
    /// # Errors
    ///
    /// A malformed digest; a sums file that cannot be had, is none, or does not name the medium.
    pub(super) async fn find(
        checksum: &Checksum,
        names: &[String],
        cache: &Cache,
        options: &FetchOptions,
        watch: &Watch<'_>,
    ) -> Outcome<Option<Self>> {
        let wanted = match checksum {
            Checksum::None => {
                watch.events.warn(format!("{} is not checked: its checksum is none", watch.name));
                return Ok(None);
            }
            Checksum::Digest { algorithm, hex } => Self::declared(*algorithm, hex)?,
            Checksum::File(place) => Self::look_up(place, names, cache, options, watch).await?,
        };
        if matches!(wanted.algorithm, Algorithm::Md5 | Algorithm::Sha1) {
            watch.events.warn(format!(
                "{} is checked by {} only, which can be forged; prefer sha256 or sha512",
                watch.name,
                algorithm_name(wanted.algorithm)
            ));
        }
        Ok(Some(wanted))
    }

    fn declared(algorithm: Algorithm, hex: &str) -> Outcome<Self> {
        let hex = hex.trim().to_ascii_lowercase();
        let digits = hex_length(algorithm);
        if hex.len() != digits || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let name = algorithm_name(algorithm);
            return Err(Failure::input(format!("the medium's checksum is no {name} digest"))
                .fact("checksum", format!("{name}:{hex}"))
                .hint(format!("a {name} digest has {digits} hexadecimal digits")));
        }
        Ok(Self { algorithm, hex, looked_up: None })
    }

    async fn look_up(
        place: &str,
        names: &[String],
        cache: &Cache,
        options: &FetchOptions,
        watch: &Watch<'_>,
    ) -> Outcome<Self> {
        let source = Source::parse(place)?;
        let shown = source.shown();
        let read = match &source {
            Source::Local(path) => read_local(path),
            Source::Web(_) if options.offline => {
                Err(Failure::build("the sums file cannot be asked: the build works offline")
                    .fact("sums", &shown)
                    .hint("run the build once without `--offline`, or declare the digest itself"))
            }
            Source::Web(url) => {
                let sums_name = source.base_name();
                let job = Job {
                    client: &client(options, Downgrade::Refused, url)?,
                    url,
                    part: Path::new(""),
                    limits: &options.limits,
                    watch: Watch { name: &sums_name, ..*watch },
                    digest_known: false,
                };
                match small(&job, MAX_SUMS_BYTES).await {
                    Ok(bytes) => Ok(bytes),
                    Err(Stop::Address(failure)) => Err(failure.within("sums file")),
                    Err(Stop::Run(failure)) => return Err(failure),
                }
            }
        };
        match read {
            Ok(bytes) => {
                let sums = parse_bytes(&bytes, &shown)?;
                find_in(&sums, names, place).map_err(|failure| failure.fact("sums", &shown))
            }
            Err(failure) => match recall(cache, place, names) {
                Some(wanted) => {
                    if !options.offline {
                        let why = failure.summary();
                        watch.events.warn(format!("{why}; its digest of an earlier run is used"));
                    }
                    Ok(wanted)
                }
                None => Err(failure),
            },
        }
    }

    /// Remembers a looked-up digest after the medium proved to have it.
    pub(super) fn remember(&self, cache: &Cache) {
        if let Some((place, name)) = &self.looked_up {
            let algorithm = algorithm_name(self.algorithm).to_owned();
            let sum = RememberedSum { name: name.clone(), algorithm, hex: self.hex.clone() };
            // Lost memory costs a later offline run, not this one.
            let _ = save(&cache.sums_path(place, name), &sum);
        }
    }
}

fn find_in(sums: &Sums, names: &[String], place: &str) -> Outcome<Wanted> {
    let mut first = None;
    for name in names {
        match sums.find(name) {
            Ok(sum) => {
                let looked_up = Some((place.to_owned(), name.clone()));
                return Ok(Wanted { algorithm: sum.algorithm, hex: sum.hex, looked_up });
            }
            Err(failure) => first = first.or(Some(failure)),
        }
    }
    Err(first.unwrap_or_else(|| Failure::input("the target names no medium")))
}

fn recall(cache: &Cache, place: &str, names: &[String]) -> Option<Wanted> {
    names.iter().find_map(|name| {
        let sum: RememberedSum = load(&cache.sums_path(place, name))?;
        let wanted = Wanted::declared(algorithm_of_name(&sum.algorithm)?, &sum.hex).ok()?;
        Some(Wanted { looked_up: Some((place.to_owned(), name.clone())), ..wanted })
    })
}

fn read_local(path: &Path) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    let unreadable = |error: std::io::Error| {
        Failure::input("cannot read the sums file")
            .because(error)
            .fact("path", path.display())
            .hint("check the path in the target's `checksum: file:…`")
    };
    // A pipe or device could block for ever.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(Failure::input("the sums file is no regular file").fact("path", path.display()));
    }
    File::open(path)
        .and_then(|file| file.take(MAX_SUMS_BYTES + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    Ok(bytes)
}
