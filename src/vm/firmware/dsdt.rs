// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The DSDT: the devices that the guest cannot find by itself.

use acpi_tables::aml::{
    self, AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Memory32Fixed, Name, Package,
    ResourceTemplate, Scope,
};
use acpi_tables::{Aml, AmlSink};

use super::acpi::{Board, PCI_WINDOW_END, pci_window_start};

/// The table's code, without its header.
pub(super) fn code(board: &Board) -> Vec<u8> {
    let mut code = Vec::new();
    // No other sleep state than S5 is offered: the machine has none.
    let (five, zero) = (5_u8, aml::ZERO);
    Name::new("_S5_".into(), &Package::new(vec![&five, &five, &zero, &zero]))
        .to_aml_bytes(&mut code);
    let mut inner = Vec::new();
    host_bridge(board, &mut inner);
    claimed_ports(&mut inner);
    if board.has_hpet {
        hpet(&mut inner);
    }
    for cpu in 0..board.cpus {
        processor(cpu, &mut inner);
    }
    code.extend_from_slice(&Scope::raw("_SB_".into(), inner));
    code
}

/// An interrupt of the PIC: edge, active high, not shared.
struct Irq(u8);

impl Aml for Irq {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        // A small IRQ descriptor of two bytes, the mask of lines (ACPI 6.5 §6.4.2.1).
        sink.byte(0x22);
        sink.word(1_u16.checked_shl(u32::from(self.0)).unwrap_or(0));
    }
}

/// AML made before, as one more object.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

fn ports(first: u16, count: u8) -> IO {
    IO::new(first, first, 1, count)
}

fn host_bridge(board: &Board, sink: &mut Vec<u8>) {
    // The firmware assigns BARs within this window; what lies outside, Linux assigns anew.
    let window = AddressSpace::<u32>::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        pci_window_start(board.memory_bytes),
        PCI_WINDOW_END,
        None,
    );
    let buses = AddressSpace::<u16>::new_bus_number(0, 0xff);
    let configuration = ports(0xcf8, 8);
    let low = AddressSpace::<u16>::new_io(0, 0x0cf7, None);
    let high = AddressSpace::<u16>::new_io(0x0d00, 0xffff, None);
    let resources = ResourceTemplate::new(vec![&buses, &configuration, &low, &high, &window]);
    // No _ADR: ACPI wants it or a _HID, not both (ACPI 6.5 §6.1).
    Device::new(
        "PCI0".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0A03")),
            &Name::new("_BBN".into(), &aml::ZERO),
            &Name::new("_UID".into(), &aml::ZERO),
            &Name::new("_CRS".into(), &resources),
            &Raw(isa_bridge()),
        ],
    )
    .to_aml_bytes(sink);
}

/// The ISA bridge with what hangs off it. No PS/2 mouse: guests then do not look for one.
fn isa_bridge() -> Vec<u8> {
    let mut devices = Vec::new();
    let mut add = |name: &str, id: &str, unit: Option<u8>, resources: Vec<&dyn Aml>| {
        device(name, id, unit, resources, &mut devices);
    };
    add("KBD_", "PNP0303", None, vec![&ports(0x60, 1), &ports(0x64, 1), &Irq(1)]);
    add("COM1", "PNP0501", Some(1), vec![&ports(0x3f8, 8), &Irq(4)]);
    add("COM2", "PNP0501", Some(2), vec![&ports(0x2f8, 8), &Irq(3)]);
    add("RTC_", "PNP0B00", None, vec![&ports(0x70, 2), &Irq(8)]);
    add("PIC_", "PNP0000", None, vec![&ports(0x20, 2), &ports(0xa0, 2), &Irq(2)]);
    add("TIMR", "PNP0100", None, vec![&ports(0x40, 4), &Irq(0)]);
    let mut bridge = Vec::new();
    Device::new("ISA_".into(), vec![&Name::new("_ADR".into(), &0x0001_0000_u32), &Raw(devices)])
        .to_aml_bytes(&mut bridge);
    bridge
}

/// Ports and memory that belong to the board: nobody else may use them.
fn claimed_ports(sink: &mut Vec<u8>) {
    device(
        "MRES",
        "PNP0C02",
        None,
        vec![
            // As many as the PIIX4 has, by its own word: of a smaller part, Linux would give up
            // the claim.
            &ports(0x400, 0x40),
            &ports(0xcf9, 1),
            &ports(0x510, 0xc),
            &ports(0x92, 1),
            &Memory32Fixed::new(true, 0xfee0_0000, 0x1000),
        ],
        sink,
    );
}

fn hpet(sink: &mut Vec<u8>) {
    let registers = Memory32Fixed::new(true, 0xfed0_0000, 0x400);
    device("HPET", "PNP0103", None, vec![&registers], sink);
}

/// A processor, numbered as in the MADT.
fn processor(cpu: u8, sink: &mut Vec<u8>) {
    let name = format!("C{cpu:03X}");
    Device::new(
        name.as_str().into(),
        vec![&Name::new("_HID".into(), &"ACPI0007"), &Name::new("_UID".into(), &cpu)],
    )
    .to_aml_bytes(sink);
}

fn device(name: &str, id: &str, unit: Option<u8>, resources: Vec<&dyn Aml>, sink: &mut Vec<u8>) {
    let id = Name::new("_HID".into(), &EISAName::new(id));
    let unit = unit.map(|unit| Name::new("_UID".into(), &unit));
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(resources));
    let mut children: Vec<&dyn Aml> = vec![&id];
    if let Some(unit) = &unit {
        children.push(unit);
    }
    children.push(&resources);
    Device::new(name.into(), children).to_aml_bytes(sink);
}
