// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What CPUID says to each vCPU: what KVM supports, with the topology of one socket of single-thread
//! cores, and without virtualization inside.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

const HYPERVISOR: u32 = 1 << 31;
const VMX: u32 = 1 << 5;
const SVM: u32 = 1 << 2;
const HTT: u32 = 1 << 28;
const TOPOEXT: u32 = 1 << 22;
/// Leaf 4, and AMD's counterpart: caches and who shares them.
const CACHES: [u32; 2] = [4, 0x8000_001d];
/// Extended topology.
const TOPOLOGY: [u32; 2] = [0xb, 0x1f];

/// Adapts the supported leaves to vCPU `number` of `cpus`.
pub(super) fn adapt(cpuid: &mut CpuId, number: u32, cpus: u32) {
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            1 => features(entry, number, cpus),
            leaf if CACHES.contains(&leaf) => caches(entry, cpus),
            leaf if TOPOLOGY.contains(&leaf) => topology(entry, number, cpus),
            0x8000_0001 => entry.ecx &= !(SVM | TOPOEXT),
            0x8000_0008 => entry.ecx = (entry.ecx & !0xf0ff) | (cpus - 1).min(0xff),
            0x8000_000a | 0x8000_001e => {
                (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
            }
            _ => {}
        }
    }
}

fn features(entry: &mut kvm_cpuid_entry2, number: u32, cpus: u32) {
    entry.ebx = (entry.ebx & 0xffff) | (cpus.min(0xff) << 16) | ((number & 0xff) << 24);
    entry.ecx = (entry.ecx & !VMX) | HYPERVISOR;
    entry.edx = if cpus > 1 { entry.edx | HTT } else { entry.edx & !HTT };
}

/// Levels 1 and 2 belong to a core, what is above to all.
fn caches(entry: &mut kvm_cpuid_entry2, cpus: u32) {
    let level = entry.eax >> 5 & 7;
    let sharing = if level < 3 { 0 } else { cpus - 1 };
    entry.eax = (entry.eax & 0x3fff) | (sharing << 14);
    if entry.function == 4 {
        entry.eax |= (cpus - 1).min(0x3f) << 26;
    }
}

fn topology(entry: &mut kvm_cpuid_entry2, number: u32, cpus: u32) {
    let bits = u32::BITS - (cpus - 1).leading_zeros();
    let (shift, count, kind) = match entry.index {
        0 => (0, 1, 1),
        1 => (bits, cpus, 2),
        _ => (0, 0, 0),
    };
    entry.eax = shift;
    entry.ebx = count;
    entry.ecx = entry.index | kind << 8;
    entry.edx = number;
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn leaf(function: u32, index: u32, value: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            index,
            eax: value,
            ebx: value,
            ecx: value,
            edx: value,
            ..kvm_cpuid_entry2::default()
        }
    }

    #[test]
    fn each_vcpu_knows_its_place() {
        let leaves = [leaf(1, 0, !0), leaf(0xb, 0, 9), leaf(0xb, 1, 9), leaf(0x8000_0001, 0, !0)];
        let mut cpuid = CpuId::from_entries(&leaves).unwrap();
        adapt(&mut cpuid, 2, 4);
        let [features, thread, core, extended] = *cpuid.as_slice() else { panic!("four") };
        assert_eq!((features.ebx >> 24, features.ebx >> 16 & 0xff), (2, 4));
        assert_eq!((features.ecx & VMX, extended.ecx & SVM), (0, 0));
        assert_eq!((thread.eax, thread.ebx, thread.ecx, thread.edx), (0, 1, 0x100, 2));
        assert_eq!((core.eax, core.ebx, core.ecx, core.edx), (2, 4, 0x201, 2));
    }

    #[test]
    fn a_single_core_has_nobody_to_share_with() {
        let mut cpuid = CpuId::from_entries(&[leaf(1, 0, !0), leaf(4, 3, 3 << 5)]).unwrap();
        adapt(&mut cpuid, 0, 1);
        assert_eq!(cpuid.as_slice()[0].edx & HTT, 0);
        assert_eq!(cpuid.as_slice()[1].eax, 3 << 5);
    }
}
