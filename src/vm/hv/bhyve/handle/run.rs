// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Running a vCPU: what goes in, and what comes out.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::fmt;
use std::io;

use super::super::abi;
use super::Instance;
use crate::vm::hv::abi::Plain as _;

/// What an entry does about the access that the last exit asked for.
#[derive(Clone, Copy)]
pub(in crate::vm::hv::bhyve) enum Answer {
    /// There was none.
    Nothing,
    /// There was one, and it shall not have been.
    Discard,
    /// The exit's port access; for a read with the value.
    Port(abi::vm_inout),
    /// The exit's memory access; for a read with the value.
    Mmio(abi::vm_mmio),
}

/// Why a vCPU came out.
pub(in crate::vm::hv::bhyve) enum Exit {
    /// Somebody asked for it, or nobody: enter again.
    Nothing,
    /// A port access, to be answered.
    Port(abi::vm_inout),
    /// A memory access, to be answered.
    Mmio(abi::vm_mmio),
    /// A register that the kernel does not know, to be answered in RAX and RDX.
    ReadMsr(u32),
    /// A write to such a register.
    WriteMsr(u32, u64),
    /// The guest's run has ended: one of `vm_suspend_how`.
    Suspended(u32),
    /// The guest cannot go on.
    Fatal(Fatal),
}

/// Why a guest cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::vm::hv::bhyve) enum Fatal {
    /// Intel's processor refuses.
    Vmx { status: c_int, reason: u32, qualification: u64, kind: c_int, error: c_int },
    /// AMD's processor refuses.
    Svm { code: u64, info: [u64; 2] },
    /// A forbidden access to memory.
    Paging { address: u64, access: c_int },
    /// An instruction that the kernel cannot emulate.
    Instruction(Vec<u8>),
    /// A hardware task switch.
    TaskSwitch,
    /// An exit that this version of the interface does not have, or has turned off.
    Unknown(c_int),
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vmx { status, reason, qualification, kind, error } => write!(
                f,
                "VT-x does not run the guest: status {status}, exit reason {reason:#x}, \
                 qualification {qualification:#x}, instruction {kind}, error {error}"
            ),
            Self::Svm { code, info: [first, second] } => write!(
                f,
                "SVM does not run the guest: exit code {code:#x}, info {first:#x} {second:#x}"
            ),
            Self::Paging { address, access } => {
                let access = match access {
                    1 => "reads from",
                    2 => "writes to",
                    _ => "runs code at",
                };
                write!(f, "the guest {access} {address:#x}, where it may not (the ROM, perhaps)")
            }
            Self::Instruction(bytes) => {
                write!(f, "an instruction touches a device and cannot be emulated: {bytes:02x?}")
            }
            Self::TaskSwitch => f.write_str("the guest switches tasks by hardware"),
            Self::Unknown(code) => write!(f, "the kernel left the guest for a reason {code}"),
        }
    }
}

impl Instance {
    /// Runs a vCPU until it comes out. On an error nothing has happened, and the answer is still
    /// to be given.
    pub(in crate::vm::hv::bhyve) fn run(&self, vcpu: c_int, answer: Answer) -> io::Result<Exit> {
        let mut exit = abi::vm_exit::zeroed();
        let mut entry = abi::vm_entry::zeroed();
        entry.cpuid = vcpu;
        entry.exit_data = (&raw mut exit).cast();
        match answer {
            Answer::Nothing => entry.cmd = abi::VEC_DEFAULT,
            Answer::Discard => entry.cmd = abi::VEC_DISCARD_INSTR,
            Answer::Port(inout) => {
                entry.cmd = abi::VEC_FULFILL_INOUT;
                entry.u.inout = inout;
            }
            Answer::Mmio(mmio) => {
                entry.cmd = abi::VEC_FULFILL_MMIO;
                entry.u.mmio = mmio;
            }
        }
        // SAFETY: VM_RUN reads one `vm_entry` and writes one `vm_exit` where that points; both
        // live until the call returns.
        unsafe { self.node.ioctl(abi::VM_RUN, (&raw mut entry).cast()) }?;
        Ok(decode(&exit))
    }
}

/// Takes an exit apart.
fn decode(exit: &abi::vm_exit) -> Exit {
    // SAFETY of each block below: the exit's code says which member is filled; all of them are
    // integers, for which any bytes are a value, and the whole union was zeroed before.
    let u = &exit.u;
    match exit.exitcode.cast_unsigned() {
        // SAFETY: see above.
        abi::VM_EXITCODE_INOUT => Exit::Port(unsafe { u.inout }),
        // SAFETY: see above.
        abi::VM_EXITCODE_MMIO => Exit::Mmio(unsafe { u.mmio }),
        // SAFETY: see above.
        abi::VM_EXITCODE_RDMSR => Exit::ReadMsr(unsafe { u.msr.code }),
        abi::VM_EXITCODE_WRMSR => {
            // SAFETY: see above.
            let msr = unsafe { u.msr };
            Exit::WriteMsr(msr.code, msr.wval)
        }
        // SAFETY: see above.
        abi::VM_EXITCODE_SUSPENDED => Exit::Suspended(unsafe { u.suspended.how }.cast_unsigned()),
        // The last one up to version 15: another call needed the vCPU.
        abi::VM_EXITCODE_BOGUS | abi::VM_EXITCODE_PAUSE | abi::VM_EXITCODE_DEPRECATED2 => {
            Exit::Nothing
        }
        _ => Exit::Fatal(fatal(exit)),
    }
}

fn fatal(exit: &abi::vm_exit) -> Fatal {
    let u = &exit.u;
    match exit.exitcode.cast_unsigned() {
        abi::VM_EXITCODE_VMX => {
            // SAFETY: as in `decode`.
            let vmx = unsafe { u.vmx };
            Fatal::Vmx {
                status: vmx.status,
                reason: vmx.exit_reason,
                qualification: vmx.exit_qualification,
                kind: vmx.inst_type,
                error: vmx.inst_error,
            }
        }
        abi::VM_EXITCODE_SVM => {
            // SAFETY: as in `decode`.
            let svm = unsafe { u.svm };
            Fatal::Svm { code: svm.exitcode, info: [svm.exitinfo1, svm.exitinfo2] }
        }
        abi::VM_EXITCODE_PAGING => {
            // SAFETY: as in `decode`.
            let paging = unsafe { u.paging };
            Fatal::Paging { address: paging.gpa, access: paging.fault_type }
        }
        abi::VM_EXITCODE_INST_EMUL => {
            // SAFETY: as in `decode`.
            let inst = unsafe { u.inst_emul };
            Fatal::Instruction(inst.inst.into_iter().take(inst.num_valid.into()).collect())
        }
        abi::VM_EXITCODE_TASK_SWITCH => Fatal::TaskSwitch,
        _ => Fatal::Unknown(exit.exitcode),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: u32) -> abi::vm_exit {
        let mut exit = abi::vm_exit::zeroed();
        exit.exitcode = code.cast_signed();
        exit
    }

    #[test]
    fn exits_are_told_apart() {
        for code in [abi::VM_EXITCODE_BOGUS, abi::VM_EXITCODE_DEPRECATED2] {
            assert!(matches!(decode(&exit(code)), Exit::Nothing));
        }
        let mut suspended = exit(abi::VM_EXITCODE_SUSPENDED);
        suspended.u.suspended = abi::vm_exit_suspended { how: 4, source: -1, when: u64::MAX };
        assert!(matches!(decode(&suspended), Exit::Suspended(4)));
        let mut write = exit(abi::VM_EXITCODE_WRMSR);
        write.u.msr = abi::vm_exit_msr { code: 0x8b, wval: 7 };
        assert!(matches!(decode(&write), Exit::WriteMsr(0x8b, 7)));
        for code in [25, u32::MAX, abi::VM_EXITCODE_HLT, abi::VM_EXITCODE_DEBUG] {
            let Exit::Fatal(why) = decode(&exit(code)) else { panic!("{code}") };
            assert_eq!(why, Fatal::Unknown(code.cast_signed()));
        }
    }

    #[test]
    fn more_instruction_bytes_than_there_are_harm_nobody() {
        let mut odd = exit(abi::VM_EXITCODE_INST_EMUL);
        odd.u.inst_emul = abi::vm_exit_inst_emul { inst: [0x90; 15], num_valid: 255 };
        let Exit::Fatal(Fatal::Instruction(bytes)) = decode(&odd) else { panic!("an instruction") };
        assert_eq!(bytes.len(), 15);
    }
}
