// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What every stage of one build shares.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio_util::sync::CancellationToken;

use super::identity::Identity;
use super::journal::{Entry, Journal};
use super::ledger::Ledger;
use super::serial;
use crate::console::Screen;
use crate::target::{Assets, BuildValues, Expander, Resolved};
use crate::ui::{Event, Events, Failure, Outcome, Secret};
use crate::vm::{Driver, Machine, MachineSpec};

/// Lines of the serial log shown with a failure.
const SERIAL_LINES: usize = 20;

/// What every stage of one build shares.
pub(crate) struct Context {
    pub(crate) id: String,
    pub(crate) target: Resolved,
    pub(crate) assets: Arc<dyn Assets>,
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) events: Events,
    pub(crate) token: CancellationToken,
    pub(crate) journal: Journal,
    pub(crate) ledger: Ledger,
    pub(crate) identity: Identity,
    /// Scratch directory that becomes the output.
    pub(crate) scratch: PathBuf,
    /// Private directory for sockets and keys; short path, mode 0700.
    pub(crate) run_dir: PathBuf,
    /// Screenshots taken so far.
    pub(crate) shots: AtomicUsize,
    /// The user may want a machine to be left running.
    pub(crate) may_keep: bool,
    /// The machine was left running for the user.
    pub(crate) kept: AtomicBool,
}

impl Context {
    pub(crate) fn disk(&self) -> PathBuf {
        self.scratch.join(format!("{}.raw", self.target.name))
    }

    pub(crate) fn serial_log(&self) -> PathBuf {
        self.scratch.join("serial.log")
    }

    /// The machine that the target describes, without a medium.
    pub(crate) fn machine(&self, role: &str) -> MachineSpec {
        let settings = &self.target.machine;
        MachineSpec {
            name: format!("imgforge-{}-{role}", self.target.name),
            kernel_name: self.journal.machine_name(),
            cpus: settings.cpus,
            memory_mib: settings.memory_mib,
            firmware: settings.firmware,
            disk: self.disk(),
            cdrom: None,
            run_dir: self.run_dir.clone(),
            serial_log: self.serial_log(),
            forwards: Vec::new(),
            scratch_disk: true,
            stop_at_reset: false,
            may_outlive_us: false,
            extra_args: settings.qemu_args.clone(),
        }
    }

    /// Fills in what templates could not know before the build. Without a server the port is 0,
    /// as in packer.
    pub(crate) fn expander(&self, http_port: u16) -> Expander {
        let values = BuildValues {
            http_ip: self.driver.guest_view_of_host().to_string(),
            http_port,
            ssh_public_key: self.identity.key.public_line().to_owned(),
            root_password_hash: Secret::new(self.identity.password_hash.as_str()),
        };
        Expander::new(&self.target, values)
    }

    /// Every text that must not appear in any output.
    pub(crate) fn secrets(&self) -> Vec<Secret> {
        let mut secrets = self.identity.secrets();
        secrets.extend(self.expander(0).secrets());
        secrets
    }

    /// Starts a machine, recorded in the journal before and after.
    pub(crate) async fn start(&self, spec: MachineSpec) -> Outcome<Arc<dyn Machine>> {
        // What serves the monitor has no entry with a pid: it ends when the monitor does, and is
        // found by its command line if it does not.
        let helpers = self.driver.helper_programs().iter();
        let helpers = helpers.map(|name| self.journal.will_start(name));
        let helpers = helpers.collect::<Outcome<Vec<Entry>>>()?;
        // Before the monitor's, so that it is undone after: the machine ends with its monitor, and
        // what does not is destroyed by its name.
        if self.driver.kernel_keeps_machines() {
            self.journal.will_make_machine()?;
        }
        let entry = self.journal.will_start(self.driver.monitor_program())?;
        match self.driver.start(spec).await {
            Ok(machine) => {
                self.journal.started(entry, machine.pid())?;
                Ok(Arc::from(machine))
            }
            Err(problem) => {
                // A machine's entry stays: why it did not start does not tell whether it is there.
                for entry in helpers.into_iter().chain([entry]) {
                    self.journal.done(entry)?;
                }
                Err(problem)
            }
        }
    }

    /// Fails when the user has interrupted the run.
    pub(crate) fn check_cancelled(&self) -> Outcome<()> {
        if self.token.is_cancelled() {
            return Err(Failure::interrupted("interrupted"));
        }
        Ok(())
    }

    /// Saves what the screen shows now; a screen that cannot be saved is only a warning.
    pub(crate) async fn screenshot(&self, screen: &Screen, reason: &str) -> Option<PathBuf> {
        let number = self.shots.fetch_add(1, Ordering::Relaxed) + 1;
        let slug: String =
            reason.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let path =
            self.scratch.join(super::output::SCREENSHOTS).join(format!("{number:02}-{slug}.png"));
        match screen.save_png(&path).await {
            Ok(()) => {
                let text = path.display().to_string();
                self.events.emit(Event::Screenshot { path: text, reason: reason.to_owned() });
                Some(path)
            }
            Err(problem) => {
                self.events.warn(format!("no screenshot ({reason}): {}", problem.summary()));
                None
            }
        }
    }

    /// Adds the last screen and the end of the serial log to a failure.
    pub(crate) async fn with_evidence(&self, problem: Failure, screen: &Screen) -> Failure {
        let shot = self.screenshot(screen, "failure").await;
        let problem = match shot {
            Some(path) => problem.fact("screen", path.display()),
            None => problem,
        };
        match serial::tail(&self.serial_log(), SERIAL_LINES) {
            tail if tail.is_empty() => problem,
            tail => problem.fact("serial", tail),
        }
    }
}
