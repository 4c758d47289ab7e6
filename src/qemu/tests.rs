// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The driver against real QEMU and real firmware, with guests of one hand-assembled sector.
#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, interval, timeout};

use super::{Accel, QemuDriver, Search};
use crate::vm::{Driver, Exit, Firmware, Forward, Machine, MachineEvent, MachineSpec, VncEndpoint};

/// Generous: the machines that run these tests are often busy with others.
const PATIENCE: Duration = Duration::from_secs(120);

/// `hlt` for ever.
const HALT: &[u8] = &[0xf4, 0xeb, 0xfd];
/// Pulses the reset line by the keyboard controller: `mov al, 0xfe; out 0x64, al`.
const RESET: &[u8] = &[0xb0, 0xfe, 0xe6, 0x64];
/// Soft-off by PM1a control, where SeaBIOS puts it on q35: `mov dx, 0x604; mov ax, 0x2000;
/// out dx, ax`.
const POWER_OFF: &[u8] = &[0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef];
/// Loads an interrupt table of no entries and traps: `xor ax, ax; mov ds, ax; lidt [0x7de0];
/// int3`.
const TRIPLE_FAULT: &[u8] = &[0x31, 0xc0, 0x8e, 0xd8, 0x0f, 0x01, 0x1e, 0xe0, 0x7d, 0xcc];
/// Tells pvpanic: `mov dx, 0x505; mov al, 1; out dx, al`.
const PANIC: &[u8] = &[0xba, 0x05, 0x05, 0xb0, 0x01, 0xee];
/// Writes `R` to the first serial port: `mov dx, 0x3f8; mov al, 'R'; out dx, al`.
const SAY_R: &[u8] = &[0xba, 0xf8, 0x03, 0xb0, b'R', 0xee];
/// Enables the power button's event: `cli; mov dx, 0x602; mov ax, 0x100; out dx, ax`.
const ENABLE_BUTTON: &[u8] = &[0xfa, 0xba, 0x02, 0x06, 0xb8, 0x00, 0x01, 0xef];
/// Polls its status: `mov dx, 0x600; in ax, dx; test ah, 1; jz -6`.
const AWAIT_BUTTON: &[u8] = &[0xba, 0x00, 0x06, 0xed, 0xf6, 0xc4, 0x01, 0x74, 0xfa];

/// One test's files: a disk that boots `code`, and a run directory.
struct Bench {
    dir: tempfile::TempDir,
    spec: MachineSpec,
}

fn bench(code: &[&[u8]]) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    std::fs::create_dir(&run_dir).unwrap();
    std::fs::set_permissions(&run_dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut sector = code.concat();
    sector.extend_from_slice(HALT);
    sector.resize(510, 0);
    sector.extend_from_slice(&[0x55, 0xaa]);
    let disk = dir.path().join("disk.raw");
    std::fs::write(&disk, &sector).unwrap();
    std::fs::OpenOptions::new().write(true).open(&disk).unwrap().set_len(8 << 20).unwrap();
    let spec = MachineSpec {
        name: "test".into(),
        kernel_name: String::new(),
        cpus: 1,
        memory_mib: 64,
        firmware: Firmware::Bios,
        disk,
        cdrom: None,
        run_dir,
        serial_log: dir.path().join("serial.log"),
        forwards: vec![Forward { guest_port: 22 }],
        scratch_disk: true,
        stop_at_reset: true,
        may_outlive_us: false,
        extra_args: Vec::new(),
    };
    Bench { dir, spec }
}

fn driver() -> QemuDriver {
    QemuDriver::new(Search::from_environment(), Accel::Tcg).unwrap()
}

async fn start(bench: &Bench) -> Box<dyn Machine> {
    soon(driver().start(bench.spec.clone())).await.unwrap()
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it took too long")
}

/// Waits until a condition holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    let mut ticks = interval(Duration::from_millis(20));
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        ticks.tick().await;
    }
}

fn alive(pid: u32) -> bool {
    kill(Pid::from_raw(pid.cast_signed()), None).is_ok()
}

fn serial(bench: &Bench) -> String {
    String::from_utf8_lossy(&std::fs::read(&bench.spec.serial_log).unwrap_or_default()).into()
}

async fn run_to_exit(code: &[&[u8]]) -> Exit {
    let bench = bench(code);
    let machine = start(&bench).await;
    let event = soon(machine.next_event()).await;
    let exit = soon(machine.wait_exit()).await.unwrap();
    assert_eq!(event, MachineEvent::Exited(exit.clone()));
    assert_eq!(soon(machine.next_event()).await, event, "the end is told again");
    assert_eq!(machine.exited(), Some(exit.clone()));
    assert!(!alive(machine.pid()));
    exit
}

#[tokio::test]
async fn a_guest_that_resets_ends_the_run() {
    assert_eq!(run_to_exit(&[RESET]).await, Exit::Reset);
}

#[tokio::test]
async fn a_guest_that_powers_off_ends_the_run() {
    assert_eq!(run_to_exit(&[POWER_OFF]).await, Exit::PoweredOff);
}

#[tokio::test]
async fn a_triple_fault_is_a_reset() {
    assert_eq!(run_to_exit(&[TRIPLE_FAULT]).await, Exit::Reset);
}

#[tokio::test]
async fn a_panic_is_told_and_the_screen_stays() {
    let bench = bench(&[PANIC]);
    let machine = start(&bench).await;
    let event = soon(machine.next_event()).await;
    let MachineEvent::Exited(Exit::Panicked(text)) = event else { panic!("{event:?}") };
    assert!(text.contains("panicked"), "{text}");
    assert!(alive(machine.pid()), "the screen can still be read");
    assert!(greeting(machine.as_ref()).await.starts_with("RFB 003."));
    assert_eq!(soon(machine.wait_exit()).await.unwrap(), Exit::Panicked(text));
    assert!(!alive(machine.pid()));
}

#[tokio::test]
async fn resets_are_events_when_the_run_goes_on() {
    let mut bench = bench(&[RESET]);
    bench.spec.stop_at_reset = false;
    let machine = start(&bench).await;
    assert_eq!(soon(machine.next_event()).await, MachineEvent::Reset);
    assert_eq!(soon(machine.next_event()).await, MachineEvent::Reset);
    soon(machine.kill()).await.unwrap();
    assert_eq!(soon(machine.wait_exit()).await.unwrap(), Exit::Killed);
}

#[tokio::test]
async fn the_power_button_reaches_the_guest() {
    let bench = bench(&[ENABLE_BUTTON, SAY_R, AWAIT_BUTTON, POWER_OFF]);
    let machine = start(&bench).await;
    until("the guest's sign of life", || serial(&bench).contains('R')).await;
    assert_eq!(machine.exited(), None);
    soon(machine.power_button()).await.unwrap();
    assert_eq!(soon(machine.wait_exit()).await.unwrap(), Exit::PoweredOff);
}

#[tokio::test]
async fn a_running_machine_can_be_seen_counted_ejected_and_killed() {
    let mut bench = bench(&[SAY_R]);
    let medium = bench.dir.path().join("not, bootable.iso");
    std::fs::write(&medium, vec![0; 1 << 20]).unwrap();
    bench.spec.cdrom = Some(medium);
    let machine = start(&bench).await;
    until("the guest's sign of life", || serial(&bench).contains('R')).await;
    assert!(greeting(machine.as_ref()).await.starts_with("RFB 003."));
    let stats = soon(machine.stats()).await.unwrap();
    assert!(stats.read_bytes >= 512, "{stats:?}");
    assert!(stats.cpu_time > Duration::ZERO && stats.peak_rss > 8 << 20, "{stats:?}");
    soon(machine.eject()).await.unwrap();
    soon(machine.eject()).await.unwrap();
    soon(machine.kill()).await.unwrap();
    assert_eq!(machine.exited(), Some(Exit::Killed));
    assert_eq!(soon(machine.next_event()).await, MachineEvent::Exited(Exit::Killed));
    assert!(!alive(machine.pid()));
    soon(machine.kill()).await.unwrap();
    let text = soon(machine.stats()).await.unwrap_err().to_string();
    assert!(text.contains("cannot read the counters"), "{text}");
}

async fn greeting(machine: &dyn Machine) -> String {
    let VncEndpoint::Unix(socket) = machine.vnc() else { panic!("no socket") };
    let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let mut bytes = [0; 12];
    soon(stream.read_exact(&mut bytes)).await.unwrap();
    String::from_utf8_lossy(&bytes).into()
}

#[tokio::test]
async fn two_machines_have_ports_of_their_own() {
    let (one, two) = (bench(&[]), bench(&[]));
    let (one, two) = (start(&one).await, start(&two).await);
    let (first, second) = (one.forwarded(22).unwrap(), two.forwarded(22).unwrap());
    assert_ne!(first, second);
    for address in [first, second] {
        assert!(address.ip().is_loopback());
        tokio::net::TcpStream::connect(address).await.unwrap();
    }
    assert_eq!(one.forwarded(23), None);
    let (pid, other) = (one.pid(), two.pid());
    drop(one);
    assert!(!alive(pid) && alive(other), "dropping kills, and nothing else");
}

#[tokio::test]
async fn the_serial_log_is_appended_to() {
    let mut bench = bench(&[SAY_R, POWER_OFF]);
    for _ in 0..2 {
        let machine = start(&bench).await;
        assert_eq!(soon(machine.wait_exit()).await.unwrap(), Exit::PoweredOff);
        bench.spec.scratch_disk = false;
    }
    assert_eq!(serial(&bench).matches('R').count(), 2, "{:?}", serial(&bench));
}

#[tokio::test]
async fn uefi_firmware_starts_with_fresh_variables() {
    let mut bench = bench(&[]);
    bench.spec.firmware = Firmware::Uefi;
    bench.spec.memory_mib = 256;
    std::fs::write(bench.spec.run_dir.join("vars.fd"), "left by an earlier run").unwrap();
    let machine = start(&bench).await;
    until("the firmware's boot manager", || serial(&bench).contains("BdsDxe")).await;
    soon(machine.power_button()).await.unwrap();
    soon(machine.kill()).await.unwrap();
    assert_eq!(soon(machine.wait_exit()).await.unwrap(), Exit::Killed);
    let store = std::fs::metadata(bench.spec.run_dir.join("vars.fd")).unwrap();
    assert!(store.len() > 100_000, "{}", store.len());
}

#[tokio::test]
async fn a_bad_disk_fails_with_qemus_own_words() {
    let mut bench = bench(&[]);
    bench.spec.disk = bench.dir.path().join("missing.raw");
    let text = soon(driver().start(bench.spec.clone())).await.err().unwrap().to_string();
    assert!(text.contains("missing.raw") && text.contains("No such file"), "{text}");
    assert!(text.contains("version ") && text.contains("command "), "{text}");
    bench.spec.disk = bench.dir.path().join("disk.raw");
    bench.spec.extra_args = vec!["-device".into(), "flux-capacitor".into()];
    let text = soon(driver().start(bench.spec.clone())).await.err().unwrap().to_string();
    assert!(text.contains("flux-capacitor"), "{text}");
}

#[tokio::test]
async fn one_disk_cannot_be_used_twice() {
    let one = bench(&[]);
    let mut two = bench(&[]);
    two.spec.disk.clone_from(&one.spec.disk);
    let _machine = start(&one).await;
    let text = soon(driver().start(two.spec.clone())).await.err().unwrap().to_string();
    assert!(text.contains("lock"), "{text}");
}

#[tokio::test]
async fn a_run_directory_open_to_others_is_refused() {
    let bench = bench(&[]);
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&bench.spec.run_dir, open).unwrap();
    let text = soon(driver().start(bench.spec.clone())).await.err().unwrap().to_string();
    assert!(text.contains("open to others") && text.contains("755"), "{text}");
}

#[tokio::test]
async fn a_qemu_that_is_killed_is_noticed_at_once() {
    let bench = bench(&[]);
    let machine = start(&bench).await;
    kill(Pid::from_raw(machine.pid().cast_signed()), Signal::SIGKILL).unwrap();
    let event = timeout(Duration::from_secs(5), machine.next_event()).await.unwrap();
    let MachineEvent::Exited(Exit::Failed(text)) = event else { panic!("{event:?}") };
    assert!(text.contains("signal: 9"), "{text}");
    assert!(soon(machine.power_button()).await.is_err());
}

#[tokio::test]
async fn a_qemu_that_is_terminated_from_outside_is_no_success() {
    let bench = bench(&[]);
    let machine = start(&bench).await;
    kill(Pid::from_raw(machine.pid().cast_signed()), Signal::SIGTERM).unwrap();
    let exit = soon(machine.wait_exit()).await.unwrap();
    assert!(matches!(&exit, Exit::Failed(text) if text.contains("signal")), "{exit:?}");
}

/// Not a test: the process that the next one kills.
#[tokio::test]
#[ignore = "the other half of a_killed_build_takes_qemu_along"]
async fn build_to_be_killed() {
    let bench = bench(&[]);
    let machine = start(&bench).await;
    let (pid_file, text) = (std::env::var_os("PID_FILE").unwrap(), machine.pid().to_string());
    std::fs::write(pid_file, text).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_build_takes_qemu_along() {
    if Search::from_environment().setpriv().is_none() {
        return; // Such hosts rely on the journal; doctor says so.
    }
    let dir = tempfile::tempdir().unwrap();
    let pid_file = dir.path().join("pid");
    let mut build = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "qemu::tests::build_to_be_killed", "--ignored"])
        .env("PID_FILE", &pid_file)
        .env("TMPDIR", dir.path())
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut pid = None;
    until("the build's QEMU", || {
        pid = std::fs::read_to_string(&pid_file).ok().and_then(|text| text.parse::<u32>().ok());
        pid.is_some()
    })
    .await;
    let pid = pid.unwrap();
    assert!(alive(pid));
    build.start_kill().unwrap();
    build.wait().await.unwrap();
    until("QEMU's end", || !alive(pid)).await;
}
