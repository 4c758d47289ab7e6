// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! viona, the kernel's half of a virtio network interface on illumos: it moves frames between two
//! rings of the guest and a link such as a VNIC, while this process keeps the registers.
//!
//! From version 6 on the rings are those of a modern device (VIRTIO 1.x); before it they are those of
//! a legacy one, which the board shows the guest then.

pub(super) mod abi;
mod handle;
mod links;
mod poll;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::handle::Nic;
use self::links::LinkError;
use self::poll::Poller;
use super::Link;
use super::bhyve::Instance;
use super::node::is;
use crate::ui::{Failure, Outcome};
use crate::vm::dev::virtio::{Message, Offload, Signal};

/// The first version with rings of a modern device.
const MODERN: u32 = 6;
/// A version between the two kinds of rings that no platform is known to have.
const UNKNOWN: u32 = 5;
/// The first version that tells the MTU.
const WITH_MTU: u32 = 4;
/// The first version that pauses rings.
const WITH_PAUSE: u32 = 1;
/// The newest version whose calls are known.
const NEWEST: u32 = 7;
const USUAL_MTU: u16 = 1500;
const RINGS: u16 = 2;
/// How long the kernel may take to let go of frames that a network card still holds.
const LETTING_GO: Duration = Duration::from_secs(5);

/// The version of viona here, without taking a link.
pub(super) fn version() -> io::Result<u32> {
    Nic::open()?.version()
}

/// A link that is attached to a virtual machine.
pub(super) struct Viona {
    nic: Arc<Nic>,
    link: String,
    version: u32,
    mtu: u16,
    state: Mutex<State>,
    poller: Mutex<Option<Poller>>,
    kicks: AtomicU64,
    /// The link holds the machine, so the machine must not end before it.
    _instance: Arc<Instance>,
}

#[derive(Default)]
struct State {
    attached: [bool; RINGS as usize],
    messages: [Option<Message>; RINGS as usize],
    has_hook: bool,
}

impl Viona {
    /// Takes a link for a machine.
    ///
    /// # Errors
    /// When there is no such link, it is in use, or the platform is too old.
    pub(super) fn attach(instance: &Arc<Instance>, place: &Link) -> Outcome<Arc<Self>> {
        let link = place.name.as_str();
        let id = links::id(link).map_err(|error| no_link(link, &error))?;
        let nic = Nic::open().map_err(|error| {
            failed("viona is not there, the network in the kernel", link, error).hint(
                "have the operator add the device `viona` to this zone; see `imgforge doctor`",
            )
        })?;
        let version = nic.version().map_err(|error| failed("viona has no version", link, error))?;
        judge(version).map_err(|failure| failure.fact("link", link))?;
        if version > NEWEST {
            tracing::warn!("viona has version {version}; versions up to {NEWEST} are known");
        }
        nic.attach(id, instance.descriptor()).map_err(|error| not_attached(link, error))?;
        let mtu = agree_on_mtu(&nic, version, place.mtu);
        Ok(Arc::new(Self {
            nic: Arc::new(nic),
            link: link.to_owned(),
            version,
            mtu,
            state: Mutex::default(),
            poller: Mutex::new(None),
            kicks: AtomicU64::new(0),
            _instance: Arc::clone(instance),
        }))
    }

    fn init(&self, queue: u16, size: u16, addresses: [u64; 3]) -> io::Result<()> {
        match self.is_modern() {
            true => self.nic.init_ring(queue, size, addresses),
            false => self.nic.init_old_ring(queue, size, addresses[0]),
        }
    }

    fn hook(&self, address: Option<u64>, bytes: u32) -> io::Result<()> {
        match self.is_modern() {
            true => self.nic.set_hook(address, bytes),
            false => self.nic.set_port_hook(address.and_then(|port| u16::try_from(port).ok())),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a version's rings are known: between those of before VIRTIO 1.0 and those since there is
/// a number that illumos never had.
fn judge(version: u32) -> Outcome<()> {
    if version != UNKNOWN {
        return Ok(());
    }
    Err(Failure::build("this platform's viona is not one that imgforge knows")
        .fact("device", "/dev/viona")
        .fact("version", version)
        .because("versions 0 to 4, and 6 and later ones, are known")
        .hint(
            "boot another platform image; `imgforge doctor --bundle` collects what we would need",
        ))
}

/// The largest packet of guest and kernel: the link's where the kernel can be told, else the one
/// that it has by itself, which no link is too small for.
fn agree_on_mtu(nic: &Nic, version: u32, of_link: Option<u16>) -> u16 {
    if version < WITH_MTU {
        return of_link.unwrap_or(USUAL_MTU).min(USUAL_MTU);
    }
    if let Some(mtu) = of_link
        && report("MTU", nic.set_mtu(mtu))
    {
        return mtu;
    }
    nic.mtu().unwrap_or(USUAL_MTU)
}

fn failed(what: &str, link: &str, error: io::Error) -> Failure {
    Failure::build(what).fact("device", "/dev/viona").fact("link", link).because(error)
}

fn no_link(link: &str, error: &LinkError) -> Failure {
    let failure = Failure::input("the machine's link is not there").fact("link", link);
    match error {
        LinkError::Missing(status) => failure
            .because(format!("libdladm does not know it in this zone (status {status})"))
            .hint("`dladm show-vnic` lists those of this zone")
            .hint(format!("in the global zone: `dladm create-vnic -l LINK {link}`")),
        LinkError::NoLibrary(why) => {
            failure.because(why.clone()).hint("links of this kind exist on illumos only")
        }
        LinkError::NoDoor(status) => failure
            .because(format!("libdladm cannot be opened (status {status})"))
            .hint("have the operator add the device `dld` to this zone"),
    }
}

fn not_attached(link: &str, error: io::Error) -> Failure {
    let hint = match error.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => {
            "something else uses the link: take its address off it with `ipadm delete-if`, or stop \
             the other virtual machine"
        }
        Some(libc::EIO) => "the zone needs an IP stack of its own: `set ip-type=exclusive`",
        _ => "use a VNIC: `dladm create-vnic`",
    };
    failed("viona does not take the link", link, error).hint(hint)
}

impl Offload for Viona {
    fn is_modern(&self) -> bool {
        self.version >= MODERN
    }

    fn features(&self) -> u64 {
        self.nic.features().unwrap_or_else(|error| {
            tracing::warn!("viona does not say its features: {error}");
            0
        })
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn set_features(&self, accepted: u64) -> bool {
        report("features", self.nic.set_features(accepted))
    }

    fn attach(&self, queue: u16, size: u16, addresses: [u64; 3]) -> bool {
        if queue >= RINGS {
            return false;
        }
        // It must be unused; a driver that is loaded anew has used it.
        let is_taken = report("ring reset", self.nic.reset_ring(queue))
            && report("ring", self.init(queue, size, addresses));
        let mut state = self.state();
        let place = usize::from(queue);
        if let Some(attached) = state.attached.get_mut(place) {
            *attached = is_taken;
        }
        // The kernel has forgotten where the interrupt goes.
        if let Some(message) = state.messages.get_mut(place) {
            *message = None;
        }
        is_taken
    }

    fn detach(&self, queue: u16) {
        let place = usize::from(queue);
        let mut state = self.state();
        let Some(attached) = state.attached.get_mut(place) else { return };
        *attached = false;
        if let Some(message) = state.messages.get_mut(place) {
            *message = None;
        }
        drop(state);
        report("ring reset", self.nic.reset_ring(queue));
    }

    fn notify(&self, queue: u16) {
        self.kicks.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.nic.kick(queue)
            && !is(&error, libc::EBUSY)
        {
            tracing::debug!("viona is not told of ring {queue}: {error}");
        }
    }

    fn set_message(&self, queue: u16, current: &dyn Fn() -> Option<Message>) {
        let mut state = self.state();
        let place = usize::from(queue);
        let is_attached = state.attached.get(place).copied().unwrap_or_default();
        let Some(known) = state.messages.get_mut(place) else { return };
        let message = current();
        if is_attached && *known != message && report("message", self.nic.set_msi(queue, message)) {
            *known = message;
        }
    }

    fn set_signal(&self, signal: Signal) {
        match Poller::start(Arc::clone(&self.nic), RINGS, signal) {
            Ok(poller) => {
                *self.poller.lock().unwrap_or_else(PoisonError::into_inner) = Some(poller);
            }
            Err(error) => tracing::warn!("no thread for viona's interrupts: {error}"),
        }
    }

    fn place(&self, address: Option<u64>, bytes: u32) {
        let mut state = self.state();
        if state.has_hook || address.is_some() {
            // It saves an exit for each notification; without it all works.
            state.has_hook = report("hook", self.hook(address, bytes)) && address.is_some();
        }
    }

    fn reset(&self) {
        let mut state = self.state();
        for queue in 0..RINGS {
            report("ring reset", self.nic.reset_ring(queue));
        }
        report("features", self.nic.set_features(0));
        (state.attached, state.messages) = Default::default();
    }
}

fn report(what: &str, result: io::Result<()>) -> bool {
    match result {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!("viona, {what}: {error}");
            false
        }
    }
}

impl Drop for Viona {
    fn drop(&mut self) {
        let kicks = self.kicks.load(Ordering::Relaxed);
        tracing::debug!("network: {} had {kicks} notifications that were exits", self.link);
        drop(self.poller.lock().unwrap_or_else(PoisonError::into_inner).take());
        // The kernel waits for frames that a network card still holds, perhaps for ever.
        let nic = Arc::clone(&self.nic);
        let (sender, done) = std::sync::mpsc::channel();
        let (can_pause, attached) = (self.version >= WITH_PAUSE, self.state().attached);
        let spawned = std::thread::Builder::new().name("viona-delete".into()).spawn(move || {
            // Nothing goes on while the rings are taken out of use.
            for (ring, _) in (0..).zip(attached).filter(|(_, attached)| can_pause && *attached) {
                report("ring pause", nic.pause_ring(ring));
            }
            let deleted = nic.delete();
            drop(nic);
            let _ = sender.send(deleted);
        });
        let is_over = spawned.is_ok() && done.recv_timeout(LETTING_GO).is_ok();
        if !is_over {
            tracing::warn!("the link {} is not let go by the kernel yet", self.link);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_version_that_nobody_has_seen_is_refused() {
        for version in [0, 1, 4, 6, 7, 99] {
            judge(version).unwrap();
        }
        let text = judge(5).unwrap_err().to_string();
        assert!(text.contains("version  5") && text.contains("doctor --bundle"), "{text}");
    }

    #[test]
    fn failures_name_link_and_remedy() {
        let text = no_link("vm0", &LinkError::Missing(4)).to_string();
        assert!(text.contains("vm0") && text.contains("dladm create-vnic"), "{text}");
        let busy = io::Error::from_raw_os_error(libc::EBUSY);
        let text = not_attached("vm0", busy).to_string();
        assert!(text.contains("/dev/viona") && text.contains("ipadm delete-if"), "{text}");
    }
}
