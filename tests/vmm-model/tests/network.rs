// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! viona. The client itself plays the driver of the guest: it writes the rings.
#![allow(unsafe_code, clippy::unwrap_used)]

mod support;

use std::os::unix::net::UnixDatagram;

use support::client::{self, call, get, pack, scalar};
use support::guest;
use support::nic::*;
use support::number::*;
use support::viona_version;

/// An Ethernet frame to an address.
fn frame(to: [u8; 6], text: &[u8]) -> Vec<u8> {
    [&to[..], &[2, 0, 0, 0, 0, 9], &[0x88, 0xb5], text].concat()
}

#[test]
fn viona_says_its_version() {
    viona("viona_says_its_version", &[0, 1, 2, 3, 4, 6, 7]).run(|| {
        let version = viona_version().cast_signed();
        let machine = client::machine("m");
        let fd = client::open("/dev/viona", libc::O_RDWR).unwrap();
        let before = scalar(fd, VNA_IOC_VERSION, 0);
        let _peer = UnixDatagram::bind(peer()).unwrap();
        attach(fd, LINK, machine).unwrap();
        let after = scalar(fd, VNA_IOC_VERSION, 0);
        let expected = match version {
            0 => (Err(libc::ENXIO), Err(libc::ENOTTY)),
            version => (Ok(version), Ok(version)),
        };
        assert_eq!((before, after), expected);
    });
}

#[test]
fn an_attachment_needs_a_machine_and_a_link_that_is_free() {
    viona("an_attachment_needs_a_machine_and_a_link_that_is_free", &[6]).run(|| {
        let nic = Nic::new();
        let other = client::open("/dev/viona", libc::O_RDWR).unwrap();
        assert_eq!(scalar(other, VNA_IOC_RING_KICK, 0), Err(libc::ENXIO), "not attached");
        assert_eq!(scalar(other, VNA_IOC_DELETE, 0), Ok(0), "nothing to delete");
        assert_eq!(attach(nic.fd, LINK, nic.machine), Err(libc::EEXIST));
        assert_eq!(attach(other, LINK, -1), Err(libc::EBADF));
        assert_eq!(attach(other, LINK, other), Err(libc::ENXIO));
        assert_eq!(attach(other, LINK, nic.machine), Err(libc::EBUSY), "the link is in use");
        assert_eq!(attach(other, 99, nic.machine), Err(libc::ENOENT));
        scalar(nic.fd, VNA_IOC_DELETE, 0).unwrap();
        assert_eq!(attach(other, LINK, nic.machine), Ok(0));
    });
}

#[test]
fn trap_01_viona_holds_the_machine() {
    viona("trap_01_viona_holds_the_machine", &[6]).run(|| {
        let nic = Nic::new();
        scalar(nic.machine, VM_DESTROY_SELF, 0).unwrap();
        client::close(nic.machine).unwrap();
        let control = client::control();
        assert_eq!(client::create(control, "net"), Err(libc::EEXIST));
        assert_eq!(scalar(nic.fd, VNA_IOC_RING_RESET, 0), Err(libc::ENXIO));
        scalar(nic.fd, VNA_IOC_DELETE, 0).unwrap();
        assert_eq!(client::create(control, "net"), Ok(0));
        // And a close of viona is as good.
        let machine = client::open_machine("net").unwrap();
        scalar(machine, VM_SET_AUTODESTRUCT, 1).unwrap();
        attach(nic.fd, LINK, machine).unwrap();
        client::close(machine).unwrap();
        assert_eq!(client::create(control, "net"), Err(libc::EEXIST));
        client::close(nic.fd).unwrap();
        assert_eq!(client::create(control, "net"), Ok(0));
    });
}

#[test]
fn trap_05_features_go_by_pointer() {
    viona("trap_05_features_go_by_pointer", &[1, 4, 6]).run(|| {
        let is_new = viona_version() == 6;
        let nic = Nic::new();
        let by_value = scalar(nic.fd, VNA_IOC_SET_FEATURES, MRG_RXBUF as usize);
        assert_eq!(by_value, Err(libc::EFAULT));
        let mut features = [0xff; 8];
        call(nic.fd, VNA_IOC_GET_FEATURES, &mut features).unwrap();
        assert_ne!(get(&features, 0, 8) & MRG_RXBUF, 0);
        assert_eq!(get(&features, 4, 4), if is_new { 0 } else { 0xffff_ffff });
        assert_eq!(get(&features, 0, 8) & 1 << 5 != 0, !is_new, "MAC is the program's");
    });
}

#[test]
fn trap_05_frames_go_out_after_the_first_kick_by_hand() {
    viona("trap_05_frames_go_out_after_the_first_kick_by_hand", &[1, 6]).run(|| {
        let nic = Nic::new();
        assert_eq!(scalar(nic.fd, VNA_IOC_RING_KICK, 1), Err(libc::EBUSY), "in reset");
        nic.init(1).unwrap();
        assert_eq!(nic.init(1), Err(libc::EBUSY), "not in reset");
        let sent = frame([0xff; 6], b"hello");
        nic.write(BUFFER, &[&[0; 10][..], &sent].concat());
        nic.offer(1, 0, 10 + sent.len() as u64, false);
        nic.peer.set_nonblocking(true).unwrap();
        assert!(nic.peer.recv(&mut [0; 100]).is_err(), "nobody has kicked");
        nic.peer.set_nonblocking(false).unwrap();
        scalar(nic.fd, VNA_IOC_RING_KICK, 1).unwrap();
        let mut bytes = [0; 100];
        let len = nic.peer.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..len], sent);
        nic.wait_used(1, 1);
    });
}

#[test]
fn trap_05_an_interrupt_waits_until_it_is_cleared() {
    viona("trap_05_an_interrupt_waits_until_it_is_cleared", &[6]).run(|| {
        let nic = Nic::new();
        nic.init(1).unwrap();
        assert!(!nic.waits(0));
        nic.offer(1, 0, 64, false);
        scalar(nic.fd, VNA_IOC_RING_KICK, 1).unwrap();
        assert!(nic.waits(20_000));
        assert!(nic.waits(0), "until it is cleared");
        let mut waiting = [0; 8];
        assert_eq!(call(nic.fd, VNA_IOC_INTR_POLL, &mut waiting), Ok(1));
        assert_eq!((get(&waiting, 0, 4), get(&waiting, 4, 4)), (0, 1));
        let mut many = pack::<68>(&[(0, 2, 2)]);
        assert_eq!(call(nic.fd, VNA_IOC_INTR_POLL_MQ, &mut many), Ok(1));
        assert_eq!(many[4], 2);
        scalar(nic.fd, VNA_IOC_RING_INTR_CLR, 1).unwrap();
        assert!(!nic.waits(0));
        scalar(nic.fd, VNA_IOC_DELETE, 0).unwrap();
        let mut list = [libc::pollfd { fd: nic.fd, events: libc::POLLRDBAND, revents: 0 }];
        // SAFETY: one structure is there.
        assert_eq!(unsafe { libc::poll(list.as_mut_ptr(), 1, 0) }, -1, "nothing is attached");
    });
}

#[test]
fn trap_05_every_init_forgets_the_message() {
    viona("trap_05_every_init_forgets_the_message", &[6]).run(|| {
        let nic = Nic::new();
        nic.init(1).unwrap();
        set_message(nic.fd, 1, 0xfee0_0000);
        nic.offer(1, 0, 64, false);
        scalar(nic.fd, VNA_IOC_RING_KICK, 1).unwrap();
        nic.wait_used(1, 1);
        assert!(!nic.waits(0), "the message went to the guest");
        scalar(nic.fd, VNA_IOC_RING_RESET, 1).unwrap();
        scalar(nic.fd, VNA_IOC_RING_RESET, 1).unwrap();
        nic.write(RINGS[1] + 0x2000, &[0; 16]);
        nic.init(1).unwrap();
        scalar(nic.fd, VNA_IOC_RING_KICK, 1).unwrap();
        assert!(nic.waits(20_000), "now it waits for the program");
    });
}

#[test]
fn frames_come_in_for_our_address_only() {
    viona("frames_come_in_for_our_address_only", &[6]).run(|| {
        let nic = Nic::new();
        let path = peer() + ".guest";
        call(nic.fd, VNA_IOC_SET_FEATURES, &mut MRG_RXBUF.to_le_bytes()).unwrap();
        nic.init(0).unwrap();
        nic.offer(0, 0, 2048, true);
        scalar(nic.fd, VNA_IOC_RING_KICK, 0).unwrap();
        nic.peer.send_to(&frame([2, 9, 9, 9, 9, 9], b"somebody else's"), &path).unwrap();
        let ours = frame(MAC, b"ours");
        nic.peer.send_to(&ours, &path).unwrap();
        nic.wait_used(0, 1);
        assert_eq!(nic.used(0).1, 12 + ours.len() as u64);
        let header = nic.read(BUFFER, 12);
        assert_eq!(get(&header, 10, 2), 1, "one buffer");
        assert_eq!(nic.read(BUFFER + 12, ours.len()), ours);
    });
}

#[test]
fn a_large_frame_takes_several_buffers() {
    viona("a_large_frame_takes_several_buffers", &[6]).run(|| {
        let nic = Nic::new();
        let path = peer() + ".guest";
        call(nic.fd, VNA_IOC_SET_FEATURES, &mut MRG_RXBUF.to_le_bytes()).unwrap();
        nic.init(0).unwrap();
        for index in 0..2 {
            nic.offer(0, index, 1024, true);
        }
        scalar(nic.fd, VNA_IOC_RING_KICK, 0).unwrap();
        nic.peer.send_to(&frame(MAC, &[0x5a; 1400]), &path).unwrap();
        nic.wait_used(0, 2);
        assert_eq!(get(&nic.read(BUFFER, 12), 10, 2), 2, "two buffers");
        assert_eq!(nic.read(BUFFER + 4096 + 100, 1), [0x5a]);
    });
}

#[test]
fn rings_are_checked() {
    viona("rings_are_checked", &[4, 6]).run(|| {
        let is_new = viona_version() == 6;
        let nic = Nic::new();
        for (ring, size, at) in [
            (2, 256, RINGS[0]),
            (0, 0, RINGS[0]),
            (0, 300, RINGS[0]),
            (0, 256, 0),
            (0, 256, RINGS[0] + 16),
            (0, 256, RAM - 4096),
        ] {
            assert_eq!(init(nic.fd, ring, size, at), Err(libc::EINVAL), "{ring} {size} {at:#x}");
        }
        let small = init(nic.fd, 0, 128, RINGS[0]);
        assert_eq!(small, if is_new { Err(libc::EINVAL) } else { Ok(0) });
        let fields = [(0, 1, 2), (2, 128, 2), (8, 0x3010, 8), (16, 0x5002, 8), (24, 0x6004, 8)];
        let modern = |fd| call(fd, VNA_IOC_RING_INIT_MODERN, &mut pack::<32>(&fields));
        if !is_new {
            assert_eq!(modern(nic.fd), Err(libc::ENOTTY));
            return;
        }
        assert_eq!(modern(nic.fd), Err(libc::EINVAL), "legacy rules");
        call(nic.fd, VNA_IOC_SET_FEATURES, &mut VERSION_1.to_le_bytes()).unwrap();
        modern(nic.fd).unwrap();
    });
}

#[test]
fn a_paused_ring_is_started_by_a_kick() {
    viona("a_paused_ring_is_started_by_a_kick", &[6]).run(|| {
        let nic = Nic::new();
        nic.init(1).unwrap();
        scalar(nic.fd, VNA_IOC_RING_KICK, 1).unwrap();
        scalar(nic.fd, VNA_IOC_RING_PAUSE, 1).unwrap();
        nic.offer(1, 0, 64, false);
        assert_eq!(nic.used(1).0, 0);
        scalar(nic.fd, VNA_IOC_RING_KICK, 1).unwrap();
        nic.wait_used(1, 1);
    });
}

#[test]
fn trap_11_a_port_hook_makes_reinit_busy() {
    viona("trap_11_a_port_hook_makes_reinit_busy", &[6]).run(|| {
        let nic = Nic::new();
        assert_eq!(scalar(nic.fd, VNA_IOC_SET_NOTIFY_IOP, 0x1_0000), Err(libc::EINVAL));
        assert_eq!(scalar(nic.fd, VNA_IOC_SET_NOTIFY_IOP, 0x61), Err(libc::EEXIST));
        scalar(nic.fd, VNA_IOC_SET_NOTIFY_IOP, 0x2010).unwrap();
        assert_eq!(client::reinit(nic.machine), Err(libc::EBUSY));
        scalar(nic.fd, VNA_IOC_SET_NOTIFY_IOP, 0).unwrap();
        assert_eq!(client::reinit(nic.machine), Ok(0));
        let window = |len| pack::<16>(&[(0, 0xc000_0000, 8), (8, len, 4)]);
        assert_eq!(call(nic.fd, VNA_IOC_SET_NOTIFY_MMIO, &mut window(0)), Err(libc::EINVAL));
        call(nic.fd, VNA_IOC_SET_NOTIFY_MMIO, &mut window(4)).unwrap();
        assert_eq!(client::reinit(nic.machine), Ok(0), "an MMIO hook is lost");
        scalar(nic.fd, VNA_IOC_SET_NOTIFY_MMIO, 0).unwrap();
    });
}

#[test]
fn trap_05_a_hook_does_nothing_until_the_ring_runs() {
    viona("trap_05_a_hook_does_nothing_until_the_ring_runs", &[6]).needs_kvm().run(|| {
        #[rustfmt::skip]
        let code = [
            0xba, 0x10, 0x20, 0xb8, 0x01, 0x00, // mov dx, 0x2010; mov ax, 1
            0xef, 0xef,                         // out dx, ax; out dx, ax
            0xe6, 0x80,                         // out 0x80, al
        ];
        let machine = guest::machine(&code, 1);
        let nic = Nic::with_memory(machine);
        scalar(nic.fd, VNA_IOC_SET_NOTIFY_IOP, 0x2010).unwrap();
        nic.init(1).unwrap();
        nic.offer(1, 0, 64, false);
        let exit = guest::run(machine, 0);
        assert_eq!(exit.port(), (0x2010, 2, false, 1), "the first one is the program's");
        scalar(nic.fd, VNA_IOC_RING_KICK, 1).unwrap();
        nic.wait_used(1, 1);
        nic.offer(1, 1, 64, false);
        let exit = guest::answer_port(machine, 0, &exit, 0);
        assert_eq!(exit.port().0, 0x80, "the second one is the kernel's");
        nic.wait_used(1, 2);
    });
}

#[test]
fn links_have_numbers_by_name() {
    viona("links_have_numbers_by_name", &[6]).run(|| {
        // SAFETY: the name is a C string.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"dladm_name2info".as_ptr()) };
        assert!(!found.is_null());
        type Info = unsafe extern "C" fn(
            *mut libc::c_void,
            *const libc::c_char,
            *mut u32,
            *mut u32,
            *mut u32,
            *mut u32,
        ) -> libc::c_int;
        // SAFETY: the function has this type by `libdladm.h`.
        let info = unsafe { std::mem::transmute::<*mut libc::c_void, Info>(found) };
        let null = std::ptr::null_mut;
        let nothing = std::ptr::null_mut;
        let mut id = 0;
        let mut ask = |name: &std::ffi::CStr| {
            // SAFETY: the name is a C string, the number has a place, the rest may be null.
            unsafe { info(null(), name.as_ptr(), &raw mut id, nothing(), nothing(), nothing()) }
        };
        assert_eq!(ask(c"net0"), 0);
        assert_ne!(ask(c"net1"), 0);
        assert_eq!(u64::from(id), LINK);
    });
}
