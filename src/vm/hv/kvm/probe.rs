// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Runs a guest of a few dozen instructions to see what `/dev/kvm` can really do.
//!
//! Some hosts offer a `/dev/kvm` without hardware behind it: guest code in ring 0 is interpreted
//! there by KVM's instruction emulator, hundreds of times slower, and the first `FWAIT`, SSE or
//! `POPCNT` ends the run. Every feature query passes on such a host, so nothing short of running
//! those instructions tells. Facts about the interface: Linux `Documentation/virt/kvm/api.rst`.
#![allow(unsafe_code)]

use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_regs, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

use super::{Verdict, kick};

const DEVICE: &str = "/dev/kvm";
/// Longest time for the answer. Far more than it takes, so that a busy host, where the guest has to
/// wait for a processor, is not condemned to run every build in software.
const DEADLINE: Duration = Duration::from_millis(1500);
/// How long a hung guest is asked to leave before its thread is given up.
const KICKING: Duration = Duration::from_millis(20);
/// Rounds of the timed loop; must match the guest's code.
const ROUNDS: f64 = 20_000.0;
/// Above this many microseconds per million rounds an interpreter runs the guest. Hardware takes
/// some hundred, hardware emulated in software about 2,500, KVM's interpreter over a million.
const SLOWEST_HARDWARE: f64 = 400_000.0;
const MEMORY: usize = 4 * 4096;
const CODE_AT: u64 = 0x1000;
const PORT: u16 = 0x3f8;

/// 32-bit protected mode, flat; loaded at [`CODE_AT`]. Each step ends in a write of its own
/// number, computed by the instruction under test, to [`PORT`].
#[rustfmt::skip]
const GUEST: &[u8] = &[
    0x66, 0xba, 0xf8, 0x03,             // mov    dx, 0x3f8
    0xb0, 0x01, 0xee,                   // mov    al, 1;  out dx, al
    0xdb, 0xe3,                         // fninit
    0x9b,                               // fwait
    0xb0, 0x02, 0xee,                   // mov    al, 2;  out dx, al
    0xd9, 0xe8,                         // fld1
    0xd9, 0xe8,                         // fld1
    0xde, 0xc1,                         // faddp
    0xdb, 0x1d, 0x00, 0x20, 0x00, 0x00, // fistp  dword [0x2000]
    0xa0, 0x00, 0x20, 0x00, 0x00,       // mov    al, [0x2000]
    0x04, 0x01, 0xee,                   // add    al, 1;  out dx, al
    0x66, 0x0f, 0x6e, 0xc2,             // movd   xmm0, edx
    0x66, 0x0f, 0xef, 0xc0,             // pxor   xmm0, xmm0
    0x66, 0x0f, 0x7e, 0xc0,             // movd   eax, xmm0
    0x04, 0x04, 0xee,                   // add    al, 4;  out dx, al
    0xb9, 0x1f, 0x00, 0x00, 0x00,       // mov    ecx, 0x1f
    0xf3, 0x0f, 0xb8, 0xc1, 0xee,       // popcnt eax, ecx;  out dx, al
    0xb9, 0x20, 0x4e, 0x00, 0x00,       // mov    ecx, 20000   <-+
    0x49, 0x75, 0xfd,                   // dec    ecx;  jnz -3   |
    0xb0, 0x06, 0xee,                   // mov    al, 6;  out    |
    0xeb, 0xf3,                         // jmp    ---------------+
];

/// The steps in order; step `i` ends when the guest writes `i + 1`.
const STEPS: [&str; 5] = ["port write", "fwait", "x87", "sse", "popcnt"];
/// The step of a guest that did not answer in time.
const NO_ANSWER: &str = "run";
const SPIN_DONE: u8 = 6;
const SPINS: u32 = 3;

/// Judges this host's `/dev/kvm` by running a tiny guest on it. Takes some milliseconds, some tens
/// when the guest is interpreted; only a guest that hangs costs the whole deadline.
pub fn probe() -> Verdict {
    let kvm = match Kvm::new() {
        Ok(kvm) => kvm,
        Err(error) => {
            let error = std::io::Error::from_raw_os_error(error.errno());
            return Verdict::Absent { reason: format!("cannot open {DEVICE}: {error}") };
        }
    };
    within_deadline(move |stop| match Guest::new(&kvm) {
        Ok(mut guest) => guest.run(stop),
        Err(error) => Verdict::Unusable { step: "create", reason: error.to_string() },
    })
}

/// Runs `work` in a thread of its own; a guest that hangs is kicked out with a signal.
fn within_deadline(work: impl FnOnce(&AtomicBool) -> Verdict + Send + 'static) -> Verdict {
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let (sender, answer) = mpsc::channel();
    let spawned = std::thread::Builder::new().name("kvm-probe".to_owned()).spawn(move || {
        // The receiver is gone only when the answer no longer matters.
        let _ = sender.send(work(&told));
    });
    let thread = match spawned {
        Ok(thread) => thread,
        Err(error) => return Verdict::Unusable { step: "create", reason: error.to_string() },
    };
    if let Ok(verdict) = answer.recv_timeout(DEADLINE) {
        return verdict;
    }
    stop.store(true, Ordering::Relaxed);
    let signal = kick::signal();
    let started = Instant::now();
    while !thread.is_finished() && started.elapsed() < KICKING {
        // SAFETY: the handle is not joined, so the thread id stays valid even if it has ended.
        unsafe { libc::pthread_kill(thread.as_pthread_t(), signal) };
        if answer.recv_timeout(Duration::from_millis(1)).is_ok() {
            break;
        }
    }
    let reason = format!("the guest did not answer within {} ms", DEADLINE.as_millis());
    Verdict::Unusable { step: NO_ANSWER, reason }
}

#[derive(Clone)]
#[repr(align(4096))]
struct Page(#[allow(dead_code)] [u8; 4096]);

/// The virtual machine. Field order is drop order: KVM lets go of the memory before it is freed.
struct Guest {
    vcpu: VcpuFd,
    _vm: VmFd,
    _memory: Vec<Page>,
}

impl Guest {
    fn new(kvm: &Kvm) -> Result<Self, kvm_ioctls::Error> {
        let vm = kvm.create_vm()?;
        // Needed on Intel processors without unrestricted guest mode, harmless elsewhere.
        vm.set_tss_address(0xfffb_d000)?;
        let mut memory = vec![Page([0; 4096]); MEMORY / 4096];
        if let Some(page) = memory.get_mut(1) {
            page.0[..GUEST.len()].copy_from_slice(GUEST);
        }
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: MEMORY as u64,
            userspace_addr: memory.as_mut_ptr() as u64,
        };
        // SAFETY: the range is page-aligned, owned by `memory`, which outlives the VM (drop
        // order of `Guest`), and nothing here reads or writes it while the VM exists.
        unsafe { vm.set_user_memory_region(region)? };
        let vcpu = vm.create_vcpu(0)?;
        vcpu.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;
        let mut system = vcpu.get_sregs()?;
        let code = kvm_segment {
            limit: 0xffff_ffff,
            selector: 8,
            type_: 11,
            present: 1,
            s: 1,
            g: 1,
            db: 1,
            ..Default::default()
        };
        let data = kvm_segment { selector: 16, type_: 3, ..code };
        system.cs = code;
        (system.ds, system.es, system.ss) = (data, data, data);
        system.cr0 |= 0x21; // protection enabled, native x87 errors
        system.cr0 &= !0xe; // no x87 emulation or task-switch traps
        system.cr4 |= 0x600; // SSE allowed
        vcpu.set_sregs(&system)?;
        vcpu.set_regs(&kvm_regs { rip: CODE_AT, rflags: 2, rsp: 0x3ff0, ..Default::default() })?;
        Ok(Self { vcpu, _vm: vm, _memory: memory })
    }

    /// Runs all steps, then the timed loop.
    fn run(&mut self, stop: &AtomicBool) -> Verdict {
        for (expected, step) in (1u8..).zip(STEPS) {
            if let Err(reason) = self.expect(expected, stop) {
                return Verdict::Unusable { step, reason };
            }
        }
        let mut best = f64::INFINITY;
        for _ in 0..SPINS {
            let started = Instant::now();
            if let Err(reason) = self.expect(SPIN_DONE, stop) {
                return Verdict::Unusable { step: "spin", reason };
            }
            best = best.min(started.elapsed().as_secs_f64() * 1e12 / ROUNDS);
            if best < SLOWEST_HARDWARE {
                return Verdict::Usable { micros_per_million_rounds: best };
            }
        }
        let reason = format!("{best:.0} us per million rounds: no hardware runs the guest");
        Verdict::Unusable { step: "spin", reason }
    }

    /// Enters the guest until it writes `value` to [`PORT`].
    fn expect(&mut self, value: u8, stop: &AtomicBool) -> Result<(), String> {
        loop {
            match self.vcpu.run() {
                Ok(VcpuExit::IoOut(PORT, data)) if data == [value] => return Ok(()),
                Ok(VcpuExit::IoOut(port, data)) => {
                    return Err(format!("wrong result: {data:02x?} written to port {port:#x}"));
                }
                Ok(VcpuExit::InternalError) => return Err(self.internal_error()),
                Ok(exit) => return Err(format!("unexpected exit {exit:?}")),
                Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                    if stop.load(Ordering::Relaxed) {
                        return Err("hung".to_owned());
                    }
                }
                Err(error) => return Err(format!("KVM_RUN: {error}")),
            }
        }
    }

    fn internal_error(&mut self) -> String {
        // SAFETY: the exit reason is KVM_EXIT_INTERNAL_ERROR, for which the kernel fills this
        // member of the union; any bit pattern is a valid u32.
        let suberror = unsafe { self.vcpu.get_kvm_run().__bindgen_anon_1.internal.suberror };
        let at = self.vcpu.get_regs().map_or(0, |regs| regs.rip);
        format!("KVM_EXIT_INTERNAL_ERROR (suberror {suberror}) at {at:#x}")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn answers_in_time_and_is_consistent() {
        let started = Instant::now();
        let verdict = probe();
        eprintln!("{verdict} after {:?}", started.elapsed());
        assert!(started.elapsed() < 2 * DEADLINE, "{:?}", started.elapsed());
        match (std::fs::File::options().read(true).write(true).open(DEVICE), &verdict) {
            (Err(_), Verdict::Absent { reason }) => assert!(reason.contains(DEVICE), "{reason}"),
            (Ok(_), Verdict::Usable { micros_per_million_rounds: micros }) => {
                assert!(*micros > 10.0, "a loop of two million instructions in {micros} us");
            }
            (Ok(_), Verdict::Unusable { step, reason }) => {
                assert!(!step.is_empty() && !reason.is_empty());
            }
            (open, verdict) => panic!("{open:?} but {verdict:?}"),
        }
    }

    #[test]
    fn a_guest_that_hangs_is_given_up_and_its_thread_leaves() {
        let (sender, left) = mpsc::channel();
        let started = Instant::now();
        let verdict = within_deadline(move |stop| {
            // Like KVM_RUN: a system call that only a signal interrupts.
            while !stop.load(Ordering::Relaxed) {
                // SAFETY: no descriptors are given; the call only waits.
                unsafe { libc::poll(std::ptr::null_mut(), 0, 10_000) };
            }
            sender.send(()).unwrap();
            Verdict::Usable { micros_per_million_rounds: 1.0 }
        });
        assert!(started.elapsed() < 2 * DEADLINE, "{:?}", started.elapsed());
        assert!(matches!(verdict, Verdict::Unusable { step: NO_ANSWER, .. }), "{verdict:?}");
        left.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}
