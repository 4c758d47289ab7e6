// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Builds that cannot succeed, by the real binary and QEMU: what is said, with which exit code,
//! and that nothing stays. Every cause is real; none of them needs an installer to run.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use support::{Done, World, hollow_medium, names};

/// A target that types at once and waits a second for its answer file.
const HOLLOW: &str = "\
media: {url: hollow.iso, checksum: none}
machine: {cpus: 1, memory: 256M, disk: 64M}
boot: {wait: 1s, command: \"a<enter>\"}
http: {content: {/answers: x}}
install: {answer_timeout: 1s}
";

/// A world with the target `t`, and a medium that firmware would boot but for its content.
fn world(target: &str) -> World {
    let world = World::new();
    fs::write(world.work().join("t.yaml"), target).unwrap();
    fs::write(world.work().join("hollow.iso"), hollow_medium()).unwrap();
    world
}

const BUILD: [&str; 7] =
    ["build", "--target-file", "t.yaml", "--hypervisor", "qemu", "--no-progress", "--no-cache"];

fn build(world: &World, more: &[&str]) -> Done {
    world.run(&[&BUILD, more].concat())
}

/// Nothing runs, nothing is in the run directory, and the working directory has what it had
/// before: besides the evidence, if any is expected.
#[track_caller]
fn nothing_stays(world: &World, evidence: bool) {
    world.assert_nothing_left();
    let mut expected = vec!["hollow.iso", "t.yaml"];
    if evidence {
        expected.insert(1, "output-t-x86_64.failed");
    }
    assert_eq!(names(&world.work()), expected);
}

#[test]
fn without_qemu() {
    let world = world(HOLLOW);
    let mut command = world.imgforge();
    command.args(BUILD).env("PATH", "/nonexistent").env_remove("IMGFORGE_QEMU");
    let done = Done::of(&command.output().unwrap());
    done.expect(1).says("error: QEMU is not installed").says("qemu-system-x86_64 in /nonexistent");
    done.says("hint: install it: `apt-get install qemu-system-x86`");
    nothing_stays(&world, false);
}

#[test]
fn with_a_qemu_that_is_none() {
    let world = world(HOLLOW);
    let mut command = world.imgforge();
    command.args(BUILD).env("IMGFORGE_QEMU", "/bin/false");
    let done = Done::of(&command.output().unwrap());
    done.expect(1).says("error: QEMU does not run").says("correct or unset IMGFORGE_QEMU");
    nothing_stays(&world, false);
}

/// In a mount namespace whose firmware directories are empty.
#[test]
fn without_uefi_firmware() {
    let world = world(HOLLOW);
    let script = "for d in OVMF edk2 edk2-ovmf ovmf; do \
                  [ ! -d /usr/share/$d ] || mount -t tmpfs none /usr/share/$d || exit 99; done; \
                  exec \"$@\"";
    let bundled = fs::read_dir("/usr/share/qemu").into_iter().flatten().flatten().any(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with("edk2-x86_64-code") || name.starts_with("ovmf-x86_64")
    });
    assert!(!bundled, "QEMU brings firmware of its own here: this test cannot hide it");
    let program = world.imgforge();
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(program.get_program()).args(BUILD);
    command.current_dir(world.work()).stdin(Stdio::null());
    for name in ["IMGFORGE_OVMF_CODE", "IMGFORGE_OVMF_VARS"] {
        command.env_remove(name);
    }
    for (name, value) in program.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let done = Done::of(&command.output().unwrap());
    done.expect(1).says("error: there is no UEFI firmware for QEMU (OVMF)");
    assert_eq!(done.fact("looked"), "/usr/share/OVMF/OVMF_CODE_4M.fd");
    done.says("hint: install it: `apt-get install ovmf`");
    nothing_stays(&world, false);
    let mut command = world.imgforge();
    command.args(BUILD).env("IMGFORGE_OVMF_CODE", "/absent").env("IMGFORGE_OVMF_VARS", "/absent");
    let done = Done::of(&command.output().unwrap());
    done.expect(2).says("correct or unset IMGFORGE_OVMF_CODE");
    nothing_stays(&world, false);
}

#[test]
fn a_qemu_that_dies_at_start_has_its_own_words_shown() {
    let world = world(&HOLLOW.replace("cpus: 1", "cpus: 1, qemu_args: [-device, no-such-device]"));
    let done = build(&world, &[]);
    done.expect(1).says("t: install: QEMU could not start the machine");
    done.says("'no-such-device' is not a valid device model name")
        .says("hint: run `imgforge doctor`");
    nothing_stays(&world, true);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let serial =
        format!("cpus: 1, qemu_args: [-serial, \"tcp:127.0.0.1:{port},server=on,wait=off\"]");
    let world = world(&HOLLOW.replace("cpus: 1", &serial));
    let done = build(&world, &[]);
    done.expect(1).says("QEMU could not start the machine").says("Address already in use");
    done.says(&port.to_string());
    nothing_stays(&world, true);
}

#[test]
fn mirrors_that_cannot_be_reached_are_all_named() {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (one, two) = (free(), free());
    let urls = format!(
        "{{urls: [\"http://127.0.0.1:{one}/a.iso\", \"http://127.0.0.1:{two}/a.iso\"], checksum: \"sha256:{}\"}}",
        "0".repeat(64)
    );
    let world = world(&HOLLOW.replace("{url: hollow.iso, checksum: none}", &urls));
    let done = build(&world, &[]);
    done.expect(1).says("t: media: none of 2 addresses gives a.iso").says("refused");
    done.says(&format!("127.0.0.1:{one}")).says(&format!("127.0.0.1:{two}")).says("hint: ");
    nothing_stays(&world, true);
    assert!(!names(&world.path().join("cache")).iter().any(|name| name.ends_with(".iso")));
}

#[test]
fn a_wrong_checksum_shows_both_sums() {
    let world = world(&HOLLOW.replace("none", &format!("\"sha256:{}\"", "0".repeat(64))));
    let done = build(&world, &[]);
    let sum = Command::new("sha256sum").arg(world.work().join("hollow.iso")).output().unwrap();
    let sum = String::from_utf8_lossy(&sum.stdout)[..64].to_owned();
    done.expect(1).says("t: media: the medium's checksum is wrong");
    assert_eq!(done.fact("expected"), format!("sha256:{}", "0".repeat(64)));
    assert_eq!(done.fact("found"), format!("sha256:{sum}"));
    done.says("correct the target's checksum");
    nothing_stays(&world, true);
}

#[test]
fn a_medium_that_is_none_is_told_what_it_is() {
    let world = world(HOLLOW);
    fs::write(world.work().join("hollow.iso"), "<!DOCTYPE html><html>Not found</html>").unwrap();
    let done = build(&world, &[]);
    done.expect(1)
        .says("the medium is not bootable: it is ")
        .says("hint: check the target's media url");
    nothing_stays(&world, true);
    fs::write(world.work().join("hollow.iso"), hollow_medium()).unwrap();
    fs::write(world.work().join("t.yaml"), HOLLOW.replace("cpus: 1", "cpus: 1, firmware: bios"))
        .unwrap();
    let done = build(&world, &[]);
    done.expect(2).says("the medium does not boot under BIOS").says("machine.firmware: uefi");
    nothing_stays(&world, true);
    fs::remove_file(world.work().join("hollow.iso")).unwrap();
    build(&world, &[]).expect(2).says("hollow.iso").says("hint: ");
    world.assert_nothing_left();
}

#[test]
fn an_output_that_exists_is_not_touched() {
    let world = world(HOLLOW);
    let output = world.work().join("out");
    fs::create_dir(&output).unwrap();
    fs::write(output.join("precious"), "x").unwrap();
    let done = build(&world, &["--output", "out"]);
    done.expect(2)
        .says("error: the output directory exists already")
        .says("replace it with `--force`");
    assert_eq!(names(&output), ["precious"]);
    // A forced build that fails has replaced nothing.
    fs::write(world.work().join("hollow.iso"), "").unwrap();
    build(&world, &["--output", "out", "--force"]).expect(1);
    assert_eq!(names(&output), ["precious"]);
    world.assert_nothing_left();
}

/// As root, without the privilege to ignore permissions.
#[test]
fn a_place_that_may_not_be_written_is_named() {
    let world = world(HOLLOW);
    let closed = world.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    let output = closed.join("out").display().to_string();
    let program = world.imgforge();
    let mut command = if nix::unistd::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", "-dac_override,-dac_read_search"]);
        command.arg(program.get_program());
        command
    } else {
        Command::new(program.get_program())
    };
    command.args(BUILD).args(["--output", &output]).current_dir(world.work());
    for (name, value) in program.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let done = Done::of(&command.stdin(Stdio::null()).output().unwrap());
    done.expect(2).says("error: no way to write beside the output directory");
    done.says("Permission denied").says("choose a writable place with `--output DIR`");
    assert_eq!(names(&closed), Vec::<String>::new());
    nothing_stays(&world, false);
}

#[test]
fn a_guest_that_never_asks_for_its_answer_file_is_told_apart() {
    let world = world(HOLLOW);
    let done = build(&world, &[]);
    done.expect(1).says("typing again, slower (2 of 2)");
    done.says("the guest never asked for its answer file within 1 s");
    assert_eq!(done.fact("wanted"), "/answers");
    assert_eq!(done.fact("http"), "the guest asked for nothing");
    done.says("`imgforge keys --target t` shows what was typed").says(".png");
    nothing_stays(&world, true);
    let shot = done.fact("screen");
    assert!(shot.contains(".failed/screenshots/") && fs::metadata(&shot).is_ok(), "{shot}");
}

/// QEMU is killed from outside while the installer is waited for.
#[test]
fn a_qemu_that_is_killed_ends_the_build_at_once() {
    let world = world(&HOLLOW.replace("answer_timeout: 1s", "answer_timeout: 10m"));
    let child = world.spawn(&BUILD);
    let pid = world.wait_for_process("qemu-system");
    assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    let done = Done::of(&child.wait_with_output().unwrap());
    done.expect(1).says("QEMU").says("hint: ");
    nothing_stays(&world, true);
}

#[test]
fn a_kept_machine_stays_until_clean_and_says_how_to_reach_it() {
    let world = world(HOLLOW);
    let done = build(&world, &["--on-error", "keep"]);
    done.expect(1).says("never asked for its answer file");
    done.says("a VNC viewer on the socket")
        .says("end it and remove what it holds: `imgforge clean`");
    let shot = done.fact("screen");
    assert!(fs::metadata(&shot).is_ok(), "{shot} is no file");
    let running = world.processes();
    assert!(running.len() == 1 && running[0].contains("qemu-system"), "{running:?}");
    // A later build of anything undoes what died, but not what the user kept.
    fs::write(world.work().join("hollow.iso"), "").unwrap();
    build(&world, &["--output", "other"]).expect(1);
    assert_eq!(world.processes(), running);
    world.run(&["clean"]).expect(0).says("kept for its user");
    world.assert_nothing_left();
}

#[test]
fn asking_without_a_terminal_cleans_up() {
    let world = world(HOLLOW);
    build(&world, &["--on-error", "ask"]).expect(1).says("never asked for its answer file");
    nothing_stays(&world, true);
}

/// At a terminal that `script` makes: tries once more, then gives up.
#[test]
fn asking_offers_another_try_and_an_end() {
    let world = world(HOLLOW);
    let done = world.at_a_terminal(&[&BUILD[..], &["--on-error", "ask"]].concat(), &["r", "a"]);
    done.expect(1);
    assert_eq!(done.stdout.matches("[r]etry this step").count(), 2, "{}", done.stdout);
    // Two tries of two times typing each.
    assert_eq!(done.stdout.matches("typing again, slower").count(), 2, "{}", done.stdout);
    nothing_stays(&world, true);
}
