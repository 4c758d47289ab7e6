// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The registers of a virtio function (VIRTIO 1.2, section 4.1).
//!
//! BAR 0, 16 KiB: common configuration at 0, interrupt status at 0x1000, device configuration at
//! 0x2000, notification at 0x3000 with 4 bytes per ring. BAR 1: [`MsixPage`].

use std::sync::{Arc, Mutex, PoisonError};

use super::interrupts::Interrupts;
use super::ring::queue;
use super::worker::Worker;
use super::{Offload, Ring, VirtioDevice};
use crate::ui::Outcome;
use crate::vm::bus::BusDevice;
use crate::vm::dev::pci::{Bar, Function, Identity, Msix, MsixPage, Spaces};
use crate::vm::dev::{MsiSink, lanes};
use crate::vm::memory::Memory;

const INDIRECT_DESC: u64 = 1 << 28;
const EVENT_IDX: u64 = 1 << 29;
const VERSION_1: u64 = 1 << 32;

const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
const NEEDS_RESET: u8 = 0x40;

const REGION: u64 = 0x1000;
const NOTIFY_MULTIPLIER: u32 = 4;
/// More rings than any device here has, and than a page of vectors holds.
const MAX_QUEUES: usize = 63;

/// A virtio device's registers in BAR 0, as the driver programs them.
pub struct Transport {
    device: Arc<dyn VirtioDevice>,
    memory: Memory,
    interrupts: Arc<Interrupts>,
    worker: Worker,
    /// Who serves the rings, when it is not the worker.
    offload: Option<Arc<dyn Offload>>,
    offered: u64,
    accepted: u64,
    device_select: u32,
    driver_select: u32,
    status: u8,
    queue_select: u16,
    queues: Vec<QueueRegisters>,
}

#[derive(Clone, Copy)]
struct QueueRegisters {
    max_size: u16,
    size: u16,
    is_enabled: bool,
    /// Descriptor table, available ring, used ring.
    addresses: [u64; 3],
}

impl QueueRegisters {
    fn new(max_size: u16) -> Self {
        Self { max_size, size: max_size, is_enabled: false, addresses: [0; 3] }
    }
}

impl Transport {
    /// Makes the PCI function of a device, to be plugged into any slot.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn function(
        device: Arc<dyn VirtioDevice>,
        memory: Memory,
        sink: Arc<dyn MsiSink>,
        spaces: &Arc<Spaces>,
    ) -> Outcome<Function> {
        let kind = device.kind();
        let queues: Vec<_> = device.queue_sizes().into_iter().take(MAX_QUEUES).collect();
        let msix = Msix::new(queues.len() as u16 + 1, sink);
        let worker = Worker::new(&format!("virtio-{kind:?}").to_lowercase(), Arc::clone(&device))?;
        device.set_wake(worker.wake());
        let interrupts = Interrupts::new(Arc::clone(&msix), queues.len());
        let offload = device.offload();
        if let Some(offload) = &offload {
            connect(offload, &msix, &interrupts, queues.len());
        }
        // What our own rings can do.
        let own = if offload.is_some() { 0 } else { INDIRECT_DESC | EVENT_IDX };
        let transport = Arc::new(Mutex::new(Self {
            interrupts,
            offered: device.features() | own | VERSION_1,
            queues: queues.into_iter().map(QueueRegisters::new).collect(),
            device,
            memory,
            worker,
            offload: offload.clone(),
            accepted: 0,
            device_select: 0,
            driver_select: 0,
            status: 0,
            queue_select: 0,
        }));
        let identity = Identity {
            vendor: 0x1af4,
            device: 0x1040 + kind as u16,
            class: kind.class(),
            revision: 1,
            subsystem: (0x1af4, 0x1100),
        };
        let registers: Arc<Mutex<Self>> = Arc::clone(&transport);
        let mut bar = Bar::registers(4 * REGION as u32, registers);
        if let Some(offload) = offload {
            let bytes = NOTIFY_MULTIPLIER * u32::from(msix.vectors() - 1);
            bar = bar.followed_by(Arc::new(move |address: Option<u64>| {
                offload.place(address.map(|base| base + 3 * REGION), bytes);
            }));
        }
        Ok(Function::new(&identity, spaces)
            .bar(0, bar)
            .bar(1, Bar::registers(4096, Arc::new(Mutex::new(MsixPage(Arc::clone(&msix))))))
            .capability(9, &location(1, 0, 0x38, None))
            .capability(9, &location(2, 3, REGION as u32, Some(NOTIFY_MULTIPLIER)))
            .capability(9, &location(3, 1, 4, None))
            .capability(9, &location(4, 2, REGION as u32, None))
            .msix(1, msix)
            .on_reset(move || {
                transport.lock().unwrap_or_else(PoisonError::into_inner).reset();
            }))
    }

    /// As after power-on, with nothing in flight.
    fn reset(&mut self) {
        self.worker.detach();
        if let Some(offload) = &self.offload {
            offload.reset();
        }
        self.interrupts.reset();
        self.device.reset();
        self.accepted = 0;
        self.device_select = 0;
        self.driver_select = 0;
        self.status = 0;
        self.queue_select = 0;
        for queue in &mut self.queues {
            *queue = QueueRegisters::new(queue.max_size);
        }
    }

    fn set_status(&mut self, status: u8) {
        if status == 0 {
            if self.status & DRIVER_OK != 0 {
                tracing::debug!("{:?}: its driver leaves", self.device.kind());
            }
            return self.reset();
        }
        let mut new = status & !self.status & !NEEDS_RESET;
        let is_acceptable = self.accepted & !self.offered == 0 && self.accepted & VERSION_1 != 0;
        if new & FEATURES_OK != 0 && !is_acceptable {
            new &= !FEATURES_OK;
        }
        // A driver that goes on without features is one that missed the refusal.
        if (self.status | new) & FEATURES_OK == 0 {
            new &= !DRIVER_OK;
        }
        self.status |= new;
        if new & DRIVER_OK != 0 {
            let rings = self.queues.iter().filter(|queue| queue.is_enabled).count();
            let (kind, features) = (self.device.kind(), self.accepted);
            tracing::debug!("{kind:?}: a driver with features {features:#x} and {rings} rings");
            self.device.activate(self.accepted);
            if let Some(offload) = &self.offload
                && !offload.set_features(self.accepted)
            {
                return self.interrupts.break_down();
            }
            let enabled = self.queues.iter().enumerate().filter(|(_, queue)| queue.is_enabled);
            self.attach(&enabled.map(|(index, queue)| (index, *queue)).collect::<Vec<_>>());
        }
    }

    fn attach(&self, queues: &[(usize, QueueRegisters)]) {
        if let Some(offload) = &self.offload {
            return self.hand_over(offload.as_ref(), queues);
        }
        let rings: Option<Vec<_>> =
            queues.iter().map(|(index, queue)| Some((*index, self.ring(*index, queue)?))).collect();
        match rings {
            Some(rings) => self.worker.attach(rings),
            None => self.interrupts.break_down(),
        }
    }

    /// The same for rings that somebody else serves.
    fn hand_over(&self, offload: &dyn Offload, queues: &[(usize, QueueRegisters)]) {
        for (index, queue) in queues {
            let is_taken = offload.attach(*index as u16, queue.size, queue.addresses);
            if !is_taken {
                return self.interrupts.break_down();
            }
            offload.set_message(*index as u16, &|| self.interrupts.message(*index));
        }
    }

    fn ring(&self, index: usize, registers: &QueueRegisters) -> Option<Ring> {
        let (size, most) = (registers.size, registers.max_size);
        let with_event_idx = self.accepted & EVENT_IDX != 0;
        let queue = queue(&self.memory, most, size, registers.addresses, with_event_idx)?;
        let (memory, interrupts) = (Arc::clone(&self.memory), Arc::clone(&self.interrupts));
        Some(Ring::new(queue, memory, interrupts, index, self.worker.cancel_flag()))
    }

    /// The common configuration structure.
    fn common(&self) -> [u8; 0x38] {
        let half = |features: u64, select: u32| match select {
            0 => features as u32,
            1 => (features >> 32) as u32,
            _ => 0,
        };
        let selected = usize::from(self.queue_select);
        let broken = if self.interrupts.is_broken() { NEEDS_RESET } else { 0 };
        let mut image = [0; 0x38];
        lanes::put(&mut image, 0x00, self.device_select.to_le_bytes());
        lanes::put(&mut image, 0x04, half(self.offered, self.device_select).to_le_bytes());
        lanes::put(&mut image, 0x08, self.driver_select.to_le_bytes());
        lanes::put(&mut image, 0x0c, half(self.accepted, self.driver_select).to_le_bytes());
        lanes::put(&mut image, 0x10, self.interrupts.vector(None).to_le_bytes());
        lanes::put(&mut image, 0x12, (self.queues.len() as u16).to_le_bytes());
        lanes::put(&mut image, 0x14, [self.status | broken]);
        lanes::put(&mut image, 0x16, self.queue_select.to_le_bytes());
        lanes::put(&mut image, 0x1a, self.interrupts.vector(Some(selected)).to_le_bytes());
        if let Some(queue) = self.queues.get(selected) {
            lanes::put(&mut image, 0x18, queue.size.to_le_bytes());
            lanes::put(&mut image, 0x1c, u16::from(queue.is_enabled).to_le_bytes());
            lanes::put(&mut image, 0x1e, self.queue_select.to_le_bytes());
            for (place, address) in queue.addresses.iter().enumerate() {
                lanes::put(&mut image, 0x20 + 8 * place, address.to_le_bytes());
            }
        }
        image
    }

    /// A write of a common configuration field in its natural width.
    fn write_common(&mut self, offset: u64, data: &[u8]) {
        let value = lanes::number(data);
        match (offset, data.len()) {
            (0x00, 4) => self.device_select = value as u32,
            (0x08, 4) => self.driver_select = value as u32,
            (0x0c, 4) if self.status & FEATURES_OK == 0 => match self.driver_select {
                0 => self.accepted = self.accepted & !0xffff_ffff | value,
                1 => self.accepted = self.accepted & 0xffff_ffff | value << 32,
                // Bits that do not exist were not offered; accepting one is refused.
                _ if value != 0 => self.accepted &= !VERSION_1,
                _ => {}
            },
            (0x10, 2) => self.interrupts.set_vector(None, value as u16),
            (0x14, 1) => self.set_status(value as u8),
            (0x16, 2) => self.queue_select = value as u16,
            (0x1a, 2) => {
                let queue = usize::from(self.queue_select);
                self.interrupts.set_vector(Some(queue), value as u16);
                if let Some(offload) = &self.offload {
                    offload.set_message(self.queue_select, &|| self.interrupts.message(queue));
                }
            }
            (0x18 | 0x1c, 2) | (0x20..0x38, 4 | 8) => self.write_queue(offset, data),
            _ => {}
        }
    }

    /// A write to the selected ring's registers, which are fixed once it is enabled.
    fn write_queue(&mut self, offset: u64, data: &[u8]) {
        let index = usize::from(self.queue_select);
        let Some(queue) = self.queues.get_mut(index) else { return };
        if queue.is_enabled {
            return;
        }
        let value = lanes::number(data) as u16;
        match offset {
            0x18 if value.is_power_of_two() && value <= queue.max_size => queue.size = value,
            0x18 => {}
            0x1c if value == 1 => {
                queue.is_enabled = true;
                let queue = *queue;
                if self.status & DRIVER_OK != 0 {
                    self.attach(&[(index, queue)]);
                }
            }
            0x1c => {}
            _ => {
                let at = offset - 0x20;
                let Some(address) = queue.addresses.get_mut((at / 8) as usize) else { return };
                let mut bytes = address.to_le_bytes();
                lanes::write(&mut bytes, &[0xff; 8], at % 8, data);
                *address = u64::from_le_bytes(bytes);
            }
        }
    }
}

/// Tells the one who serves the rings where their interrupts go, and takes those that it cannot
/// deliver itself.
pub(super) fn connect(
    offload: &Arc<dyn Offload>,
    msix: &Arc<Msix>,
    interrupts: &Arc<Interrupts>,
    queues: usize,
) {
    let of_messages = (Arc::downgrade(interrupts), Arc::downgrade(offload));
    msix.on_change(move || {
        let (interrupts, offload) = &of_messages;
        if let (Some(interrupts), Some(offload)) = (interrupts.upgrade(), offload.upgrade()) {
            for queue in 0..queues {
                offload.set_message(queue as u16, &|| interrupts.message(queue));
            }
        }
    });
    let interrupts = Arc::downgrade(interrupts);
    offload.set_signal(Box::new(move |queue| {
        if let Some(interrupts) = interrupts.upgrade() {
            interrupts.ring(usize::from(queue));
        }
    }));
}

/// A vendor capability: where in BAR 0 a structure is.
fn location(kind: u8, page: u32, length: u32, multiplier: Option<u32>) -> Vec<u8> {
    let size = if multiplier.is_some() { 20 } else { 16 };
    let mut body = vec![size, kind, 0, 0, 0, 0];
    body.extend((page * REGION as u32).to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend(multiplier.map(u32::to_le_bytes).into_iter().flatten());
    body
}

impl BusDevice for Transport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let at = offset % REGION;
        match offset / REGION {
            0 => lanes::read(&self.common(), at, data),
            1 if at == 0 => lanes::read(&[self.interrupts.take_status()], at, data),
            2 => lanes::read(&self.device.config(), at, data),
            _ => data.fill(0),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let at = offset % REGION;
        match offset / REGION {
            0 => self.write_common(at, data),
            2 => self.device.write_config(at, data),
            3 => {
                let queue = (at / u64::from(NOTIFY_MULTIPLIER)) as usize;
                match &self.offload {
                    _ if queue >= self.queues.len() => {}
                    Some(offload) => offload.notify(queue as u16),
                    None => self.worker.notify(queue),
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "transport_tests.rs"]
mod tests;
