// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A ring as a device sees it: chains of buffers come in, used ones go back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, VolatileSlice};

use super::interrupts::Interrupts;
use crate::vm::dev::MsiSink;
use crate::vm::dev::pci::Msix;
use crate::vm::memory::Memory;

/// More buffers than this are no request of any driver.
const MAX_BUFFERS: usize = 1024;
/// In the available ring's flags: the driver polls.
const NO_INTERRUPT: u16 = 1;

/// A split virtqueue in use.
pub struct Ring {
    queue: Queue,
    memory: Memory,
    interrupts: Arc<Interrupts>,
    index: usize,
    is_cancelled: Arc<AtomicBool>,
}

/// The guest's buffers are too short for what is asked of them, or outside RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadBuffer;

impl Ring {
    pub(super) fn new(
        queue: Queue,
        memory: Memory,
        interrupts: Arc<Interrupts>,
        index: usize,
        is_cancelled: Arc<AtomicBool>,
    ) -> Self {
        Self { queue, memory, interrupts, index, is_cancelled }
    }

    /// A ring of `size` buffers whose three parts, in the order of the driver's registers, are at
    /// these guest addresses, with no transport and no interrupt: for who serves a device by hand.
    /// `None` when the guest may not have such a ring.
    pub fn bare(memory: Memory, size: u16, parts: [u64; 3], with_event_idx: bool) -> Option<Self> {
        let queue = queue(&memory, size, size, parts, with_event_idx)?;
        let interrupts = Interrupts::new(Msix::new(1, Arc::new(Nowhere)), 1);
        Some(Self::new(queue, memory, interrupts, 0, Arc::default()))
    }

    /// Whether the driver is resetting the device: requests end at the next chance, unanswered.
    pub fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }

    /// Asks the driver not to notify: the ring is being looked at anyway.
    pub(super) fn begin(&mut self) {
        let done = self.queue.disable_notification(&*self.memory);
        self.check(done);
    }

    /// The next chain of buffers. `None` when there is none for now; the driver will notify.
    pub fn take(&mut self) -> Option<Chain> {
        while !self.is_cancelled() && !self.interrupts.is_broken() {
            let chain = self.queue.iter(Arc::clone(&self.memory)).map(|mut chains| chains.next());
            if let Some(chain) = self.check(chain)? {
                return Some(Chain::new(Arc::clone(&self.memory), chain));
            }
            let has_more = self.queue.enable_notification(&*self.memory);
            if !self.check(has_more)? {
                return None;
            }
            self.begin();
        }
        None
    }

    /// Puts the chain that [`Ring::take`] gave last back: it comes again.
    pub fn put_back(&mut self, _chain: Chain) {
        self.queue.go_to_previous_position();
    }

    /// Returns a chain to the driver, with as many bytes written to it as it says.
    pub fn done(&mut self, chain: &Chain) {
        let done = self.queue.add_used(&*self.memory, chain.head, chain.writable.done);
        if self.check(done).is_some() && self.wants_interrupt() {
            self.interrupts.ring(self.index);
        }
    }

    fn wants_interrupt(&mut self) -> bool {
        let wants = self.queue.needs_notification(&*self.memory);
        let wants = self.check(wants).unwrap_or(false);
        if self.queue.event_idx_enabled() {
            return wants;
        }
        let flags = GuestAddress(self.queue.avail_ring());
        let flags = self.memory.load::<u16>(flags, Ordering::Acquire);
        flags.map_or(true, |flags| u16::from_le(flags) & NO_INTERRUPT == 0)
    }

    /// Breaks the device when its ring is nonsense.
    fn check<T>(&self, result: Result<T, virtio_queue::Error>) -> Option<T> {
        result
            .inspect_err(|error| {
                tracing::debug!(queue = self.index, %error, "a virtio ring is broken");
                self.interrupts.break_down();
            })
            .ok()
    }
}

/// A queue as the driver asks for it, if it can be had.
pub(super) fn queue(
    memory: &Memory,
    max_size: u16,
    size: u16,
    parts: [u64; 3],
    with_event_idx: bool,
) -> Option<Queue> {
    let mut queue = Queue::new(max_size).ok()?;
    let [descriptors, available, used] = parts.map(GuestAddress);
    queue.try_set_size(size).ok()?;
    queue.try_set_desc_table_address(descriptors).ok()?;
    queue.try_set_avail_ring_address(available).ok()?;
    queue.try_set_used_ring_address(used).ok()?;
    queue.set_event_idx(with_event_idx);
    queue.set_ready(true);
    queue.is_valid(&**memory).then_some(queue)
}

/// Where the messages of a ring without a transport go.
struct Nowhere;

impl MsiSink for Nowhere {
    fn send(&self, _: u64, _: u32) {}
}

/// One request: what the driver has for the device, and where it wants the answer.
pub struct Chain {
    head: u16,
    /// What the device may read.
    pub readable: Buffers,
    /// What the device may write.
    pub writable: Buffers,
}

impl Chain {
    fn new(memory: Memory, chain: virtio_queue::DescriptorChain<Memory>) -> Self {
        let head = chain.head_index();
        let mut readable = Buffers::new(Arc::clone(&memory));
        let mut writable = Buffers::new(memory);
        for descriptor in chain.take(MAX_BUFFERS) {
            let buffers = match descriptor.is_write_only() {
                true => &mut writable,
                false => &mut readable,
            };
            buffers.push(descriptor.addr().0, descriptor.len());
        }
        Self { head, readable, writable }
    }
}

/// A sequence of bytes that is scattered over guest memory, gone through from its start.
pub struct Buffers {
    memory: Memory,
    parts: Vec<(u64, u32)>,
    part: usize,
    left: u64,
    done: u32,
}

impl Buffers {
    fn new(memory: Memory) -> Self {
        Self { memory, parts: Vec::new(), part: 0, left: 0, done: 0 }
    }

    fn push(&mut self, address: u64, length: u32) {
        if length > 0 {
            self.parts.push((address, length));
            self.left += u64::from(length);
        }
    }

    /// Bytes that remain.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Reads on and fills `data`.
    ///
    /// # Errors
    /// When there are not as many bytes, or they are outside RAM.
    pub fn read(&mut self, data: &mut [u8]) -> Result<(), BadBuffer> {
        let mut at = 0;
        self.walk(data.len(), |memory, address, length| {
            let piece = data.get_mut(at..at + length).ok_or(BadBuffer)?;
            at += length;
            memory.read_slice(piece, address).map_err(|_| BadBuffer)
        })
    }

    /// Writes on.
    ///
    /// # Errors
    /// When there is not as much room, or it is outside RAM.
    pub fn write(&mut self, data: &[u8]) -> Result<(), BadBuffer> {
        let mut at = 0;
        self.walk(data.len(), |memory, address, length| {
            let piece = data.get(at..at + length).ok_or(BadBuffer)?;
            at += length;
            memory.write_slice(piece, address).map_err(|_| BadBuffer)
        })
    }

    /// Cuts off the first `bytes` of what remains.
    ///
    /// # Errors
    /// When there are not as many.
    pub fn take_front(&mut self, bytes: u32) -> Result<Self, BadBuffer> {
        let mut front = Self::new(Arc::clone(&self.memory));
        let done = self.done;
        let pieces = self.walk(bytes as usize, |_, address, length| {
            front.push(address.0, u32::try_from(length).map_err(|_| BadBuffer)?);
            Ok(())
        });
        self.done = done;
        pieces.map(|()| front)
    }

    /// What remains, as memory of this process.
    ///
    /// # Errors
    /// When a part of it is outside RAM.
    pub fn slices(&self) -> Result<Vec<VolatileSlice<'_>>, BadBuffer> {
        let parts = self.parts.get(self.part..).unwrap_or_default();
        let pieces = parts.iter().flat_map(|(address, length)| {
            self.memory.get_slices(GuestAddress(*address), *length as usize)
        });
        pieces.map(|piece| piece.map_err(|_| BadBuffer)).collect()
    }

    /// Cuts off the last byte.
    ///
    /// # Errors
    /// When there is none.
    pub fn take_last(&mut self) -> Result<Self, BadBuffer> {
        let (address, length) = self.parts.last_mut().ok_or(BadBuffer)?;
        *length -= 1;
        let mut last = Self::new(Arc::clone(&self.memory));
        last.push(address.saturating_add(u64::from(*length)), 1);
        self.left = self.left.saturating_sub(1);
        if *length == 0 {
            self.parts.pop();
        }
        Ok(last)
    }

    /// Counts bytes that were written through what was cut off.
    pub fn add_written(&mut self, bytes: u32) {
        self.done = self.done.saturating_add(bytes);
    }

    /// Goes on by `bytes`, with each piece of memory on the way.
    fn walk(
        &mut self,
        bytes: usize,
        mut each: impl FnMut(&GuestMemoryMmap, GuestAddress, usize) -> Result<(), BadBuffer>,
    ) -> Result<(), BadBuffer> {
        if bytes as u64 > self.left {
            return Err(BadBuffer);
        }
        let mut wanted = bytes;
        while wanted > 0 {
            let (address, length) = self.parts.get_mut(self.part).ok_or(BadBuffer)?;
            let piece = wanted.min(*length as usize);
            each(&self.memory, GuestAddress(*address), piece)?;
            *address = address.saturating_add(piece as u64);
            *length -= piece as u32;
            if *length == 0 {
                self.part += 1;
            }
            wanted -= piece;
            self.left -= piece as u64;
            self.done = self.done.saturating_add(piece as u32);
        }
        Ok(())
    }
}
