// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! After a step that may end the connection: does the guest restart, and is it back?

use std::time::Duration;

use tokio::time::{Instant, interval, timeout};

use super::{Context, left};
use crate::guest::session::Return;
use crate::ui::{Event, Outcome};

/// Longest time from the end of a step to the first sign that the guest goes down: a closed
/// connection, or systemd saying so.
const SIGN_LIMIT: Duration = Duration::from_secs(10);

/// Waits for the sign and then for the guest to be back; `before` is the boot id at the start of
/// the step. True when the connection did end.
pub(super) async fn settle(
    context: &Context<'_>,
    before: Option<String>,
    deadline: Instant,
) -> Outcome<bool> {
    let session = context.session;
    context.events.emit(Event::Waiting {
        what: "the end of the connection".to_owned(),
        deadline_seconds: Some(SIGN_LIMIT.as_secs_f64()),
    });
    let sign = async {
        let mut tick = interval(Duration::from_millis(500));
        loop {
            tick.tick().await;
            // A question that fails is a connection that ends.
            if session.is_closed() || session.is_stopping().await.unwrap_or(true) {
                return;
            }
        }
    };
    if session.lifeline().guard(timeout(SIGN_LIMIT, sign)).await?.is_err() {
        return Ok(false);
    }
    session
        .reconnect(&back(session.is_closed(), before.clone()), left(deadline), context.events)
        .await?;
    // sshd may have let us in once more while the system goes down.
    if session.is_stopping().await.unwrap_or(true) {
        session.reconnect(&back(false, before), left(deadline), context.events).await?;
    }
    Ok(true)
}

/// A connection that ended may have been sshd's own restart; a system that goes down must come
/// back with another boot id.
fn back(closed: bool, before: Option<String>) -> Return {
    match before {
        Some(id) if !closed => Return::Restart(id),
        _ => Return::Login,
    }
}
