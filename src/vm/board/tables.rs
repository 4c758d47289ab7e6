// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What the machine tells its firmware.

use uuid::Uuid;
use vm_memory::{Bytes as _, GuestAddress};

use super::Plan;
use crate::ui::{Failure, Outcome};
use crate::vm::dev::fw_cfg::FwCfg;
use crate::vm::firmware::boot_order::BootDevice;
use crate::vm::firmware::smbios::{Identity, Smbios};
use crate::vm::firmware::{acpi, boot_order, e820, smbios};
use crate::vm::memory::Memory;

/// What SmartOS calls its platform; any will do for a guest.
const STAMP: &str = "20260101T000000Z";

/// fw_cfg with all files, and the tables that a firmware looks for in memory.
///
/// # Errors
/// When the machine has more processors than tables can name, or too little memory.
pub(super) fn tell(plan: &Plan, memory: &Memory, boots: &[BootDevice]) -> Outcome<FwCfg> {
    let cpus = u8::try_from(plan.cpus).unwrap_or(u8::MAX);
    let board = acpi::Board { cpus, memory_bytes: plan.memory_bytes, has_hpet: true };
    let acpi = acpi::files(&board)?;
    let identity = identity(plan.uuid, plan.smartos);
    let smbios = Smbios::new(&identity, cpus, plan.memory_bytes);
    memory
        .write_slice(&smbios.image_for_ram(), GuestAddress(u64::from(smbios::RAM_ADDRESS)))
        .map_err(|error| Failure::build("there is no memory for SMBIOS").because(error))?;
    let uuid = *plan.uuid.as_bytes();
    let told = FwCfg::new(Memory::clone(memory), plan.memory_bytes, plan.cpus, uuid)
        .add_file(e820::FILE, e820::table(plan.memory_bytes))
        .add_file(acpi::TABLES_FILE, acpi.tables)
        .add_file(acpi::RSDP_FILE, acpi.rsdp)
        .add_file(acpi::LOADER_FILE, acpi.loader)
        .add_file(smbios::ANCHOR_FILE, smbios.anchor())
        .add_file(smbios::TABLES_FILE, smbios.tables().to_vec());
    if boots.is_empty() {
        return Ok(told);
    }
    Ok(told.add_file(boot_order::FILE, boot_order::file(boots)))
}

fn identity(uuid: Uuid, smartos: bool) -> Identity {
    if smartos { Identity::smartos(uuid, STAMP) } else { Identity::neutral(uuid) }
}
