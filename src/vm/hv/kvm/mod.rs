// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Linux KVM.
//!
//! Today only the question whether this host's `/dev/kvm` can run a stock kernel. The one place
//! that asks for the platform is below; everything else takes [`Verdict`] as it comes.

use std::fmt;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod probe;

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
#[path = "no_probe.rs"]
mod probe;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod cpuid;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod kick;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod machine;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod vcpu;

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
#[path = "no_machine.rs"]
mod machine;

pub use machine::create;
pub use probe::probe;

/// What `/dev/kvm` is good for on this host.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It runs guest code in hardware.
    Usable {
        /// Microseconds that the guest took for a million rounds of a two-instruction loop.
        micros_per_million_rounds: f64,
    },
    /// The device node answers, but a stock kernel would not run on it.
    Unusable {
        /// The first step that failed: `create`, `port write`, `fwait`, `x87`, `sse`, `popcnt`,
        /// `spin`, or `run` when it did not answer in time.
        step: &'static str,
        /// What happened, as KVM said it.
        reason: String,
    },
    /// There is no device, or this process may not open it.
    Absent {
        /// Why.
        reason: String,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usable { micros_per_million_rounds: micros } => {
                write!(f, "/dev/kvm runs guests in hardware ({micros:.0} us per million rounds)")
            }
            Self::Unusable { step, reason } => {
                write!(f, "/dev/kvm cannot run a stock kernel: step `{step}`: {reason}")
            }
            Self::Absent { reason } => f.write_str(reason),
        }
    }
}
