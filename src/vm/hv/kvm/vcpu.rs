// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A vCPU on Linux KVM.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, Mutex};

use kvm_bindings::{
    KVM_EXIT_IO, KVM_EXIT_IO_IN, KVM_EXIT_MMIO, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN,
};
use kvm_ioctls::{VcpuExit as KvmExit, VcpuFd};

use super::kick::{Kick, Running, signal};
use super::machine::Slots;
use crate::ui::{Failure, Outcome};
use crate::vm::dev::Request;
use crate::vm::hv::{Bytes, Vcpu, VcpuExit};
use crate::vm::memory::Memory;

/// What the last exit left to be done before the guest goes on.
enum Pending {
    Nothing,
    /// Elements of a (string) port access in the shared page, `next` of `count` being the current.
    Port {
        port: u16,
        size: u8,
        count: u32,
        next: u32,
        is_read: bool,
        data_offset: u64,
    },
    /// A read of MMIO.
    Mmio,
}

pub(super) struct KvmVcpu {
    fd: VcpuFd,
    kick: Arc<Kick>,
    /// The thread that `kick` knows of.
    thread: Option<libc::pthread_t>,
    pending: Pending,
    /// The guest's memory must be there as long as the vCPU may run.
    _held: Held,
}

/// What a vCPU holds on to: RAM, and the memory of devices.
type Held = (Memory, Arc<Mutex<Slots>>);

impl Drop for KvmVcpu {
    fn drop(&mut self) {
        self.kick.set(None);
    }
}

impl KvmVcpu {
    pub(super) fn new(fd: VcpuFd, kick: Arc<Kick>, held: Held) -> Self {
        signal();
        Self { fd, kick, thread: None, pending: Pending::Nothing, _held: held }
    }

    /// Says which thread a kick must interrupt, when it is another than before.
    fn register(&mut self) {
        // SAFETY: asks for the calling thread's id, which cannot fail.
        let thread = unsafe { libc::pthread_self() };
        if self.thread == Some(thread) {
            return;
        }
        let stop = (&raw mut self.fd.get_kvm_run().immediate_exit).cast::<AtomicU8>();
        self.kick.set(Some(Running { thread, stop }));
        self.thread = Some(thread);
    }

    /// The current element of a port access.
    fn element(&mut self) -> &mut [u8] {
        let Pending::Port { size, next, data_offset, .. } = self.pending else { return &mut [] };
        let offset = data_offset + u64::from(next) * u64::from(size);
        let run = std::ptr::from_mut(self.fd.get_kvm_run()).cast::<u8>();
        // SAFETY: for KVM_EXIT_IO the kernel puts `count` elements of `size` bytes at
        // `data_offset` of the shared mapping, inside of it; `next < count`. The exclusive borrow
        // of `self` keeps the vCPU from running meanwhile.
        unsafe {
            std::slice::from_raw_parts_mut(
                run.add(usize::try_from(offset).unwrap_or(0)),
                usize::from(size),
            )
        }
    }

    /// The exit for the current element.
    fn port_exit(&mut self) -> VcpuExit {
        let Pending::Port { port, size, is_read, .. } = self.pending else {
            return VcpuExit::Again;
        };
        if is_read {
            return VcpuExit::PortRead { port, size };
        }
        let data = Bytes::new(self.element());
        self.advance();
        VcpuExit::PortWrite { port, data }
    }

    fn advance(&mut self) {
        if let Pending::Port { count, next, .. } = &mut self.pending {
            *next += 1;
            if next == count {
                self.pending = Pending::Nothing;
            }
        }
    }

    /// Takes a port or MMIO exit out of the shared page.
    fn access(&mut self) -> Option<VcpuExit> {
        let run = self.fd.get_kvm_run();
        match run.exit_reason {
            KVM_EXIT_IO => {
                // SAFETY: the exit reason says that this member of the union is filled.
                let io = unsafe { run.__bindgen_anon_1.io };
                self.pending = Pending::Port {
                    port: io.port,
                    size: io.size,
                    count: io.count,
                    next: 0,
                    is_read: u32::from(io.direction) == KVM_EXIT_IO_IN,
                    data_offset: io.data_offset,
                };
                Some(self.port_exit())
            }
            KVM_EXIT_MMIO => {
                // SAFETY: the exit reason says that this member of the union is filled.
                let mmio = unsafe { run.__bindgen_anon_1.mmio };
                let (address, size) = (mmio.phys_addr, mmio.len.min(8) as u8);
                if mmio.is_write != 0 {
                    let data = mmio.data.get(..usize::from(size)).unwrap_or_default();
                    return Some(VcpuExit::MmioWrite { address, data: Bytes::new(data) });
                }
                self.pending = Pending::Mmio;
                Some(VcpuExit::MmioRead { address, size })
            }
            _ => None,
        }
    }

    fn internal_error(&mut self) -> VcpuExit {
        // SAFETY: the exit reason is KVM_EXIT_INTERNAL_ERROR, for which the kernel fills this
        // member; any bit pattern is valid.
        let internal = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.internal };
        let count = internal.ndata.min(16) as usize;
        let data = internal.data.get(..count).unwrap_or_default();
        VcpuExit::Broken(format!(
            "KVM cannot go on (internal error, suberror {}): {data:x?}",
            internal.suberror
        ))
    }
}

/// Why KVM left the guest, without what lies in the shared page.
enum Left {
    /// A port or MMIO access.
    Access,
    InternalError,
    For(VcpuExit),
}

impl From<KvmExit<'_>> for Left {
    fn from(exit: KvmExit<'_>) -> Self {
        let exit = match exit {
            KvmExit::IoIn(..)
            | KvmExit::IoOut(..)
            | KvmExit::MmioRead(..)
            | KvmExit::MmioWrite(..) => return Self::Access,
            KvmExit::InternalError => return Self::InternalError,
            KvmExit::Shutdown => VcpuExit::TripleFault,
            KvmExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _) => {
                VcpuExit::Asked(Request::PowerOff)
            }
            KvmExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _) => VcpuExit::Asked(Request::Reset),
            KvmExit::Intr | KvmExit::IrqWindowOpen | KvmExit::Hlt => VcpuExit::Again,
            KvmExit::FailEntry(reason, _) => {
                VcpuExit::Broken(format!("the processor refuses the guest: {reason:#x}"))
            }
            other => VcpuExit::Broken(format!("KVM left the guest for {other:?}")),
        };
        Self::For(exit)
    }
}

impl Vcpu for KvmVcpu {
    fn run(&mut self) -> Outcome<VcpuExit> {
        if matches!(self.pending, Pending::Port { .. }) {
            return Ok(self.port_exit());
        }
        self.pending = Pending::Nothing;
        self.register();
        match self.fd.run().map(Left::from) {
            Ok(Left::Access) => Ok(self.access().unwrap_or(VcpuExit::Again)),
            Ok(Left::InternalError) => Ok(self.internal_error()),
            Ok(Left::For(exit)) => Ok(exit),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                self.fd.set_kvm_immediate_exit(0);
                Ok(VcpuExit::Again)
            }
            Err(error) => Err(Failure::build("KVM does not run the guest")
                .because(io::Error::from_raw_os_error(error.errno()))),
        }
    }

    fn answer(&mut self, data: &[u8]) {
        match self.pending {
            Pending::Port { is_read: true, .. } => {
                for (to, from) in self.element().iter_mut().zip(data) {
                    *to = *from;
                }
                self.advance();
            }
            Pending::Mmio => {
                // SAFETY: the last exit was KVM_EXIT_MMIO, and the vCPU has not run since.
                let place = unsafe { &mut self.fd.get_kvm_run().__bindgen_anon_1.mmio.data };
                for (to, from) in place.iter_mut().zip(data) {
                    *to = *from;
                }
                self.pending = Pending::Nothing;
            }
            _ => {}
        }
    }

    fn registers(&self) -> String {
        let (Ok(regs), Ok(system)) = (self.fd.get_regs(), self.fd.get_sregs()) else {
            return "KVM does not say the registers".into();
        };
        format!(
            "rip {:016x} rsp {:016x} rflags {:08x}\n\
             rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}\n\
             rsi {:016x} rdi {:016x} rbp {:016x}\n\
             cs {:04x} base {:x} cr0 {:x} cr2 {:x} cr3 {:x} cr4 {:x} efer {:x}",
            regs.rip,
            regs.rsp,
            regs.rflags,
            regs.rax,
            regs.rbx,
            regs.rcx,
            regs.rdx,
            regs.rsi,
            regs.rdi,
            regs.rbp,
            system.cs.selector,
            system.cs.base,
            system.cr0,
            system.cr2,
            system.cr3,
            system.cr4,
            system.efer,
        )
    }
}
