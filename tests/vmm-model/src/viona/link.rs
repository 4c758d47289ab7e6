// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! An attached link: rings that threads serve, and the machine that it holds.

use std::fs::File;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Doorbell;
use super::queue::Chain;
use super::ring::{Layout, RECEIVE, RINGS, Ring, State, TRANSMIT};
use super::wire::Entry;
use crate::memory::Space;
use crate::vm::Vm;
use crate::{Answer, Errno, lock, log, zone};

const VERSION_1: u64 = 1 << 32;
const MRG_RXBUF: u64 = 1 << 15;
/// Most of a frame that is received.
const LARGEST: usize = 1 << 16;
const BUSY: Errno = Errno(libc::EBUSY);

/// What the program has set.
pub(super) struct Settings {
    pub(super) features: u64,
    pub(super) promiscuity: u8,
    pub(super) mtu: u16,
}

/// A link that is attached to a machine.
pub(super) struct Link {
    pub(super) vm: Arc<Vm>,
    pub(super) rings: [Mutex<Ring>; RINGS],
    pub(super) settings: Mutex<Settings>,
    pub(super) bell: Arc<Doorbell>,
    /// Rings whose interrupt waits for the program.
    pub(super) waits: Mutex<[bool; RINGS]>,
    /// Readable while one does.
    pub(super) event: OwnedFd,
    mac: [u8; 6],
    wire: OwnedFd,
    /// Written when everything ends.
    stop: OwnedFd,
    is_over: AtomicBool,
    kicked: (Mutex<bool>, Condvar),
    /// The machine's file and the link's, locked as long as this lives.
    held: Mutex<Vec<File>>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

fn event() -> Answer<OwnedFd> {
    // SAFETY: takes two numbers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(crate::errno());
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn signal(event: &OwnedFd) {
    // SAFETY: writes eight bytes that are there.
    unsafe { libc::write(event.as_raw_fd(), 1u64.to_ne_bytes().as_ptr().cast(), 8) };
}

impl Link {
    /// Attaches: the machine is held from now on, and the link is nobody else's.
    pub(super) fn attach(vm: Arc<Vm>, entry: &Entry) -> Answer<Arc<Self>> {
        let held = hold(&vm, entry)?;
        let (wire, event, stop) = (entry.open()?, event()?, event()?);
        let link = Arc::new_cyclic(|own| Self {
            vm,
            rings: Default::default(),
            settings: Mutex::new(Settings { features: 0, promiscuity: 1, mtu: 1500 }),
            bell: Doorbell::new(own),
            waits: Mutex::default(),
            event,
            mac: entry.mac,
            wire,
            stop,
            is_over: AtomicBool::new(false),
            kicked: Default::default(),
            held: Mutex::new(held),
            threads: Mutex::default(),
        });
        for (name, work) in [("viona-tx", transmit as fn(&Self)), ("viona-rx", receive)] {
            let own = Arc::clone(&link);
            let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
                crate::signal::block_all();
                work(&own);
            });
            lock(&link.threads).push(thread.map_err(|_| Errno(libc::ENOMEM))?);
        }
        Ok(link)
    }

    /// Deletes the link.
    pub(super) fn end(&self) {
        let _ = self.vm.board.hook_port(0, &self.bell);
        let _ = self.vm.board.hook_mmio(None, &self.bell);
        for ring in 0..RINGS {
            let _ = self.reset(ring);
        }
        self.is_over.store(true, Ordering::SeqCst);
        signal(&self.stop);
        self.wake();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            let _ = thread.join();
        }
        let _guard = zone::guard();
        self.abandon();
        zone::sweep();
    }

    /// Lets go of the machine and the link.
    pub(super) fn abandon(&self) {
        lock(&self.held).clear();
    }

    fn wake(&self) {
        *lock(&self.kicked.0) = true;
        self.kicked.1.notify_all();
    }

    /// A write of the guest to the notify register.
    pub(super) fn notify(&self, queue: u32) -> bool {
        let Some(ring) = self.rings.get(queue as usize) else { return false };
        let is_running = lock(ring).state == State::Run;
        if is_running {
            self.wake();
        }
        is_running
    }

    /// Lays a ring out. Its message is forgotten.
    pub(super) fn init(&self, index: usize, layout: &Layout) -> Answer {
        let mut ring = lock(&self.rings[index]);
        if ring.state != State::Reset {
            return Err(BUSY);
        }
        let is_modern = lock(&self.settings).features & VERSION_1 != 0;
        let queue = layout.queue(is_modern, &lock(&self.vm.space))?;
        *ring = Ring { state: State::Init, queue, ..Ring::default() };
        Ok(0)
    }

    pub(super) fn reset(&self, index: usize) -> Answer {
        *lock(&self.rings[index]) = Ring::default();
        self.acknowledge(index);
        Ok(0)
    }

    /// Starts a ring, or wakes it.
    pub(super) fn kick(&self, index: usize) -> Answer {
        {
            let mut ring = lock(&self.rings[index]);
            if ring.state == State::Reset {
                return Err(BUSY);
            }
            ring.state = State::Run;
            ring.is_kicked = true;
        }
        self.wake();
        Ok(0)
    }

    pub(super) fn pause(&self, index: usize) -> Answer {
        let mut ring = lock(&self.rings[index]);
        if ring.state == State::Run {
            ring.state = State::Init;
        }
        Ok(0)
    }

    /// `VNA_IOC_RING_INTR_CLR`.
    pub(super) fn acknowledge(&self, index: usize) {
        let mut waits = lock(&self.waits);
        waits[index] = false;
        if !waits.contains(&true) {
            let mut count = [0u8; 8];
            // SAFETY: reads eight bytes to where they have room; without any it returns at once.
            unsafe { libc::read(self.event.as_raw_fd(), count.as_mut_ptr().cast(), 8) };
        }
    }

    fn interrupt(&self, index: usize, message: (u64, u64)) {
        if message.0 != 0 {
            if let Some(kvm) = self.vm.made_kvm() {
                kvm.message(message.0, message.1 as u32);
            }
            log::line(&format!("viona ring {index} sends message {:#x}", message.1));
            return;
        }
        lock(&self.waits)[index] = true;
        signal(&self.event);
    }

    /// Bytes of the header before a frame.
    fn header(&self) -> usize {
        let features = lock(&self.settings).features;
        if features & (VERSION_1 | MRG_RXBUF) != 0 { 12 } else { 10 }
    }

    /// Sends everything that the driver has queued.
    fn send_all(&self) {
        let header = self.header();
        let mut ring = lock(&self.rings[TRANSMIT]);
        if ring.state != State::Run {
            return;
        }
        let space = lock(&self.vm.space);
        let mut done = Vec::new();
        while let Some(chain) = ring.queue.take(&space) {
            let bytes = chain.read(&space);
            if let Some(frame) = bytes.get(header..).filter(|frame| frame.len() >= 14) {
                // SAFETY: writes bytes that are there. A frame that nobody takes is lost.
                unsafe { libc::write(self.wire.as_raw_fd(), frame.as_ptr().cast(), frame.len()) };
            }
            done.push((chain, 0));
        }
        self.give(TRANSMIT, ring, space, &done);
    }

    /// Gives chains back, and interrupts when the driver wants it: without the space, which KVM's
    /// machine may be waiting for.
    fn give(
        &self,
        index: usize,
        mut ring: MutexGuard<'_, Ring>,
        space: MutexGuard<'_, Space>,
        done: &[(Chain, usize)],
    ) {
        if done.is_empty() {
            return;
        }
        ring.queue.give(&space, done);
        let is_wanted = ring.queue.wants_interrupt(&space);
        drop(space);
        if is_wanted {
            self.interrupt(index, ring.message);
        }
    }

    /// Whether the link's filter lets a frame through.
    fn is_for_us(&self, frame: &[u8]) -> bool {
        let promiscuity = lock(&self.settings).promiscuity;
        let to = frame.get(..6).unwrap_or_default();
        let is_multicast = to.first().is_some_and(|byte| byte & 1 != 0);
        to == self.mac || to == [0xff; 6] || promiscuity == 2 || (promiscuity == 1 && is_multicast)
    }

    /// Puts a frame into the receive ring. Without room it is lost.
    fn deliver(&self, frame: &[u8]) {
        let mut ring = lock(&self.rings[RECEIVE]);
        if ring.state != State::Run || !self.is_for_us(frame) {
            return;
        }
        let header = self.header();
        let may_merge = lock(&self.settings).features & MRG_RXBUF != 0;
        let mut bytes = vec![0; header];
        bytes.extend_from_slice(frame);
        let space = lock(&self.vm.space);
        let mut chains = Vec::new();
        let mut room = 0;
        while room < bytes.len() && (may_merge || chains.is_empty()) {
            let Some(chain) = ring.queue.take(&space) else { break };
            room += chain.room();
            chains.push(chain);
        }
        if room < bytes.len() {
            ring.queue.untake(chains.len() as u16);
            return;
        }
        if header == 12 {
            bytes[10..12].copy_from_slice(&(chains.len() as u16).to_le_bytes());
        }
        let mut rest = &bytes[..];
        let mut done = Vec::new();
        for chain in chains {
            let written = chain.write(&space, rest);
            rest = &rest[written..];
            done.push((chain, written));
        }
        self.give(RECEIVE, ring, space, &done);
    }
}

/// Locks the machine's file, which keeps the machine, and the link's, which is for one only.
fn hold(vm: &Vm, entry: &Entry) -> Answer<Vec<File>> {
    let _guard = zone::guard();
    let machine = File::open(&vm.path).map_err(|_| Errno(libc::ENXIO))?;
    zone::flock(machine.as_raw_fd(), libc::LOCK_SH);
    let path = zone::directory().join(format!("link-{}", entry.id));
    let link = File::options().append(true).create(true).open(path).map_err(|_| BUSY)?;
    if !zone::flock(link.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) {
        return Err(BUSY);
    }
    Ok(vec![machine, link])
}

/// The thread that sends.
fn transmit(link: &Link) {
    while !link.is_over.load(Ordering::SeqCst) {
        {
            let mut is_kicked = lock(&link.kicked.0);
            while !std::mem::take(&mut *is_kicked) {
                is_kicked = link.kicked.1.wait(is_kicked).unwrap_or_else(PoisonError::into_inner);
            }
        }
        link.send_all();
    }
}

/// The thread that receives.
fn receive(link: &Link) {
    let mut frame = vec![0u8; LARGEST];
    let poll = |fd: &OwnedFd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    loop {
        let mut both = [poll(&link.wire), poll(&link.stop)];
        let timeout = -1;
        // SAFETY: the kernel fills two structures that are there.
        unsafe { libc::syscall(libc::SYS_poll, both.as_mut_ptr(), 2usize, timeout) };
        if both[1].revents != 0 || link.is_over.load(Ordering::SeqCst) {
            return;
        }
        // SAFETY: reads at most as many bytes as there is room for.
        let len =
            unsafe { libc::read(link.wire.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len()) };
        match usize::try_from(len) {
            Ok(len) if len >= 14 => link.deliver(&frame[..len]),
            // Too short, or the other side has gone for now.
            Ok(_) => {}
            Err(_) => return,
        }
    }
}
