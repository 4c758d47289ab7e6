// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A guest's code, put together by hand: integer instructions of 32-bit mode, which every
//! `/dev/kvm` can run. What it finds wrong it says on the serial port before it powers off.

pub const SERIAL: u16 = 0x3f8;

/// Instructions, one after the other.
#[derive(Default, Clone)]
pub struct Code(pub Vec<u8>);

/// Makes code by a few steps.
pub fn code(write: impl FnOnce(&mut Code)) -> Code {
    let mut code = Code::default();
    write(&mut code);
    code
}

impl Code {
    /// An instruction: its bytes, then a number.
    pub fn emit(&mut self, bytes: &[u8], number: impl Into<Number>) {
        self.0.extend_from_slice(bytes);
        self.0.extend_from_slice(&number.into().0);
    }

    pub fn out8(&mut self, port: u16, value: u8) {
        self.emit(&[0xb0], value);
        self.emit(&[0x66, 0xba], port);
        self.emit(&[0xee], ());
    }

    pub fn out16(&mut self, port: u16, value: u16) {
        self.emit(&[0x66, 0xb8], value);
        self.emit(&[0x66, 0xba], port);
        self.emit(&[0x66, 0xef], ());
    }

    pub fn out32(&mut self, port: u16, value: u32) {
        self.emit(&[0xb8], value);
        self.emit(&[0x66, 0xba], port);
        self.emit(&[0xef], ());
    }

    /// Reads a port into EAX, whose upper bytes are 0 then.
    pub fn in8(&mut self, port: u16) {
        self.emit(&[0x31, 0xc0, 0x66, 0xba], port);
        self.emit(&[0xec], ());
    }

    pub fn in16(&mut self, port: u16) {
        self.emit(&[0x31, 0xc0, 0x66, 0xba], port);
        self.emit(&[0x66, 0xed], ());
    }

    pub fn in32(&mut self, port: u16) {
        self.emit(&[0x66, 0xba], port);
        self.emit(&[0xed], ());
    }

    pub fn store8(&mut self, address: u32, value: u8) {
        self.emit(&[0xc6, 0x05], address);
        self.emit(&[], value);
    }

    pub fn store16(&mut self, address: u32, value: u16) {
        self.emit(&[0x66, 0xc7, 0x05], address);
        self.emit(&[], value);
    }

    pub fn store32(&mut self, address: u32, value: u32) {
        self.emit(&[0xc7, 0x05], address);
        self.emit(&[], value);
    }

    /// Puts bytes into memory.
    pub fn store(&mut self, address: u32, bytes: &[u8]) {
        for (at, byte) in (address..).zip(bytes) {
            self.store8(at, *byte);
        }
    }

    pub fn load8(&mut self, address: u32) {
        self.emit(&[0x31, 0xc0, 0xa0], address);
    }

    pub fn load16(&mut self, address: u32) {
        self.emit(&[0x31, 0xc0, 0x66, 0xa1], address);
    }

    pub fn load32(&mut self, address: u32) {
        self.emit(&[0xa1], address);
    }

    /// Keeps these bits of EAX.
    pub fn and(&mut self, mask: u32) {
        self.emit(&[0x25], mask);
    }

    pub fn say(&mut self, text: &str) {
        self.emit(&[0x66, 0xba], SERIAL);
        for byte in text.bytes() {
            self.emit(&[0xb0], byte);
            self.emit(&[0xee], ());
        }
    }

    /// Says EAX in hexadecimal.
    fn say_eax(&mut self) {
        self.emit(&[0x66, 0xba], SERIAL);
        for shift in (0..8).rev().map(|digit| 4 * digit) {
            // push eax; shr eax, SHIFT; and al, 15; cmp al, 10; sbb al, 0x69; das; out dx, al;
            // pop eax
            self.emit(&[0x50, 0xc1, 0xe8, shift, 0x24, 0x0f, 0x3c, 0x0a], ());
            self.emit(&[0x1c, 0x69, 0x2f, 0xee, 0x58], ());
        }
    }

    /// Runs `then` when EAX is this.
    pub fn when(&mut self, value: u32, then: impl FnOnce(&mut Self)) {
        let then = code(then);
        self.emit(&[0x3d], value);
        self.emit(&[0x0f, 0x85], then.0.len() as u32);
        self.emit(&then.0, ());
    }

    /// Complains and powers off unless EAX is this.
    pub fn expect(&mut self, value: u32, what: &str) {
        let complaint = complaint(what);
        self.emit(&[0x3d], value);
        self.emit(&[0x0f, 0x84], complaint.0.len() as u32);
        self.emit(&complaint.0, ());
    }

    /// Complains and powers off when EAX is 0.
    pub fn expect_some(&mut self, what: &str) {
        let complaint = complaint(what);
        self.emit(&[0x85, 0xc0, 0x0f, 0x85], complaint.0.len() as u32);
        self.emit(&complaint.0, ());
    }

    /// Looks again and again until what `look` leaves in EAX is this.
    pub fn wait(&mut self, value: u32, look: impl FnOnce(&mut Self)) {
        let mut round = code(look);
        // pause
        round.emit(&[0xf3, 0x90, 0x3d], value);
        let back = -(round.0.len() as i32) - 6;
        self.emit(&round.0, ());
        self.emit(&[0x0f, 0x85], back.cast_unsigned());
    }

    /// Halts until interrupts have counted a place in memory up to `value`.
    pub fn halt_until(&mut self, place: u32, value: u32) {
        let mut round = Self::default();
        // cli; cmp dword [PLACE], VALUE; jae +4; sti; hlt; jmp to the begin
        round.emit(&[0xfa, 0x81, 0x3d], place);
        round.emit(&[], value);
        round.emit(&[0x73, 0x04, 0xfb, 0xf4], ());
        let back = -(round.0.len() as i8) - 2;
        round.emit(&[0xeb], back.cast_unsigned());
        self.emit(&round.0, ());
    }

    /// For ever, with interrupts off.
    pub fn halt(&mut self) {
        self.emit(&[0xfa, 0xf4, 0xeb, 0xfd], ());
    }

    pub fn power_off(&mut self) {
        self.out16(0x404, 5 << 10 | 1 << 13);
        self.halt();
    }

    /// The reset control register.
    pub fn reset(&mut self) {
        self.out8(0xcf9, 6);
        self.halt();
    }

    /// The keyboard controller's way.
    pub fn reset_by_keyboard(&mut self) {
        self.out8(0x64, 0xfe);
        self.halt();
    }

    /// A segment that is not there, when there is no table of handlers: six zeros in RAM say so.
    pub fn triple_fault(&mut self) {
        self.emit(&[0x0f, 0x01, 0x1d], 0x7800_u32);
        self.emit(&[0x66, 0xb8], 0x1000_u16);
        self.emit(&[0x8e, 0xd8], ());
    }

    /// Reads a register of a function on bus 0.
    pub fn pci(&mut self, slot: u8, function: u8, register: u8) {
        self.select(slot, function, register);
        self.in32(0xcfc);
    }

    pub fn set_pci(&mut self, slot: u8, function: u8, register: u8, value: u32) {
        self.select(slot, function, register);
        self.out32(0xcfc, value);
    }

    fn select(&mut self, slot: u8, function: u8, register: u8) {
        let place = u32::from(slot) << 11 | u32::from(function) << 8 | u32::from(register);
        self.out32(0xcf8, 1 << 31 | place);
    }
}

fn complaint(what: &str) -> Code {
    code(|code| {
        code.emit(&[0x50], ());
        code.say(&format!("wrong: {what}: "));
        code.emit(&[0x58], ());
        code.say_eax();
        code.say("\n");
        code.power_off();
    })
}

/// A number at an instruction's end.
pub struct Number(Vec<u8>);

macro_rules! numbers {
    ($($type:ty),*) => { $(
        impl From<$type> for Number {
            fn from(number: $type) -> Self {
                Self(number.to_le_bytes().to_vec())
            }
        }
    )* };
}

numbers!(u8, u16, u32);

impl From<()> for Number {
    fn from((): ()) -> Self {
        Self(Vec::new())
    }
}
