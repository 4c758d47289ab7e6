// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The main job on the real installer: one slow build, then many questions to its result.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Disk, World, needs};

fn build(world: &World, more: &[&str]) -> support::Done {
    let iso = needs("IMGFORGE_DEBIAN_ISO");
    let mirror = needs("IMGFORGE_MIRROR");
    let mut args = vec![
        "build".to_owned(),
        "debian-13".to_owned(),
        "--no-progress".to_owned(),
        "--output".to_owned(),
        "out".to_owned(),
        "--iso".to_owned(),
        iso.display().to_string(),
        "--var".to_owned(),
        format!("mirror={}", mirror.display()),
    ];
    for pair in std::env::var("IMGFORGE_DEBIAN_VARS").unwrap_or_default().split_whitespace() {
        args.extend(["--var".to_owned(), pair.to_owned()]);
    }
    args.extend(more.iter().map(|word| (*word).to_owned()));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    world.run(&args)
}

#[test]
#[ignore = "installs Debian under emulation, half an hour: run `cargo xtask test`"]
fn debian_13_is_installed_provisioned_sealed_and_boots_again() {
    let world = World::new();
    let done = build(&world, &[]);
    if let Some(keep) = std::env::var_os("IMGFORGE_KEEP_LOGS") {
        copy_logs(&world, Path::new(&keep));
    }
    done.expect(0);
    world.assert_nothing_left();

    let out = world.work().join("out");
    let disk = unpack(&out.join("debian-13.raw.gz"));
    manifest_is_right(&out, &disk);
    {
        let root = Disk::open(&disk);
        sealed(&root);
        for_smartos(&root);
        one_kernel(&root);
        mirrors(&root);
        boots_both_ways_on_paper(&root);
    }
    trimmed(&disk);
    boots_on_triton(&world, &disk);
    boots_by_bios(&world, &disk);
    host_mode_reuses_the_installation(&world);
}

fn copy_logs(world: &World, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for from in ["out", "out.failed"] {
        let from = world.work().join(from);
        for name in ["build.log", "events.jsonl", "serial.log", "screenshots"] {
            let _ = Command::new("cp").arg("-r").arg(from.join(name)).arg(to).status();
        }
    }
}

fn unpack(packed: &Path) -> PathBuf {
    let disk = packed.with_extension("");
    let script = format!(
        "gzip -dc {} | dd of={} bs=1M conv=sparse iflag=fullblock status=none",
        packed.display(),
        disk.display()
    );
    assert!(Command::new("sh").args(["-ec", &script]).status().unwrap().success());
    let size = 10 * 1024 * 1024 * 1024;
    fs::OpenOptions::new().write(true).open(&disk).unwrap().set_len(size).unwrap();
    disk
}

fn manifest_is_right(out: &Path, disk: &Path) {
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["v"], 2);
    assert_eq!(manifest["name"], "debian-13");
    assert_eq!(manifest["image_size"], 10240);
    assert_eq!(fs::metadata(disk).unwrap().len(), 10240 * 1024 * 1024);
    let sum = Command::new("sha1sum").arg(out.join("debian-13.raw.gz")).output().unwrap();
    let sum = String::from_utf8_lossy(&sum.stdout).split(' ').next().unwrap().to_owned();
    assert_eq!(manifest["files"][0]["sha1"], sum);
}

fn sealed(root: &Disk) {
    let shadow = root.read("/etc/shadow");
    let unlocked: Vec<&str> = shadow
        .lines()
        .filter(|line| line.split(':').nth(1).is_some_and(|hash| hash.starts_with('$')))
        .collect();
    assert!(unlocked.is_empty(), "accounts with a usable password: {unlocked:?}");
    assert!(!root.read_or_empty("/etc/shadow-").contains("$6$"), "the old shadow file has a hash");
    assert!(!root.exists("/root/.ssh/authorized_keys"), "the build key is left");
    assert_eq!(root.read_or_empty("/etc/machine-id").trim().trim_end_matches("uninitialized"), "");
    let keys: Vec<String> =
        root.list("/etc/ssh").into_iter().filter(|name| name.starts_with("ssh_host_")).collect();
    assert!(keys.is_empty(), "host keys are left: {keys:?}");
    for gone in [
        "/usr/bin/ansible-playbook",
        "/root/.ansible",
        "/var/log/installer",
        "/var/lib/cloud/instance",
        "/root/.bash_history",
    ] {
        assert!(!root.exists(gone), "{gone} is left");
    }
    let cached: Vec<String> = root
        .list("/var/cache/apt/archives")
        .into_iter()
        .filter(|name| name.ends_with(".deb"))
        .collect();
    assert!(cached.is_empty(), "packages are left in the cache: {cached:?}");
}

fn for_smartos(root: &Disk) {
    let config = root.read("/etc/cloud/cloud.cfg.d/90_smartos.cfg");
    assert!(config.contains("datasource_list") && config.contains("SmartOS"), "{config}");
    assert!(root.exists("/usr/sbin/mdata-get"));
    let fstab = root.read("/etc/fstab");
    assert!(!fstab.lines().any(|line| !line.starts_with('#') && line.contains("swap")), "{fstab}");
}

fn one_kernel(root: &Disk) {
    let kernels: Vec<String> =
        root.list_boot().into_iter().filter(|name| name.starts_with("vmlinuz-")).collect();
    assert_eq!(kernels.len(), 1, "{kernels:?}");
    assert_eq!(root.list("/usr/lib/modules").len(), 1, "{:?}", root.list("/usr/lib/modules"));
}

/// The mirror of the build must be nowhere in the image.
fn mirrors(root: &Disk) {
    let host = needs("IMGFORGE_MIRROR").display().to_string();
    let host = host.split("//").nth(1).unwrap().split('/').next().unwrap().to_owned();
    let sources = root.grep_etc("/etc/apt");
    assert!(sources.contains("deb.debian.org"), "{sources}");
    if host != "deb.debian.org" {
        assert!(!sources.contains(&host), "the build's mirror is left:\n{sources}");
    }
}

fn boots_both_ways_on_paper(root: &Disk) {
    let types = root.partition_types();
    // UEFI 2.10 table 5.7, and the BIOS boot partition of GRUB.
    assert!(types.iter().any(|t| t == "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"), "{types:?}");
    assert!(types.iter().any(|t| t == "21686148-6449-6E6F-744E-656564454649"), "{types:?}");
}

/// Free space was discarded, not carried along: the disk holds little more than the files do.
fn trimmed(disk: &Path) {
    use std::os::unix::fs::MetadataExt;
    let allocated = fs::metadata(disk).unwrap().blocks() * 512;
    assert!(allocated < 2 * 1024 * 1024 * 1024, "{allocated} bytes are allocated");
}

/// The finished image on a machine that looks like Triton's: cloud-init takes the SmartOS
/// datasource, root logs in by the key from the metadata and by no password.
fn boots_on_triton(world: &World, disk: &Path) {
    let report = support::triton::check(world, disk);
    println!("{report}");
}

/// SmartOS' default boot ROM is a BIOS: the same disk must start there too.
fn boots_by_bios(world: &World, disk: &Path) {
    support::triton::bios_reaches_login(world, disk);
}

fn host_mode_reuses_the_installation(world: &World) {
    let done = build(world, &["--force", "--var", "ansible_mode=host"]);
    done.expect(0).says("cached");
    world.assert_nothing_left();
    let disk = unpack(&world.work().join("out/debian-13.raw.gz"));
    let root = Disk::open(&disk);
    sealed(&root);
    for_smartos(&root);
}
