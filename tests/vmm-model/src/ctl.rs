// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `/dev/vmmctl`: illumos `usr/src/uts/intel/io/vmm/vmm_sol_dev.c`.

use std::time::Duration;

use crate::abi::{self, put};
use crate::config::config;
use crate::{Answer, Errno, vm, zone};

/// Answers a call on the control node.
///
/// # Errors
/// Those of the kernel.
pub(crate) fn call(fd: i32, number: u32, bytes: &mut [u8]) -> Answer {
    match number {
        abi::VMM_INTERFACE_VERSION => Ok(config().version.cast_signed()),
        abi::VMM_VM_SUPPORTED => Ok(0),
        abi::VMM_RESV_QUERY if config().version <= 8 && !config().is_global => {
            Err(Errno(libc::EPERM))
        }
        abi::VMM_RESV_QUERY => {
            put(bytes, 16, &vm::allocated().to_le_bytes());
            Ok(0)
        }
        abi::VMM_CREATE_VM => {
            may_write(fd)?;
            create(bytes)
        }
        abi::VMM_DESTROY_VM => {
            may_write(fd)?;
            destroy(bytes)
        }
        _ => Err(Errno(libc::ENOTTY)),
    }
}

fn may_write(fd: i32) -> Answer<()> {
    // SAFETY: asks for the flags of a descriptor by number.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags & libc::O_ACCMODE == libc::O_RDONLY { Err(Errno(libc::EPERM)) } else { Ok(()) }
}

/// A name of 1 to 127 bytes without a slash. The two that a directory keeps for itself cannot be
/// played.
fn name(bytes: &[u8]) -> Answer<String> {
    let field = bytes.get(..128).unwrap_or(bytes);
    let end = field.iter().position(|byte| *byte == 0).ok_or(Errno(libc::ENAMETOOLONG))?;
    let name = field.get(..end).and_then(|name| std::str::from_utf8(name).ok());
    match name {
        None | Some("" | "." | "..") => Err(Errno(libc::EINVAL)),
        Some(name) if name.contains('/') => Err(Errno(libc::EINVAL)),
        Some(name) => Ok(name.to_string()),
    }
}

fn create(bytes: &[u8]) -> Answer {
    let name = name(bytes)?;
    let _guard = zone::guard();
    vm::made(zone::create(&name)?, &name);
    Ok(0)
}

/// Begins the destruction, and waits until nobody holds the machine.
fn destroy(bytes: &[u8]) -> Answer {
    if config().uid != 0 {
        return Err(Errno(libc::EPERM));
    }
    let path = zone::machine(&name(bytes)?);
    {
        let _guard = zone::guard();
        zone::sweep();
        zone::change(&path, zone::DESTROYING, 0).map_err(|_| Errno(libc::ENOENT))?;
    }
    loop {
        {
            let _guard = zone::guard();
            zone::sweep();
            if !path.exists() {
                return Ok(0);
            }
        }
        pause(Duration::from_millis(5))?;
    }
}

/// Sleeps, or ends with `EINTR` when a signal comes.
fn pause(time: Duration) -> Answer<()> {
    let time = libc::timespec { tv_sec: 0, tv_nsec: i64::from(time.subsec_nanos()) };
    // SAFETY: the kernel only reads the structure, which outlives the call.
    if unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) } == 0 {
        Ok(())
    } else {
        Err(Errno(libc::EINTR))
    }
}
