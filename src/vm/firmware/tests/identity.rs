// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

use proptest::prelude::*;
use uuid::Uuid;

use super::patching::{number, sum};
use super::run;
use crate::vm::firmware::smbios::{Identity, RAM_ADDRESS, RAM_LIMIT, Smbios};

const GIB: u64 = 1 << 30;
const UUID: &str = "01234567-89ab-4cde-8f01-23456789abcd";

fn smartos() -> Identity {
    Identity::smartos(Uuid::parse_str(UUID).unwrap(), "20260313T000000Z")
}

/// Walks the structures as firmware does; the kinds, in order.
fn walk(tables: &[u8]) -> Vec<u8> {
    let (mut kinds, mut at) = (Vec::new(), 0);
    while at < tables.len() {
        kinds.push(tables[at]);
        let strings = at + usize::from(tables[at + 1]);
        let end = tables[strings..].windows(2).position(|pair| pair == [0, 0]).unwrap();
        at = strings + end + 2;
    }
    assert_eq!(at, tables.len());
    kinds
}

#[test]
fn the_anchors_hold_for_the_firmware_and_for_memory() {
    let smbios = Smbios::new(&smartos(), 4, 8 * GIB);
    assert_eq!(walk(smbios.tables()), [0, 1, 3, 4, 16, 17, 19, 19, 32, 127]);
    let (anchor, image) = (smbios.anchor(), smbios.image_for_ram());
    for (anchor, address) in [(&anchor[..], 0), (&image[..31], u64::from(RAM_ADDRESS) + 32)] {
        assert_eq!(
            (anchor.len(), &anchor[..4], &anchor[16..21]),
            (31, &b"_SM_"[..], &b"_DMI_"[..])
        );
        assert_eq!((sum(anchor), sum(&anchor[16..])), (0, 0));
        assert_eq!(number(&anchor[22..24]), smbios.tables().len() as u64);
        assert_eq!((number(&anchor[24..28]), number(&anchor[28..30])), (address, 10));
    }
    assert_eq!(&image[32..], smbios.tables());
}

/// What `dmidecode` says of an image of the area below 1 MiB, as its own dumps are: the anchor
/// comes first and its address is an offset in the file.
fn decoded(smbios: &Smbios) -> Option<String> {
    let directory = tempfile::tempdir().unwrap();
    let mut dump = smbios.anchor();
    dump.resize(32, 0);
    dump[24] = 32;
    dump[21] = dump[21].wrapping_sub(32);
    dump.extend_from_slice(smbios.tables());
    std::fs::write(directory.path().join("dump"), dump).unwrap();
    let said = run("dmidecode", &["--from-dump", "dump"], directory.path())?;
    for sign in ["OUT OF SPEC", "BAD INDEX", "Wrong", "TRUNCATED", "truncated", "broken"] {
        assert!(!said.contains(sign), "{said}");
    }
    Some(said)
}

#[test]
fn dmidecode_reads_what_cloud_init_looks_for() {
    let Some(said) = decoded(&Smbios::new(&smartos(), 4, 8 * GIB)) else { return };
    for text in [
        "SMBIOS 2.8 present",
        "Manufacturer: Joyent",
        "Product Name: SmartDC HVM",
        "Version: 7.20260313T000000Z",
        &format!("Serial Number: {UUID}"),
        &format!("UUID: {UUID}"),
        "SKU Number: 001",
        "Family: Virtual Machine",
        "Wake-up Type: Power Switch",
        "System is a virtual machine",
        "Core Count: 4",
        "Size: 8 GB",
        "Range Size: 3 GB",
        "Range Size: 5 GB",
        "Starting Address: 0x00100000000",
        "Status: No errors detected",
    ] {
        assert!(said.contains(text), "no `{text}` in {said}");
    }
}

#[test]
fn a_neutral_machine_is_nobodys() {
    let identity = Identity::neutral(Uuid::parse_str(UUID).unwrap());
    let smbios = Smbios::new(&identity, 1, 64 * GIB);
    let tables = String::from_utf8_lossy(smbios.tables()).into_owned();
    assert!(!tables.contains("SmartDC") && !tables.contains("Joyent"));
    let Some(said) = decoded(&smbios) else { return };
    assert!(said.contains("Product Name: Build Machine"), "{said}");
    assert!(said.contains("Size: 64 GB"), "{said}");
}

proptest! {
    #[test]
    fn any_identity_makes_whole_structures_that_fit(
        texts in proptest::collection::vec(".{0,200}", 6), cpus: u8, memory in 1_u64..(1 << 46),
    ) {
        let mut identity = smartos();
        let fields = [
            &mut identity.manufacturer, &mut identity.product, &mut identity.version,
            &mut identity.serial, &mut identity.sku, &mut identity.family,
        ];
        for (field, text) in fields.into_iter().zip(texts) {
            *field = text;
        }
        let smbios = Smbios::new(&identity, cpus, memory);
        let kinds = walk(smbios.tables());
        prop_assert_eq!(kinds.last(), Some(&127));
        prop_assert!(smbios.image_for_ram().len() <= RAM_LIMIT);
    }
}
