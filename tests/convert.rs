// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `imgforge convert` and `imgforge stream`, held against `qemu-img`, `gzip` and `sha1sum`.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use support::{World, names};

/// A sparse disk of 20 MiB: noise, text and holes.
fn disk(world: &World) -> PathBuf {
    let path = world.work().join("disk.raw");
    let file = fs::File::create(&path).unwrap();
    file.set_len(20 << 20).unwrap();
    let noise: Vec<u8> = (0u64..200_000)
        .flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).to_le_bytes())
        .collect();
    file.write_all_at(&noise, 3 << 20).unwrap();
    file.write_all_at(&b"text ".repeat(100_000), (9 << 20) + 4096).unwrap();
    file.write_all_at(b"end", (20 << 20) - 3).unwrap();
    path
}

fn succeeds(program: &str, arguments: &[&str], world: &World) -> String {
    let output = Command::new(program).args(arguments).current_dir(world.work()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn every_format_holds_the_same_disk() {
    let world = World::new();
    disk(&world);
    let mut from = "disk.raw".to_owned();
    for to in ["a.qcow2", "b.zfs", "c.raw.gz", "d.raw", "e.zfs.gz", "f.qcow2", "g.raw"] {
        let (input, size) = (from.as_str(), (20 << 20).to_string());
        if input.ends_with("raw.gz") || input.contains(".zfs") {
            world.run(&["convert", input, to]).expect(0);
        } else {
            world.run(&["convert", input, to, "--compress", "--size", &size]).expect(0);
        }
        to.clone_into(&mut from);
    }
    succeeds("cmp", &["disk.raw", "d.raw"], &world);
    succeeds("cmp", &["disk.raw", "g.raw"], &world);
    succeeds("gzip", &["-t", "c.raw.gz"], &world);
    succeeds("gzip", &["-t", "e.zfs.gz"], &world);
    for image in ["a.qcow2", "f.qcow2"] {
        succeeds("qemu-img", &["check", "-q", image], &world);
        succeeds("qemu-img", &["compare", "-q", "disk.raw", image], &world);
    }
    let facts = fs::metadata(world.work().join("g.raw")).unwrap();
    let used = std::os::unix::fs::MetadataExt::blocks(&facts) * 512;
    assert!(used < 8 << 20, "{used} bytes of a sparse disk");
}

#[test]
fn an_epoch_makes_the_same_bytes() {
    let world = World::new();
    disk(&world);
    for to in ["1.zfs.gz", "2.zfs.gz"] {
        world.run(&["convert", "disk.raw", to, "--source-date-epoch", "1700000000"]).expect(0);
    }
    succeeds("cmp", &["1.zfs.gz", "2.zfs.gz"], &world);
    let info = world.run(&["stream", "info", "1.zfs.gz", "--json"]);
    let info: serde_json::Value = serde_json::from_str(&info.expect(0).stdout).unwrap();
    assert_eq!((&info["creation"], &info["volsize"]), (&1_700_000_000.into(), &(20 << 20).into()));
}

#[test]
fn what_cannot_be_done_is_refused_before_work_and_leaves_nothing() {
    let world = World::new();
    disk(&world);
    let refused = |arguments: &[&str], why: &str| {
        let mut all = vec!["convert"];
        all.extend(arguments);
        world.run(&all).expect(2).says(why);
    };
    refused(&["disk.raw", "disk.raw", "--force"], "same file");
    refused(&["disk.raw", "disk.bin"], "tells no format");
    refused(&["none.raw", "x.zfs"], "none.raw");
    refused(&["disk.raw", "x.zfs", "--volblocksize", "1000"], "power of two");
    refused(&["disk.raw", "x.zfs", "--name", "nameless"], "no snapshot's name");
    refused(&["disk.raw", "-", "--to", "qcow2"], "pipe");
    world.run(&["convert", "disk.raw", "x.qcow2"]).expect(0);
    refused(&["disk.raw", "x.qcow2"], "exists already");
    refused(&["x.qcow2", "y.raw", "--from", "raw"], "qcow2 image");
    assert_eq!(names(&world.work()), ["disk.raw", "x.qcow2"]);
}

#[test]
fn damaged_input_leaves_no_output() {
    let world = World::new();
    disk(&world);
    world.run(&["convert", "disk.raw", "whole.zfs"]).expect(0);
    let whole = fs::read(world.work().join("whole.zfs")).unwrap();
    fs::write(world.work().join("cut.zfs"), &whole[..whole.len() - 312]).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    fs::write(world.work().join("flipped.zfs"), flipped).unwrap();
    for (input, why) in [("cut.zfs", "without END"), ("flipped.zfs", "checksum")] {
        world.run(&["convert", input, "out.raw"]).expect(1).says(why).says("record").says("offset");
        world.run(&["stream", "info", input]).expect(1).says(why);
    }
    let file = fs::File::create(world.work().join("short.raw")).unwrap();
    file.set_len(1 << 20).unwrap();
    // An MBR with one partition that ends beyond the file.
    file.write_all_at(&[0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 1, 0], 450).unwrap();
    file.write_all_at(&[0x55, 0xaa], 510).unwrap();
    world.run(&["convert", "short.raw", "out.zfs.gz"]).expect(2).says("partition table");
    let left: Vec<_> = names(&world.work()).into_iter().filter(|n| n.contains("out")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_reader_that_leaves_is_an_error_and_no_panic() {
    let world = World::new();
    disk(&world);
    let mut child = Command::new(env!("CARGO_BIN_EXE_imgforge"))
        .args(["convert", "disk.raw", "-", "--to", "raw"])
        .current_dir(world.work())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("panicked"), "{said}");
    assert_ne!(output.status.code(), Some(101), "{said}");
}
