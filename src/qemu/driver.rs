// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The driver: everything between a specification and a running machine.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::argv::{Accel, Settings, argv};
use super::find::{Program, Search, UefiFirmware};
use super::usernet::forwarded_ports;
use crate::net::user;
use crate::ui::{Failure, Outcome};
use crate::vm::child::{
    ChildMachine, Parts, Process, Qmp, QmpError, STARTING, VNC_SOCKET, prepare, shake_hands,
    words_after,
};
use crate::vm::{Driver, Firmware, Machine, MachineSpec};

/// Runs machines with QEMU as a child process.
#[derive(Debug, Clone)]
pub struct QemuDriver {
    program: Program,
    search: Search,
    accel: Accel,
}

impl QemuDriver {
    /// A driver with the QEMU that `search` finds.
    ///
    /// # Errors
    /// There is no usable QEMU. Missing firmware is reported by [`Driver::check`].
    pub fn new(search: Search, accel: Accel) -> Outcome<Self> {
        let program = search.program()?;
        Ok(Self { program, search, accel })
    }

    /// The program in use.
    pub fn program(&self) -> &Program {
        &self.program
    }

    async fn attempt(&self, spec: &MachineSpec, sandbox: bool) -> Outcome<ChildMachine> {
        let firmware = match spec.firmware {
            Firmware::Uefi => Some(self.search.uefi()?),
            Firmware::Bios => None,
        };
        let uefi_code = firmware.as_ref().map(|firmware| firmware.code.as_path());
        let arguments = argv(spec, Settings { accel: self.accel, uefi_code, sandbox })?;
        prepare_for(&spec.run_dir, firmware.as_ref())?;
        let leash = self.search.setpriv().filter(|_| !spec.may_outlive_us);
        let process =
            Process::spawn(&self.program.path, &arguments, leash.as_deref(), Vec::new()).await?;
        let (qmp, events) = match shake_hands(&spec.run_dir, &process, STARTING).await {
            Ok(session) => session,
            Err(error) => return Err(self.not_started(&process, &arguments, error).await),
        };
        let ports = match release(&qmp, spec).await {
            Ok(ports) => ports,
            Err(error) => return Err(self.not_started(&process, &arguments, error).await),
        };
        Ok(ChildMachine::new(Parts {
            process,
            qmp,
            events,
            ports,
            vnc: spec.run_dir.join(VNC_SOCKET),
            disk: spec.disk.clone(),
            has_cdrom: spec.cdrom.is_some(),
            helpers: Vec::new(),
        }))
    }

    /// The failure with QEMU's own words in it, once it has ended.
    async fn not_started(
        &self,
        process: &Process,
        arguments: &[String],
        error: QmpError,
    ) -> Failure {
        let words = words_after(process, &error).await;
        let failure = Failure::build("QEMU could not start the machine");
        let failure = if words.is_empty() {
            let status = match timeout_at(Instant::now(), process.end().wait()).await {
                Ok(Some(status)) => status.to_string(),
                _ => "still running".to_owned(),
            };
            failure.fact("qemu", format!("said nothing ({status})")).because(error)
        } else {
            failure.fact("qemu", words)
        };
        failure
            .fact("version", &self.program.version)
            .fact("command", shown(&self.program.path, arguments))
            .hint("run `imgforge doctor`")
    }
}

#[async_trait]
impl Driver for QemuDriver {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn monitor_program(&self) -> &str {
        self.program.path.to_str().unwrap_or("qemu")
    }

    fn guest_view_of_host(&self) -> IpAddr {
        IpAddr::V4(user::HOST)
    }

    fn host_address(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    }

    fn check(&self, firmware: Firmware) -> Outcome<()> {
        match firmware {
            Firmware::Uefi => self.search.uefi().map(drop),
            Firmware::Bios => Ok(()),
        }
    }

    async fn start(&self, spec: MachineSpec) -> Outcome<Box<dyn Machine>> {
        let machine = match self.attempt(&spec, true).await {
            // A QEMU built without seccomp, or a host that forbids nested filters.
            Err(failure) if blames_sandbox(&failure) => self.attempt(&spec, false).await?,
            other => other?,
        };
        Ok(Box::new(machine))
    }
}

fn blames_sandbox(failure: &Failure) -> bool {
    failure.facts().iter().any(|(label, value)| {
        label == "qemu" && (value.contains("seccomp") || value.contains("sandbox"))
    })
}

/// The run directory, ready; its variable store as the firmware's template has it.
fn prepare_for(run_dir: &Path, firmware: Option<&UefiFirmware>) -> Outcome<()> {
    let template = firmware.map(|firmware| {
        std::fs::read(&firmware.variables).map_err(|error| {
            Failure::build("cannot read the UEFI variable store")
                .because(error)
                .fact("file", firmware.variables.display())
        })
    });
    prepare(run_dir, template.transpose()?.as_deref())
}

/// Learns the forwarded ports, then lets the guest run.
async fn release(qmp: &Qmp, spec: &MachineSpec) -> Result<BTreeMap<u16, SocketAddr>, QmpError> {
    let mut ports = BTreeMap::new();
    if !spec.forwards.is_empty() {
        let command = json!({ "command-line": "info usernet" });
        let table = qmp.execute("human-monitor-command", command, STARTING).await?;
        for (guest, host) in forwarded_ports(table.as_str().unwrap_or_default()) {
            ports.insert(guest, SocketAddr::from((Ipv4Addr::LOCALHOST, host)));
        }
        for forward in &spec.forwards {
            if !ports.contains_key(&forward.guest_port) {
                return Err(QmpError::Refused {
                    command: "info usernet".into(),
                    text: format!("it does not list guest port {}", forward.guest_port),
                });
            }
        }
    }
    qmp.execute("cont", Value::Null, STARTING).await?;
    Ok(ports)
}

/// A command line that can be pasted into a shell.
fn shown(program: &Path, arguments: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./,:@%".contains(c);
    let quoted = arguments.iter().map(|word| {
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    });
    let words: Vec<String> = std::iter::once(program.display().to_string()).chain(quoted).collect();
    words.join(" ")
}
