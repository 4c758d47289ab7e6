// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The registers of a virtio function as they were before VIRTIO 1.0 (VIRTIO 1.2, section 4.1.4.8),
//! for a device whose rings are served by a kernel that knows no others. A ring is one page number:
//! descriptors, available ring, and from the next page on the used ring (section 2.7.2).
//!
//! BAR 0, 64 ports: the registers, then the device configuration. BAR 1: [`MsixPage`].

use std::sync::{Arc, Mutex, PoisonError};

use super::interrupts::Interrupts;
use super::transport::connect;
use super::{Offload, VirtioDevice};
use crate::vm::bus::BusDevice;
use crate::vm::dev::pci::{Bar, Function, Identity, Msix, MsixPage, Spaces};
use crate::vm::dev::{MsiSink, lanes};

const PORTS: u32 = 64;
const PAGE: u64 = 4096;
const DRIVER_OK: u8 = 4;

const FEATURES: u64 = 0;
const ACCEPTED: u64 = 4;
const RING_PAGE: u64 = 8;
const RING_SELECT: u64 = 14;
const NOTIFY: u64 = 16;
const STATUS: u64 = 18;
const ISR: u64 = 19;
const CONFIG_VECTOR: u64 = 20;
const RING_VECTOR: u64 = 22;

/// The registers, as the driver programs them.
pub(super) struct LegacyTransport {
    device: Arc<dyn VirtioDevice>,
    offload: Arc<dyn Offload>,
    interrupts: Arc<Interrupts>,
    msix: Arc<Msix>,
    offered: u32,
    accepted: u32,
    status: u8,
    selected: u16,
    rings: Vec<RingRegisters>,
}

#[derive(Clone, Copy)]
struct RingRegisters {
    /// Fixed: such a driver takes it as it is.
    size: u16,
    page: u32,
}

impl RingRegisters {
    /// Where descriptor table, available ring and used ring are.
    fn addresses(self) -> [u64; 3] {
        let (descriptors, size) = (u64::from(self.page) * PAGE, u64::from(self.size));
        let available = descriptors + 16 * size;
        // Flags, index and the event's index stand beside the entries.
        let used = (available + 2 * (3 + size)).next_multiple_of(PAGE);
        [descriptors, available, used]
    }
}

impl LegacyTransport {
    /// Makes the PCI function of a device, to be plugged into any slot.
    pub(super) fn function(
        device: Arc<dyn VirtioDevice>,
        offload: Arc<dyn Offload>,
        sink: Arc<dyn MsiSink>,
        spaces: &Arc<Spaces>,
    ) -> Function {
        let (kind, sizes) = (device.kind(), device.queue_sizes());
        let msix = Msix::new(sizes.len() as u16 + 1, sink);
        let interrupts = Interrupts::new(Arc::clone(&msix), sizes.len());
        connect(&offload, &msix, &interrupts, sizes.len());
        let hooks = Arc::clone(&offload);
        let transport = Arc::new(Mutex::new(Self {
            offered: device.features() as u32,
            device,
            offload,
            interrupts,
            msix: Arc::clone(&msix),
            accepted: 0,
            status: 0,
            selected: 0,
            rings: sizes.into_iter().map(|size| RingRegisters { size, page: 0 }).collect(),
        }));
        // The numbers of a device of that time: revision 0, the subsystem says what it is.
        let identity = Identity {
            vendor: 0x1af4,
            device: 0x0fff + kind as u16,
            class: kind.class(),
            revision: 0,
            subsystem: (0x1af4, kind as u16),
        };
        let registers: Arc<Mutex<Self>> = Arc::clone(&transport);
        let bar = Bar::ports(PORTS, registers).followed_by(Arc::new(move |base: Option<u64>| {
            hooks.place(base.map(|base| base + NOTIFY), 2);
        }));
        Function::new(&identity, spaces)
            .bar(0, bar)
            .bar(1, Bar::registers(4096, Arc::new(Mutex::new(MsixPage(Arc::clone(&msix))))))
            .msix(1, msix)
            .on_reset(move || transport.lock().unwrap_or_else(PoisonError::into_inner).reset())
    }

    /// As after power-on, with nothing in flight.
    fn reset(&mut self) {
        self.offload.reset();
        self.interrupts.reset();
        self.device.reset();
        (self.accepted, self.status, self.selected) = (0, 0, 0);
        for ring in &mut self.rings {
            ring.page = 0;
        }
    }

    /// Where the device configuration begins: registers for vectors come before it only while
    /// vectors are in use.
    fn configuration(&self) -> u64 {
        if self.msix.is_enabled() { 24 } else { 20 }
    }

    fn set_status(&mut self, status: u8) {
        if status == 0 {
            return self.reset();
        }
        if status & !self.status & DRIVER_OK != 0 {
            let (kind, features) = (self.device.kind(), self.accepted);
            let rings = self.rings.iter().filter(|ring| ring.page != 0).count();
            tracing::debug!("{kind:?}: a legacy driver with features {features:#x}, {rings} rings");
            self.device.activate(u64::from(features));
        }
        self.status = status;
    }

    /// A ring's page, which takes it into use; 0 takes it out of use.
    fn set_page(&mut self, page: u32) {
        let index = self.selected;
        let Some(ring) = self.rings.get_mut(usize::from(index)) else { return };
        if ring.page == page {
            return;
        }
        ring.page = page;
        let ring = *ring;
        if page == 0 {
            self.offload.detach(index);
        } else if self.offload.attach(index, ring.size, ring.addresses()) {
            self.tell_message(index);
        } else {
            // There is no register by which such a device says so: the ring stays silent.
            tracing::warn!("ring {index} at page {page:#x} is refused by the kernel");
        }
    }

    fn tell_message(&self, index: u16) {
        self.offload.set_message(index, &|| self.interrupts.message(usize::from(index)));
    }

    fn image(&self) -> [u8; 24] {
        let selected = usize::from(self.selected);
        let ring = self.rings.get(selected).copied();
        let (size, page) = ring.map_or((0, 0), |ring| (ring.size, ring.page));
        let mut image = [0; 24];
        lanes::put(&mut image, 0, self.offered.to_le_bytes());
        lanes::put(&mut image, 4, self.accepted.to_le_bytes());
        lanes::put(&mut image, 8, page.to_le_bytes());
        lanes::put(&mut image, 12, size.to_le_bytes());
        lanes::put(&mut image, 14, self.selected.to_le_bytes());
        lanes::put(&mut image, 18, [self.status]);
        lanes::put(&mut image, 20, self.interrupts.vector(None).to_le_bytes());
        lanes::put(&mut image, 22, self.interrupts.vector(Some(selected)).to_le_bytes());
        image
    }
}

impl BusDevice for LegacyTransport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match offset.checked_sub(self.configuration()) {
            Some(at) => lanes::read(&self.device.config(), at, data),
            None if offset == ISR => lanes::read(&[self.interrupts.take_status()], 0, data),
            None => lanes::read(&self.image(), offset, data),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some(at) = offset.checked_sub(self.configuration()) {
            return self.device.write_config(at, data);
        }
        let value = lanes::number(data);
        match (offset, data.len()) {
            (FEATURES, _) => {}
            (ACCEPTED, 4) => {
                self.accepted = value as u32 & self.offered;
                // At once: some drivers set up rings before anything else.
                if !self.offload.set_features(u64::from(self.accepted)) {
                    tracing::warn!("features {:#x} are refused by the kernel", self.accepted);
                }
            }
            (RING_PAGE, 4) => self.set_page(value as u32),
            (RING_SELECT, 2) => self.selected = value as u16,
            (NOTIFY, 2) if value < self.rings.len() as u64 => self.offload.notify(value as u16),
            (STATUS, 1) => self.set_status(value as u8),
            (CONFIG_VECTOR, 2) => self.interrupts.set_vector(None, value as u16),
            (RING_VECTOR, 2) => {
                let index = self.selected;
                self.interrupts.set_vector(Some(usize::from(index)), value as u16);
                if usize::from(index) < self.rings.len() {
                    self.tell_message(index);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "legacy_tests.rs"]
mod tests;
