// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A network in user mode by passt (<https://passt.top>), one process for each machine: the guest
//! gets an address by DHCP, reaches the host at the gateway's address, and one port of it can be
//! reached from the host's loopback.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, interval};

use crate::ui::{Failure, Outcome};
use crate::vm::child::{Process, on_path};
use crate::vm::dev::virtio::MTU;

/// The guest.
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The host, as the guest sees it.
pub(super) const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const SOCKET: &str = "net.sock";
/// It replaces itself by a variant for the processor that it finds.
pub(super) const NAMES: &[&str] = &["passt", "passt.avx2"];
const STARTING: Duration = Duration::from_secs(20);
const TRYING: Duration = Duration::from_millis(5);
/// How often another port is tried when somebody else was quicker.
const TRIES: usize = 5;

const INSTALL: &str = "install it: `apt-get install passt` (Debian), `dnf install passt` (Fedora)";

/// Where passt is.
///
/// # Errors
/// When it is not installed.
pub(super) fn find() -> Outcome<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    on_path("passt", &path).ok_or_else(|| {
        Failure::build("there is no network for the machine: passt is not installed").hint(INSTALL)
    })
}

/// A running network.
pub(super) struct Network {
    pub(super) socket: PathBuf,
    /// Host addresses by guest port.
    pub(super) ports: Vec<(u16, SocketAddr)>,
    pub(super) process: Process,
}

/// Starts one in a run directory.
///
/// # Errors
/// When passt does not start; with its own words.
pub(super) async fn start(
    run_dir: &Path,
    guest_ports: &[u16],
    leash: Option<&Path>,
) -> Outcome<Network> {
    let program = find()?;
    let mut failure = None;
    for _ in 0..TRIES {
        match attempt(&program, run_dir, guest_ports, leash).await {
            Ok(network) => return Ok(network),
            Err(problem) => failure = Some(problem),
        }
    }
    Err(failure.unwrap_or_else(|| Failure::build("passt was not started")))
}

async fn attempt(
    program: &Path,
    run_dir: &Path,
    guest_ports: &[u16],
    leash: Option<&Path>,
) -> Outcome<Network> {
    let socket = run_dir.join(SOCKET);
    let _ = std::fs::remove_file(&socket);
    let ports = free_ports(guest_ports)?;
    let arguments = arguments(&socket, &ports);
    let process = Process::spawn(program, &arguments, leash, Vec::new()).await?;
    let mut end = process.end();
    tokio::select! {
        ready = listens(&socket) => if ready {
            return Ok(Network { socket, ports, process });
        },
        _ = end.wait() => {}
    }
    Err(Failure::build("the machine's network did not start")
        .fact("passt", process.last_words().text())
        .fact("command", format!("passt {}", arguments.join(" ")))
        .hint("run the command by hand; passt needs a network interface with a default route"))
}

/// Ports that nobody uses now. Somebody may be quicker than passt: it says so, then.
fn free_ports(guest_ports: &[u16]) -> Outcome<Vec<(u16, SocketAddr)>> {
    let failed = |error: std::io::Error| {
        Failure::build("there is no free port for the machine's network").because(error)
    };
    let listeners: Vec<(u16, TcpListener)> = guest_ports
        .iter()
        .map(|&port| Ok((port, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?)))
        .collect::<Result<_, std::io::Error>>()
        .map_err(failed)?;
    let address = |(port, listener): &(u16, TcpListener)| Ok((*port, listener.local_addr()?));
    listeners.iter().map(address).collect::<Result<_, std::io::Error>>().map_err(failed)
}

fn arguments(socket: &Path, ports: &[(u16, SocketAddr)]) -> Vec<String> {
    let mut words: Vec<String> =
        ["--foreground", "--stderr", "--quiet", "--one-off"].map(str::to_owned).to_vec();
    let pairs = [
        ("--socket", socket.display().to_string()),
        ("--address", GUEST.to_string()),
        ("--netmask", "24".to_owned()),
        ("--gateway", HOST.to_string()),
        // What the interface's buffers hold. Unasked it tells guests of 65520 by DHCP, and one
        // that believes it never gets a longer answer than a frame.
        ("--mtu", MTU.to_string()),
    ];
    for (flag, value) in pairs {
        words.extend([flag.to_owned(), value]);
    }
    words.extend(["--ipv4-only", "--udp-ports", "none"].map(str::to_owned));
    if nix::unistd::geteuid().is_root() {
        // As nobody, which it would choose, it does not reach the private run directory. It shuts
        // itself off by namespaces and seccomp all the same.
        words.extend(["--runas", "0"].map(str::to_owned));
    }
    if ports.is_empty() {
        words.extend(["--tcp-ports", "none"].map(str::to_owned));
    }
    for (guest, host) in ports {
        words.extend(["--tcp-ports".to_owned(), format!("{}/{}:{guest}", host.ip(), host.port())]);
    }
    words
}

async fn listens(socket: &Path) -> bool {
    let deadline = Instant::now() + STARTING;
    let mut ticks = interval(TRYING);
    // It takes one connection only: the file tells, not a connection.
    while Instant::now() < deadline {
        ticks.tick().await;
        if socket.exists() {
            return true;
        }
    }
    false
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_forwarded_from_loopback_alone() {
        let ports = [(22, SocketAddr::from((Ipv4Addr::LOCALHOST, 40022)))];
        let words = arguments(Path::new("/run/x/net.sock"), &ports).join(" ");
        assert!(words.contains("--socket /run/x/net.sock"), "{words}");
        assert!(words.contains("--tcp-ports 127.0.0.1/40022:22"), "{words}");
        assert!(words.contains("--udp-ports none"), "{words}");
        assert!(words.contains("--mtu 1500"), "{words}");
        let words = arguments(Path::new("s"), &[]).join(" ");
        assert!(words.contains("--tcp-ports none"), "{words}");
    }

    #[test]
    fn each_guest_port_gets_its_own() {
        let ports = free_ports(&[22, 80]).unwrap();
        assert_eq!((ports[0].0, ports[1].0), (22, 80));
        assert_ne!(ports[0].1, ports[1].1);
    }
}
