// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Requests to virtio devices: whatever a driver puts into its rings, a device touches nothing
//! outside the guest's memory and its own store, and comes to an end. After two bytes that choose
//! the device and the ring, the input is the beginning of the guest's memory, where the ring is.
#![no_main]

use std::io;
use std::sync::{Arc, Mutex};

use imgforge::vm::dev::virtio::{
    Block, Disk, FrameHeader, Frames, Net, Ring, Rng, Scsi, ScsiCd, VirtioDevice, Wake,
};
use libfuzzer_sys::fuzz_target;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const MEMORY: usize = 1 << 18;
const DISK: u64 = 1 << 16;
const RING: u16 = 16;
/// Descriptors, what is available, what is used.
const PARTS: [u64; 3] = [0, 0x100, 0x200];

/// A store that is told of no range outside it.
struct Store {
    bytes: Mutex<Vec<u8>>,
    is_read_only: bool,
}

impl Store {
    fn within<T>(&self, offset: u64, bytes: u64, act: impl FnOnce(&mut [u8]) -> T) -> T {
        let end = offset.checked_add(bytes).expect("the range overflows");
        assert!(end <= DISK, "{offset}+{bytes} is outside the store");
        act(&mut self.bytes.lock().expect("one thread")[offset as usize..end as usize])
    }

    fn change(&self, offset: u64, bytes: u64, act: impl FnOnce(&mut [u8])) -> io::Result<()> {
        assert!(!self.is_read_only, "a write to a store that cannot be written");
        assert!(offset % 512 == 0 && bytes % 512 == 0, "half a sector");
        self.within(offset, bytes, act);
        Ok(())
    }
}

impl Disk for Store {
    fn size(&self) -> u64 {
        DISK
    }

    fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.within(offset, data.len() as u64, |bytes| data.copy_from_slice(bytes));
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(offset, data.len() as u64, |bytes| bytes.copy_from_slice(data))
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.change(offset, bytes, |bytes| bytes.fill(0xd1))
    }

    fn write_zeroes(&self, offset: u64, bytes: u64, _: bool) -> io::Result<()> {
        self.change(offset, bytes, |bytes| bytes.fill(0))
    }
}

/// A cable on which some frames come.
struct Cable(Mutex<u32>);

impl Frames for Cable {
    fn send(&self, _: &FrameHeader, frame: &[u8]) {
        assert!(frame.len() <= (1 << 16) + 18, "a frame of {} bytes", frame.len());
    }

    fn recv(&self, _: &mut FrameHeader, frame: &mut [u8]) -> Option<usize> {
        let mut left = self.0.lock().expect("one thread");
        *left = left.checked_sub(1)?;
        let length = 14 + *left as usize * 300;
        frame[..length].fill(0x55);
        Some(length)
    }

    fn set_wake(&self, _: Wake) {}
}

fn device(kind: u8) -> Arc<dyn VirtioDevice> {
    let store = |is_read_only| {
        Arc::new(Store { bytes: Mutex::new(vec![0xa5; DISK as usize]), is_read_only })
    };
    match kind % 5 {
        0 => Block::new(store(false), "disk", 1),
        1 => Block::new(store(true), "disk", 1),
        2 => Net::new([2, 0, 0, 0, 0, 1], Arc::new(Cable(Mutex::new(5)))),
        3 => Scsi::new(ScsiCd::new(store(true))),
        _ => Rng::new(),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let [kind, ring, image @ ..] = bytes else { return };
    let memory: GuestMemoryMmap =
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).expect("memory");
    let image = &image[..image.len().min(MEMORY)];
    memory.write_slice(image, GuestAddress(0)).expect("it fits");
    let device = device(*kind);
    let index = usize::from(ring >> 1) % device.queue_sizes().len();
    let ring = Ring::bare(Arc::new(memory), RING, PARTS, ring & 1 != 0);
    device.serve(index, &mut ring.expect("the ring is in memory"));
    device.reset();
});
