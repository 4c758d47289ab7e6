// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What the kernel counts of a vCPU. Names and numbers come by index: there are no fixed ones.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;

use super::super::abi;
use super::Instance;
use crate::vm::hv::abi::Plain as _;
use crate::vm::hv::node::calls;

calls! {
    STATISTICS: abi::vm_stats = abi::VM_STATS_IOC;
    NAME: abi::vm_stat_desc = abi::VM_STAT_DESC;
}

/// More than any kernel counts.
const MOST: usize = 1024;

impl Instance {
    /// The counters of a vCPU that are not zero, with the kernel's names for them.
    pub(in crate::vm::hv) fn statistics(&self, vcpu: c_int) -> io::Result<Vec<(String, u64)>> {
        collect(
            |index| {
                let mut part = abi::vm_stats::zeroed();
                (part.cpuid, part.index) = (vcpu, index);
                self.node.exchange(&STATISTICS, &mut part)?;
                Ok((part.num_entries, part.statbuf))
            },
            |index| {
                let mut name = abi::vm_stat_desc::zeroed();
                name.index = index;
                self.node.exchange(&NAME, &mut name)?;
                Ok(name.desc)
            },
        )
    }
}

type Part = (c_int, [u64; 64]);

/// Asks for one part after the other until one is not full, or there is none.
fn collect(
    part: impl Fn(c_int) -> io::Result<Part>,
    name: impl Fn(c_int) -> io::Result<[u8; abi::NAME_BYTES]>,
) -> io::Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    let mut index = 0;
    while index < MOST {
        let (count, values) = match part(index as c_int) {
            Ok(part) => part,
            // The last part was full, and nothing follows.
            Err(_) if index > 0 => break,
            Err(error) => return Err(error),
        };
        let count = usize::try_from(count).unwrap_or_default();
        for (at, value) in (index..).zip(values.into_iter().take(count)) {
            if value != 0 {
                found.push((text(&name(at as c_int)?), value));
            }
        }
        if count < values.len() {
            break;
        }
        index += values.len();
    }
    Ok(found)
}

fn text(bytes: &[u8]) -> String {
    let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn name(index: c_int) -> io::Result<[u8; abi::NAME_BYTES]> {
        let mut bytes = [0; abi::NAME_BYTES];
        for (to, from) in bytes.iter_mut().zip(format!("counter {index}").bytes()) {
            *to = from;
        }
        Ok(bytes)
    }

    fn kernel(counters: usize) -> impl Fn(c_int) -> io::Result<Part> {
        move |index| {
            let index = usize::try_from(index).unwrap();
            if index >= counters {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            let mut values = [0; 64];
            let count = (counters - index).min(64);
            for (at, value) in values.iter_mut().enumerate().take(count) {
                *value = if (index + at).is_multiple_of(2) { 0 } else { (index + at) as u64 };
            }
            Ok((count as c_int, values))
        }
    }

    #[test]
    fn all_parts_are_asked_for_and_zeros_left_out() {
        for counters in [1, 63, 64, 65, 128, 130] {
            let found = collect(kernel(counters), name).unwrap();
            assert_eq!(found.len(), counters / 2, "{counters}");
            for (name, value) in found {
                assert_eq!(name, format!("counter {value}"));
            }
        }
    }

    #[test]
    fn odd_answers_have_an_end() {
        assert!(collect(|_| Err(io::ErrorKind::NotFound.into()), name).is_err());
        assert!(collect(|_| Ok((-1, [1; 64])), name).unwrap().is_empty());
        assert_eq!(collect(|_| Ok((9999, [1; 64])), name).unwrap().len(), MOST);
    }
}
