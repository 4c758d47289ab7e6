// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What ends any wait on a guest before its time: the user, or the machine's death.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ui::Failure;

/// Cuts every wait short when the build is cancelled or the virtual machine has died.
#[derive(Clone, Debug)]
pub struct Lifeline {
    cancel: CancellationToken,
    death: watch::Receiver<Option<String>>,
}

impl Lifeline {
    /// Watches a cancel token and a channel on which the machine's owner says, once, how the
    /// machine ended (`Some("powered off")`). Dropping the sender means that nobody watches.
    pub fn new(cancel: CancellationToken, death: watch::Receiver<Option<String>>) -> Self {
        Self { cancel, death }
    }

    /// A lifeline without a machine to watch.
    pub fn only_cancel(cancel: CancellationToken) -> Self {
        let (_, death) = watch::channel(None);
        Self { cancel, death }
    }

    /// The same machine, deaf to the cancel token: for cleaning up after an interruption.
    /// Everything done with it must have a deadline.
    #[must_use]
    pub fn ignoring_cancel(&self) -> Self {
        Self { cancel: CancellationToken::new(), death: self.death.clone() }
    }

    /// Completes when the wait must end, with the reason; never completes otherwise.
    pub async fn broken(&self) -> Failure {
        let mut death = self.death.clone();
        let died = async move {
            match death.wait_for(Option::is_some).await {
                Ok(how) => how.clone().unwrap_or_default(),
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Failure::interrupted("interrupted"),
            how = died => Failure::build(format!("the virtual machine ended: {how}"))
                .hint("see `serial.log` and the last screenshot in the output directory"),
        }
    }

    /// Runs a future unless the lifeline breaks first.
    pub async fn guard<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            failure = self.broken() => Err(failure),
            done = work => Ok(done),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::ui::Kind;

    #[tokio::test]
    async fn ends_waits_on_cancel_and_on_death() {
        let cancel = CancellationToken::new();
        let (say, death) = watch::channel(None);
        let line = Lifeline::new(cancel.clone(), death);
        assert_eq!(line.guard(async { 7 }).await.unwrap(), 7);

        say.send(Some("triple fault".into())).unwrap();
        let failure = line.guard(pending::<()>()).await.unwrap_err();
        assert!(failure.summary().contains("triple fault"));

        cancel.cancel();
        let failure = line.guard(pending::<()>()).await.unwrap_err();
        assert_eq!(failure.kind(), Kind::Interrupted);
        let failure = line.ignoring_cancel().guard(pending::<()>()).await.unwrap_err();
        assert_eq!(failure.kind(), Kind::Build);
    }
}
