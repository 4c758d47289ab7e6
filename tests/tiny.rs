// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The whole pipeline on a medium that installs in seconds: typed boot command, answer file,
//! disk, reboot, SSH, provisioning, shutdown, output; and how each of them fails.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{Done, World, names, tiny_medium};

fn tiny(more: &[&str]) -> Vec<String> {
    let target = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny/tiny.yaml");
    let iso = tiny_medium();
    let mut args: Vec<String> =
        ["build", "tiny", "--hypervisor", "qemu", "--no-progress", "--output", "out"]
            .iter()
            .map(|word| (*word).to_owned())
            .collect();
    args.extend(["--target-file".into(), target.display().to_string()]);
    args.extend(["--iso".into(), iso.display().to_string()]);
    // Other tests may keep the machine busy.
    args.extend(["--var".into(), "boot_wait=20s".into()]);
    args.extend(more.iter().map(|word| (*word).to_owned()));
    args
}

fn build(world: &World, more: &[&str]) -> Done {
    let args = tiny(more);
    world.run(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
#[ignore = "needs the tiny medium: run `cargo xtask test`"]
fn a_tiny_image_is_built_and_holds_what_the_manifest_says() {
    let world = World::new();
    let start = Instant::now();
    build(&world, &[]).expect(0);
    let out = world.work().join("out");
    let image = |ending: &str| out.join(format!("tiny-1{ending}"));
    let (packed, manifest) = (image(".x86_64.zfs.gz"), image(".json"));
    let (disk, qcow2) = (image(".x86_64.raw"), image(".x86_64.qcow2"));
    for path in [&packed, &manifest, &disk, &qcow2] {
        assert!(path.is_file(), "{} is missing in {:?}", path.display(), names(&out));
    }
    for name in ["build.log", "events.jsonl", "serial.log", "screenshots"] {
        assert!(out.join(name).exists(), "{name} is missing in {:?}", names(&out));
    }
    assert!(!out.join("tiny.raw").exists() && !image(".x86_64.raw.gz").exists(), "not asked for");

    let checked = ["manifest", "check", text(&manifest), "--file", text(&packed)];
    world.run(&checked).expect(0);
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    let sum = Command::new("sha1sum").arg(&packed).output().unwrap();
    let sum = String::from_utf8_lossy(&sum.stdout).split(' ').next().unwrap().to_owned();
    assert_eq!(manifest["files"][0]["sha1"], sum);
    assert_eq!(manifest["files"][0]["size"], fs::metadata(&packed).unwrap().len());
    assert_eq!(manifest["type"], "zvol");
    holds_the_same(&world, &packed, &disk, &qcow2, &manifest);
    assert_eq!(
        manifest["image_size"].as_u64().unwrap() * 1024 * 1024,
        fs::metadata(&disk).unwrap().len()
    );

    let events = fs::read_to_string(out.join("events.jsonl")).unwrap();
    let kinds: Vec<String> = events
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|event| event["event"].as_str().unwrap().to_owned())
        .collect();
    for kind in
        ["build-started", "typing", "http", "output", "screenshot", "artefact", "build-done"]
    {
        assert!(kinds.iter().any(|k| k == kind), "no {kind} in {kinds:?}");
    }
    let shots = names(&out.join("screenshots"));
    assert!(shots.len() >= 4, "{shots:?}");
    world.assert_nothing_left();
    println!("whole tiny build with checks: {:.1} s", start.elapsed().as_secs_f64());

    no_credentials_in(&disk);
    second_build_uses_the_cached_installation(&world);
}

/// The stream, read back, and the qcow2 disk are the raw disk; the stream is the one that the
/// manifest names.
fn holds_the_same(
    world: &World,
    packed: &Path,
    disk: &Path,
    qcow2: &Path,
    manifest: &serde_json::Value,
) {
    let back = disk.with_extension("back");
    world.run(&["convert", text(packed), text(&back), "--to", "raw"]).expect(0);
    let compare = |other: &Path, format: &str| {
        let status = Command::new("qemu-img")
            .args(["compare", "-q", "-f", "raw", "-F", format])
            .args([disk, other])
            .status()
            .unwrap();
        assert!(status.success(), "{} is not the disk", other.display());
    };
    compare(&back, "raw");
    compare(qcow2, "qcow2");
    fs::remove_file(&back).unwrap();
    let info = world.run(&["stream", "info", "--json", text(packed)]);
    let info: serde_json::Value = serde_json::from_str(&info.expect(0).stdout).unwrap();
    assert_eq!(info["guid"], manifest["files"][0]["dataset_guid"]);
    let uuid = manifest["uuid"].as_str().unwrap();
    assert_eq!(info["name"], format!("zones/{uuid}@final"));
    assert_eq!(info["features"], serde_json::json!([]));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The build's key must be nowhere on the disk, in use or not: `fstrim` has given back the rest.
fn no_credentials_in(disk: &Path) {
    let mut file = fs::File::open(disk).unwrap();
    let mut window = Vec::new();
    let mut chunk = vec![0_u8; 1 << 20];
    loop {
        let count = file.read(&mut chunk).unwrap();
        if count == 0 {
            break;
        }
        window.extend_from_slice(&chunk[..count]);
        assert!(!contains(&window, b"imgforge-build"), "the build key's comment is on the disk");
        window.drain(..window.len().saturating_sub(64));
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn second_build_uses_the_cached_installation(world: &World) {
    let done = build(world, &[]);
    done.expect(2).says("exists already").says("--force");
    let start = Instant::now();
    let done = build(world, &["--force"]);
    done.expect(0).says("cached");
    println!("cached tiny build: {:.1} s", start.elapsed().as_secs_f64());
    assert_eq!(names(&world.work()), ["out"]);
    world.assert_nothing_left();
}

#[test]
#[ignore = "needs the tiny medium: run `cargo xtask test`"]
fn a_panicking_installer_is_reported_with_its_last_words() {
    let world = World::new();
    let done = build(&world, &["--var", "mode=panic"]);
    done.expect(1).says("panic").says("screen").says("out.failed");
    assert!(world.work().join("out.failed/serial.log").exists());
    world.assert_nothing_left();
}

#[test]
#[ignore = "needs the tiny medium: run `cargo xtask test`"]
fn an_installer_that_asks_a_question_is_shown() {
    let world = World::new();
    let done = build(&world, &["--var", "mode=question", "--var", "stall=20s"]);
    done.expect(1).says("no sign of life").says(".png").says("asks a question");
    let shots = names(&world.work().join("out.failed/screenshots"));
    assert!(shots.iter().any(|name| name.contains("failure")), "{shots:?}");
    world.assert_nothing_left();
}

#[test]
#[ignore = "needs the tiny medium: run `cargo xtask test`"]
fn a_guest_without_ssh_is_told_from_one_that_refuses() {
    let world = World::new();
    let done = build(&world, &["--var", "mode=nosshd", "--var", "ssh_timeout=40s"]);
    done.expect(1).says("port 22").says("screen");
    world.assert_nothing_left();
}

#[test]
#[ignore = "needs the tiny medium: run `cargo xtask test`"]
fn a_failing_step_is_named_and_the_next_run_resumes_after_the_installation() {
    let world = World::new();
    let done = build(&world, &["--var", "step=exit 7"]);
    done.expect(1).says("provision").says('7'.to_string().as_str()).says("out.failed");
    world.assert_nothing_left();
    build(&world, &[]).expect(0).says("cached");
    world.assert_nothing_left();
}

#[test]
#[ignore = "needs the tiny medium: run `cargo xtask test`"]
fn an_interrupt_is_orderly_and_a_kill_is_cleaned_up_later() {
    let world = World::new();
    let args = tiny(&["--no-cache"]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();

    let child = world.spawn(&args);
    wait_for_qemu(&world);
    signal(child.id(), "INT");
    let done = Done::of(&child.wait_with_output().unwrap());
    done.expect(130).says("interrupted");
    world.assert_nothing_left();

    let mut child = world.spawn(&args);
    wait_for_qemu(&world);
    signal(child.id(), "KILL");
    child.wait().unwrap();
    world.run(&["clean"]).expect(0);
    world.assert_nothing_left();
}

fn wait_for_qemu(world: &World) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let started = || {
        let scratch = names(&world.work()).into_iter().find(|name| name.contains(".imgforge-"));
        scratch.is_some_and(|name| {
            let events = world.work().join(name).join("events.jsonl");
            fs::read_to_string(events).unwrap_or_default().contains("started with the installer")
        })
    };
    while !started() {
        assert!(Instant::now() < deadline, "the machine did not start");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn signal(pid: u32, name: &str) {
    let status =
        Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().unwrap();
    assert!(status.success());
}

#[test]
#[ignore = "needs the tiny medium: run `cargo xtask test`"]
fn two_builds_into_one_place_do_not_disturb_each_other() {
    let world = World::new();
    let args = tiny(&["--no-cache"]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let child = world.spawn(&args);
    wait_for_qemu(&world);
    let second = world.run(&args);
    second.expect(2).says("is being built into").says(&child.id().to_string());
    signal(child.id(), "TERM");
    Done::of(&child.wait_with_output().unwrap()).expect(130);
    world.assert_nothing_left();
}

#[test]
#[ignore = "needs the tiny medium: run `cargo xtask test`"]
fn a_full_output_file_system_is_named_and_nothing_stays() {
    let world = World::new();
    let small = world.path().join("small");
    fs::create_dir(&small).unwrap();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=48m", "tmpfs"])
        .arg(&small)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(mount.success(), "this test needs root to mount a small file system");
    let output = small.join("out").display().to_string();
    let mut args = tiny(&[]);
    let place = args.iter().position(|word| word == "out").unwrap();
    args[place] = output;
    let done = world.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let left: Vec<String> =
        names(&small).into_iter().filter(|name| !name.ends_with(".failed")).collect();
    let unmounted = Command::new("umount").arg("-l").arg(&small).status().unwrap();
    assert!(unmounted.success());
    done.expect(1).says("space");
    assert_eq!(left, Vec::<String>::new());
    world.assert_nothing_left();
}
