// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The monitor's main thread: from its configuration to the end of the machine.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;
use uuid::Uuid;

use super::config::{Hypervisor, MonitorConfig};
use super::control::ControlSocket;
use super::log;
use super::machine::{Machine, MakeVm, Stop};
use super::{privileges, sandbox};
use crate::ui::{Failure, Outcome};
use crate::vm::board::{Backends, Plan, Sink, Wire};
use crate::vm::cable::StreamCable;
use crate::vm::dev::virtio::{Disk, Frames, RawFile, ScsiCd};
use crate::vm::firmware::rom::Rom;
use crate::vm::hv::{bhyve, kvm};
use crate::vm::tap::TapCable;
use crate::vm::vnc::{Place, VncServer};

/// Is the machine that `config` describes, until it ends. The guest runs when the control socket
/// says `cont`.
///
/// # Errors
/// When a part of the machine is missing, or the hypervisor fails.
pub fn serve(config: &MonitorConfig, pid_file: &Path) -> Outcome<()> {
    log::begin(&config.log)?;
    let outcome = be(config, pid_file);
    // Nothing of a machine is left in use here.
    bhyve::wait_for_ends();
    outcome
}

fn be(config: &MonitorConfig, pid_file: &Path) -> Outcome<()> {
    let machine = assemble(config)?;
    let screen = Place::Unix(config.vnc.clone());
    let _vnc = VncServer::listen(
        &screen,
        None,
        Arc::clone(&machine) as _,
        Arc::clone(&machine) as _,
        &config.name,
    )?;
    write_pid(pid_file)?;
    let control = ControlSocket::listen(&config.control, Arc::clone(&machine) as _)?;
    privileges::give_up();
    sandbox::enter(config.hypervisor, config.memory_mib);
    let outcome = run(config, &machine, &control);
    machine.remove_board();
    outcome
}

fn assemble(config: &MonitorConfig) -> Outcome<Arc<Machine>> {
    let rom = Rom::open(&config.firmware, config.profile, config.variables.as_deref())?;
    let variables = Arc::new(Mutex::new(rom.variables.clone()));
    let plan = Plan {
        cpus: config.cpus,
        memory_bytes: config.memory_mib << 20,
        rom,
        uuid: Uuid::new_v4(),
        smartos: config.smartos,
    };
    let disk = RawFile::open(&config.disk, false)?;
    let disk = if config.scratch_disk { disk.scratch() } else { disk };
    let cd = match &config.cdrom {
        Some(path) => Some(ScsiCd::new(Arc::new(RawFile::open(path, true)?) as Arc<dyn Disk>)),
        None => None,
    };
    let wire = match (&config.link, &config.network) {
        (Some(link), _) => Some(match config.hypervisor {
            Hypervisor::Kvm => Wire::Cable(TapCable::open(&link.name)? as Arc<dyn Frames>),
            Hypervisor::Bhyve => Wire::Link(link.clone()),
        }),
        (None, Some(path)) => Some(Wire::Cable(StreamCable::connect(path)? as Arc<dyn Frames>)),
        (None, None) => None,
    };
    let network = wire.map(|wire| (config.mac, wire));
    let serial = serial_log(&config.serial_log)?;
    let backends = Backends { disk: Arc::new(disk), cd, network, serial, variables };
    Machine::new(plan, backends, hypervisor(config))
}

fn hypervisor(config: &MonitorConfig) -> MakeVm {
    let (memory, cpus) = (config.memory_mib << 20, config.cpus);
    match config.hypervisor {
        Hypervisor::Kvm => Box::new(move || kvm::create(memory, cpus)),
        Hypervisor::Bhyve => {
            let stem = config.kernel_name.clone();
            Box::new(move || bhyve::create(&stem, memory, cpus))
        }
    }
}

/// Opens the log now, so that what is wrong with it is said at the start.
fn serial_log(path: &PathBuf) -> Outcome<Arc<dyn Fn() -> Sink + Send + Sync>> {
    let file = File::options().append(true).create(true).open(path).map_err(|error| {
        Failure::build("cannot log the serial port").because(error).fact("file", path.display())
    })?;
    let file = Arc::new(file);
    Ok(Arc::new(move || Box::new(Log(Arc::clone(&file)))))
}

struct Log(Arc<File>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_pid(file: &Path) -> Outcome<()> {
    std::fs::write(file, format!("{}\n", std::process::id())).map_err(|error| {
        Failure::build("cannot write the process id").because(error).fact("file", file.display())
    })
}

fn run(config: &MonitorConfig, machine: &Machine, control: &ControlSocket) -> Outcome<()> {
    let farewell = |guest: bool, reason: &str| {
        control.tell("SHUTDOWN", &json!({ "guest": guest, "reason": reason }));
    };
    if !machine.wait_for_begin() {
        farewell(false, "host-qmp-quit");
        return Ok(());
    }
    loop {
        let stop = machine.run()?;
        if stop == Stop::Quit || stop == Stop::PowerOff {
            // Devices finish first: who hears of the end may read the disk.
            machine.remove_board();
            save(config, machine)?;
        }
        match stop {
            Stop::PowerOff => {
                farewell(true, "guest-shutdown");
                return Ok(());
            }
            Stop::Quit => {
                farewell(false, "host-qmp-quit");
                return Ok(());
            }
            Stop::GuestReset if config.stop_at_reset => {
                machine.remove_board();
                save(config, machine)?;
                farewell(true, "guest-reset");
                return Ok(());
            }
            Stop::GuestReset | Stop::HostReset => {
                machine.replace_board()?;
                let guest = stop == Stop::GuestReset;
                let reason = if guest { "guest-reset" } else { "host-qmp-system-reset" };
                control.tell("RESET", &json!({ "guest": guest, "reason": reason }));
            }
            Stop::Crash(registers) => {
                let info = json!({ "type": "triple fault", "registers": registers });
                control.tell("GUEST_PANICKED", &json!({ "action": "pause", "info": info }));
                // The screen can still be looked at.
                machine.wait_for_quit();
                farewell(false, "guest-panic");
                return Ok(());
            }
            Stop::Broken(reason) => {
                return Err(Failure::build("the hypervisor cannot run the guest")
                    .fact("kernel", reason)
                    .hint("try `--hypervisor qemu`, and report this with the lines above"));
            }
        }
    }
}

/// Keeps the firmware's variables where the configuration has them.
fn save(config: &MonitorConfig, machine: &Machine) -> Outcome<()> {
    let Some(path) = &config.variables else { return Ok(()) };
    let variables = &machine.backends().variables;
    let bytes = variables.lock().unwrap_or_else(PoisonError::into_inner).clone();
    std::fs::write(path, bytes).map_err(|error| {
        Failure::build("cannot keep the firmware's variables")
            .because(error)
            .fact("file", path.display())
    })
}
