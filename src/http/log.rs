// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The access log: every request is kept, told as an event, and can be waited for.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use crate::ui::{Event, Events};

/// How many requests are kept.
const KEPT: usize = 4096;
/// Longest path and agent kept, in characters.
const MAX_TEXT: usize = 256;

/// One answered request.
#[derive(Debug, Clone)]
pub struct Request {
    /// When its answer was over.
    pub at: Instant,
    /// The client's address.
    pub peer: String,
    /// Method.
    pub method: String,
    /// Decoded path; as it was sent when it is no proper one.
    pub path: String,
    /// Status of the answer.
    pub status: u16,
    /// Body bytes sent.
    pub bytes: u64,
    /// Length of the answer's body.
    pub length: u64,
    /// The client's own name; empty when it gave none.
    pub agent: String,
}

impl Request {
    /// Whether a GET got all it asked for.
    pub fn is_whole(&self) -> bool {
        self.method == "GET" && matches!(self.status, 200 | 206) && self.bytes == self.length
    }
}

#[derive(Default)]
struct Kept {
    requests: VecDeque<Request>,
    fetched: HashSet<String>,
}

/// The log; clones write to the same one.
#[derive(Clone)]
pub(super) struct Log {
    events: Events,
    kept: Arc<Mutex<Kept>>,
    count: watch::Sender<u64>,
}

impl Log {
    pub(super) fn new(events: Events) -> Self {
        Self { events, kept: Arc::default(), count: watch::Sender::new(0) }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request whose answer is over.
    pub(super) fn add(&self, mut request: Request) {
        request.path = plain(&request.path);
        request.agent = plain(&request.agent);
        request.method = plain(&request.method);
        let event = Event::Http {
            peer: request.peer.clone(),
            method: request.method.clone(),
            path: request.path.clone(),
            status: request.status,
            bytes: request.bytes,
            agent: request.agent.clone(),
        };
        {
            let mut kept = self.kept();
            // Bounded: a guest can ask for any number of names below a directory.
            if request.is_whole() && kept.fetched.len() < KEPT {
                kept.fetched.insert(request.path.clone());
            }
            if kept.requests.len() >= KEPT {
                kept.requests.pop_front();
            }
            kept.requests.push_back(request);
        }
        self.events.emit(event);
        self.count.send_modify(|count| *count += 1);
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.kept().requests.iter().cloned().collect()
    }

    pub(super) fn was_fetched(&self, path: &str) -> bool {
        self.kept().fetched.contains(path)
    }

    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }

    /// Waits for a request, past or to come.
    pub(super) async fn wait_for(&self, wanted: impl Fn(&Request) -> bool) -> Request {
        let mut count = self.count.subscribe();
        loop {
            count.borrow_and_update();
            if let Some(found) = self.kept().requests.iter().find(|request| wanted(request)) {
                return found.clone();
            }
            if count.changed().await.is_err() {
                // This log holds a sender itself, so the channel cannot close.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Text from the guest for people: bounded, without control characters.
fn plain(text: &str) -> String {
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().take(MAX_TEXT).map(clean).collect()
}
