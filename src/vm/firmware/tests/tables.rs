// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

use proptest::prelude::*;

use super::patching::{Patched, board, number, patched, sum};
use super::run;
use crate::vm::firmware::acpi::{self, files};

const GIB: u64 = 1 << 30;

#[test]
fn the_firmware_finds_every_table_by_its_pointers() {
    let patched = patched(&board(4, 2 * GIB, true));
    let rsdp = &patched.files[acpi::RSDP_FILE].bytes;
    assert_eq!((&rsdp[..8], rsdp[15], rsdp.len()), (&b"RSD PTR "[..], 2, 36));
    assert_eq!((sum(&rsdp[..20]), sum(rsdp)), (0, 0));
    let root = patched.table(number(&rsdp[24..32]));
    assert_eq!(&root[..4], b"XSDT");
    let listed: Vec<&[u8]> =
        root[36..].chunks(8).map(|entry| patched.table(number(entry))).collect();
    let names: Vec<&[u8]> = listed.iter().map(|table| &table[..4]).collect();
    assert_eq!(names, [b"FACP", b"APIC", b"HPET"]);
    let fadt = listed[0];
    assert!(fadt[8] >= 4 && fadt.len() >= 244);
    let (facs, code) = (number(&fadt[36..40]), number(&fadt[40..44]));
    assert_eq!((facs % 64, &patched.table(facs)[..4]), (0, &b"FACS"[..]));
    assert_eq!(&patched.table(code)[..4], b"DSDT");
    // One DSDT, by either field; one FACS, by the 32-bit field.
    assert_eq!((number(&fadt[140..148]), number(&fadt[132..140])), (code, 0));
    assert_eq!(patched.targets.len(), 6);
}

#[test]
fn the_fadt_names_the_boards_registers() {
    let patched = patched(&board(1, GIB, false));
    assert!(patched.find(b"HPET").is_none());
    let fadt = patched.find(b"FACP").unwrap();
    let field = |at: usize, size: usize| number(&fadt[at..at + size]);
    assert_eq!((field(46, 2), field(48, 4), field(52, 2)), (9, 0, 0));
    assert_eq!((field(56, 4), fadt[88]), (0x400, 4));
    assert_eq!((field(64, 4), fadt[89]), (0x404, 2));
    assert_eq!((field(76, 4), fadt[91]), (0x408, 4));
    assert_eq!((field(80, 4), fadt[92]), (0, 0));
    assert!(field(96, 2) > 100 && field(98, 2) > 1000);
    assert_eq!((fadt[108], field(109, 2), field(112, 4)), (0x32, 0x17, 0x525));
    assert_eq!(&fadt[116..129], [1, 8, 0, 1, 0xf9, 0xc, 0, 0, 0, 0, 0, 0, 6]);
    assert_eq!(&fadt[148..160], [1, 32, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0]);
    assert_eq!(&fadt[172..184], [1, 16, 0, 2, 4, 4, 0, 0, 0, 0, 0, 0]);
    assert_eq!(&fadt[208..220], [1, 32, 0, 3, 8, 4, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn the_madt_lists_processors_and_overrides() {
    let patched = patched(&board(2, GIB, true));
    let madt = patched.find(b"APIC").unwrap();
    assert_eq!(&madt[36..44], [0, 0, 0xe0, 0xfe, 1, 0, 0, 0]);
    let expected: [&[u8]; 6] = [
        &[0, 8, 0, 0, 1, 0, 0, 0],
        &[0, 8, 1, 1, 1, 0, 0, 0],
        &[1, 12, 2, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
        &[2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
        &[2, 10, 0, 9, 9, 0, 0, 0, 0xd, 0],
        &[4, 6, 0xff, 5, 0, 1],
    ];
    assert_eq!(&madt[44..], expected.concat());
}

#[test]
fn impossible_processor_counts_are_refused() {
    for cpus in [0, 255] {
        let failure = files(&board(cpus, GIB, true)).unwrap_err();
        assert!(failure.to_string().contains("1 to 254"), "{failure}");
    }
    assert!(files(&board(acpi::MAX_CPUS, GIB, true)).is_ok());
}

#[test]
fn the_window_covers_what_either_firmware_uses() {
    assert_eq!(acpi::pci_window_start(GIB), 0x8000_0000);
    assert_eq!(acpi::pci_window_start(5 * GIB / 2), 0xa000_0000);
    assert_eq!(acpi::pci_window_start(8 * GIB), 0xc000_0000);
}

/// Writes the tables to files and has `iasl` take them apart. The DSDT's source, or none without
/// the tool.
fn disassemble(patched: &Patched) -> Option<String> {
    let directory = tempfile::tempdir().unwrap();
    for name in [b"DSDT", b"FACP", b"APIC", b"HPET", b"FACS", b"XSDT"] {
        let Some(table) = patched.find(name).map(<[u8]>::to_vec) else { continue };
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        std::fs::write(directory.path().join(format!("{name}.dat")), table).unwrap();
        let said = run("iasl", &["-d", &format!("{name}.dat")], directory.path())?;
        let source = directory.path().join(format!("{name}.dsl"));
        let source = std::fs::read_to_string(source).unwrap();
        for sign in ["Error", "Warning", "Invalid", "invalid", "unknown", "Unknown", "incorrect"] {
            assert!(!said.contains(sign), "{name}: {said}");
            let is_said = source.lines().any(|line| line.contains(sign));
            assert!(!is_said, "{name}: {source}");
        }
    }
    // What was taken apart can be put together again: no error, nothing to warn of.
    let said = run("iasl", &["-we", "dsdt.dsl"], directory.path())?;
    assert!(said.contains("0 Errors, 0 Warnings"), "{said}");
    Some(std::fs::read_to_string(directory.path().join("dsdt.dsl")).unwrap())
}

#[test]
fn iasl_reads_the_tables() {
    let Some(dsdt) = disassemble(&patched(&board(8, 8 * GIB, true))) else { return };
    for text in [
        "Name (_S5, Package (0x04)",
        "EisaId (\"PNP0A03\")",
        "EisaId (\"PNP0303\")",
        "EisaId (\"PNP0501\")",
        "0xC0000000,         // Range Minimum",
        "0xFBFFFFFF,         // Range Maximum",
        "IRQNoFlags ()",
        "Device (C007)",
        "Device (HPET)",
    ] {
        assert!(dsdt.contains(text), "no {text} in {dsdt}");
    }
    assert!(!dsdt.contains("C008") && !dsdt.contains("_S3"));
    let Some(dsdt) = disassemble(&patched(&board(1, GIB, false))) else { return };
    assert!(!dsdt.contains("HPET") && !dsdt.contains("C001"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_board_has_tables_that_hold(
        cpus in 1..=acpi::MAX_CPUS, memory in (64_u64 << 20)..(1 << 40), has_hpet: bool,
    ) {
        let patched = patched(&board(cpus, memory, has_hpet));
        prop_assert_eq!(patched.targets.len(), if has_hpet { 6 } else { 5 });
        for target in &patched.targets {
            patched.table(*target);
        }
    }
}
