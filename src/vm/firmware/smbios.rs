// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! SMBIOS 2.8: what the machine calls itself (DMTF DSP0134 2.8.0).
//!
//! OVMF takes the anchor and the structures from fw_cfg; the bhyve ROM finds them in RAM, where
//! they must be written anew at every reset.

use uuid::Uuid;

use crate::vm::memory;

/// fw_cfg name of the entry point.
pub const ANCHOR_FILE: &str = "etc/smbios/smbios-anchor";
/// fw_cfg name of the structures.
pub const TABLES_FILE: &str = "etc/smbios/smbios-tables";
/// Where the bhyve ROM is given both in RAM.
pub const RAM_ADDRESS: u32 = 0xf_1000;
/// What [`Smbios::image_for_ram`] never exceeds: at 0xF2400 the ROM's ACPI area begins.
pub const RAM_LIMIT: usize = 0x1400;

/// Bytes of an entry point.
const ANCHOR: usize = 31;
/// The distance from the anchor in RAM to the structures.
const ANCHOR_ROOM: usize = 32;
/// Longest string, in bytes: it keeps the whole within [`RAM_LIMIT`].
const LONGEST: usize = 64;
/// Handles, by type of structure.
const MEMORY_ARRAY: u16 = 0x1000;
const NONE: u16 = 0xffff;

/// Type 1: what the guest is told of its system. Characters outside printable ASCII become `?`
/// and what exceeds 64 characters is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Manufacturer.
    pub manufacturer: String,
    /// Product name, by which cloud-init knows its platform.
    pub product: String,
    /// Version.
    pub version: String,
    /// Serial number.
    pub serial: String,
    /// The system's UUID.
    pub uuid: Uuid,
    /// SKU number.
    pub sku: String,
    /// Family.
    pub family: String,
}

impl Identity {
    /// A system that no datasource of cloud-init takes for its own: for the installation, and for
    /// provisioning.
    pub fn neutral(uuid: Uuid) -> Self {
        Self {
            manufacturer: "imgforge".to_owned(),
            product: "Build Machine".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            serial: uuid.to_string(),
            uuid,
            sku: String::new(),
            family: "Virtual Machine".to_owned(),
        }
    }

    /// A system as SmartOS presents it to its guests. cloud-init then asks for metadata on COM2.
    /// `stamp` is the platform's (`20260313T000000Z`).
    pub fn smartos(uuid: Uuid, stamp: &str) -> Self {
        Self {
            manufacturer: "Joyent".to_owned(),
            product: "SmartDC HVM".to_owned(),
            version: format!("7.{stamp}"),
            serial: uuid.to_string(),
            uuid,
            sku: "001".to_owned(),
            family: "Virtual Machine".to_owned(),
        }
    }
}

/// The structures, and how many and how large they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Smbios {
    tables: Vec<u8>,
    count: u16,
    largest: u16,
}

impl Smbios {
    /// Makes the structures for a machine with so many processors and bytes of memory.
    pub fn new(identity: &Identity, cpus: u8, memory_bytes: u64) -> Self {
        let mut all = Self { tables: Vec::new(), count: 0, largest: 0 };
        all.firmware();
        all.system(identity);
        all.chassis(identity);
        all.processor(identity, cpus);
        all.memory(identity, memory_bytes);
        // System boot information: no error.
        all.add(Structure::new(32, 0x2000).bytes(&[0; 7]));
        all.add(Structure::new(127, 0x7f00));
        all
    }

    /// The content of [`ANCHOR_FILE`]: the entry point with the structures' address left 0.
    pub fn anchor(&self) -> Vec<u8> {
        self.anchor_for(0)
    }

    /// The content of [`TABLES_FILE`].
    pub fn tables(&self) -> &[u8] {
        &self.tables
    }

    /// Entry point and structures as they go to [`RAM_ADDRESS`].
    pub fn image_for_ram(&self) -> Vec<u8> {
        let mut image = self.anchor_for(RAM_ADDRESS + ANCHOR_ROOM as u32);
        image.resize(ANCHOR_ROOM, 0);
        image.extend_from_slice(&self.tables);
        image
    }

    /// The 2.1 entry point (§5.2.1).
    fn anchor_for(&self, address: u32) -> Vec<u8> {
        let length = u16::try_from(self.tables.len()).unwrap_or(u16::MAX);
        let mut anchor = b"_SM_\0\x1f\x02\x08".to_vec();
        anchor.extend_from_slice(&self.largest.to_le_bytes());
        anchor.extend_from_slice(&[0; 6]);
        anchor.extend_from_slice(b"_DMI_\0");
        anchor.extend_from_slice(&length.to_le_bytes());
        anchor.extend_from_slice(&address.to_le_bytes());
        anchor.extend_from_slice(&self.count.to_le_bytes());
        anchor.push(0x28);
        anchor[21] = checksum(&anchor[16..]);
        anchor[4] = checksum(&anchor[..ANCHOR]);
        anchor
    }

    fn add(&mut self, structure: Structure) {
        let bytes = structure.finish();
        self.count += 1;
        self.largest = self.largest.max(u16::try_from(bytes.len()).unwrap_or(u16::MAX));
        self.tables.extend_from_slice(&bytes);
    }

    /// Type 0. Linux takes PCI windows from ACPI only when the date is of 2008 or later.
    fn firmware(&mut self) {
        // PCI, boot from CD, selectable boot; UEFI, a virtual machine.
        let characteristics: u64 = 1 << 7 | 1 << 15 | 1 << 16;
        let extensions = [0, 1 << 3 | 1 << 4];
        self.add(
            Structure::new(0, 0)
                .text("imgforge")
                .text(env!("CARGO_PKG_VERSION"))
                .word(0xe800)
                .text("01/01/2015")
                .bytes(&[0])
                .bytes(&characteristics.to_le_bytes())
                .bytes(&extensions)
                .bytes(&[0, 1, 0xff, 0xff]),
        );
    }

    fn system(&mut self, identity: &Identity) {
        const POWER_SWITCH: u8 = 6;
        self.add(
            Structure::new(1, 0x100)
                .text(&identity.manufacturer)
                .text(&identity.product)
                .text(&identity.version)
                .text(&identity.serial)
                .bytes(&identity.uuid.to_bytes_le())
                .bytes(&[POWER_SWITCH])
                .text(&identity.sku)
                .text(&identity.family),
        );
    }

    fn chassis(&mut self, identity: &Identity) {
        // Of kind "other"; states "safe"; no security.
        self.add(
            Structure::new(3, 0x300)
                .text(&identity.manufacturer)
                .bytes(&[1])
                .text(&identity.version)
                .text("")
                .text("")
                .bytes(&[3, 3, 3, 3])
                .bytes(&[0; 8])
                .text(""),
        );
    }

    /// Type 4: one socket with all cores.
    fn processor(&mut self, identity: &Identity, cpus: u8) {
        let characteristics: u16 = if cpus > 1 { 1 << 2 | 1 << 3 } else { 1 << 2 };
        self.add(
            Structure::new(4, 0x400)
                .text("CPU 0")
                // A central processor of family "other".
                .bytes(&[3, 1])
                .text(&identity.manufacturer)
                .bytes(&[0; 8])
                .text("")
                .bytes(&[0])
                .bytes(&[0; 6])
                // Populated and enabled; upgrade "other".
                .bytes(&[0x41, 1])
                .word(NONE)
                .word(NONE)
                .word(NONE)
                .text("")
                .text("")
                .text("")
                .bytes(&[cpus, cpus, cpus])
                .word(characteristics)
                .word(1),
        );
    }

    /// Types 16, 17 and 19: one array, one module, and where it appears.
    fn memory(&mut self, identity: &Identity, bytes: u64) {
        let (kib, extended) = match u32::try_from(bytes >> 10) {
            Ok(kib) if kib < 0x8000_0000 => (kib, 0),
            _ => (0x8000_0000, bytes),
        };
        self.add(
            Structure::new(16, MEMORY_ARRAY)
                // On the board, for the system, without error correction.
                .bytes(&[3, 3, 3])
                .long(kib)
                .word(0xfffe)
                .word(1)
                .bytes(&extended.to_le_bytes()),
        );
        let mib = u32::try_from(bytes >> 20).unwrap_or(0x7fff_ffff);
        let (size, extended) = match u16::try_from(mib) {
            Ok(mib) if mib < 0x7fff => (mib, 0),
            _ => (0x7fff, mib),
        };
        self.add(
            Structure::new(17, 0x1100)
                .word(MEMORY_ARRAY)
                .word(0xfffe)
                .word(64)
                .word(64)
                .word(size)
                // A DIMM, of no set.
                .bytes(&[9, 0])
                .text("DIMM 0")
                .text("")
                // RAM of type "other".
                .bytes(&[7])
                .word(1 << 1)
                .word(0)
                .text(&identity.manufacturer)
                .text("")
                .text("")
                .text("")
                .bytes(&[0])
                .long(extended)
                .bytes(&[0; 8]),
        );
        for (handle, (start, length)) in (0x1300..).zip(memory::layout(bytes)) {
            let end = start + length;
            let whole = u32::try_from(end >> 10).ok();
            let (first, last) = match (u32::try_from(start >> 10), whole) {
                (Ok(first), Some(last)) if last > 0 => (first, last - 1),
                _ => (u32::MAX, u32::MAX),
            };
            let (wide_first, wide_last) =
                if first == u32::MAX { (start, end.saturating_sub(1)) } else { (0, 0) };
            self.add(
                Structure::new(19, handle)
                    .long(first)
                    .long(last)
                    .word(MEMORY_ARRAY)
                    .bytes(&[1])
                    .bytes(&wide_first.to_le_bytes())
                    .bytes(&wide_last.to_le_bytes()),
            );
        }
    }
}

/// One structure in the making: fields, and strings that fields name by number.
struct Structure {
    fields: Vec<u8>,
    strings: Vec<u8>,
    count: u8,
}

impl Structure {
    fn new(kind: u8, handle: u16) -> Self {
        let [low, high] = handle.to_le_bytes();
        Self { fields: vec![kind, 0, low, high], strings: Vec::new(), count: 0 }
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.fields.extend_from_slice(bytes);
        self
    }

    fn word(self, value: u16) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    fn long(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A string's number; 0 for an empty one.
    fn text(mut self, text: &str) -> Self {
        if text.is_empty() {
            return self.bytes(&[0]);
        }
        let printable = text.chars().map(|c| match c {
            ' '..='~' => u8::try_from(c).unwrap_or(b'?'),
            _ => b'?',
        });
        self.strings.extend(printable.take(LONGEST));
        self.strings.push(0);
        self.count += 1;
        let number = self.count;
        self.bytes(&[number])
    }

    fn finish(mut self) -> Vec<u8> {
        self.fields[1] = u8::try_from(self.fields.len()).unwrap_or(u8::MAX);
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        self.strings.push(0);
        self.fields.append(&mut self.strings);
        self.fields
    }
}

/// The byte that makes the sum 0.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte))
}
