// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A vCPU on Linux KVM.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use kvm_bindings::{
    KVM_EXIT_IO, KVM_EXIT_IO_IN, KVM_EXIT_MMIO, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN,
};
use kvm_ioctls::{VcpuExit as KvmExit, VcpuFd};

use super::machine::Slots;
use crate::ui::{Failure, Outcome};
use crate::vm::dev::Request;
use crate::vm::hv::{Bytes, Vcpu, VcpuExit};
use crate::vm::memory::Memory;

/// How another thread gets a vCPU out of the guest.
#[derive(Default)]
pub(super) struct Kick(Mutex<Option<Running>>);

/// The thread that runs a vCPU, and KVM's flag that it shall not enter.
struct Running {
    thread: libc::pthread_t,
    stop: *const AtomicU8,
}

// SAFETY: the pointer is to shared memory that both sides reach by atomic access only.
unsafe impl Send for Running {}

impl Kick {
    /// Makes the vCPU leave the guest, or not enter it the next time.
    pub(super) fn kick(&self) {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = running.as_ref() {
            // SAFETY: the vCPU clears this entry, under the lock held here, before its shared
            // memory is unmapped and before its thread ends.
            unsafe {
                (*running.stop).store(1, Ordering::SeqCst);
                libc::pthread_kill(running.thread, signal());
            }
        }
    }

    fn set(&self, running: Option<Running>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = running;
    }
}

/// A real-time signal whose handler does nothing: it only interrupts `KVM_RUN`.
fn signal() -> libc::c_int {
    extern "C" fn ignore(_: libc::c_int) {}
    static INSTALLED: Once = Once::new();
    let signal = libc::SIGRTMIN() + 1;
    INSTALLED.call_once(|| {
        // SAFETY: the handler is async-signal-safe (it does nothing); sigaction gets a zeroed,
        // then initialized, structure and no old one to fill.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = ignore as extern "C" fn(libc::c_int) as libc::sighandler_t;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    });
    signal
}

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
        Self { fd, kick, pending: Pending::Nothing, _held: held }
    }

    fn register(&mut self) {
        let stop = (&raw mut self.fd.get_kvm_run().immediate_exit).cast::<AtomicU8>();
        // SAFETY: asks for the calling thread's id, which cannot fail.
        let thread = unsafe { libc::pthread_self() };
        self.kick.set(Some(Running { thread, stop }));
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

impl Vcpu for KvmVcpu {
    fn run(&mut self) -> Outcome<VcpuExit> {
        if matches!(self.pending, Pending::Port { .. }) {
            return Ok(self.port_exit());
        }
        self.pending = Pending::Nothing;
        self.register();
        let result = self.fd.run().map(|exit| match exit {
            KvmExit::IoIn(..)
            | KvmExit::IoOut(..)
            | KvmExit::MmioRead(..)
            | KvmExit::MmioWrite(..) => None,
            KvmExit::Shutdown => Some(VcpuExit::TripleFault),
            KvmExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _) => {
                Some(VcpuExit::Asked(Request::PowerOff))
            }
            KvmExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _) => {
                Some(VcpuExit::Asked(Request::Reset))
            }
            KvmExit::Intr | KvmExit::IrqWindowOpen | KvmExit::Hlt => Some(VcpuExit::Again),
            KvmExit::FailEntry(reason, _) => {
                Some(VcpuExit::Broken(format!("the processor refuses the guest: {reason:#x}")))
            }
            KvmExit::InternalError => Some(VcpuExit::Broken(String::new())),
            other => Some(VcpuExit::Broken(format!("KVM left the guest for {other:?}"))),
        });
        match result {
            Ok(Some(VcpuExit::Broken(text))) if text.is_empty() => Ok(self.internal_error()),
            Ok(Some(exit)) => Ok(exit),
            Ok(None) => Ok(self.access().unwrap_or(VcpuExit::Again)),
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
