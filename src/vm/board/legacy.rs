// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Devices at fixed ports and addresses.

use std::sync::{Arc, Mutex};

use super::timers::{Alarm, TimedDevice};
use super::{Backends, Plan, wires};
use crate::ui::Outcome;
use crate::vm::bus::SharedDevice;
use crate::vm::dev::Requests;
use crate::vm::dev::clock::Clock;
use crate::vm::dev::debug::DebugPort;
use crate::vm::dev::flash::Flash;
use crate::vm::dev::hpet::{self, Hpet};
use crate::vm::dev::i8042::{self, I8042};
use crate::vm::dev::pm::{self, PowerManagement, PowerOffPort};
use crate::vm::dev::reset::{PostPort, ResetRegister};
use crate::vm::dev::rtc::{self, Rtc};
use crate::vm::dev::uart::{self, Uart};
use crate::vm::hv::Vm;
use crate::vm::vcpu::Buses;

/// Where the first and the second serial port are, and their lines.
const COM1: (u64, u32) = (0x3f8, 4);
const COM2: (u64, u32) = (0x2f8, 3);
/// The unit in which a guest is shown memory.
const PAGE: u64 = 4096;
/// OVMF's way out, which no register moves.
const POWER_OFF: u64 = 0xb004;

/// What devices are plugged into.
pub(super) struct Legacy<'a> {
    pub(super) vm: &'a Arc<dyn Vm>,
    pub(super) buses: &'a Buses,
    pub(super) clock: &'a Arc<dyn Clock>,
    pub(super) alarm: &'a Arc<Alarm>,
    pub(super) requests: &'a Arc<dyn Requests>,
}

/// Those that somebody else needs, too.
pub(super) struct Devices {
    pub(super) keyboard: Arc<Mutex<I8042>>,
    pub(super) power: Arc<Mutex<PowerManagement>>,
    pub(super) timed: Vec<TimedDevice>,
}

impl Legacy<'_> {
    /// Plugs all of them in.
    pub(super) fn plug(&self, plan: &Plan, backends: &Backends) -> Outcome<Devices> {
        self.serial(COM1, (backends.serial)())?;
        self.serial(COM2, Box::new(std::io::sink()))?;
        let keyboard = self.keyboard()?;
        let power = self.power()?;
        let mut timed = vec![Arc::clone(&keyboard) as TimedDevice, Arc::clone(&power) as _];
        timed.extend(self.clock(plan.memory_bytes)?);
        timed.extend(self.hpet()?);
        self.flash(plan, &backends.variables)?;
        self.port(0x80, 1, Arc::new(Mutex::new(PostPort::new())))?;
        let fast = ResetRegister::port_a(Arc::clone(self.requests));
        self.port(0x92, 1, Arc::new(Mutex::new(fast)))?;
        Ok(Devices { keyboard, power, timed })
    }

    fn port(&self, first: u64, count: u64, device: SharedDevice) -> Outcome<()> {
        self.buses.ports.insert(first..first + count, device)
    }

    fn serial(&self, (port, line): (u64, u32), sink: super::Sink) -> Outcome<()> {
        let uart = Uart::new(wires::line(self.vm, line), sink);
        self.port(port, uart::PORTS, Arc::new(Mutex::new(uart)))
    }

    fn keyboard(&self) -> Outcome<Arc<Mutex<I8042>>> {
        let requests = Arc::clone(self.requests);
        let mut keyboard = I8042::new(Arc::clone(self.clock), wires::line(self.vm, 1), requests);
        keyboard.on_wake(self.alarm.wake());
        let keyboard = Arc::new(Mutex::new(keyboard));
        self.port(0x60, i8042::PORTS, Arc::clone(&keyboard) as SharedDevice)?;
        Ok(keyboard)
    }

    fn power(&self) -> Outcome<Arc<Mutex<PowerManagement>>> {
        let (sci, requests) = (wires::line(self.vm, 9), Arc::clone(self.requests));
        let debug = DebugPort::new(Box::new(|line| tracing::debug!(target: "firmware", "{line}")));
        let mut power = PowerManagement::new(Arc::clone(self.clock), sci, requests)
            .with_debug_port(Arc::new(Mutex::new(debug)));
        power.on_wake(self.alarm.wake());
        let power = Arc::new(Mutex::new(power));
        self.port(0x400, pm::PORTS, Arc::clone(&power) as SharedDevice)?;
        let out = PowerOffPort::new(Arc::clone(self.requests));
        self.port(POWER_OFF, PowerOffPort::PORTS, Arc::new(Mutex::new(out)))?;
        Ok(power)
    }

    fn clock(&self, memory_bytes: u64) -> Outcome<Option<TimedDevice>> {
        if self.vm.kernel_devices().rtc {
            for (index, value) in rtc::memory_size(memory_bytes) {
                self.vm.write_cmos(index, value);
            }
            return Ok(None);
        }
        let mut clock = Rtc::new(Arc::clone(self.clock), wires::line(self.vm, 8), memory_bytes);
        clock.on_wake(self.alarm.wake());
        let clock = Arc::new(Mutex::new(clock));
        self.port(0x70, rtc::PORTS, Arc::clone(&clock) as SharedDevice)?;
        Ok(Some(clock))
    }

    fn hpet(&self) -> Outcome<Option<TimedDevice>> {
        if self.vm.kernel_devices().hpet {
            return Ok(None);
        }
        let mut hpet = Hpet::new(Arc::clone(self.clock), wires::messages(self.vm));
        hpet.on_wake(self.alarm.wake());
        let hpet = Arc::new(Mutex::new(hpet));
        let range = hpet::ADDRESS..hpet::ADDRESS + hpet::BYTES;
        self.buses.mmio.insert(range, Arc::clone(&hpet) as SharedDevice)?;
        Ok(Some(hpet))
    }

    /// The variables' flash; what the guest changes outlives the board.
    fn flash(&self, plan: &Plan, variables: &Arc<Mutex<Vec<u8>>>) -> Outcome<()> {
        let kept = Arc::clone(variables);
        let mut flash = Flash::new(super::lock(variables).clone());
        flash.on_save(Box::new(move |bytes| super::lock(&kept).copy_from_slice(bytes)));
        let range = plan.rom.flash_range();
        let bytes = range.end - range.start;
        if bytes > 0
            && bytes.is_multiple_of(PAGE)
            && let Some(memory) = self.vm.read_memory("flash", bytes)?
        {
            flash.set_window(wires::window(self.vm, memory, range.start));
        }
        self.buses.mmio.insert(range, Arc::new(Mutex::new(flash)))
    }
}
