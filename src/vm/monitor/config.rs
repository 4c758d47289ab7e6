// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What the monitor process is told: one JSON document on its standard input.

use std::io::Read;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ui::{Failure, Outcome};
use crate::vm::firmware::rom::Profile;
use crate::vm::hv::Link;

/// Longest document; it has about a kilobyte.
const LONGEST: u64 = 256 << 10;
/// vCPUs at most.
const MOST_CPUS: u32 = 8;
/// Memory in MiB: what firmware needs, and what the board can place.
const MEMORY_MIB: std::ops::RangeInclusive<u64> = 256..=(1 << 20);

/// The kernel that runs the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hypervisor {
    /// Linux KVM.
    Kvm,
    /// The bhyve of illumos.
    Bhyve,
}

impl Hypervisor {
    /// The word that users type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Bhyve => "bhyve",
        }
    }
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonitorConfig {
    /// Shown in the process list.
    pub name: String,
    /// The kernel.
    pub hypervisor: Hypervisor,
    /// The machine's name in the kernel, where machines have names there; a number follows.
    pub kernel_name: String,
    /// vCPUs, 1 to 8.
    pub cpus: u32,
    /// Guest memory.
    pub memory_mib: u64,
    /// The firmware's code.
    pub firmware: PathBuf,
    /// What the firmware expects; worked out of its content when not told.
    #[serde(default)]
    pub profile: Option<Profile>,
    /// The firmware's variables, which the guest changes; none for a firmware without.
    pub variables: Option<PathBuf>,
    /// The raw disk.
    pub disk: PathBuf,
    /// Flushes of the guest complete at once.
    pub scratch_disk: bool,
    /// The medium in the CD drive.
    pub cdrom: Option<PathBuf>,
    /// Where the first serial port is logged; appended to.
    pub serial_log: PathBuf,
    /// Where the monitor logs what it notices; appended to.
    pub log: PathBuf,
    /// Where a process waits that takes and gives Ethernet frames; none for a machine without a
    /// network.
    pub network: Option<PathBuf>,
    /// A link of the host in place of that process: with bhyve a VNIC, with KVM a tap.
    #[serde(default)]
    pub link: Option<Link>,
    /// The address of its network interface.
    pub mac: [u8; 6],
    /// Where the control socket shall be.
    pub control: PathBuf,
    /// Where the VNC server shall listen.
    pub vnc: PathBuf,
    /// A reset of the guest ends the run.
    pub stop_at_reset: bool,
    /// The guest is told that it runs on SmartOS.
    pub smartos: bool,
}

impl MonitorConfig {
    /// Reads and checks a document.
    ///
    /// # Errors
    /// When it is none, or asks for what the board does not have.
    pub fn read(from: impl Read) -> Outcome<Self> {
        let config: Self = serde_json::from_reader(from.take(LONGEST)).map_err(|error| {
            Failure::input("the monitor was not told what machine to be")
                .because(error)
                .hint("it is started by `imgforge build`, with a JSON document on standard input")
        })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Outcome<()> {
        let wrong = |what: &str, value: u64, allowed: &str| {
            Err(Failure::input(format!("a machine cannot have {value} {what}"))
                .because(format!("{allowed} are possible")))
        };
        if !(1..=MOST_CPUS).contains(&self.cpus) {
            return wrong("vCPUs", u64::from(self.cpus), "1 to 8");
        }
        if self.link.is_some() && self.network.is_some() {
            return Err(Failure::input("a machine's network is a process or a link, not both"));
        }
        if self.network.is_some() && self.hypervisor == Hypervisor::Bhyve {
            return Err(Failure::input("with bhyve, a link is a machine's network, not a process"));
        }
        if !MEMORY_MIB.contains(&self.memory_mib) {
            return wrong("MiB of memory", self.memory_mib, "256 to 1048576");
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn config() -> MonitorConfig {
        MonitorConfig {
            name: "debian".into(),
            hypervisor: Hypervisor::Kvm,
            kernel_name: "imgforge-12345678".into(),
            cpus: 2,
            memory_mib: 1024,
            firmware: "/usr/share/OVMF/OVMF_CODE_4M.fd".into(),
            profile: Some(Profile::Ovmf),
            variables: None,
            disk: "disk.raw".into(),
            scratch_disk: true,
            cdrom: None,
            serial_log: "serial.log".into(),
            log: "monitor.log".into(),
            network: None,
            link: None,
            mac: [2, 0, 0, 0, 0, 1],
            control: "qmp.sock".into(),
            vnc: "vnc.sock".into(),
            stop_at_reset: false,
            smartos: false,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let text = serde_json::to_vec(&config()).unwrap();
        assert_eq!(MonitorConfig::read(text.as_slice()).unwrap(), config());
    }

    #[test]
    fn impossible_machines_are_refused() {
        for (cpus, memory_mib, why) in
            [(0, 1024, "0 vCPUs"), (9, 1024, "9 vCPUs"), (1, 64, "64 MiB"), (1, 1 << 40, "MiB")]
        {
            let text = serde_json::to_vec(&MonitorConfig { cpus, memory_mib, ..config() }).unwrap();
            let failure = MonitorConfig::read(text.as_slice()).unwrap_err();
            assert!(failure.summary().contains(why), "{failure}");
        }
        let link = || Some(Link { name: "vm0".into(), mtu: None });
        let process = || Some("net.sock".into());
        let both = MonitorConfig { network: process(), link: link(), ..config() };
        let bhyve = Hypervisor::Bhyve;
        let other = MonitorConfig { network: process(), link: None, hypervisor: bhyve, ..config() };
        for (wrong, why) in [(both, "not both"), (other, "with bhyve, a link")] {
            let failure = MonitorConfig::read(&*serde_json::to_vec(&wrong).unwrap()).unwrap_err();
            assert!(failure.summary().contains(why), "{failure}");
        }
        for hypervisor in [Hypervisor::Kvm, Hypervisor::Bhyve] {
            let right = MonitorConfig { link: link(), network: None, hypervisor, ..config() };
            let read = MonitorConfig::read(&*serde_json::to_vec(&right).unwrap()).unwrap();
            assert_eq!(read, right);
        }
        for nonsense in [&b""[..], b"{}", b"[1]", b"\xff"] {
            assert!(MonitorConfig::read(nonsense).is_err());
        }
    }
}
