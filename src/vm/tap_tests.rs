// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

#![allow(clippy::unwrap_used)]

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::*;
use crate::vm::dev::virtio::PLAIN;

const LONG: Duration = Duration::from_secs(20);

/// A cable to a socket that keeps frames apart as a tap does; what the tap is told; wakes.
struct Rig {
    cable: Arc<TapCable>,
    far: UnixDatagram,
    told: Receiver<usize>,
    wakes: Receiver<()>,
}

fn rig() -> Rig {
    let (near, far) = UnixDatagram::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_read_timeout(Some(LONG)).unwrap();
    let (tell, told) = channel();
    let set = Box::new(move |leave| tell.send(leave).map_err(io::Error::other));
    let cable = TapCable::over(Arc::new(File::from(OwnedFd::from(near))), set).unwrap();
    let (woken, wakes) = channel();
    cable.set_wake(Arc::new(move || woken.send(()).unwrap_or_default()));
    Rig { cable, far, told, wakes }
}

#[test]
fn frames_and_their_headers_pass_in_both_directions() {
    let Rig { cable, far, wakes, .. } = rig();
    let header = [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0];
    cable.send(&header, b"to the network");
    let mut bytes = [0; 64];
    let length = far.recv(&mut bytes).unwrap();
    assert_eq!(bytes[..length], [&header[..], b"to the network"].concat());
    for word in [b"hello", b"again"] {
        far.send(&[&header[..], word].concat()).unwrap();
    }
    wakes.recv_timeout(LONG).unwrap();
    for word in [b"hello", b"again"] {
        let (mut got, mut frame) = (PLAIN, [0; 64]);
        assert_eq!(cable.recv(&mut got, &mut frame), Some(5));
        assert_eq!((got, &frame[..5]), (header, &word[..]));
    }
    // One wake for both; the next one comes when everything was fetched and more arrives.
    assert!(wakes.try_recv().is_err());
    assert_eq!(cable.recv(&mut PLAIN.clone(), &mut [0; 64]), None);
    far.send(&[0; 72]).unwrap();
    wakes.recv_timeout(LONG).unwrap();
    assert_eq!(cable.recv(&mut PLAIN.clone(), &mut [0; 64]), Some(60));
}

#[test]
fn what_is_no_frame_is_not_one() {
    let Rig { cable, far, wakes, .. } = rig();
    far.send(&[0; 12]).unwrap();
    wakes.recv_timeout(LONG).unwrap();
    assert_eq!(cable.recv(&mut PLAIN.clone(), &mut [0; 64]), None);
}

#[test]
fn a_network_that_takes_nothing_blocks_nothing() {
    let Rig { cable, far, .. } = rig();
    for _ in 0..10_000 {
        cable.send(&PLAIN, &[0; 1500]);
    }
    drop(far);
    cable.send(&PLAIN, &[0; 1500]);
    assert!(cable.lost.load(Ordering::Relaxed) > 0);
}

#[test]
fn the_tap_leaves_to_the_guest_what_its_driver_agreed_to() {
    let Rig { cable, told, .. } = rig();
    for (accepted, leaves) in [
        (0, 0),
        (offloads::CSUM | offloads::HOST_TSO4, 0),
        (offloads::GUEST_CSUM, leave::CHECKSUM),
        // What needs checksums comes without them only by mistake.
        (offloads::GUEST_TSO4, 0),
        (offloads::ALL, leave::CHECKSUM | leave::TCP4 | leave::TCP6),
    ] {
        cable.set_offloads(accepted);
        assert_eq!(told.try_recv().unwrap(), leaves, "{accepted:#x}");
    }
}

/// With taps on this host, and the right to make them: a real one, asked by ARP for an address that
/// the host then has there.
#[test]
fn a_real_tap_answers() {
    if !nix::unistd::geteuid().is_root() || !Path::new("/dev/net/tun").exists() {
        eprintln!("skipped: needs root and /dev/net/tun");
        return;
    }
    let name = format!("imgf{}", std::process::id());
    let cable = match TapCable::open(&name) {
        Ok(cable) => cable,
        Err(failure) if failure.to_string().contains("os error 1)") => {
            eprintln!("skipped: this root may not make taps: {failure}");
            return;
        }
        Err(failure) => panic!("{failure}"),
    };
    let failure = TapCable::open(&name).err().unwrap().to_string();
    assert!(failure.contains("another process has it open"), "{failure}");
    let failure = TapCable::open("lo").err().unwrap().to_string();
    assert!(failure.contains("no plain tap"), "{failure}");
    cable.set_offloads(offloads::ALL);
    cable.set_offloads(0);

    let address = ["addr", "add", "198.51.100.1/24", "dev", &name];
    assert!(Command::new("ip").args(address).status().unwrap().success());
    let (woken, wakes) = channel();
    cable.set_wake(Arc::new(move || woken.send(()).unwrap_or_default()));
    let guest = [2, 0, 0, 0, 0, 7];
    let mut question = [&[0xff; 6][..], &guest, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &guest].concat();
    question.extend([198, 51, 100, 2, 0, 0, 0, 0, 0, 0, 198, 51, 100, 1]);
    question.resize(60, 0);
    cable.send(&PLAIN, &question);
    // The host may have things of its own to say first.
    let mut frame = [0; 1514];
    loop {
        let Some(length) = cable.recv(&mut PLAIN.clone(), &mut frame) else {
            wakes.recv_timeout(LONG).unwrap();
            continue;
        };
        let is_answer = length >= 42 && frame[12..14] == [8, 6] && frame[20..22] == [0, 2];
        if is_answer && frame[28..32] == [198, 51, 100, 1] {
            assert_eq!(frame[..6], guest);
            return;
        }
    }
}
