// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Guests of plain integer instructions, which every `/dev/kvm` can run, also one without hardware
//! behind it. Without the device there is nothing to test here.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use super::*;
use crate::vm::hv::VcpuExit;

/// A ROM whose first instruction, at the reset vector, jumps to `code` at its start.
fn rom(code: &[u8]) -> Vec<u8> {
    let mut rom = vec![0xf4; 4096];
    rom[..code.len()].copy_from_slice(code);
    // At FFFF:FFF0, 16 bytes before the end: jmp near, back to the start.
    rom[4080..4083].copy_from_slice(&[0xe9, 0x0d, 0xf0]);
    rom
}

/// A machine that runs `code`, or nothing where there is no KVM.
fn machine(code: &[u8]) -> Option<(Arc<dyn Vm>, Box<dyn Vcpu>)> {
    if std::fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        eprintln!("no /dev/kvm here: not tested");
        return None;
    }
    let vm = create(64 << 20, 1).unwrap();
    vm.set_rom(&rom(code)).unwrap();
    let vcpu = vm.vcpu(0).unwrap();
    Some((vm, vcpu))
}

/// The next exit that is not nothing.
fn run(vcpu: &mut dyn Vcpu) -> VcpuExit {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match vcpu.run().unwrap() {
            VcpuExit::Again => assert!(Instant::now() < deadline, "the guest does nothing"),
            exit => return exit,
        }
    }
}

fn written(port: u16, data: &[u8]) -> VcpuExit {
    VcpuExit::PortWrite { port, data: crate::vm::hv::Bytes::new(data) }
}

#[test]
fn ports_of_every_width_are_read_and_written() {
    #[rustfmt::skip]
    let code = [
        0xba, 0x00, 0x05,       // mov dx, 0x500
        0xec, 0xee,             // in al, dx;  out dx, al
        0xed, 0xef,             // in ax, dx;  out dx, ax
        0x66, 0xed, 0x66, 0xef, // in eax, dx; out dx, eax
    ];
    let Some((_vm, mut vcpu)) = machine(&code) else { return };
    for data in [&[0x12][..], &[0x34, 0x56], &[0x78, 0x9a, 0xbc, 0xde]] {
        let size = u8::try_from(data.len()).unwrap();
        assert_eq!(run(&mut *vcpu), VcpuExit::PortRead { port: 0x500, size });
        vcpu.answer(data);
        assert_eq!(run(&mut *vcpu), written(0x500, data));
    }
}

#[test]
fn string_accesses_come_one_element_at_a_time() {
    #[rustfmt::skip]
    let code = [
        0x31, 0xc0, 0x8e, 0xc0, 0x8e, 0xd8, // xor ax, ax; mov es, ax; mov ds, ax
        0xfc,                               // cld
        0xba, 0x11, 0x05,                   // mov dx, 0x511
        0xbf, 0x00, 0x10, 0xb9, 0x04, 0x00, // mov di, 0x1000; mov cx, 4
        0xf3, 0x6c,                         // rep insb
        0xbe, 0x00, 0x10, 0xb9, 0x02, 0x00, // mov si, 0x1000; mov cx, 2
        0xf3, 0x6f,                         // rep outsw
    ];
    let Some((vm, mut vcpu)) = machine(&code) else { return };
    for byte in *b"QEMU" {
        assert_eq!(run(&mut *vcpu), VcpuExit::PortRead { port: 0x511, size: 1 });
        vcpu.answer(&[byte]);
    }
    assert_eq!(run(&mut *vcpu), written(0x511, b"QE"));
    assert_eq!(run(&mut *vcpu), written(0x511, b"MU"));
    use vm_memory::Bytes as _;
    let mut seen = [0; 4];
    vm.memory().read_slice(&mut seen, GuestAddress(0x1000)).unwrap();
    assert_eq!(&seen, b"QEMU");
}

#[test]
fn device_memory_goes_where_nothing_is() {
    let Some((vm, _vcpu)) = machine(&[]) else { return };
    let device = vm.device_memory("test", 4096).unwrap();
    assert!(vm.place(&device, Some(0xa_0000)).is_err(), "RAM is there");
    for address in [Some(0xc000_0000), Some(0xc000_0000), Some(0xc100_0000), None, None] {
        vm.place(&device, address).unwrap();
    }
}

#[test]
fn a_kick_ends_an_endless_loop_also_before_it_begins() {
    let Some((vm, mut vcpu)) = machine(&[0xeb, 0xfe]) else { return };
    let kicker = std::thread::spawn(move || {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut pause = Duration::from_millis(1);
        while Instant::now() < deadline && pause < Duration::from_secs(1) {
            vm.kick(0);
            std::thread::park_timeout(pause);
            pause *= 2;
        }
    });
    for _ in 0..5 {
        assert_eq!(vcpu.run().unwrap(), VcpuExit::Again);
    }
    assert!(vcpu.registers().contains("rip"));
    kicker.join().unwrap();
}

#[test]
fn what_is_no_rom_is_refused() {
    let Some((vm, _vcpu)) = machine(&[]) else { return };
    for bytes in [0, 100, 9 << 20] {
        assert!(vm.set_rom(&vec![0; bytes]).is_err());
    }
    assert!(vm.vcpu(1).is_err(), "one vCPU was asked for");
}
