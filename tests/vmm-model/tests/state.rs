// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What a machine keeps and loses, and what its vCPUs' registers and settings are.
#![allow(unsafe_code, clippy::unwrap_used)]

mod support;

use support::client::{self, call, get, one, pack, put, register, scalar, set_register, two};
use support::number::*;
use support::{ALL, guest, rule, version};

#[test]
fn trap_11_reinit_keeps_ram_and_drops_the_rest() {
    rule("trap_11_reinit_keeps_ram_and_drops_the_rest", ALL).needs_kvm().run(|| {
        // mov al, [0x500]; out 0x80, al, with DS 0.
        let machine = guest::machine(&[0x31, 0xc0, 0x8e, 0xd8, 0xa0, 0, 5, 0xe6, 0x80], 1);
        let ram = client::map(machine, 0, 4096).unwrap();
        // SAFETY: the place is inside of the mapping.
        unsafe { ram.add(0x500).write(0x5a) };
        scalar(machine, VM_PMTMR_LOCATE, 0x80).unwrap();
        if version() < 16 {
            assert_eq!(call(machine, VM_REINIT, &mut [0; 8]), Err(libc::EBUSY), "not suspended");
        }
        client::suspend(machine, 1).unwrap();
        assert_eq!(guest::run(machine, 0).code(), guest::SUSPENDED);
        client::reinit(machine).unwrap();
        assert_eq!(guest::enter(machine, 0, 0, &[]).err(), Some(libc::EINVAL), "not active");
        let mut map = pack::<40>(&[(0, 1 << 20, 8)]);
        assert_eq!(call(machine, VM_MMAP_GETNEXT, &mut map), Err(libc::ENOENT), "no ROM");
        guest::start(machine, 1);
        let exit = guest::run(machine, 0);
        assert_eq!(exit.port(), (0x80, 1, false, 0x5a), "RAM is kept, the timer's port is not");
    });
}

#[test]
fn trap_12_a_suspension_takes_4_bytes_up_to_version_15() {
    rule("trap_12_a_suspension_takes_4_bytes_up_to_version_15", ALL).run(|| {
        let machine = client::machine("m");
        for how in [0, 5] {
            assert_eq!(client::suspend(machine, how), Err(libc::EINVAL));
        }
        // A source that is no vCPU is looked at where the structure has one.
        let strange = two(machine, VM_SUSPEND, 2, 1000);
        assert_eq!(strange, if version() < 16 { Ok(0) } else { Err(libc::EINVAL) });
        if version() >= 16 {
            client::suspend(machine, 2).unwrap();
        }
        assert_eq!(client::suspend(machine, 1), Err(libc::EALREADY));
        assert_eq!(client::one(machine, VM_ACTIVATE_CPU, 0), Err(libc::EBUSY));
    });
}

#[test]
fn trap_17_selector_and_descriptor_are_separate() {
    rule("trap_17_selector_and_descriptor_are_separate", [1, 18]).needs_kvm().run(|| {
        const DS: u64 = 25;
        let machine = guest::machine(&[0xeb, 0xfe], 1);
        let fields = [(4, DS, 4), (8, 0x1000, 8), (16, 0xfff, 4), (20, 0x93, 4)];
        call(machine, VM_SET_SEGMENT_DESCRIPTOR, &mut pack::<24>(&fields)).unwrap();
        assert_eq!(register(machine, 0, DS), Ok(0));
        set_register(machine, 0, DS, 0x100).unwrap();
        let mut segment = pack::<24>(&[(4, DS, 4)]);
        call(machine, VM_GET_SEGMENT_DESCRIPTOR, &mut segment).unwrap();
        assert_eq!((get(&segment, 8, 8), get(&segment, 20, 4)), (0x1000, 0x93));
    });
}

#[test]
fn trap_17_allcpus_does_nothing() {
    rule("trap_17_allcpus_does_nothing", [1, 18]).run(|| {
        let machine = client::machine("m");
        let is_default = u64::from(version() >= 6);
        let fields = [(0, 0, 4), (4, 0, 4), (8, 1 - is_default, 4), (12, 1, 4)];
        call(machine, VM_SET_CAPABILITY, &mut pack::<16>(&fields)).unwrap();
        let mut other = pack::<16>(&[(0, 1, 4)]);
        call(machine, VM_GET_CAPABILITY, &mut other).unwrap();
        assert_eq!(get(&other, 8, 4), is_default);
        put(&mut other, 4, 9, 4);
        assert_eq!(call(machine, VM_GET_CAPABILITY, &mut other), Err(libc::ENOENT));
    });
}

#[test]
fn a_reset_vcpu_is_in_the_state_of_power_on() {
    rule("a_reset_vcpu_is_in_the_state_of_power_on", [1, 18]).needs_kvm().run(|| {
        let machine = guest::machine(&[0xeb, 0xfe], 1);
        set_register(machine, 0, 0, 77).unwrap();
        two(machine, VM_RESET_CPU, 0, 0).unwrap();
        assert_eq!(two(machine, VM_RESET_CPU, 0, 2), Err(libc::EINVAL));
        assert_eq!(two(machine, VM_RESET_CPU, 200, 0), Err(libc::EINVAL));
        let expected = [
            (0, 0),
            (3, 0x600),
            (15, 0x6000_0010),
            (20, 0xfff0),
            (21, 2),
            (23, 0xf000),
            (18, 0x400),
            (43, 0xffff_0ff0),
        ];
        for (number, value) in expected {
            assert_eq!(register(machine, 0, number), Ok(value), "register {number}");
        }
        let segment = |number| {
            let mut bytes = pack::<24>(&[(4, number, 4)]);
            call(machine, VM_GET_SEGMENT_DESCRIPTOR, &mut bytes).unwrap();
            (get(&bytes, 8, 8), get(&bytes, 16, 4), get(&bytes, 20, 4))
        };
        assert_eq!(segment(23).0, 0xffff_0000);
        assert_eq!(segment(25), (0, 0xffff, 0x93));
        assert_eq!((segment(28).2, segment(29).2), (0x82, 0x8b));
    });
}

#[test]
fn registers_have_numbers_and_sets_have_limits() {
    rule("registers_have_numbers_and_sets_have_limits", ALL).needs_kvm().run(|| {
        let machine = guest::machine(&[0xeb, 0xfe], 1);
        assert_eq!(register(machine, 0, 46), Err(libc::EINVAL));
        let numbers = [0u32, 14, 20];
        let mut values = [1u64, 2, 3];
        let set = |number, count: u64, values: &mut [u64; 3]| {
            let fields = [
                (4, count, 4),
                (8, numbers.as_ptr() as u64, 8),
                (16, values.as_mut_ptr() as u64, 8),
            ];
            call(machine, number, &mut pack::<24>(&fields))
        };
        set(VM_SET_REGISTER_SET, 3, &mut values).unwrap();
        assert_eq!(register(machine, 0, 14), Ok(2));
        values = [0; 3];
        set(VM_GET_REGISTER_SET, 3, &mut values).unwrap();
        assert_eq!(values, [1, 2, 3]);
        for count in [0, 47] {
            assert_eq!(set(VM_GET_REGISTER_SET, count, &mut values), Err(libc::EINVAL));
        }
    });
}

#[test]
fn cpuid_is_the_kernels_unless_it_is_set() {
    rule("cpuid_is_the_kernels_unless_it_is_set", ALL).needs_kvm().run(|| {
        // mov eax, 0x40000000; cpuid; mov eax, ebx; out dx, eax, with DX what CPUID left there.
        let code =
            [0x66, 0xb8, 0, 0, 0, 0x40, 0x0f, 0xa2, 0x66, 0x89, 0xd8, 0xba, 0x80, 0, 0x66, 0xef];
        let machine = guest::machine(&code, 1);
        let mut entry = [0u8; 64];
        put(&mut entry, 0, 0x4000_0000, 4);
        put(&mut entry, 16, 0x1122_3344, 4);
        put(&mut entry, 32, 0x4000_0001, 4);
        let configure = |number, flags, count: u64, table: &mut [u8]| {
            let at = table.as_mut_ptr() as u64;
            let mut bytes = pack::<24>(&[(4, flags, 4), (8, count, 4), (16, at, 8)]);
            (call(machine, number, &mut bytes), get(&bytes, 8, 4))
        };
        if version() < 5 {
            let (result, _) = configure(VM_SET_CPUID, 0, 2, &mut entry);
            assert_eq!(result, Err(libc::ENOTTY));
            assert_eq!(guest::run(machine, 0).port().3, u64::from(u32::from_le_bytes(*b"bhyv")));
            return;
        }
        let mut legacy = pack::<20>(&[(4, 0x4000_0000, 4)]);
        call(machine, VM_LEGACY_CPUID, &mut legacy).unwrap();
        assert_eq!(&legacy[8..20], b"bhyve bhyve ");
        let mut big = vec![0; 257 * 32];
        assert_eq!(configure(VM_SET_CPUID, 0, 257, &mut big).0, Err(libc::EFBIG));
        assert_eq!(configure(VM_SET_CPUID, 0, 2, &mut big).0, Err(libc::EINVAL), "twice the same");
        assert_eq!(configure(VM_SET_CPUID, 1, 1, &mut entry).0, Err(libc::EINVAL), "legacy");
        assert_eq!(configure(VM_SET_CPUID, 4, 1, &mut entry).0, Err(libc::EINVAL), "flags");
        configure(VM_SET_CPUID, 0, 2, &mut entry).0.unwrap();
        assert_eq!(configure(VM_GET_CPUID, 0, 1, &mut big), (Err(libc::E2BIG), 2));
        assert_eq!(configure(VM_GET_CPUID, 0, 2, &mut big), (Ok(0), 2));
        assert_eq!(big[..64], entry);
        assert_eq!(guest::run(machine, 0).port().3, 0x1122_3344);
    });
}

#[test]
fn topology_and_sets_of_vcpus() {
    rule("topology_and_sets_of_vcpus", ALL).run(|| {
        let machine = client::machine("m");
        let most = if version() >= 18 { 64 } else { 32 };
        let set = |sockets, cores, most| {
            let fields = [(0, sockets, 2), (2, cores, 2), (4, 1, 2), (6, most, 2)];
            call(machine, VM_SET_TOPOLOGY, &mut pack::<8>(&fields))
        };
        assert_eq!(set(1, 2, 4), Err(libc::EINVAL), "maxcpus must be 0");
        assert_eq!(set(2, most, 0), Err(libc::EINVAL));
        set(1, most, 0).unwrap();
        one(machine, VM_ACTIVATE_CPU, 3).unwrap();
        assert_eq!(one(machine, VM_ACTIVATE_CPU, 3), Err(libc::EBUSY));
        assert_eq!(one(machine, VM_ACTIVATE_CPU, most), Err(libc::EINVAL));
        let mut cpus = 0u64;
        let ask = |which, size, to: &mut u64| {
            let fields = [(0, which, 4), (4, size, 4), (8, std::ptr::from_mut(to) as u64, 8)];
            call(machine, VM_GET_CPUS, &mut pack::<16>(&fields))
        };
        ask(0, 8, &mut cpus).unwrap();
        assert_eq!(cpus, 1 << 3);
        assert_eq!(ask(0, 3, &mut cpus), Err(libc::ERANGE));
        let suspended = ask(1, 8, &mut cpus);
        assert_eq!(suspended, if version() < 16 { Ok(0) } else { Err(libc::EINVAL) });
        two(machine, VM_SET_X2APIC_STATE, 0, 1).unwrap();
        assert_eq!(two(machine, VM_SET_X2APIC_STATE, 0, 2), Err(libc::EINVAL));
    });
}

#[test]
fn memory_has_segments_and_maps() {
    rule("memory_has_segments_and_maps", [1, 18]).run(|| {
        let machine = client::machine("m");
        assert_eq!(client::allocate(machine, 5, 4096, ""), Err(libc::EINVAL));
        assert_eq!(client::allocate(machine, 0, 0, ""), Err(libc::EINVAL));
        assert_eq!(client::allocate(machine, 0, 4095, ""), Err(libc::EINVAL));
        client::allocate(machine, 0, 9 * 4096, "").unwrap();
        assert_eq!(client::allocate(machine, 0, 9 * 4096, ""), Err(libc::EEXIST));
        assert_eq!(client::allocate(machine, 0, 4096, ""), Err(libc::EINVAL));
        for (gpa, len, prot) in [(1, 4096, 7), (0, 4095, 7), (0, 4096, 0), (0, 40960, 7)] {
            assert_eq!(client::place(machine, gpa, 0, len, prot), Err(libc::EINVAL));
        }
        for map in 0..8 {
            client::place(machine, map * 8192, 0, 4096, 7).unwrap();
        }
        assert_eq!(client::place(machine, 1 << 20, 0, 4096, 7), Err(libc::ENOSPC));
        let unmap = |gpa, len| {
            call(machine, VM_MUNMAP_MEMSEG, &mut pack::<16>(&[(0, gpa, 8), (8, len, 8)]))
        };
        assert_eq!(unmap(0, 8192), Err(libc::EINVAL));
        unmap(0, 4096).unwrap();
        assert_eq!(client::place(machine, 8192, 0, 4096, 7), Err(libc::EFAULT), "overlap");
        let mut absent = pack::<16>(&[(0, 3, 4)]);
        assert_eq!(call(machine, VM_DEVMEM_GETOFFSET, &mut absent), Err(libc::ENOENT));
        let mut empty = pack::<144>(&[(0, 3, 4), (8, 1, 8)]);
        call(machine, VM_GET_MEMSEG, &mut empty).unwrap();
        assert_eq!(get(&empty, 8, 8), 0, "not allocated");
        assert!(client::map(machine, 0, 4096).is_err(), "nothing is there any more");
        let here = client::map(machine, 8192, 4096).unwrap();
        let mut offset = pack::<16>(&[(0, 0, 4)]);
        call(machine, VM_DEVMEM_GETOFFSET, &mut offset).unwrap();
        let there = client::map(machine, get(&offset, 8, 8), 4096).unwrap();
        // SAFETY: both mappings are that long, and nobody else knows of them.
        let seen = unsafe {
            here.write(0x5a);
            there.read()
        };
        assert_eq!(seen, 0x5a, "all maps are of the same page");
    });
}
