// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Rings that somebody else serves: a kernel that carries frames without asking this process.

/// An interrupt as a write to a local APIC: address and data.
pub type Message = (u64, u32);

/// Takes the number of a ring whose interrupt could not be delivered elsewhere.
pub type Signal = Box<dyn Fn(u16) + Send + Sync>;

/// Serves the rings of one device. Called from vCPU threads; the addresses are the guest's, so
/// whatever serves them must check them.
pub trait Offload: Send + Sync {
    /// Whether it serves the rings of a modern device; else only those of before VIRTIO 1.0, where
    /// the three parts lie behind one another.
    fn is_modern(&self) -> bool {
        true
    }

    /// Feature bits that it can do.
    fn features(&self) -> u64;

    /// The largest frame's content.
    fn mtu(&self) -> u16;

    /// The driver has chosen; comes before any ring. False when it cannot be.
    fn set_features(&self, accepted: u64) -> bool;

    /// Takes a ring into use: its size, and the addresses of descriptor table, available ring and
    /// used ring. False when it cannot be. [`Offload::set_message`] follows.
    fn attach(&self, queue: u16, size: u16, addresses: [u64; 3]) -> bool;

    /// Takes a ring out of use.
    fn detach(&self, queue: u16);

    /// The driver has put something into a ring.
    fn notify(&self, queue: u16);

    /// A ring's interrupt may be another one from now on: `current` tells; with `None` it goes to
    /// the signal. Two callers at a time leave the newest one.
    fn set_message(&self, queue: u16, current: &dyn Fn() -> Option<Message>);

    /// Where interrupts go that have no message. Called once, before anything else.
    fn set_signal(&self, signal: Signal);

    /// Where the guest has the registers by which it notifies, so many bytes, if anywhere.
    fn place(&self, address: Option<u64>, bytes: u32);

    /// Takes all rings out of use. When it returns, guest memory is not touched any more.
    fn reset(&self);
}
