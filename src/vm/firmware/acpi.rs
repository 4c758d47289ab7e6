// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! ACPI tables as three fw_cfg files, which either firmware puts in place (ACPI 6.5 §5.2).
//!
//! The files hold offsets where the tables hold addresses, and zeros for checksums: the firmware
//! follows the script in `etc/table-loader` to fix both.

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;

use super::dsdt;
use super::loader::{Script, Zone};
use crate::ui::{Failure, Outcome};
use crate::vm::memory::LOW_LIMIT;

/// fw_cfg name of the tables.
pub const TABLES_FILE: &str = "etc/acpi/tables";
/// fw_cfg name of the root pointer.
pub const RSDP_FILE: &str = "etc/acpi/rsdp";
/// fw_cfg name of the script.
pub const LOADER_FILE: &str = "etc/table-loader";

/// Most processors that one byte of APIC id can tell apart, the IOAPIC's own id set aside.
pub const MAX_CPUS: u8 = 254;

/// Last byte of the window in which the firmware places BARs.
pub(super) const PCI_WINDOW_END: u32 = 0xfbff_ffff;

const OEM: [u8; 6] = *b"IMGFRG";
const OEM_TABLE: [u8; 8] = *b"IMGFORGE";
/// Bytes before a table's own content.
const HEADER: u32 = 36;
/// Offset of a table's checksum.
const CHECKSUM: u32 = 9;
/// Offsets of pointers in the FADT: FACS, DSDT and the DSDT's 64-bit twin.
const FADT_FACS: u32 = 36;
const FADT_DSDT: u32 = 40;
const FADT_X_DSDT: u32 = 140;
/// Offset of the XSDT's address in the RSDP.
const RSDP_XSDT: u32 = 24;

const SCI: u8 = 9;
const PM_EVENT: u16 = 0x400;
const PM_CONTROL: u16 = 0x404;
const PM_TIMER: u16 = 0x408;
const LAPIC: u32 = 0xfee0_0000;
const IOAPIC: u32 = 0xfec0_0000;
const HPET: u64 = 0xfed0_0000;

/// What the tables depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Board {
    /// Processors; the APIC id of each is its number, from 0.
    pub cpus: u8,
    /// Memory in bytes; it decides where the PCI window begins.
    pub memory_bytes: u64,
    /// An HPET answers at 0xFED00000.
    pub has_hpet: bool,
}

/// The three files. Leave them out all or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcpiFiles {
    /// [`TABLES_FILE`].
    pub tables: Vec<u8>,
    /// [`RSDP_FILE`].
    pub rsdp: Vec<u8>,
    /// [`LOADER_FILE`].
    pub loader: Vec<u8>,
}

/// Where the firmware may place BARs below 4 GiB: above RAM, and never below 2 GiB, so that one
/// window covers what either firmware does.
pub fn pci_window_start(memory_bytes: u64) -> u32 {
    // The limit is 3 GiB: the value fits.
    u32::try_from(memory_bytes.clamp(2 << 30, LOW_LIMIT)).unwrap_or(u32::MAX)
}

/// Makes the files.
///
/// # Errors
/// When there is no processor, or more than [`MAX_CPUS`].
pub fn files(board: &Board) -> Outcome<AcpiFiles> {
    if board.cpus == 0 || board.cpus > MAX_CPUS {
        return Err(Failure::input("a machine cannot have that many processors")
            .fact("cpus", board.cpus)
            .fact("allowed", format!("1 to {MAX_CPUS}")));
    }
    let mut files = Files::default();
    files.script.allocate(RSDP_FILE, 16, Zone::Low);
    files.script.allocate(TABLES_FILE, 64, Zone::High);
    // First, where its alignment of 64 comes by itself.
    let facs = files.place(&bytes_of(&FACS::new()));
    let code = files.table(dsdt_table(board).as_slice());
    let fadt = files.fadt(facs, code);
    let mut listed = vec![fadt, files.table(madt(board).as_slice())];
    if board.has_hpet {
        listed.push(files.table(hpet().as_slice()));
    }
    let root = files.xsdt(&listed);
    Ok(files.finish(root))
}

/// Files in the making.
#[derive(Debug, Default)]
struct Files {
    tables: Vec<u8>,
    script: Script,
    /// Start and length of what needs a checksum.
    summed: Vec<(u32, u32)>,
}

impl Files {
    /// Appends something on a boundary of 8 bytes; returns its offset.
    fn place(&mut self, bytes: &[u8]) -> u32 {
        self.tables.resize(self.tables.len().next_multiple_of(8), 0);
        let at = offset(self.tables.len());
        self.tables.extend_from_slice(bytes);
        at
    }

    /// Appends a table, whose checksum the firmware makes.
    fn table(&mut self, bytes: &[u8]) -> u32 {
        let at = self.place(bytes);
        if let Some(checksum) = self.tables.get_mut((at + CHECKSUM) as usize) {
            *checksum = 0;
        }
        self.summed.push((at, offset(bytes.len())));
        at
    }

    fn fadt(&mut self, facs: u32, code: u32) -> u32 {
        let mut fields = fixed_hardware();
        fields.firmware_ctrl = facs.into();
        fields.dsdt = code.into();
        fields.x_dsdt = u64::from(code).into();
        let fadt = self.table(&bytes_of(&fields.finalize()));
        self.script.pointer(TABLES_FILE, fadt + FADT_FACS, 4, TABLES_FILE);
        self.script.pointer(TABLES_FILE, fadt + FADT_DSDT, 4, TABLES_FILE);
        self.script.pointer(TABLES_FILE, fadt + FADT_X_DSDT, 8, TABLES_FILE);
        fadt
    }

    fn xsdt(&mut self, listed: &[u32]) -> u32 {
        let mut root = header(*b"XSDT", 1);
        for table in listed {
            root.append_slice(&u64::from(*table).to_le_bytes());
        }
        let at = self.table(root.as_slice());
        for entry in (at + HEADER..).step_by(8).take(listed.len()) {
            self.script.pointer(TABLES_FILE, entry, 8, TABLES_FILE);
        }
        at
    }

    fn finish(mut self, root: u32) -> AcpiFiles {
        let mut rsdp = bytes_of(&Rsdp::new(OEM, root.into()));
        rsdp[8] = 0;
        rsdp[32] = 0;
        self.script.pointer(RSDP_FILE, RSDP_XSDT, 8, TABLES_FILE);
        for (start, length) in self.summed {
            self.script.checksum(TABLES_FILE, start + CHECKSUM, start, length);
        }
        self.script.checksum(RSDP_FILE, 8, 0, 20);
        self.script.checksum(RSDP_FILE, 32, 0, 36);
        AcpiFiles { tables: self.tables, rsdp, loader: self.script.finish() }
    }
}

/// Everything in the FADT but its pointers.
fn fixed_hardware() -> FADTBuilder {
    let port = |width, access, port: u16| {
        GAS::new(AddressSpace::SystemIo, width, 0, access, u64::from(port))
    };
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, 1)
        .preferred_pm_profile(PmProfile::Unspecified)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        // The power button is fixed hardware (its flag is clear); there is no sleep button.
        .flag(Flags::SlpButton)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup);
    fadt.sci_int = u16::from(SCI).into();
    fadt.pm1a_evt_blk = u32::from(PM_EVENT).into();
    fadt.pm1_evt_len = 4;
    fadt.x_pm1a_evt_blk = port(32, AccessSize::WordAccess, PM_EVENT);
    fadt.pm1a_cnt_blk = u32::from(PM_CONTROL).into();
    fadt.pm1_cnt_len = 2;
    fadt.x_pm1a_cnt_blk = port(16, AccessSize::WordAccess, PM_CONTROL);
    fadt.pm_tmr_blk = u32::from(PM_TIMER).into();
    fadt.pm_tmr_len = 4;
    fadt.x_pm_tmr_blk = port(32, AccessSize::DwordAccess, PM_TIMER);
    // Latencies above 100 and 1000 µs: no C2, no C3.
    fadt.p_lvl2_lat = 0xffff.into();
    fadt.p_lvl3_lat = 0xffff.into();
    fadt.century = 0x32;
    // Legacy devices, an i8042, no VGA to probe, no ASPM; MSI is allowed.
    fadt.iapc_boot_arch = 0x17.into();
    fadt.reset_reg = port(8, AccessSize::ByteAccess, 0xcf9);
    fadt.reset_value = 6;
    fadt
}

fn madt(board: &Board) -> Sdt {
    let mut table = header(*b"APIC", 4);
    table.append_slice(&LAPIC.to_le_bytes());
    // There are two 8259s as well.
    table.append_slice(&1_u32.to_le_bytes());
    for cpu in 0..board.cpus {
        let local = ProcessorLocalApic::new(cpu, cpu, EnabledStatus::Enabled);
        table.append_slice(&bytes_of(&local));
    }
    table.append_slice(&bytes_of(&IoApic::new(board.cpus, IOAPIC, 0)));
    // Interrupt source overrides {2, 10, bus, source, line, flags}: the PIT is at pin 2 as on a
    // bus of ISA; the SCI is active high and level.
    table.append_slice(&[2, 10, 0, 0, 2, 0, 0, 0, 0, 0]);
    table.append_slice(&[2, 10, 0, SCI, SCI, 0, 0, 0, 0x0d, 0]);
    // The NMI comes by LINT1 of every local APIC {4, 6, processor, flags, pin}.
    table.append_slice(&[4, 6, 0xff, 5, 0, 1]);
    table
}

/// IA-PC HPET specification 1.0a §3.2.4.
fn hpet() -> Sdt {
    let mut table = header(*b"HPET", 1);
    // Vendor 8086, legacy replacement not offered, 32-bit counter, three timers, revision 1.
    table.append_slice(&0x8086_0201_u32.to_le_bytes());
    let place = GAS::new(AddressSpace::SystemMemory, 64, 0, AccessSize::Undefined, HPET);
    table.append_slice(&bytes_of(&place));
    // Number 0, no least tick for periodic timers, no page protection.
    table.append_slice(&[0, 0, 0, 0]);
    table
}

fn dsdt_table(board: &Board) -> Sdt {
    let mut table = header(*b"DSDT", 2);
    table.append_slice(&dsdt::code(board));
    table
}

fn header(signature: [u8; 4], revision: u8) -> Sdt {
    Sdt::new(signature, HEADER, revision, OEM, OEM_TABLE, 1)
}

fn bytes_of(object: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    object.to_aml_bytes(&mut bytes);
    bytes
}

/// An offset in a file; all files together have a few kilobytes.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
