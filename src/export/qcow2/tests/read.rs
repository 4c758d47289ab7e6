// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Images that QEMU made.

use super::*;

/// The ways in which `qemu-img convert` is asked for an image.
const WAYS: &[&[&str]] = &[
    &["-o", "compat=0.10"],
    &["-o", "compat=1.1"],
    &["-o", "compat=1.1,lazy_refcounts=on"],
    &["-o", "cluster_size=512"],
    &["-o", "cluster_size=4k"],
    &["-o", "cluster_size=2M"],
    &["-o", "refcount_bits=1"],
    &["-o", "refcount_bits=64"],
    &["-o", "preallocation=metadata"],
    &["-S", "0"],
    &["-c"],
    &["-c", "-o", "compat=0.10"],
    &["-c", "-o", "cluster_size=512"],
    &["-c", "-o", "cluster_size=2M"],
];

#[test]
fn whatever_qemu_converts_is_read_back() {
    let dir = Dir::new();
    let size = (6 << 20) + 512;
    let pieces = [(0, 3000, 256), (100_000, 700_000, 4), (3 << 20, 1 << 20, 256), (size - 9, 9, 3)];
    raw(&dir.path("raw"), size, &pieces);
    for way in WAYS {
        let convert = ["convert", "-f", "raw", "-O", "qcow2", "raw", "image"];
        dir.run("qemu-img", &[&convert[..5], way, &convert[5..]].concat());
        assert_same(&dir.path("image"), &dir.path("raw"));
    }
}

#[test]
fn a_used_disk_is_read_as_qemu_sees_it() {
    let dir = Dir::new();
    for options in ["cluster_size=64k", "cluster_size=512", "compat=0.10", "cluster_size=2M"] {
        dir.run("qemu-img", &["create", "-q", "-f", "qcow2", "-o", options, "image", "700M"]);
        let io = |commands: &[&str]| {
            let mut arguments = Vec::new();
            commands.iter().for_each(|command| arguments.extend(["-c", command]));
            arguments.push("image");
            dir.run("qemu-io", &arguments);
        };
        io(&["write -P 1 0 1M", "write -P 2 3M 100k", "write -P 3 600M 65k", "write -P 9 699M 1M"]);
        dir.run("qemu-img", &["snapshot", "-c", "before", "image"]);
        io(&["write -P 4 64k 64k", "write -z 128k 128k", "write -z 600M 1M", "discard 3M 64k"]);
        io(&["write -P 5 100k 512", "write -P 6 8M 512", "write -z 10M 4k", "discard 0 64k"]);
        dir.run("qemu-img", &["convert", "-O", "raw", "image", "raw"]);
        assert_same(&dir.path("image"), &dir.path("raw"));
    }
}

#[test]
fn an_image_with_a_damaged_snapshot_table_still_gives_its_active_layer() {
    let dir = Dir::new();
    raw(&dir.path("raw"), 1 << 20, &[(0, 1 << 20, 7)]);
    dir.run("qemu-img", &["convert", "-O", "qcow2", "raw", "image"]);
    dir.run("qemu-img", &["snapshot", "-c", "one", "image"]);
    let file = File::options().write(true).open(dir.path("image")).unwrap();
    file.write_all_at(&[0xff; 8], 64).unwrap();
    assert_same(&dir.path("image"), &dir.path("raw"));
}

#[test]
fn an_empty_disk_of_an_exbibyte_is_one_chunk() {
    let dir = Dir::new();
    let options = "cluster_size=2M,preallocation=off";
    let size = (1u64 << 61).to_string();
    dir.run("qemu-img", &["create", "-q", "-f", "qcow2", "-o", options, "image", &size]);
    let mut disk = Qcow2Disk::open(&dir.path("image")).unwrap();
    assert_eq!(disk.next(Vec::new()).unwrap(), Some(Chunk::Zeros(1 << 61)));
    assert_eq!(disk.next(Vec::new()).unwrap(), None);
    // With data at both ends of it.
    dir.run("qemu-io", &["-c", "write -P 1 0 4k", "-c", "write -P 2 1E 4k", "image"]);
    let mut disk = Qcow2Disk::open(&dir.path("image")).unwrap();
    let (data, size) = chunks(&mut disk).unwrap();
    assert_eq!(data.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 1 << 60]);
    assert_eq!(size, 1 << 61);
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let dir = Dir::new();
    raw(&dir.path("raw"), 1 << 20, &[(0, 1000, 9)]);
    let create = ["create", "-q", "-f", "qcow2"];
    let secret = ["--object", "secret,id=s,data=pw"];
    let luks = ["-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"];
    for (arguments, expected) in [
        (vec!["-b", "raw", "-F", "raw"], "difference to a backing file"),
        (vec!["-o", "data_file=data,data_file_raw=on"], "an external data file"),
        (vec!["-o", "extended_l2=on"], "extended L2 entries"),
        (vec!["-o", "compression_type=zstd"], "zstd compression"),
        ([&secret[..], &luks[..]].concat(), "encryption (LUKS)"),
    ] {
        let _ = fs::remove_file(dir.path("image"));
        dir.run("qemu-img", &[&create[..], &arguments, &["image", "1M"]].concat());
        let failure = Qcow2Disk::open(&dir.path("image")).unwrap_err().to_string();
        assert!(failure.contains(expected), "{failure}");
        assert!(failure.contains("hint: "), "{failure}");
    }
    fs::write(dir.path("image"), "no image").unwrap();
    let failure = Qcow2Disk::open(&dir.path("image")).unwrap_err();
    assert!(failure.summary().contains("is not a qcow2 image"), "{failure}");
    assert!(Qcow2Disk::open(&dir.path("none")).is_err());
}
