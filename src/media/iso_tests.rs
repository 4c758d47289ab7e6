// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Tests of the boot check, on images laid out byte by byte and on real ones made by xorriso.
#![allow(clippy::unwrap_used)]

use std::io::Cursor;
use std::process::Command;

use proptest::prelude::*;

use super::*;

fn look(image: &[u8]) -> Outcome<BootMedium> {
    examine(&mut Cursor::new(image), image.len() as u64)
}

/// An ISO with a label, and a boot catalogue with an initial entry for `first` and a section for
/// `second`.
fn iso(first: u8, second: Option<u8>) -> Vec<u8> {
    let mut image = vec![0; 40 * 2048];
    let sectors = (image.len() / 2048) as u32;
    let mut put = |offset: usize, bytes: &[u8]| {
        image[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    put(16 * 2048, b"\x01CD001\x01");
    put(16 * 2048 + 40, b"TEST 1                          ");
    put(16 * 2048 + 80, &sectors.to_le_bytes());
    put(17 * 2048, b"\x00CD001\x01EL TORITO SPECIFICATION");
    put(17 * 2048 + 71, &20_u32.to_le_bytes());
    put(18 * 2048, b"\xffCD001\x01");
    let catalogue = 20 * 2048;
    put(catalogue, &[1, first]);
    put(catalogue + 30, &[0x55, 0xaa]);
    let sum = u16::from_le_bytes([1, first]).wrapping_add(u16::from_le_bytes([0x55, 0xaa]));
    put(catalogue + 28, &0_u16.wrapping_sub(sum).to_le_bytes());
    put(catalogue + 32, &[0x88, 0, 0, 0, 0, 0, 4, 0, 30, 0, 0, 0]);
    if let Some(second) = second {
        put(catalogue + 64, &[0x91, second, 1, 0]);
        put(catalogue + 96, &[0x88, 0, 0, 0, 0, 0, 4, 0, 31, 0, 0, 0]);
    }
    image
}

#[test]
fn reads_label_and_firmware() {
    let both = look(&iso(0, Some(0xef))).unwrap();
    assert_eq!(both.describe(), "ISO 9660 \"TEST 1\", boots BIOS and UEFI");
    assert!(both.require(Firmware::Uefi).is_ok() && both.require(Firmware::Bios).is_ok());
    let bios = look(&iso(0, None)).unwrap();
    assert_eq!((bios.bios, bios.uefi), (true, false));
    assert!(bios.require(Firmware::Uefi).unwrap_err().to_string().contains("firmware: bios"));
    let uefi = look(&iso(0xef, None)).unwrap();
    assert_eq!((uefi.bios, uefi.uefi), (false, true));
}

#[test]
fn says_what_is_wrong_with_an_iso() {
    let mut plain = iso(0, None);
    plain[17 * 2048] = 2;
    let mut damaged = iso(0, None);
    damaged[20 * 2048 + 28] ^= 1;
    let mut outside = iso(0, None);
    outside[20 * 2048 + 40..20 * 2048 + 44].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut far = iso(0, None);
    far[17 * 2048 + 71..17 * 2048 + 75].copy_from_slice(&u32::MAX.to_le_bytes());
    let cases = [
        (plain, "without an El Torito"),
        (damaged, "damaged"),
        (outside, "truncated"),
        (far, "beyond the end"),
        (iso(0, None)[..30 * 2048].to_vec(), "truncated: its header says 81920 bytes"),
        (iso(1, None), "no entry for BIOS or UEFI"),
    ];
    for (image, word) in cases {
        let shown = look(&image).unwrap_err().to_string();
        assert!(shown.contains(word), "{word}: {shown}");
    }
}

#[test]
fn names_what_is_no_medium() {
    for (bytes, word) in [
        (b"  \n<!DOCTYPE HTML PUBLIC><html>".to_vec(), "web page"),
        (b"\x1f\x8b\x08".to_vec(), "gzip"),
        (b"QFI\xfb\0\0\0\x03".to_vec(), "QCOW2"),
        (Vec::new(), "empty"),
        (vec![0; 100_000], "zeros"),
        (vec![7; 100_000], "neither"),
        (vec![7; 100], "too short"),
    ] {
        let shown = look(&bytes).unwrap_err().to_string();
        assert!(shown.contains(word), "{word}: {shown}");
    }
}

#[test]
fn knows_disks() {
    let mut disk = vec![0; 100_000];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk[446 + 4] = 0x83;
    let mbr = look(&disk).unwrap();
    assert_eq!((mbr.kind, mbr.bios, mbr.uefi), (MediumKind::Mbr, false, false));
    disk[0] = 0xeb;
    assert!(look(&disk).unwrap().bios);
    disk[512..520].copy_from_slice(b"EFI PART");
    disk[512 + 72] = 2;
    disk[512 + 84] = 128;
    disk[1024 + 128..1024 + 144].copy_from_slice(&ESP);
    let gpt = look(&disk).unwrap();
    assert_eq!((gpt.kind, gpt.bios, gpt.uefi), (MediumKind::Gpt, true, true));
}

#[test]
fn agrees_with_xorriso() {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("boot.img"), vec![0x90; 4096]).unwrap();
    std::fs::write(tree.join("efi.img"), vec![0; 65536]).unwrap();
    let make = |name: &str, boot: &[&str]| {
        let file = folder.path().join(name);
        let made = Command::new("xorriso")
            .args(["-as", "mkisofs", "-quiet", "-V", "REAL_ONE", "-o"])
            .arg(&file)
            .args(boot)
            .arg(&tree)
            .output();
        made.ok().filter(|output| output.status.success()).map(|_| file)
    };
    let bios = ["-b", "boot.img", "-no-emul-boot", "-boot-load-size", "4"];
    let efi = ["-e", "efi.img", "-no-emul-boot"];
    let both: Vec<&str> = bios.iter().chain(&["-eltorito-alt-boot"]).chain(&efi).copied().collect();
    let Some(plain) = make("plain.iso", &[]) else {
        eprintln!("skipped: xorriso is not installed");
        return;
    };
    assert!(inspect(&plain).unwrap_err().to_string().contains("without an El Torito"));
    let of = |name, boot: &[&str]| inspect(&make(name, boot).unwrap()).unwrap().describe();
    assert_eq!(of("bios.iso", &bios), "ISO 9660 \"REAL_ONE\", boots BIOS");
    assert_eq!(of("efi.iso", &efi), "ISO 9660 \"REAL_ONE\", boots UEFI");
    assert_eq!(of("both.iso", &both), "ISO 9660 \"REAL_ONE\", boots BIOS and UEFI");
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(
        changes in proptest::collection::vec((0_usize..40 * 2048, any::<u8>()), 0..40),
        catalogue in proptest::collection::vec((0_usize..512, any::<u8>()), 0..40),
        cut in 0_usize..40 * 2048,
    ) {
        let mut image = iso(0, Some(0xef));
        for (offset, byte) in catalogue {
            image[20 * 2048 + offset] = byte;
        }
        for (offset, byte) in changes {
            image[offset] = byte;
        }
        let _ = look(&image);
        let _ = look(&image[..cut]);
    }

    #[test]
    fn hostile_disks_never_panic(head in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let mut disk = head;
        let _ = look(&disk);
        disk.resize(5000, 0xff);
        disk[512..520].copy_from_slice(b"EFI PART");
        let _ = look(&disk);
    }
}
