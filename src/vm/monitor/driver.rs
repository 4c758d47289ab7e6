// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The driver of our own monitor: this program once more, as a child process.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use super::config::{Hypervisor, MonitorConfig};
use super::network::{LinkNetwork, Network, Plugged};
use super::passt;
use crate::ui::{Failure, Outcome};
use crate::vm::child::{
    ChildMachine, PID_FILE, Parts, Process, QMP_SOCKET, Qmp, QmpError, QmpEvent, STARTING,
    VARIABLES, VNC_SOCKET, prepare, shake_hands, words_after,
};
use crate::vm::firmware::rom::{Profile, Rom, Search};
use crate::vm::hv::bhyve;
use crate::vm::{Driver, Firmware, Machine, MachineSpec};

/// The monitor's log, beside the serial port's.
const LOG: &str = "monitor.log";

/// Runs machines with this program as the monitor.
#[derive(Debug, Clone)]
pub struct MonitorDriver {
    hypervisor: Hypervisor,
    program: PathBuf,
    firmware: Search,
    leash: Option<PathBuf>,
    network: Network,
}

impl MonitorDriver {
    /// A driver whose monitor is the program that is running, on Linux KVM. `leash` is `setpriv`
    /// where the host has it.
    ///
    /// # Errors
    /// When the program does not know where it is, or passt is missing.
    pub fn kvm(firmware: Search, leash: Option<PathBuf>) -> Outcome<Self> {
        passt::find()?;
        let network = Network::User;
        Ok(Self { hypervisor: Hypervisor::Kvm, program: own_program()?, firmware, leash, network })
    }

    /// The same, but its machines are plugged into a link: a VNIC with bhyve, a tap with KVM.
    ///
    /// # Errors
    /// When the program does not know where it is.
    pub fn on_link(
        hypervisor: Hypervisor,
        firmware: Search,
        leash: Option<PathBuf>,
        link: LinkNetwork,
    ) -> Outcome<Self> {
        let network = Network::Link(link);
        Ok(Self { hypervisor, program: own_program()?, firmware, leash, network })
    }

    /// How long the monitor may take to its control socket: the machine is made before.
    fn starting(&self) -> Duration {
        match self.hypervisor {
            Hypervisor::Kvm => STARTING,
            // The monitor gives up first, and says why.
            Hypervisor::Bhyve => bhyve::STARTING + STARTING,
        }
    }

    fn rom(&self) -> Outcome<Rom> {
        // The kernel's own firmware first.
        self.firmware.find(match self.hypervisor {
            Hypervisor::Kvm => &[Profile::Ovmf, Profile::Bhyve],
            Hypervisor::Bhyve => &[Profile::Bhyve, Profile::Ovmf],
        })
    }

    async fn attempt(&self, spec: &MachineSpec) -> Outcome<ChildMachine> {
        let leash = self.leash.as_deref().filter(|_| !spec.may_outlive_us);
        let rom = self.rom()?;
        prepare(&spec.run_dir, Some(&rom.variables))?;
        let guest_ports: Vec<u16> =
            spec.forwards.iter().map(|forward| forward.guest_port).collect();
        let plugged = self.network.plug(&spec.run_dir, &guest_ports, leash).await?;
        let config = serde_json::to_vec(&config(self.hypervisor, spec, &rom, &plugged)).map_err(
            |error| Failure::build("the monitor cannot be told what machine to be").because(error),
        )?;
        let arguments = [
            "vmm".to_owned(),
            "--pid-file".to_owned(),
            spec.run_dir.join(PID_FILE).display().to_string(),
        ];
        let process = Process::spawn(&self.program, &arguments, leash, config).await?;
        let started = async {
            let (qmp, events) = shake_hands(&spec.run_dir, &process, self.starting()).await?;
            qmp.execute("cont", Value::Null, STARTING).await?;
            Ok::<_, QmpError>((qmp, events))
        };
        match started.await {
            Ok((qmp, events)) => Ok(machine(spec, plugged, process, qmp, events)),
            Err(error) => Err(not_started(&process, error).await),
        }
    }
}

fn own_program() -> Outcome<PathBuf> {
    std::env::current_exe()
        .map_err(|error| Failure::build("this program does not know its own file").because(error))
}

fn machine(
    spec: &MachineSpec,
    plugged: Plugged,
    process: Process,
    qmp: Qmp,
    events: tokio::sync::mpsc::Receiver<QmpEvent>,
) -> ChildMachine {
    let (ports, helper) = plugged.into_parts();
    let ports: BTreeMap<_, _> = ports.into_iter().collect();
    ChildMachine::new(Parts {
        process,
        qmp,
        events,
        ports,
        vnc: spec.run_dir.join(VNC_SOCKET),
        disk: spec.disk.clone(),
        has_cdrom: spec.cdrom.is_some(),
        helpers: helper.into_iter().collect(),
    })
}

fn config(
    hypervisor: Hypervisor,
    spec: &MachineSpec,
    rom: &Rom,
    plugged: &Plugged,
) -> MonitorConfig {
    let (network, link) = match plugged {
        Plugged::User(network) => (Some(network.socket.clone()), None),
        Plugged::Link(network, _) => (None, Some(network.link.clone())),
    };
    MonitorConfig {
        name: spec.name.clone(),
        hypervisor,
        kernel_name: spec.kernel_name.clone(),
        cpus: spec.cpus,
        memory_mib: spec.memory_mib,
        firmware: rom.path.clone(),
        profile: Some(rom.profile),
        variables: Some(spec.run_dir.join(VARIABLES)),
        disk: spec.disk.clone(),
        scratch_disk: spec.scratch_disk,
        cdrom: spec.cdrom.clone(),
        serial_log: spec.serial_log.clone(),
        log: spec.serial_log.with_file_name(LOG),
        network,
        link,
        mac: plugged.mac(),
        control: spec.run_dir.join(QMP_SOCKET),
        vnc: spec.run_dir.join(VNC_SOCKET),
        stop_at_reset: spec.stop_at_reset,
        smartos: false,
    }
}

/// The failure with the monitor's own words in it.
async fn not_started(process: &Process, error: QmpError) -> Failure {
    let words = words_after(process, &error).await;
    let failure = Failure::build("the machine could not be started").because(error);
    let failure = if words.is_empty() { failure } else { failure.fact("monitor", words) };
    failure.hint("run `imgforge doctor`")
}

#[async_trait]
impl Driver for MonitorDriver {
    fn name(&self) -> &'static str {
        self.hypervisor.name()
    }

    fn monitor_program(&self) -> &str {
        self.program.to_str().unwrap_or("imgforge")
    }

    fn kernel_keeps_machines(&self) -> bool {
        self.hypervisor == Hypervisor::Bhyve
    }

    fn helper_programs(&self) -> &[&'static str] {
        self.network.programs()
    }

    fn guest_view_of_host(&self) -> IpAddr {
        self.network.host_for_guest()
    }

    fn host_address(&self) -> IpAddr {
        self.network.host()
    }

    fn check(&self, firmware: Firmware) -> Outcome<()> {
        match firmware {
            Firmware::Uefi => self.rom().map(drop),
            Firmware::Bios => Err(Failure::input("this monitor starts UEFI firmware only")
                .hint("set `machine.firmware: uefi`, or use `--hypervisor qemu`")),
        }
    }

    async fn start(&self, spec: MachineSpec) -> Outcome<Box<dyn Machine>> {
        if let Some(word) = spec.extra_args.first() {
            return Err(Failure::input("QEMU's arguments mean nothing to this monitor")
                .fact("argument", word)
                .hint("remove `machine.qemu_args`, or use `--hypervisor qemu`"));
        }
        Ok(Box::new(self.attempt(&spec).await?))
    }
}
