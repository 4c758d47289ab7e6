// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `CPUID`: what the kernel says by default, and what the program has it say.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

use super::guest::Guest;
use crate::abi::{put, u32_at, u64_at};
use crate::dispatch::{read_user, write_user};
use crate::vm::Vm;
use crate::{Answer, Errno, lock};

const LEGACY: u32 = 1;
const FLAGS: u32 = 3;
const MATCH_INDEX: u32 = 1;
const MOST: u32 = 256;
const ENTRY: usize = 32;
const X2APIC: u32 = 1 << 21;
const HYPERVISOR: u32 = 1 << 31;
const NESTED: [(u32, u32); 2] = [(1, 1 << 5), (0x8000_0001, 1 << 2)];

/// A vCPU's configuration; without entries it is the default.
#[derive(Default)]
pub(super) struct Cpuid {
    flags: Option<u32>,
    entries: Vec<[u32; 7]>,
}

/// Whether this host's processor is Intel's.
pub(super) fn is_intel() -> bool {
    static IS_INTEL: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *IS_INTEL.get_or_init(|| std::arch::x86_64::__cpuid(0).ecx == u32::from_le_bytes(*b"ntel"))
}

impl Cpuid {
    fn flags(&self) -> u32 {
        self.flags.unwrap_or(LEGACY)
    }

    /// What KVM shall say.
    pub(super) fn leaves(&self, vm: &Vm, id: u32, has_x2apic: bool) -> Answer<CpuId> {
        let entries = if self.flags() & LEGACY != 0 {
            legacy(vm, id, has_x2apic)?
        } else {
            self.entries.iter().map(entry).collect()
        };
        CpuId::from_entries(&entries).map_err(|_| Errno(libc::EIO))
    }
}

fn entry(words: &[u32; 7]) -> kvm_cpuid_entry2 {
    let [function, index, flags, eax, ebx, ecx, edx] = *words;
    kvm_cpuid_entry2 { function, index, flags: flags & 1, eax, ebx, ecx, edx, ..Default::default() }
}

/// The host's leaves, filtered, with topology and the name of the hypervisor.
fn legacy(vm: &Vm, id: u32, has_x2apic: bool) -> Answer<Vec<kvm_cpuid_entry2>> {
    let kvm = vm.kvm()?;
    let topology = *lock(&vm.topology);
    let size = |at: usize| (u32_at(&topology, at) & 0xffff).max(1);
    let (cores, threads) = (size(2), size(4));
    let mut entries: Vec<_> = kvm.cpuid.as_slice().to_vec();
    entries.retain(|entry| !(0x4000_0000..0x5000_0000).contains(&entry.function));
    for entry in &mut entries {
        for (leaf, bit) in NESTED {
            entry.ecx &= if entry.function == leaf { !bit } else { !0 };
        }
        match entry.function {
            1 => {
                let siblings = (cores * threads).min(0xff);
                entry.ebx = entry.ebx & 0xffff | siblings << 16 | id << 24;
                entry.ecx = entry.ecx & !X2APIC | HYPERVISOR;
                entry.ecx |= if has_x2apic { X2APIC } else { 0 };
                entry.edx = entry.edx & !(1 << 28) | u32::from(siblings > 1) << 28;
            }
            0xb | 0x1f => extended_topology(entry, id, cores, threads),
            _ => {}
        }
    }
    let name = [b"bhyv", b"e bh", b"yve "].map(|part| u32::from_le_bytes(*part));
    let [ebx, ecx, edx] = name;
    entries.push(kvm_cpuid_entry2 {
        function: 0x4000_0000,
        eax: 0x4000_0000,
        ebx,
        ecx,
        edx,
        ..Default::default()
    });
    Ok(entries)
}

fn extended_topology(entry: &mut kvm_cpuid_entry2, id: u32, cores: u32, threads: u32) {
    let bits = |count: u32| u32::BITS - (count - 1).leading_zeros();
    (entry.eax, entry.ebx, entry.ecx) = match entry.index {
        0 => (bits(threads), threads, 1 << 8),
        1 => (bits(threads * cores), threads * cores, 2 << 8 | 1),
        index => (0, 0, index),
    };
    entry.edx = id;
}

/// `VM_SET_CPUID`.
pub(super) fn set(guest: &mut Guest, bytes: &[u8]) -> Answer {
    let invalid = Errno(libc::EINVAL);
    let (flags, count) = (u32_at(bytes, 4), u32_at(bytes, 8));
    if count > MOST {
        return Err(Errno(libc::EFBIG));
    }
    if flags & !FLAGS != 0 || (flags & LEGACY != 0 && (flags != LEGACY || count != 0)) {
        return Err(invalid);
    }
    let mut table = vec![0; count as usize * ENTRY];
    read_user(u64_at(bytes, 16), &mut table)?;
    let words = |entry: &[u8]| -> [u32; 7] { std::array::from_fn(|word| u32_at(entry, 4 * word)) };
    let entries: Vec<_> = table.chunks_exact(ENTRY).map(words).collect();
    let is_sorted = entries.is_sorted_by(|a, b| (a[0], a[1]) < (b[0], b[1]));
    if !is_sorted || entries.iter().any(|entry| entry[2] & !MATCH_INDEX != 0) {
        return Err(invalid);
    }
    (guest.cpuid.flags, guest.cpuid.entries) = (Some(flags), entries);
    Ok(0)
}

/// `VM_GET_CPUID`: says how many there are also when they do not fit.
pub(super) fn get(guest: &Guest, bytes: &mut [u8]) -> Answer {
    let entries = &guest.cpuid.entries;
    let room = u32_at(bytes, 8) as usize;
    put(bytes, 4, &guest.cpuid.flags().to_le_bytes());
    put(bytes, 8, &(entries.len() as u32).to_le_bytes());
    if room < entries.len() {
        return Err(Errno(libc::E2BIG));
    }
    let mut table = vec![0; entries.len() * ENTRY];
    for (entry, to) in entries.iter().zip(table.chunks_exact_mut(ENTRY)) {
        for (word, value) in entry.iter().enumerate() {
            put(to, 4 * word, &value.to_le_bytes());
        }
    }
    write_user(u64_at(bytes, 16), &table).map(|()| 0)
}

/// `VM_LEGACY_CPUID`: what the default would say.
pub(super) fn ask(vm: &Vm, id: u32, has_x2apic: bool, bytes: &mut [u8]) -> Answer {
    let (leaf, index) = (u32_at(bytes, 4), u32_at(bytes, 12));
    let entries = legacy(vm, id, has_x2apic)?;
    let is_it = |entry: &&kvm_cpuid_entry2| {
        entry.function == leaf && (entry.flags & 1 == 0 || entry.index == index)
    };
    let entry = entries.iter().find(is_it).copied().unwrap_or_default();
    for (at, word) in (4..).step_by(4).zip([entry.eax, entry.ebx, entry.ecx, entry.edx]) {
        put(bytes, at, &word.to_le_bytes());
    }
    Ok(0)
}
