// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Links of the host, as `VMM_MODEL_LINKS` names them, and how frames get there.
//!
//! The variable is a list, separated by `;`, of `NAME,ID,MAC,WAY`. `WAY` is `tap:INTERFACE`, an
//! interface that exists, or `unix:PATH`, a datagram socket of somebody else's: frames go there,
//! and come from there to the socket `PATH.guest`.

use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Mutex;

use crate::config::config;
use crate::{Answer, Errno, lock, log, real};

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) id: u32,
    pub(super) mac: [u8; 6],
    way: String,
}

fn parse(text: &str) -> Option<Entry> {
    let mut parts = text.splitn(4, ',');
    let name = parts.next()?.trim().to_string();
    let id = parts.next()?.parse().ok()?;
    let mut mac = [0; 6];
    let mut bytes = parts.next()?.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(bytes.next()?, 16).ok()?;
    }
    Some(Entry { name, id, mac, way: parts.next()?.to_string() })
}

/// Every link.
pub(super) fn entries() -> Vec<Entry> {
    config().links.split(';').filter_map(parse).collect()
}

/// The link of a number.
pub(super) fn find(id: u32) -> Option<Entry> {
    entries().into_iter().find(|entry| entry.id == id)
}

impl Entry {
    /// A descriptor for frames: a read and a write are one each. The kernel could open its wire at
    /// any time, while this process may have given up the right to, so it stays open.
    ///
    /// # Errors
    /// `ENOENT`, with a line in the log, when the way does not lead anywhere.
    pub(super) fn open(&self) -> Answer<OwnedFd> {
        static OPEN: Mutex<Vec<(u32, OwnedFd)>> = Mutex::new(Vec::new());
        let mut open = lock(&OPEN);
        if let Some((_, wire)) = open.iter().find(|(id, _)| *id == self.id) {
            return wire.try_clone().map_err(|_| Errno(libc::ENOMEM));
        }
        let wire = self.open_new()?;
        open.push((self.id, wire.try_clone().map_err(|_| Errno(libc::ENOMEM))?));
        Ok(wire)
    }

    fn open_new(&self) -> Answer<OwnedFd> {
        let opened = match self.way.split_once(':') {
            Some(("unix", path)) => socket(path),
            Some(("tap", name)) => tap(name),
            _ => Err(std::io::ErrorKind::InvalidInput.into()),
        };
        opened.map_err(|error| {
            log::line(&format!("link {} by {}: {error}", self.name, self.way));
            Errno(libc::ENOENT)
        })
    }
}

fn socket(path: &str) -> std::io::Result<OwnedFd> {
    let own = format!("{path}.guest");
    let _ = std::fs::remove_file(&own);
    let socket = UnixDatagram::bind(own)?;
    socket.connect(path)?;
    Ok(socket.into())
}

fn tap(name: &str) -> std::io::Result<OwnedFd> {
    /// `TUNSETIFF`, `_IOW('T', 202, int)`.
    const SET_INTERFACE: libc::c_ulong = 0x4004_54ca;
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut request = [0u8; 40];
    if name.len() >= libc::IFNAMSIZ {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    request[..name.len()].copy_from_slice(name.as_bytes());
    let flags = libc::IFF_TAP | libc::IFF_NO_PI;
    request[16..18].copy_from_slice(&(flags as u16).to_le_bytes());
    let result = real::ioctl(file.as_raw_fd(), SET_INTERFACE, request.as_mut_ptr() as usize);
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(file.into()) }
}
