// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Faults on demand: `VMM_MODEL_FAULTS` is a list, separated by commas, of `CALL[@N]=WHAT`.
//!
//! `CALL` is the name of an ioctl, `open` or `mmap`; `N` counts its calls in this process from 1, and
//! without it every one is meant. `WHAT` is the name of an error, or `delay:MILLISECONDS`.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use crate::config::config;
use crate::{Answer, Errno, lock, log};

#[derive(Debug, Clone, PartialEq)]
enum What {
    Fail(Errno),
    Delay(Duration),
}

struct Fault {
    call: String,
    number: Option<u32>,
    what: What,
}

/// Does to this call what the faults ask for.
///
/// # Errors
/// The fault's.
pub(crate) fn strike(call: &str) -> Answer<()> {
    static FAULTS: OnceLock<Vec<Fault>> = OnceLock::new();
    static COUNTS: OnceLock<Mutex<HashMap<String, u32>>> = OnceLock::new();
    let faults = FAULTS.get_or_init(|| config().faults.split(',').filter_map(parse).collect());
    if faults.is_empty() {
        return Ok(());
    }
    let number = {
        let mut counts = lock(COUNTS.get_or_init(Mutex::default));
        let count = counts.entry(call.to_string()).or_default();
        *count += 1;
        *count
    };
    for fault in faults.iter().filter(|fault| fault.call == call) {
        if fault.number.is_some_and(|wanted| wanted != number) {
            continue;
        }
        match fault.what {
            What::Fail(error) => return Err(error),
            What::Delay(time) => {
                log::line(&format!("{call} waits"));
                std::thread::sleep(time);
            }
        }
    }
    Ok(())
}

fn parse(text: &str) -> Option<Fault> {
    let (call, what) = text.trim().split_once('=')?;
    let (call, number) = match call.split_once('@') {
        Some((call, number)) => (call, Some(number.parse().ok()?)),
        None => (call, None),
    };
    let what = match what.strip_prefix("delay:") {
        Some(millis) => What::Delay(Duration::from_millis(millis.parse().ok()?)),
        None => What::Fail(error(what)?),
    };
    Some(Fault { call: call.to_string(), number, what })
}

fn error(name: &str) -> Option<Errno> {
    let number = match name {
        "EPERM" => libc::EPERM,
        "ENOENT" => libc::ENOENT,
        "EINTR" => libc::EINTR,
        "EIO" => libc::EIO,
        "ENXIO" => libc::ENXIO,
        "E2BIG" => libc::E2BIG,
        "EAGAIN" => libc::EAGAIN,
        "ENOMEM" => libc::ENOMEM,
        "EFAULT" => libc::EFAULT,
        "EBUSY" => libc::EBUSY,
        "EALREADY" => libc::EALREADY,
        "ENODEV" => libc::ENODEV,
        "ERANGE" => libc::ERANGE,
        "EEXIST" => libc::EEXIST,
        "EINVAL" => libc::EINVAL,
        "ENOTTY" => libc::ENOTTY,
        "ENOSPC" => libc::ENOSPC,
        "ENOTSUP" => libc::ENOTSUP,
        _ => return None,
    };
    Some(Errno(number))
}
