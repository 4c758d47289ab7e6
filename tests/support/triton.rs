// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The finished disk on a machine that looks like one of Triton's.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::World;
use super::metadata::Metadata;

const UUID: &str = "a9d3e4b2-6f1c-4b5e-9c7d-1f2e3d4c5b6a";
/// Boots under emulation on a busy machine.
const PATIENCE: Duration = Duration::from_secs(600);

struct Guest {
    child: Child,
    dir: PathBuf,
    port: u16,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Guest {
    /// A throw-away overlay keeps the disk as it is.
    fn start(world: &World, name: &str, disk: &Path, firmware: &[String]) -> Self {
        let dir = world.path().join(name);
        fs::create_dir_all(&dir).unwrap();
        let overlay = dir.join("overlay.qcow2");
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
            .arg(disk)
            .arg(&overlay)
            .status()
            .unwrap();
        assert!(made.success());
        // The port is free now; nothing else on this machine asks for one in between.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off"])
            .args(["-smp", "2", "-m", "1024", "-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-vga", "std", "-device", "virtio-rng-pci"])
            .arg("-drive")
            .arg(format!("if=none,id=d,format=qcow2,cache=unsafe,file={}", overlay.display()))
            .args(["-device", "virtio-blk-pci,drive=d"])
            .arg("-netdev")
            .arg(format!("user,id=n,hostfwd=tcp:127.0.0.1:{port}-:22"))
            .args(["-device", "virtio-net-pci,netdev=n,mac=02:08:20:11:22:33"])
            .arg("-serial")
            .arg(format!("file:{}", dir.join("serial.log").display()))
            .arg("-chardev")
            .arg(format!("socket,id=md,path={},reconnect=1", dir.join("md").display()))
            .args(["-serial", "chardev:md"])
            .arg("-smbios")
            .arg("type=1,manufacturer=Joyent,product=SmartDC HVM,version=7.1")
            .args(firmware)
            .stdin(Stdio::null())
            .stderr(fs::File::create(dir.join("stderr")).unwrap());
        let child = command.spawn().unwrap();
        Self { child, dir, port }
    }

    fn serial(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.join("serial.log")).unwrap_or_default())
            .into_owned()
    }

    #[track_caller]
    fn wait(&self, what: &str, mut seen: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !seen() {
            let serial = self.serial();
            let tail: String =
                serial.chars().rev().take(2000).collect::<Vec<_>>().into_iter().rev().collect();
            assert!(Instant::now() < deadline, "{what} did not come; serial ends with:\n{tail}");
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    fn ssh(&self, options: &[&str], command: &str) -> std::process::Output {
        Command::new("ssh")
            .args([
                "-F",
                "none",
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
            ])
            .args([
                "-o",
                "IdentityAgent=none",
                "-o",
                "IdentitiesOnly=yes",
                "-o",
                "ConnectTimeout=20",
            ])
            .args(options)
            .args(["-p", &self.port.to_string(), "root@127.0.0.1", command])
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

fn uefi(dir: &Path) -> Vec<String> {
    fs::create_dir_all(dir).unwrap();
    let vars = dir.join("vars.fd");
    fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &vars).unwrap();
    let code = "/usr/share/OVMF/OVMF_CODE_4M.fd";
    vec![
        "-drive".into(),
        format!("if=pflash,format=raw,readonly=on,file={code}"),
        "-drive".into(),
        format!("if=pflash,format=raw,file={}", vars.display()),
    ]
}

/// Boots under UEFI with empty variables and the metadata of a new instance.
pub fn check(world: &World, disk: &Path) -> String {
    let dir = world.path().join("triton");
    let firmware = uefi(&dir);
    let key = dir.join("id");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "customer", "-f"])
        .arg(&key)
        .status()
        .unwrap();
    assert!(made.success());
    let public = fs::read_to_string(key.with_extension("pub")).unwrap().trim().to_owned();
    let metadata = Metadata::serve(&dir.join("md"), values(&public));
    let start = Instant::now();
    let guest = Guest::start(world, "triton", disk, &firmware);

    let identity = key.display().to_string();
    let login = ["-i", identity.as_str(), "-o", "PasswordAuthentication=no"];
    guest.wait("a login by the customer's key", || guest.ssh(&login, "true").status.success());
    let seconds = start.elapsed().as_secs_f64();
    let asked = metadata.asked();
    for wanted in ["NEGOTIATE", "sdc:uuid", "root_authorized_keys", "sdc:nics"] {
        assert!(asked.iter().any(|key| key == wanted), "{wanted} was not asked for: {asked:?}");
    }
    let run = |command: &str| {
        let out = guest.ssh(&login, command);
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    };
    let status = run("cloud-init status --wait --long");
    assert!(status.contains("status: done"), "{status}");
    assert!(status.to_ascii_lowercase().contains("smartos"), "{status}");
    assert_eq!(run("hostname"), "customer-host");
    assert_eq!(run("mdata-get sdc:uuid"), UUID);
    assert_eq!(run("swapon --noheadings | wc -l"), "0");
    assert_eq!(
        run("systemctl is-system-running --wait")
            .replace("degraded", &run("systemctl --failed --no-legend")),
        "running"
    );
    assert!(!run("cat /etc/machine-id").is_empty());
    assert!(run("ls /etc/ssh/ssh_host_*_key | wc -l").parse::<u32>().unwrap() >= 1);
    let refused = guest.ssh(&["-o", "PubkeyAuthentication=no", "-o", "BatchMode=yes"], "true");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "root logged in without a key");
    assert!(said.contains("Permission denied (publickey"), "{said}");
    assert!(!said.contains("password"), "password login is offered: {said}");
    format!("login on a Triton-like machine after {seconds:.0} s")
}

/// Boots by SeaBIOS to the login prompt of the serial console.
pub fn bios_reaches_login(world: &World, disk: &Path) {
    let dir = world.path().join("bios");
    fs::create_dir_all(&dir).unwrap();
    let _metadata = Metadata::serve(&dir.join("md"), values("ssh-ed25519 AAAA nobody"));
    let guest = Guest::start(world, "bios", disk, &[]);
    guest.wait("a login prompt after a BIOS boot", || guest.serial().contains("login:"));
}

fn values(public: &str) -> BTreeMap<String, String> {
    let nics = r#"[{"interface":"eth0","mac":"02:08:20:11:22:33","ips":["dhcp"],"primary":true}]"#;
    [
        ("sdc:uuid", UUID),
        ("root_authorized_keys", public),
        ("hostname", "customer-host"),
        ("sdc:hostname", "customer-host"),
        ("sdc:nics", nics),
        ("sdc:resolvers", r#"["10.0.2.3"]"#),
        ("sdc:routes", "[]"),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}
