// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The raw layer: numbers and structures under illumos' own names, from `sys/vmm.h`,
//! `sys/vmm_dev.h` and `sys/vmm_data.h` of illumos. In interface versions 1 to 18 no number has
//! changed its meaning, and no structure its size but three, which have grown at their ends.

mod numbers;
mod structures;

pub(crate) use numbers::*;
pub(crate) use structures::*;

use crate::vm::hv::abi::Layer;

/// All of it.
pub(in crate::vm::hv) const LAYER: Layer =
    Layer { structures: STRUCTURES, constants: CONSTANTS, enumerations: ENUMERATIONS };
