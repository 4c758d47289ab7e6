// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Playbooks: from this host, or inside the guest.

use tokio::time::Instant;

use super::playbook::Prepared;
use super::{Context, StepReport, ansible_guest, ansible_host};
use crate::target::{Ansible, AnsibleMode};
use crate::ui::Outcome;

pub(super) async fn run(
    name: &str,
    play: &Ansible,
    context: &Context<'_>,
    deadline: Instant,
) -> Outcome<StepReport> {
    let prepared = Prepared::new(play, context)?;
    match play.mode {
        AnsibleMode::Host => ansible_host::run(name, play, prepared, context, deadline).await,
        AnsibleMode::Guest => ansible_guest::run(name, play, prepared, context, deadline).await,
    }
}
