// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! From nothing to an empty virtual machine: what is looked at, in which order, and what may take
//! how long.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::failures::{self, CONTROL, NEWEST};
use super::handle::{Control, Instance, Reservoir};
use super::leftovers::{machines, numbered};
use super::machine::{BhyveVm, Plan};
use crate::ui::{Failure, Outcome};
use crate::vm::hv::Vm;
use crate::vm::hv::node::is;

/// How long a machine may take to be made. The kernel waits without limit for memory that others
/// hold.
pub const STARTING: Duration = Duration::from_secs(60);
/// How long an earlier machine of this process may take to vanish, or memory to come free.
const VANISHING: Duration = Duration::from_secs(20);
/// Between one look and the next: nothing tells when a machine has gone.
const LOOKING: Duration = Duration::from_millis(20);

/// Machines that this process has made.
static MADE: AtomicU32 = AtomicU32::new(0);

/// What a look at this system's bhyve found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The interface's version.
    pub version: u32,
    /// Bytes that virtual machines use and may use at most, where the kernel says so.
    pub memory: Option<(u64, u64)>,
    /// Names of virtual machines that are seen from here.
    pub machines: Vec<String>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{CONTROL}, interface version {}", self.version)?;
        if let Some((used, limit)) = self.memory {
            write!(f, "; virtual machines use {} MiB", used >> 20)?;
            if limit > 0 {
                write!(f, " of {}", limit >> 20)?;
            }
        }
        if !self.machines.is_empty() {
            write!(f, "; running: {}", self.machines.join(", "))?;
        }
        Ok(())
    }
}

/// Whether bhyve can be used here.
#[derive(Debug)]
pub enum Look {
    /// It can.
    Usable(Found),
    /// It is there, but cannot; why, and the remedy.
    Unusable(Failure),
    /// There is no device for it; how a zone gets it.
    Absent(Failure),
}

impl Look {
    /// What was found, when it can be used.
    ///
    /// # Errors
    /// When it cannot.
    pub fn found(self) -> Outcome<Found> {
        match self {
            Self::Usable(found) => Ok(found),
            Self::Unusable(failure) | Self::Absent(failure) => Err(failure),
        }
    }
}

/// Looks whether bhyve can be used here, without making anything.
pub fn look() -> Look {
    let (control, version) = match open() {
        Ok(open) => open,
        Err(Closed::Absent(failure)) => return Look::Absent(failure),
        Err(Closed::Unusable(failure)) => return Look::Unusable(failure),
    };
    let memory = control.reservoir().ok().map(|found| (in_use(found), found.limit));
    Look::Usable(Found { version, memory, machines: machines() })
}

/// Makes an empty virtual machine with RAM and interrupt controllers. Its name is `stem` with a
/// number that this process has not used yet.
///
/// # Errors
/// When bhyve is absent or refuses, there is not enough memory, or the kernel does not answer in
/// time.
pub fn create(stem: &str, memory_bytes: u64, cpus: u32) -> Outcome<Arc<dyn Vm>> {
    let stem = stem.to_owned();
    within(STARTING, memory_bytes, move || {
        let vm: Arc<dyn Vm> = Arc::new(begin(&stem, memory_bytes, cpus)?);
        Ok(vm)
    })
}

/// Has another thread work, and gives it up when it takes too long. Whatever it makes later is
/// dropped by it.
fn within<T: Send + 'static>(
    limit: Duration,
    bytes: u64,
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    let (sender, answer) = channel();
    // Whoever listens to this thread listens to that one, too.
    let listener = tracing::dispatcher::get_default(Clone::clone);
    std::thread::Builder::new()
        .name("bhyve-start".into())
        .spawn(move || {
            // Nobody listens only when it took too long.
            let _ = sender.send(tracing::dispatcher::with_default(&listener, work));
        })
        .map_err(|error| Failure::build("no thread to start the machine").because(error))?;
    match answer.recv_timeout(limit) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => {
            Err(failures::stuck("the machine is made", limit.as_secs(), bytes))
        }
        Err(RecvTimeoutError::Disconnected) => {
            Err(Failure::build("the machine's start has failed; its last words are above"))
        }
    }
}

/// Why the control node is of no use.
enum Closed {
    Absent(Failure),
    Unusable(Failure),
}

impl From<Closed> for Failure {
    fn from(closed: Closed) -> Self {
        let (Closed::Absent(failure) | Closed::Unusable(failure)) = closed;
        failure
    }
}

/// Opens the control node and asks what there is.
fn open() -> Result<(Control, u32), Closed> {
    let control = Control::open().map_err(|error| match failures::is_absent(&error) {
        true => Closed::Absent(failures::no_control(error)),
        false => Closed::Unusable(failures::no_control(error)),
    })?;
    let version = control.version().map_err(|error| Closed::Unusable(failures::too_old(error)))?;
    if version > NEWEST {
        tracing::warn!(
            "bhyve's interface has version {version}; versions up to {NEWEST} are known, and newer \
             ones have only ever added to them"
        );
    }
    control
        .supported()
        .map_err(|(error, words)| Closed::Unusable(failures::no_processor(error, &words)))?;
    Ok((control, version))
}

fn begin(stem: &str, memory_bytes: u64, cpus: u32) -> Outcome<BhyveVm> {
    let (control, version) = open()?;
    let reservoir = control.reservoir().ok();
    if !fits(memory_bytes, reservoir) {
        return Err(failures::no_memory(memory_bytes, reservoir));
    }
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let name = numbered(stem, number);
    claim(&control, stem, &name, number > 0)?;
    let (instance, destroys_itself) = match take_hold(&name) {
        Ok(held) => held,
        Err(error) => {
            // Nobody else will: it does not destroy itself yet.
            let _ = control.destroy(&name);
            return Err(failures::failed("does not show the machine it made", &name, error));
        }
    };
    let again = |tried: Duration| {
        if tried >= VANISHING {
            return Some(failures::no_memory(memory_bytes, control.reservoir().ok()));
        }
        std::thread::park_timeout(LOOKING);
        None
    };
    let plan = Plan { name: name.clone(), version, destroys_itself, memory_bytes, cpus };
    let vm = BhyveVm::new(instance, plan, again);
    if vm.is_err() && !destroys_itself {
        // Its descriptor is closed by now.
        let _ = control.destroy(&name);
    }
    vm
}

/// Opens an instance and arms its destruction before anything can go wrong.
fn take_hold(name: &str) -> io::Result<(Instance, bool)> {
    let instance = Instance::open(name)?;
    let destroys_itself = instance.set_autodestruct()?;
    Ok((instance, destroys_itself))
}

/// Makes the instance, when need be as soon as an earlier one of the same build has gone: one of
/// this process, or of its last monitor.
fn claim(control: &Control, stem: &str, name: &str, has_made: bool) -> Outcome<()> {
    let begin = Instant::now();
    let own = format!("{stem}-");
    let is_vanishing = || has_made || machines().iter().any(|name| name.starts_with(&own));
    let mut has_destroyed = false;
    loop {
        let Err(error) = control.create(name) else { return Ok(()) };
        if is(&error, libc::EEXIST) && !has_destroyed {
            // Of an earlier monitor of this build, for the name holds the build.
            has_destroyed = true;
            let _ = control.destroy(name);
            continue;
        }
        let is_passing = is(&error, libc::EINVAL) || is(&error, libc::ENOMEM);
        if !is_passing || begin.elapsed() >= VANISHING || !is_vanishing() {
            return Err(failures::no_instance(name, error, &machines()));
        }
        std::thread::park_timeout(LOOKING);
    }
}

fn in_use(reservoir: Reservoir) -> u64 {
    reservoir.reserved.saturating_add(reservoir.transient)
}

/// Whether so much more can be had, as far as the kernel says. What is set aside and free is no
/// help: a machine's memory does not come from there.
fn fits(bytes: u64, reservoir: Option<Reservoir>) -> bool {
    reservoir
        .is_none_or(|found| found.limit == 0 || in_use(found).saturating_add(bytes) <= found.limit)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_does_not_answer_is_given_up_with_the_reason() {
        let (hold, held) = channel::<()>();
        let work = move || {
            let _ = held.recv();
            Ok(())
        };
        let text = within(Duration::from_millis(5), 1 << 30, work).unwrap_err().to_string();
        drop(hold);
        assert!(text.contains("not enough memory") && text.contains("1024 MiB"), "{text}");
        assert!(text.contains("may wait for memory"), "{text}");
        assert_eq!(within(STARTING, 0, || Ok(7)).unwrap(), 7);
        let failure = within(STARTING, 0, || -> Outcome<()> { Err(Failure::build("no")) });
        assert_eq!(failure.unwrap_err().summary(), "no");
    }

    #[test]
    fn what_was_found_is_one_line() {
        let found = |memory, machines| Found { version: 18, memory, machines }.to_string();
        assert_eq!(found(None, Vec::new()), "/dev/vmmctl, interface version 18");
        let text = found(Some((3 << 20, 8 << 20)), vec!["web01".into()]);
        assert!(text.ends_with("18; virtual machines use 3 MiB of 8; running: web01"), "{text}");
        assert!(found(Some((0, 0)), Vec::new()).ends_with("use 0 MiB"));
    }

    #[test]
    fn memory_is_refused_only_when_it_cannot_be_there() {
        let found = Reservoir { free: 0, reserved: 1 << 30, transient: 1 << 30, limit: 4 << 30 };
        assert!(fits(2 << 30, Some(found)));
        assert!(!fits(3 << 30, Some(found)));
        assert!(fits(1 << 40, Some(Reservoir { limit: 0, ..found })) && fits(1 << 40, None));
        let text = failures::no_memory(3 << 30, Some(found)).to_string();
        for part in ["3072 MiB", "2048 MiB", "4096 MiB", "machine.memory"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn failures_name_the_device_and_the_remedy() {
        let error = |errno| io::Error::from_raw_os_error(errno);
        let text = failures::no_control(error(libc::ENOENT)).to_string();
        assert!(text.contains("/dev/vmmctl") && text.contains("/dev/viona"), "{text}");
        let text = failures::no_control(error(libc::EACCES)).to_string();
        assert!(text.contains("as root"), "{text}");
        let text = failures::too_old(error(libc::ENOTTY)).to_string();
        assert!(text.contains("older than May 2022"), "{text}");
        let text = failures::no_processor(error(libc::ENXIO), "VT-x is off").to_string();
        assert!(text.contains("VT-x is off"), "{text}");
        let others = ["imgforge-7-0".to_owned()];
        let text = failures::no_instance("n", error(libc::EINVAL), &others).to_string();
        assert!(text.contains("imgforge-7-0") && text.contains("imgforge clean"), "{text}");
        let text = failures::no_instance("n", error(libc::EINVAL), &["web01".into()]).to_string();
        assert!(text.contains("web01") && !text.contains("imgforge clean"), "{text}");
    }
}
