// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A private directory in the guest that is gone when the step is.

use std::time::Duration;

use rand::distr::{Alphanumeric, SampleString};

use super::command::{Command, quote};
use super::session::{Return, Session};
use crate::ui::{Events, Failure, Outcome};

const REMOVE_LIMIT: Duration = Duration::from_secs(60);
const RECONNECT_LIMIT: Duration = Duration::from_secs(30);

/// A directory of mode 0700 in the guest. [`Scratch::remove`] must be called, whatever happened.
#[derive(Debug)]
pub(super) struct Scratch {
    path: String,
}

impl Scratch {
    /// Makes one below the first of `places` that allows it.
    pub(super) async fn create(session: &Session, places: &[&str]) -> Outcome<Self> {
        let tag = Alphanumeric.sample_string(&mut rand::rng(), 10);
        let text = format!(
            "umask 077; for place in {}; do\n\
             mkdir \"$place/imgforge-{tag}\" 2>/dev/null && printf %s \"$place\" && exit 0\n\
             done\nexit 1",
            places.join(" ")
        );
        let made = session.capture(&Command::new(text), 4096).await?;
        let place = made.or_fail("make a private directory")?.text();
        if !places.contains(&place.as_str()) {
            return Err(Failure::build("the guest answers with nonsense")
                .fact("guest", place.escape_debug()));
        }
        Ok(Self { path: format!("{place}/imgforge-{tag}") })
    }

    /// Its absolute path, safe in a shell without quoting.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Removes it and looks that it is gone, also when the build is cancelled; logs in anew when
    /// the connection was lost.
    pub(super) async fn remove(self, session: &Session, events: &Events) -> Outcome<()> {
        let session = session.ignoring_cancel();
        if session.is_closed() {
            session.reconnect(&Return::Login, RECONNECT_LIMIT, events).await?;
        }
        let path = quote(&self.path);
        let command = Command::new(format!("rm -rf -- {path}; [ ! -e {path} ]"));
        let removed = session.capture(&command.within(REMOVE_LIMIT), 4096).await?;
        removed.or_fail(&format!("remove {}", self.path))?;
        Ok(())
    }
}

/// The result of work that used a scratch directory, after removing it: the work's own failure
/// comes first, and a directory that stayed is told with it.
pub(super) fn after_removal<T>(
    work: Outcome<T>,
    removal: Outcome<()>,
    events: &Events,
) -> Outcome<T> {
    match (work, removal) {
        (Ok(done), Ok(())) => Ok(done),
        (Ok(_), Err(failure)) => Err(failure),
        (Err(failure), Ok(())) => Err(failure),
        (Err(failure), Err(left)) => {
            events.warn(format!("a temporary directory stays in the guest: {}", left.summary()));
            Err(failure)
        }
    }
}
