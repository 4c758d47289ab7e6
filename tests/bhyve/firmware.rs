// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A guest as a firmware image that the product takes for one: a volume's header, and at its end
//! a start from the reset vector into 32-bit mode.

use super::code::{Code, code};

/// Of the size of SmartOS' own, so that it has the same flash for variables below it.
const SIZE: usize = 0x1e_0000;
/// The last 64 KiB, where a processor starts.
const SEGMENT: usize = SIZE - 0x1_0000;
/// Addresses in them.
const BASE: u32 = 0xffff_0000;
const DESCRIPTORS: u16 = 0x80;
const GATES: u16 = 0x800;
const PROGRAM: u16 = 0x1000;
const HANDLERS: u16 = 0xe000;
const RESET: usize = 0xfff0;
/// A code segment and data segments of 4 GiB, marked as used: the processor would write that.
const FLAT: [u64; 3] = [0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// The first byte of the flash for variables, and one that an empty store leaves erased.
pub const FLASH: u32 = 0xffe0_0000;
pub const ERASED: u32 = FLASH + 0x1_8000;

/// An image of 1.9 MiB that runs `program`, with a handler for each of some vectors.
pub fn image(program: &Code, handlers: &[(u8, Code)]) -> Vec<u8> {
    let mut image = vec![0xff; SIZE];
    image[..56].copy_from_slice(&header());
    let segment = &mut image[SEGMENT..];
    let mut put = |at: usize, bytes: &[u8]| segment[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &start());
    for (index, descriptor) in FLAT.iter().enumerate() {
        put(usize::from(DESCRIPTORS) + 8 * index, &descriptor.to_le_bytes());
    }
    let mut at = HANDLERS;
    for (vector, handler) in handlers {
        put(usize::from(GATES) + 8 * usize::from(*vector), &gate(BASE + u32::from(at)));
        let handler = wrapped(handler);
        put(at.into(), &handler.0);
        at += handler.0.len() as u16;
    }
    let program = prepared(program);
    assert!(program.0.len() < usize::from(HANDLERS - PROGRAM), "the program is too long");
    put(PROGRAM.into(), &program.0);
    // jmp to the segment's begin
    put(RESET, &[0xe9, 0x0d, 0x00]);
    image
}

/// The header of a volume of drivers (PI 1.7 volume 3, section 3.2.1).
fn header() -> [u8; 56] {
    let mut header = [0; 56];
    header[32..40].copy_from_slice(&(SIZE as u64).to_le_bytes());
    header[40..44].copy_from_slice(b"_FVH");
    header[48] = 56;
    let words = header.chunks(2).map(|word| u16::from_le_bytes([word[0], word[1]]));
    let sum = words.fold(0_u16, u16::wrapping_add);
    header[50..52].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
    header
}

/// From real mode, 16 bits wide, to the program; then what the processor is given on the way.
fn start() -> Vec<u8> {
    let start = code(|code| {
        code.emit(&[0xfa], ());
        // cs: lgdt, cs: lidt, of the structures below
        code.emit(&[0x66, 0x2e, 0x0f, 0x01, 0x16], 0x40_u16);
        code.emit(&[0x66, 0x2e, 0x0f, 0x01, 0x1e], 0x48_u16);
        // mov eax, cr0; or eax, 1; mov cr0, eax; jmp 8:PROGRAM
        code.emit(&[0x0f, 0x20, 0xc0, 0x66, 0x83, 0xc8, 0x01, 0x0f, 0x22, 0xc0], ());
        code.emit(&[0x66, 0xea], BASE + u32::from(PROGRAM));
        code.emit(&[], 8_u16);
    });
    let mut bytes = start.0;
    assert!(bytes.len() <= 0x40);
    for (at, limit, table) in [(0x40, 23_u16, DESCRIPTORS), (0x48, 0x7ff, GATES)] {
        bytes.resize(at, 0xf4);
        bytes.extend(limit.to_le_bytes());
        bytes.extend((BASE + u32::from(table)).to_le_bytes());
    }
    bytes
}

/// An interrupt gate of 32 bits.
fn gate(address: u32) -> [u8; 8] {
    let address = address.to_le_bytes();
    [address[0], address[1], 8, 0, 0, 0x8e, address[2], address[3]]
}

/// A handler ends without IRET, which not every `/dev/kvm` can run: it goes back with interrupts
/// off, and whoever waits for one wants that. EAX and EDX are lost.
fn wrapped(handler: &Code) -> Code {
    code(|code| {
        code.emit(&handler.0, ());
        // pop edx; pop eax, twice; jmp edx
        code.emit(&[0x5a, 0x58, 0x58, 0xff, 0xe2], ());
    })
}

/// Data segments and a stack come first.
fn prepared(program: &Code) -> Code {
    code(|code| {
        code.emit(&[0x66, 0xb8, 0x10, 0x00, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0], ());
        code.emit(&[0xbc], 0x7000_u32);
        code.emit(&program.0, ());
    })
}
