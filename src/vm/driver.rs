// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The contract between a build and whatever runs its virtual machine.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use crate::ui::{Outcome, Secret};

/// Which firmware the machine starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// UEFI with an empty variable store: what production gives, which keeps no NVRAM.
    Uefi,
    /// Legacy BIOS.
    Bios,
}

/// A TCP port of the guest made reachable from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// Port in the guest.
    pub guest_port: u16,
}

/// Everything a driver needs to start one virtual machine.
#[derive(Debug, Clone)]
pub struct MachineSpec {
    /// Name, shown in process lists; `[a-z0-9.-]`.
    pub name: String,
    /// Begins the machine's name in the kernel, where machines have names there, and is no other
    /// build's.
    pub kernel_name: String,
    /// Virtual processors.
    pub cpus: u32,
    /// Guest memory in MiB.
    pub memory_mib: u64,
    /// Firmware flavour.
    pub firmware: Firmware,
    /// The raw disk; exists and has its final size.
    pub disk: PathBuf,
    /// The medium in the CD drive.
    pub cdrom: Option<PathBuf>,
    /// A private directory (mode 0700) for sockets, variable store and logs; exists.
    pub run_dir: PathBuf,
    /// Where the first serial port is logged; appended to.
    pub serial_log: PathBuf,
    /// Guest ports to reach from the host.
    pub forwards: Vec<Forward>,
    /// The guest's flushes may complete at once; one sync follows at the end ([`Machine::wait_exit`]).
    pub scratch_disk: bool,
    /// A guest reset ends the run with [`Exit::Reset`] instead of starting the guest anew.
    pub stop_at_reset: bool,
    /// The machine may outlive this process: the user may want to keep it after a failure.
    pub may_outlive_us: bool,
    /// Driver-specific arguments appended verbatim (packer's `qemuargs`).
    pub extra_args: Vec<String>,
}

/// Where the frame buffer is served.
#[derive(Debug, Clone)]
pub enum VncEndpoint {
    /// RFB over a UNIX socket in the run directory.
    Unix(PathBuf),
    /// RFB over loopback TCP with a password.
    Tcp(SocketAddr, Secret),
}

/// Why the run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// The guest powered itself off.
    PoweredOff,
    /// The guest asked for a reset and the specification said to stop then.
    Reset,
    /// The guest panicked and said so (pvpanic or triple fault).
    Panicked(String),
    /// We ended it.
    Killed,
    /// The monitor died; its own last words.
    Failed(String),
}

/// Something a running machine did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineEvent {
    /// The guest reset itself and runs again.
    Reset,
    /// The guest opened or closed the CD tray.
    Tray {
        /// Open.
        open: bool,
    },
    /// The run ended.
    Exited(Exit),
}

/// Counters that show whether a guest is alive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MachineStats {
    /// Bytes read from the disk and the CD.
    pub read_bytes: u64,
    /// Bytes written to the disk.
    pub written_bytes: u64,
    /// Processor time that the monitor process has used.
    pub cpu_time: Duration,
    /// Peak resident memory of the monitor process in bytes.
    pub peak_rss: u64,
}

/// Something that can run virtual machines.
#[async_trait]
pub trait Driver: Send + Sync {
    /// `qemu`, `kvm` or `bhyve`.
    fn name(&self) -> &'static str;

    /// The program that becomes the monitor process, for the journal.
    fn monitor_program(&self) -> &str;

    /// Whether the kernel knows machines by their names, so that one may be there when its monitor is
    /// gone.
    fn kernel_keeps_machines(&self) -> bool {
        false
    }

    /// Programs that serve the monitor, by all the names that a process list may give them. They
    /// name a file below the run directory on their command line.
    fn helper_programs(&self) -> &[&'static str] {
        &[]
    }

    /// The address at which the guest reaches services bound to [`Driver::host_address`].
    fn guest_view_of_host(&self) -> std::net::IpAddr;

    /// The host address that services for the guest must bind to.
    fn host_address(&self) -> std::net::IpAddr;

    /// Looks for what a machine with this firmware needs from the host, so that a lack is said
    /// before anything has started; it is a failure with the remedy.
    fn check(&self, firmware: Firmware) -> Outcome<()>;

    /// Starts the machine. Returns once its first instruction may run and its control channel
    /// answers; fails with the monitor's own error text when it dies before.
    async fn start(&self, spec: MachineSpec) -> Outcome<Box<dyn Machine>>;
}

/// One running virtual machine. Dropping it kills the monitor.
#[async_trait]
pub trait Machine: Send + Sync {
    /// Process id of the monitor.
    fn pid(&self) -> u32;

    /// Where to see the screen and type.
    fn vnc(&self) -> VncEndpoint;

    /// The host address at which a forwarded guest port answers.
    fn forwarded(&self, guest_port: u16) -> Option<SocketAddr>;

    /// The next event; after [`MachineEvent::Exited`] it returns that again.
    async fn next_event(&self) -> MachineEvent;

    /// The exit, when the run has ended already.
    fn exited(&self) -> Option<Exit>;

    /// Waits for the end of the run, then makes the disk durable (one sync).
    async fn wait_exit(&self) -> Outcome<Exit>;

    /// Takes the medium out of the CD drive.
    async fn eject(&self) -> Outcome<()>;

    /// Presses the ACPI power button.
    async fn power_button(&self) -> Outcome<()>;

    /// Counters.
    async fn stats(&self) -> Outcome<MachineStats>;

    /// Lets the machine run on when this handle is dropped.
    fn detach(&self);

    /// Ends the run at once.
    async fn kill(&self) -> Outcome<()>;
}
