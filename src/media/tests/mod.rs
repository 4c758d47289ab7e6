// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Tests of the whole way from a media declaration to a file, against real servers on loopback.
#![allow(clippy::unwrap_used)]

mod local;
mod mirror;
mod transfer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::digest::digest_all;
use super::*;
use crate::target::{Checksum, Media};
use crate::ui::{Event, Events};

/// A cache of its own, and events kept.
struct Bench {
    folder: TempDir,
    options: FetchOptions,
    events: Events,
    list: Arc<Mutex<Vec<Event>>>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = FetchOptions::new(folder.path().join("cache"));
        options.proxy = false;
        options.limits.stall = Duration::from_secs(10);
        options.limits.backoff = Duration::from_millis(10);
        let (events, list) = Events::recorded();
        Self { folder, options, events, list }
    }

    /// For tests in which a server stalls on purpose.
    fn impatient() -> Self {
        let mut bench = Self::new();
        bench.options.limits.stall = Duration::from_millis(500);
        bench
    }

    async fn fetch(&self, urls: &[&str], checksum: Checksum) -> Outcome<Medium> {
        self.fetch_until(urls, checksum, CancellationToken::new()).await
    }

    async fn fetch_until(
        &self,
        urls: &[&str],
        checksum: Checksum,
        cancel: CancellationToken,
    ) -> Outcome<Medium> {
        let urls = urls.iter().map(|url| (*url).to_owned()).collect();
        fetch(&Media { urls, checksum }, &self.options, &self.events, cancel).await
    }

    /// Names of the files directly in the cache.
    fn kept(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.cache()) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .map(Result::unwrap)
            .filter(|entry| entry.path().is_file())
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn cache(&self) -> PathBuf {
        self.options.cache_dir.join("media")
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Texts of notes and warnings.
    fn said(&self) -> String {
        let texts = self.list.lock().unwrap();
        let texts = texts.iter().filter_map(|event| match event {
            Event::Note { text } | Event::Warning { text } => Some(text.as_str()),
            _ => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }

    /// How many times something was said to be under way.
    fn progress(&self, what: &str) -> usize {
        let list = self.list.lock().unwrap();
        let hits = list.iter().filter(
            |event| matches!(event, Event::Progress { what: found, .. } if found.starts_with(what)),
        );
        hits.count()
    }
}

/// Bytes that no range of which looks like another.
fn body(length: usize) -> Bytes {
    let mut state = 0x2545_f491_u32;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        })
        .collect()
}

fn hex_of(algorithm: Algorithm, mut bytes: &[u8]) -> String {
    digest_all(&mut bytes, &[algorithm], |_| true).unwrap().unwrap()[0].1.clone()
}

fn sum(algorithm: Algorithm, bytes: &[u8]) -> Checksum {
    Checksum::Digest { algorithm, hex: hex_of(algorithm, bytes) }
}

fn sha256(bytes: &[u8]) -> Checksum {
    sum(Algorithm::Sha256, bytes)
}

#[test]
fn the_cache_directory_is_found_in_order() {
    let find = |explicit: Option<&str>, set: &[(&str, &str)]| {
        let environment = |name: &str| {
            set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(*value))
        };
        cache_dir(explicit.map(Path::new), environment).map(|path| path.display().to_string())
    };
    let all = [
        ("IMGFORGE_CACHE_DIR", "/i"),
        ("PACKER_CACHE_DIR", "/p"),
        ("XDG_CACHE_HOME", "/x"),
        ("HOME", "/h"),
    ];
    assert_eq!(find(Some("/e"), &all).unwrap(), "/e");
    assert_eq!(find(None, &all).unwrap(), "/i");
    assert_eq!(find(None, &all[1..]).unwrap(), "/p");
    assert_eq!(find(None, &all[2..]).unwrap(), "/x/imgforge");
    assert_eq!(find(None, &all[3..]).unwrap(), "/h/.cache/imgforge");
    assert_eq!(
        find(None, &[("XDG_CACHE_HOME", "rel"), ("HOME", "/h")]).unwrap(),
        "/h/.cache/imgforge"
    );
    assert!(find(None, &[("HOME", "")]).is_err());
}
