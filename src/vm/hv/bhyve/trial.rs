// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A machine on trial: made, run for three instructions, destroyed, with each call to the kernel
//! and its result written down, for somebody who cannot be there.

use std::io::{self, Write};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::leftovers::wait_for_ends;
use super::start::create;
use crate::ui::{Failure, Outcome};
use crate::vm::hv::{VcpuExit, Vm, viona};

/// A little more than a firmware needs.
const MEMORY: u64 = 64 << 20;
/// How long it may take, waits of the kernel included.
const LIMIT: Duration = Duration::from_secs(90);
/// Times that a vCPU may come out for nothing.
const PATIENCE: u32 = 1000;

const PAGE: usize = 4096;
/// Where a processor begins, in the last page below 4 GiB.
const RESET: usize = PAGE - 16;
/// The port of power-on self tests, and what is sent to it.
const PORT: u16 = 0x80;
const VALUE: u8 = 0x42;
/// `mov al, 0x42; out 0x80, al; jmp $`, for a processor in real mode.
const CODE: [u8; 6] = [0xb0, VALUE, 0xe6, PORT as u8, 0xeb, 0xfe];

/// How a trial went.
#[derive(Debug)]
pub struct Trial {
    /// The calls and their results, one a line; a call that began and did not end is the last one.
    pub calls: String,
    /// What became of the machine.
    pub outcome: Outcome<()>,
}

/// Makes a machine, runs it, and destroys it.
pub fn trial(stem: &str) -> Trial {
    let calls = Recorder::default();
    let outcome = recorded(&calls, stem.to_owned());
    let calls = String::from_utf8_lossy(&calls.bytes()).into_owned();
    Trial { calls, outcome }
}

fn recorded(calls: &Recorder, stem: String) -> Outcome<()> {
    let to = calls.clone();
    let (sender, done) = channel();
    let work = move || {
        let listener = tracing_subscriber::fmt()
            .with_writer(move || to.clone())
            .with_max_level(LevelFilter::TRACE)
            .with_ansi(false)
            .with_level(false)
            .with_target(false)
            .without_time()
            .finish();
        // Nobody listens only when it took too long.
        let _ = sender.send(tracing::subscriber::with_default(listener, || attempt(&stem)));
    };
    std::thread::Builder::new()
        .name("bhyve-trial".into())
        .spawn(work)
        .map_err(|error| Failure::build("no thread for the trial").because(error))?;
    done.recv_timeout(LIMIT).unwrap_or_else(|_| {
        Err(Failure::build("the kernel has not answered; the last call tells where")
            .fact("waited", format!("{} s", LIMIT.as_secs())))
    })
}

fn attempt(stem: &str) -> Outcome<()> {
    match viona::version() {
        Ok(version) => tracing::info!("viona has version {version}"),
        Err(error) => tracing::info!("viona cannot be asked: {error}"),
    }
    let vm = create(stem, MEMORY, 1)?;
    let result = run(vm.as_ref());
    drop(vm);
    wait_for_ends();
    result
}

/// Has the guest write to a port.
fn run(vm: &dyn Vm) -> Outcome<()> {
    vm.set_rom(&rom())?;
    let mut vcpu = vm.vcpu(0)?;
    for _ in 0..PATIENCE {
        match vcpu.run()? {
            VcpuExit::Again => {}
            VcpuExit::PortWrite { port: PORT, data } if data.as_slice() == [VALUE] => return Ok(()),
            other => {
                return Err(Failure::build("the guest does not do what its code says")
                    .fact("exit", format!("{other:x?}"))
                    .fact("registers", vcpu.registers()));
            }
        }
    }
    Err(Failure::build("the guest does not get to its first instruction")
        .fact("registers", vcpu.registers()))
}

fn rom() -> Vec<u8> {
    let mut rom = vec![0xf4; PAGE];
    if let Some(place) = rom.get_mut(RESET..RESET + CODE.len()) {
        place.copy_from_slice(&CODE);
    }
    rom
}

/// Keeps what is told of calls.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<u8>>>);

impl Recorder {
    /// More than any trial says.
    const MOST: usize = 1 << 20;

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Recorder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kept = self.bytes();
        if kept.len() + bytes.len() <= Self::MOST {
            kept.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::start::{Look, look};
    use super::*;

    #[test]
    fn without_a_device_the_trial_says_which_call_failed() {
        if let Look::Usable(_) = look() {
            // Where there is one, the trial itself must do.
            trial("imgforge-test").outcome.unwrap();
            return;
        }
        let trial = trial("imgforge-test");
        let text = trial.outcome.unwrap_err().to_string();
        assert!(text.contains("/dev/vmmctl"), "{text}");
        assert!(trial.calls.contains("open /dev/viona"), "{}", trial.calls);
        // From another thread, which the start has.
        assert!(trial.calls.contains("open /dev/vmmctl = No such file"), "{}", trial.calls);
    }

    #[test]
    fn the_rom_begins_where_processors_do() {
        let rom = rom();
        assert_eq!(rom.len(), PAGE);
        assert_eq!(rom[RESET..RESET + 6], [0xb0, 0x42, 0xe6, 0x80, 0xeb, 0xfe]);
    }

    #[test]
    fn a_recorder_has_an_end() {
        let mut recorder = Recorder::default();
        for _ in 0..3 {
            recorder.write_all(&[b'x'; Recorder::MOST / 2 - 1]).unwrap();
        }
        assert!(recorder.bytes().len() <= Recorder::MOST);
    }
}
