// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A vCPU of bhyve. An access is answered by the next entry, which repeats it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::abi;
use super::failures;
use super::handle::{Answer, Exit, Instance};
use super::kick::Kick;
use super::machine::BARRIERS;
use super::msr::Registers;
use crate::ui::Outcome;
use crate::vm::dev::Request;
use crate::vm::hv::node::is;
use crate::vm::hv::{Bytes, Vcpu, VcpuExit};

/// How long a vCPU of a paused machine waits before it tries again.
const PAUSED: Duration = Duration::from_millis(20);
/// How often a vCPU that leaves for good tries to be seen by the others.
const FAREWELLS: u32 = 1000;

pub(super) struct BhyveVcpu {
    instance: Arc<Instance>,
    number: i32,
    version: u32,
    kick: Arc<Kick>,
    registers: Arc<Registers>,
    /// What the next entry says about the last exit.
    answer: Answer,
    has_run: bool,
}

impl BhyveVcpu {
    pub(super) fn new(
        instance: Arc<Instance>,
        number: i32,
        version: u32,
        kick: Arc<Kick>,
        registers: Arc<Registers>,
    ) -> Self {
        let answer = Answer::Nothing;
        Self { instance, number, version, kick, registers, answer, has_run: false }
    }

    /// What an exit is to the machine.
    fn take(&mut self, exit: Exit) -> VcpuExit {
        match exit {
            Exit::Nothing => VcpuExit::Again,
            Exit::Port(inout) => self.port(inout),
            Exit::Mmio(mmio) => self.mmio(mmio),
            Exit::ReadMsr(register) => {
                let value = self.registers.read(register);
                self.finish_read(value)
            }
            Exit::WriteMsr(register, value) => {
                self.registers.write(register, value);
                VcpuExit::Again
            }
            Exit::Suspended(how) => match how {
                abi::VM_SUSPEND_TRIPLEFAULT => VcpuExit::TripleFault,
                abi::VM_SUSPEND_RESET => VcpuExit::Asked(Request::Reset),
                // All processors halted with interrupts off: nothing will ever happen any more.
                _ => VcpuExit::Asked(Request::PowerOff),
            },
            Exit::Fatal(why) => VcpuExit::Broken(why.to_string()),
        }
    }

    fn port(&mut self, mut inout: abi::vm_inout) -> VcpuExit {
        let (port, size) = (inout.port, inout.bytes);
        if !matches!(size, 1 | 2 | 4) {
            return VcpuExit::Broken(format!("an access of {size} bytes to port {port:#x}"));
        }
        let value = inout.eax.to_le_bytes();
        let is_read = u32::from(inout.flags) & abi::INOUT_IN != 0;
        if is_read {
            // Until somebody knows better.
            inout.eax = u32::MAX >> (32 - 8 * u32::from(size));
        }
        self.answer = Answer::Port(inout);
        if is_read {
            return VcpuExit::PortRead { port, size };
        }
        let data = Bytes::new(value.get(..usize::from(size)).unwrap_or_default());
        VcpuExit::PortWrite { port, data }
    }

    fn mmio(&mut self, mut mmio: abi::vm_mmio) -> VcpuExit {
        let (address, size) = (mmio.gpa, mmio.bytes);
        if !matches!(size, 1 | 2 | 4 | 8) {
            return VcpuExit::Broken(format!("an access of {size} bytes to {address:#x}"));
        }
        let value = mmio.data.to_le_bytes();
        let is_read = mmio.read != 0;
        if is_read {
            mmio.data = u64::MAX >> (64 - 8 * u32::from(size));
        }
        self.answer = Answer::Mmio(mmio);
        if is_read {
            return VcpuExit::MmioRead { address, size };
        }
        let data = Bytes::new(value.get(..usize::from(size)).unwrap_or_default());
        VcpuExit::MmioWrite { address, data }
    }

    /// The instruction that reads such a register is over already: its result is in two others.
    fn finish_read(&self, value: u64) -> VcpuExit {
        let halves =
            [(abi::VM_REG_GUEST_RAX, value & 0xffff_ffff), (abi::VM_REG_GUEST_RDX, value >> 32)];
        for (register, half) in halves {
            if let Err(error) = self.instance.set_register(self.number, register, half) {
                return VcpuExit::Broken(format!("bhyve does not take a register: {error}"));
            }
        }
        VcpuExit::Again
    }

    /// Up to version 15 a vCPU that has seen the end of the run waits inside the kernel for all
    /// others. One that just left would keep it there for ever.
    fn say_farewell(&mut self) {
        if self.version >= BARRIERS || !self.has_run || self.instance.suspend().is_err() {
            return;
        }
        for _ in 0..FAREWELLS {
            let answer = match std::mem::replace(&mut self.answer, Answer::Nothing) {
                Answer::Nothing => Answer::Nothing,
                _ => Answer::Discard,
            };
            match self.instance.run(self.number, answer) {
                Ok(Exit::Suspended(_)) | Err(_) => return,
                Ok(Exit::Port(inout)) => self.answer = Answer::Port(inout),
                Ok(Exit::Mmio(mmio)) => self.answer = Answer::Mmio(mmio),
                Ok(_) => {}
            }
        }
    }
}

impl Drop for BhyveVcpu {
    fn drop(&mut self) {
        self.say_farewell();
        self.kick.leave();
    }
}

impl Vcpu for BhyveVcpu {
    fn run(&mut self) -> Outcome<VcpuExit> {
        if !self.has_run {
            self.kick.enter();
            self.has_run = true;
        }
        if self.kick.take() {
            return Ok(VcpuExit::Again);
        }
        match self.instance.run(self.number, self.answer) {
            Ok(exit) => {
                self.answer = Answer::Nothing;
                Ok(self.take(exit))
            }
            // Nothing has happened, and the answer is still to be given.
            Err(error) if is(&error, libc::EINTR) => Ok(VcpuExit::Again),
            Err(error) if is(&error, libc::EBUSY) => {
                // An operator has paused the machine; nothing tells when it goes on.
                std::thread::park_timeout(PAUSED);
                Ok(VcpuExit::Again)
            }
            Err(error) => Err(failures::not_run(self.number, error)),
        }
    }

    fn answer(&mut self, data: &[u8]) {
        let mut bytes = [0; 8];
        for (to, from) in bytes.iter_mut().zip(data) {
            *to = *from;
        }
        let value = u64::from_le_bytes(bytes);
        match &mut self.answer {
            Answer::Port(inout) if u32::from(inout.flags) & abi::INOUT_IN != 0 => {
                inout.eax = value as u32;
            }
            Answer::Mmio(mmio) if mmio.read != 0 => mmio.data = value,
            _ => {}
        }
    }

    fn registers(&self) -> String {
        let mut text = String::new();
        for (name, register, ends_line) in SHOWN {
            let value = self.instance.register(self.number, register);
            let end = if ends_line { '\n' } else { ' ' };
            // Writing to a string does not fail.
            let _ = match value {
                Ok(value) => write!(text, "{name} {value:016x}{end}"),
                Err(_) => write!(text, "{name} unknown{end}"),
            };
        }
        if let Ok(base) = self.instance.segment_base(self.number, abi::VM_REG_GUEST_CS) {
            let _ = write!(text, "cs base {base:x}");
        }
        text.trim_end().to_owned()
    }
}

/// The registers of a report, and where its lines end.
const SHOWN: [(&str, u32, bool); 17] = [
    ("rip", abi::VM_REG_GUEST_RIP, false),
    ("rsp", abi::VM_REG_GUEST_RSP, false),
    ("rflags", abi::VM_REG_GUEST_RFLAGS, true),
    ("rax", abi::VM_REG_GUEST_RAX, false),
    ("rbx", abi::VM_REG_GUEST_RBX, false),
    ("rcx", abi::VM_REG_GUEST_RCX, false),
    ("rdx", abi::VM_REG_GUEST_RDX, true),
    ("rsi", abi::VM_REG_GUEST_RSI, false),
    ("rdi", abi::VM_REG_GUEST_RDI, false),
    ("rbp", abi::VM_REG_GUEST_RBP, true),
    ("cr0", abi::VM_REG_GUEST_CR0, false),
    ("cr2", abi::VM_REG_GUEST_CR2, false),
    ("cr3", abi::VM_REG_GUEST_CR3, false),
    ("cr4", abi::VM_REG_GUEST_CR4, false),
    ("efer", abi::VM_REG_GUEST_EFER, true),
    ("cs", abi::VM_REG_GUEST_CS, false),
    ("ss", abi::VM_REG_GUEST_SS, false),
];
