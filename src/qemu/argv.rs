// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! From a machine's specification to QEMU's arguments: a pure function.

use std::path::Path;

use serde_json::{Value, json};

use crate::ui::{Failure, Outcome};
use crate::vm::MachineSpec;
use crate::vm::child::{CDROM_ID, DISK_ID, PID_FILE, QMP_SOCKET, VARIABLES, VNC_SOCKET};

/// Longest path of a UNIX socket on the systems we know (`sun_path` less its final zero; macOS
/// and the BSDs have 104, Linux and illumos 108).
const LONGEST_SOCKET_PATH: usize = 103;

/// What QEMU may not do once it runs. A build needs no child processes, no new privileges and no
/// old system calls from it.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// Who executes guest code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// QEMU's translator: any host, many times slower than hardware.
    Tcg,
    /// Linux KVM.
    Kvm,
}

/// The processor that the translator shows.
const TCG_CPU: &str = "max,la57=off,erms=off,fsrm=off";

impl Accel {
    /// How many of the wanted processors the machine gets. One only in software: an installer runs
    /// one program after the other, and with a second translated processor each of them takes more
    /// than twice as long, for the two wait for each other at every change of a page table.
    fn cpus(self, wanted: u32) -> u32 {
        match self {
            Self::Tcg => 1,
            Self::Kvm => wanted,
        }
    }

    fn arguments(self) -> [&'static str; 4] {
        match self {
            // Five-level page tables make every page walk longer, and no guest here needs them.
            // A guest that sees ERMS or FSRM copies by `rep movsb`, which is translated to a loop
            // over single bytes.
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", TCG_CPU],
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
        }
    }
}

/// Which host features an invocation uses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings<'a> {
    pub(super) accel: Accel,
    /// Firmware code image; the variables are [`VARIABLES`] in the run directory.
    pub(super) uefi_code: Option<&'a Path>,
    /// QEMU confines itself with seccomp.
    pub(super) sandbox: bool,
}

/// The arguments after the program's name. Expects a specification that [`check`] passed.
pub(super) fn argv(spec: &MachineSpec, settings: Settings<'_>) -> Outcome<Vec<String>> {
    check(spec)?;
    let mut arguments = Arguments::default();
    basics(&mut arguments, spec, settings)?;
    storage(&mut arguments, spec)?;
    network(&mut arguments, spec);
    consoles(&mut arguments, spec)?;
    arguments.0.extend(spec.extra_args.iter().cloned());
    Ok(arguments.0)
}

fn basics(to: &mut Arguments, spec: &MachineSpec, settings: Settings<'_>) -> Outcome<()> {
    let name = &spec.name;
    to.pair("-name", format!("guest={name},process=imgforge-{name},debug-threads=on"));
    to.each(&["-no-user-config", "-nodefaults", "-display", "none"]);
    let mut machine = "q35,vmport=off".to_owned();
    if settings.uefi_code.is_some() {
        machine.push_str(",pflash0=code,pflash1=vars");
    }
    to.pair("-machine", machine);
    to.each(&settings.accel.arguments());
    to.pair("-smp", settings.accel.cpus(spec.cpus).to_string());
    to.pair("-m", format!("{}M", spec.memory_mib));
    to.each(&["-rtc", "base=utc"]);
    // It runs once the control channel answers.
    to.each(&["-S"]);
    let reboot = if spec.stop_at_reset { "shutdown" } else { "reset" };
    // A panicked guest stands still, so that its screen can still be read.
    to.pair("-action", format!("reboot={reboot},shutdown=poweroff,panic=pause"));
    if settings.sandbox {
        to.pair("-sandbox", SANDBOX.to_owned());
    }
    to.pair("-pidfile", comma_safe(&spec.run_dir.join(PID_FILE))?);
    if let Some(code) = settings.uefi_code {
        to.block(&json!({
            "driver": "file", "node-name": "code", "filename": text(code)?, "read-only": true,
        }));
        to.block(&json!({
            "driver": "file", "node-name": "vars", "filename": text(&spec.run_dir.join(VARIABLES))?,
        }));
    }
    Ok(())
}

fn storage(to: &mut Arguments, spec: &MachineSpec) -> Outcome<()> {
    let cache = json!({ "direct": false, "no-flush": spec.scratch_disk });
    to.block(&json!({
        "driver": "raw", "node-name": "disk", "discard": "unmap", "detect-zeroes": "unmap",
        "cache": cache,
        "file": {
            "driver": "file", "filename": text(&spec.disk)?, "aio": "threads",
            "discard": "unmap", "cache": cache,
        },
    }));
    to.pair(
        "-device",
        format!("virtio-blk-pci,id={DISK_ID},drive=disk,bootindex=1,write-cache=on,discard=on"),
    );
    if let Some(cdrom) = &spec.cdrom {
        to.block(&json!({
            "driver": "raw", "node-name": "cd", "read-only": true,
            "file": { "driver": "file", "filename": text(cdrom)?, "read-only": true },
        }));
        to.pair("-device", format!("ide-cd,id={CDROM_ID},bus=ide.0,drive=cd,bootindex=0"));
    }
    Ok(())
}

fn network(to: &mut Arguments, spec: &MachineSpec) {
    // Without IPv6: the user-mode network would announce it even where the host has no route.
    let mut user = "user,id=net0,ipv6=off".to_owned();
    for forward in &spec.forwards {
        // Port 0: the kernel chooses, nobody can take it first; QMP tells which.
        user.push_str(&format!(",hostfwd=tcp:127.0.0.1:0-:{}", forward.guest_port));
    }
    to.pair("-netdev", user);
    // No option ROM: nothing here boots from the network.
    to.each(&["-device", "virtio-net-pci,id=nic0,netdev=net0,romfile="]);
}

fn consoles(to: &mut Arguments, spec: &MachineSpec) -> Outcome<()> {
    to.each(&["-object", "rng-random,id=rng0,filename=/dev/urandom"]);
    to.each(&["-device", "virtio-rng-pci,rng=rng0"]);
    to.each(&["-device", "VGA", "-device", "pvpanic"]);
    to.pair("-vnc", format!("unix:{}", comma_safe(&spec.run_dir.join(VNC_SOCKET))?));
    let serial = comma_safe(&spec.serial_log)?;
    to.pair("-chardev", format!("file,id=serial0,path={serial},append=on"));
    to.each(&["-serial", "chardev:serial0"]);
    let qmp = comma_safe(&spec.run_dir.join(QMP_SOCKET))?;
    to.pair("-chardev", format!("socket,id=qmp,path={qmp},server=on,wait=off"));
    to.each(&["-mon", "chardev=qmp,mode=control"]);
    Ok(())
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn each(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(|&word| word.to_owned()));
    }

    fn pair(&mut self, option: &str, value: String) {
        self.0.extend([option.to_owned(), value]);
    }

    fn block(&mut self, node: &Value) {
        self.pair("-blockdev", node.to_string());
    }
}

/// Refuses what QEMU would misread or what would break the driver's hold on it.
fn check(spec: &MachineSpec) -> Outcome<()> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '-';
    if spec.name.is_empty() || !spec.name.chars().all(plain) {
        return Err(Failure::input("a machine's name may have a-z, 0-9, `.` and `-`")
            .fact("name", &spec.name));
    }
    if spec.cpus == 0 || spec.cpus > 255 {
        return Err(Failure::input("a machine needs 1 to 255 processors").fact("cpus", spec.cpus));
    }
    if spec.memory_mib < 64 {
        return Err(Failure::input("a machine needs at least 64 MiB of memory")
            .fact("memory", format!("{} MiB", spec.memory_mib)));
    }
    const OURS: [&str; 5] = ["-daemonize", "-S", "-pidfile", "-action", "-accel"];
    for argument in &spec.extra_args {
        let word = argument.strip_prefix('-').filter(|a| a.starts_with('-')).unwrap_or(argument);
        if OURS.contains(&word) {
            return Err(Failure::input(format!("QEMU argument `{argument}` is the driver's own"))
                .hint("remove it from the target's `qemu_args`"));
        }
    }
    let socket = spec.run_dir.join(QMP_SOCKET);
    if socket.as_os_str().len() > LONGEST_SOCKET_PATH {
        return Err(Failure::build("the path of the run directory is too long for a socket")
            .fact("path", socket.display())
            .fact("longest", format!("{LONGEST_SOCKET_PATH} bytes"))
            .hint("set TMPDIR to a directory with a shorter name"));
    }
    Ok(())
}

fn text(path: &Path) -> Outcome<&str> {
    path.to_str().ok_or_else(|| {
        Failure::build("QEMU can use paths of valid UTF-8 only").fact("path", path.display())
    })
}

/// A path inside an option of the form `key=value,…`, where a comma is written twice.
fn comma_safe(path: &Path) -> Outcome<String> {
    Ok(text(path)?.replace(',', ",,"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;
    use crate::vm::{Firmware, Forward};

    fn spec() -> MachineSpec {
        MachineSpec {
            name: "debian-13".into(),
            kernel_name: String::new(),
            cpus: 2,
            memory_mib: 2048,
            firmware: Firmware::Uefi,
            disk: "/out/disk.raw".into(),
            cdrom: Some("/cache/a,b \"c\".iso".into()),
            run_dir: "/run/x,y".into(),
            serial_log: "/out/serial.log".into(),
            forwards: vec![Forward { guest_port: 22 }, Forward { guest_port: 80 }],
            scratch_disk: true,
            stop_at_reset: true,
            may_outlive_us: false,
            extra_args: vec!["-device".into(), "usb-tablet".into()],
        }
    }

    fn lines(spec: &MachineSpec, settings: Settings<'_>) -> String {
        let mut out = String::new();
        for word in argv(spec, settings).unwrap() {
            out.push_str(if word.starts_with('-') { "\n" } else { " " });
            out.push_str(&word);
        }
        out.trim_start().to_owned()
    }

    #[test]
    fn golden_uefi_install() {
        let code = PathBuf::from("/fw/CODE.fd");
        let settings = Settings { accel: Accel::Tcg, uefi_code: Some(&code), sandbox: true };
        insta::assert_snapshot!(lines(&spec(), settings), @r#"
        -name guest=debian-13,process=imgforge-debian-13,debug-threads=on
        -no-user-config
        -nodefaults
        -display none
        -machine q35,vmport=off,pflash0=code,pflash1=vars
        -accel tcg,thread=multi
        -cpu max,la57=off,erms=off,fsrm=off
        -smp 1
        -m 2048M
        -rtc base=utc
        -S
        -action reboot=shutdown,shutdown=poweroff,panic=pause
        -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
        -pidfile /run/x,,y/monitor.pid
        -blockdev {"driver":"file","node-name":"code","filename":"/fw/CODE.fd","read-only":true}
        -blockdev {"driver":"file","node-name":"vars","filename":"/run/x,y/vars.fd"}
        -blockdev {"driver":"raw","node-name":"disk","discard":"unmap","detect-zeroes":"unmap","cache":{"direct":false,"no-flush":true},"file":{"driver":"file","filename":"/out/disk.raw","aio":"threads","discard":"unmap","cache":{"direct":false,"no-flush":true}}}
        -device virtio-blk-pci,id=disk0,drive=disk,bootindex=1,write-cache=on,discard=on
        -blockdev {"driver":"raw","node-name":"cd","read-only":true,"file":{"driver":"file","filename":"/cache/a,b \"c\".iso","read-only":true}}
        -device ide-cd,id=cdrom,bus=ide.0,drive=cd,bootindex=0
        -netdev user,id=net0,ipv6=off,hostfwd=tcp:127.0.0.1:0-:22,hostfwd=tcp:127.0.0.1:0-:80
        -device virtio-net-pci,id=nic0,netdev=net0,romfile=
        -object rng-random,id=rng0,filename=/dev/urandom
        -device virtio-rng-pci,rng=rng0
        -device VGA
        -device pvpanic
        -vnc unix:/run/x,,y/vnc.sock
        -chardev file,id=serial0,path=/out/serial.log,append=on
        -serial chardev:serial0
        -chardev socket,id=qmp,path=/run/x,,y/qmp.sock,server=on,wait=off
        -mon chardev=qmp,mode=control
        -device usb-tablet
        "#);
    }

    #[test]
    fn golden_bios_disk_with_kvm() {
        let mut spec = spec();
        spec.firmware = Firmware::Bios;
        spec.cdrom = None;
        spec.scratch_disk = false;
        spec.stop_at_reset = false;
        spec.forwards.clear();
        spec.extra_args.clear();
        let settings = Settings { accel: Accel::Kvm, uefi_code: None, sandbox: false };
        insta::assert_snapshot!(lines(&spec, settings), @r#"
        -name guest=debian-13,process=imgforge-debian-13,debug-threads=on
        -no-user-config
        -nodefaults
        -display none
        -machine q35,vmport=off
        -accel kvm
        -cpu host
        -smp 2
        -m 2048M
        -rtc base=utc
        -S
        -action reboot=reset,shutdown=poweroff,panic=pause
        -pidfile /run/x,,y/monitor.pid
        -blockdev {"driver":"raw","node-name":"disk","discard":"unmap","detect-zeroes":"unmap","cache":{"direct":false,"no-flush":false},"file":{"driver":"file","filename":"/out/disk.raw","aio":"threads","discard":"unmap","cache":{"direct":false,"no-flush":false}}}
        -device virtio-blk-pci,id=disk0,drive=disk,bootindex=1,write-cache=on,discard=on
        -netdev user,id=net0,ipv6=off
        -device virtio-net-pci,id=nic0,netdev=net0,romfile=
        -object rng-random,id=rng0,filename=/dev/urandom
        -device virtio-rng-pci,rng=rng0
        -device VGA
        -device pvpanic
        -vnc unix:/run/x,,y/vnc.sock
        -chardev file,id=serial0,path=/out/serial.log,append=on
        -serial chardev:serial0
        -chardev socket,id=qmp,path=/run/x,,y/qmp.sock,server=on,wait=off
        -mon chardev=qmp,mode=control
        "#);
    }

    #[test]
    fn bad_specifications_are_refused() {
        let settings = Settings { accel: Accel::Tcg, uefi_code: None, sandbox: true };
        let refused = |change: fn(&mut MachineSpec), what: &str| {
            let mut bad = spec();
            change(&mut bad);
            let text = argv(&bad, settings).unwrap_err().to_string();
            assert!(text.contains(what), "{text}");
        };
        refused(|s| s.name = "a,readonly=on".into(), "name");
        refused(|s| s.name.clear(), "name");
        refused(|s| s.cpus = 0, "processors");
        refused(|s| s.memory_mib = 4, "64 MiB");
        refused(|s| s.extra_args.push("--daemonize".into()), "--daemonize");
        refused(|s| s.run_dir = "/very-long".repeat(12).into(), "TMPDIR");
        refused(|s| s.disk = OsString::from_vec(vec![b'/', 0xff]).into(), "UTF-8");
    }

    proptest! {
        #[test]
        fn any_path_stays_one_value(path in "/[ -~é]{1,40}") {
            let mut spec = spec();
            spec.disk = PathBuf::from(&path);
            spec.serial_log = PathBuf::from(&path);
            let settings = Settings { accel: Accel::Tcg, uefi_code: None, sandbox: true };
            let words = argv(&spec, settings).unwrap();
            let serial = words.iter().find(|w| w.starts_with("file,id=serial0")).unwrap();
            let value = serial.strip_prefix("file,id=serial0,path=").unwrap();
            let value = value.strip_suffix(",append=on").unwrap();
            prop_assert_eq!(value.replace(",,", "\0").matches(',').count(), 0);
            prop_assert_eq!(value.replace(",,", ","), path.clone());
            let node: Value = words.iter().filter_map(|w| serde_json::from_str(w).ok())
                .find(|v: &Value| v["node-name"] == "disk").unwrap();
            prop_assert_eq!(node["file"]["filename"].as_str(), Some(path.as_str()));
        }
    }
}
