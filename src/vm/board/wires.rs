// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What connects devices to the hypervisor and to the run.

use std::sync::{Arc, Weak};

use vm_memory::{Bytes, VolatileMemory};

use crate::vm::dev::flash;
use crate::vm::dev::{Irq, IrqLine, MsiSink, Request, Requests};
use crate::vm::hv::Vm;
use crate::vm::memory::DeviceMemory;
use crate::vm::vcpu::Run;

/// One line of the interrupt controllers.
struct Line {
    vm: Arc<dyn Vm>,
    number: u32,
}

impl IrqLine for Line {
    fn set(&self, high: bool) {
        self.vm.set_irq(self.number, high);
    }
}

/// The interrupt line of a number.
pub(super) fn line(vm: &Arc<dyn Vm>, number: u32) -> Irq {
    Arc::new(Line { vm: Arc::clone(vm), number })
}

struct Messages(Arc<dyn Vm>);

impl MsiSink for Messages {
    fn send(&self, address: u64, data: u32) {
        self.0.send_msi(address, data);
    }
}

/// The local APICs.
pub(super) fn messages(vm: &Arc<dyn Vm>) -> Arc<dyn MsiSink> {
    Arc::new(Messages(Arc::clone(vm)))
}

/// Shows a flash chip's bytes at an address.
pub(super) fn window(vm: &Arc<dyn Vm>, memory: DeviceMemory, address: u64) -> flash::Window {
    let vm = Arc::clone(vm);
    Box::new(move |news| {
        if let Some((offset, bytes)) = news {
            let room = memory.region.get_slice(offset, bytes.len());
            let written = room.and_then(|room| room.write_slice(bytes, 0));
            if let Err(error) = written {
                // The guest reads through the chip itself, then.
                tracing::warn!("the flash chip cannot be shown: {error}");
                return;
            }
        }
        if let Err(failure) = vm.place(&memory, news.map(|_| address)) {
            tracing::warn!(%failure, "the flash chip cannot be shown to the guest");
        }
    })
}

/// Devices ask the run, which owns them by way of its buses.
struct Asking(Weak<Run>);

impl Requests for Asking {
    fn request(&self, request: Request) {
        if let Some(run) = self.0.upgrade() {
            run.request(request);
        }
    }
}

/// Takes the guest's requests to the run.
pub(super) fn requests(run: &Arc<Run>) -> Arc<dyn Requests> {
    Arc::new(Asking(Arc::downgrade(run)))
}
