// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What the kernel has on the board beside KVM's devices: clock with CMOS, PM timer, HPET, and the
//! hooks of viona. Illumos `usr/src/uts/intel/io/vmm/io/vrtc.c`, `vpmtmr.c`, `vhpet.c`.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::hpet::Hpet;
use crate::rtc::Rtc;
use crate::viona::Doorbell;
use crate::vm::Vm;
use crate::{Answer, Errno, lock};

/// Ticks of the PM timer in a second.
const PM_HERTZ: u128 = 3_579_545;

/// The devices.
#[derive(Default)]
pub(crate) struct Board {
    pub(crate) rtc: Mutex<Rtc>,
    pub(crate) hpet: Mutex<Hpet>,
    pm_timer: Mutex<Option<(u16, Instant)>>,
    ports: Mutex<Vec<(u16, Arc<Doorbell>)>>,
    windows: Mutex<Vec<(u64, u64, Arc<Doorbell>)>>,
}

/// What the kernel does with a port access.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// Done; a read has this value.
    Done(u32),
    /// Nobody's: an exit.
    Nobody,
    /// A device's, but not at this width: the instruction cannot be emulated.
    Refused,
}

impl Board {
    /// `VM_PMTMR_LOCATE`.
    pub(crate) fn locate_pm_timer(&self, port: usize) -> Answer {
        let port = u16::try_from(port).map_err(|_| Errno(libc::EINVAL))?;
        *lock(&self.pm_timer) = Some((port, Instant::now()));
        Ok(0)
    }

    /// What `VM_REINIT` takes away. The clock keeps its time and bytes.
    pub(crate) fn reinit(&self) {
        *lock(&self.pm_timer) = None;
        *lock(&self.hpet) = Hpet::default();
        lock(&self.windows).clear();
    }

    /// A port access of the guest, a write when there is a value.
    pub(crate) fn port(&self, port: u16, bytes: u8, written: Option<u32>) -> Served {
        if matches!(port, 0x70 | 0x71) {
            return lock(&self.rtc).access(port, bytes, written);
        }
        if let Some((at, since)) = *lock(&self.pm_timer)
            && at == port
        {
            let ticks = since.elapsed().as_nanos() * PM_HERTZ / 1_000_000_000;
            let is_served = bytes == 4 && written.is_none();
            return if is_served { Served::Done(ticks as u32) } else { Served::Refused };
        }
        let bell = lock(&self.ports).iter().find(|hook| hook.0 == port).map(|hook| hook.1.clone());
        match (bell, written) {
            (Some(bell), Some(queue)) if bytes == 2 && bell.ring(queue) => Served::Done(0),
            _ => Served::Nobody,
        }
    }

    /// An MMIO access of the guest; `None` when it is nobody's. Of writes the value does not
    /// matter.
    pub(crate) fn mmio(&self, vm: &Vm, gpa: u64, bytes: u8, written: Option<u64>) -> Option<u64> {
        if (crate::hpet::BASE..crate::hpet::BASE + crate::hpet::SIZE).contains(&gpa) {
            return Some(lock(&self.hpet).access(vm, gpa - crate::hpet::BASE, bytes, written));
        }
        let bell = {
            let windows = lock(&self.windows);
            let hit = windows.iter().find(|window| window.0 <= gpa && gpa < window.1);
            Arc::clone(&hit?.2)
        };
        bell.ring(written? as u32 & 0xffff).then_some(0)
    }

    /// Whether a port hook is left.
    pub(crate) fn has_port_hook(&self) -> bool {
        !lock(&self.ports).is_empty()
    }

    /// Puts a port hook, or takes viona's away.
    pub(crate) fn hook_port(&self, port: u16, bell: &Arc<Doorbell>) -> Answer {
        let mut ports = lock(&self.ports);
        let is_ours = |hook: &(u16, Arc<Doorbell>)| Arc::ptr_eq(&hook.1, bell);
        let is_taken = ports.iter().any(|hook| hook.0 == port && !is_ours(hook));
        let is_kernels = matches!(port, 0x20 | 0x21 | 0x40..=0x43 | 0x61 | 0x70 | 0x71)
            || matches!(port, 0xa0 | 0xa1 | 0x4d0 | 0x4d1)
            || lock(&self.pm_timer).is_some_and(|timer| timer.0 == port);
        if port != 0 && (is_taken || is_kernels) {
            return Err(Errno(libc::EEXIST));
        }
        ports.retain(|hook| !is_ours(hook));
        if port != 0 {
            ports.push((port, Arc::clone(bell)));
        }
        Ok(0)
    }

    /// Puts an MMIO hook, or takes viona's away.
    pub(crate) fn hook_mmio(&self, window: Option<(u64, u64)>, bell: &Arc<Doorbell>) -> Answer {
        let mut windows = lock(&self.windows);
        let is_ours = |hook: &(u64, u64, Arc<Doorbell>)| Arc::ptr_eq(&hook.2, bell);
        if let Some((start, len)) = window {
            let end = start.checked_add(len).filter(|_| len > 0).ok_or(Errno(libc::EINVAL))?;
            if windows.iter().any(|hook| !is_ours(hook) && hook.0 < end && start < hook.1) {
                return Err(Errno(libc::EEXIST));
            }
        }
        windows.retain(|hook| !is_ours(hook));
        if let Some((start, len)) = window {
            windows.push((start, start + len, Arc::clone(bell)));
        }
        Ok(0)
    }
}
