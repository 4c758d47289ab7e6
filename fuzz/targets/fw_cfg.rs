// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! fw_cfg: any sequence of port accesses, with any transfer blocks in memory. The first 256 bytes
//! of the input are the guest's memory; then come accesses, each a port with its size, and a value.
#![no_main]

use std::sync::Arc;

use imgforge::vm::bus::BusDevice;
use imgforge::vm::dev::fw_cfg::{FwCfg, PORTS};
use libfuzzer_sys::fuzz_target;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const MEMORY: usize = 1 << 16;
const IMAGE: usize = 256;

fuzz_target!(|bytes: &[u8]| {
    let Some((image, script)) = bytes.split_at_checked(IMAGE) else { return };
    let memory: GuestMemoryMmap =
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).expect("memory");
    memory.write_slice(image, GuestAddress(0)).expect("it fits");
    let mut device = FwCfg::new(Arc::new(memory), MEMORY as u64, 1, [7; 16])
        .add_file("etc/one", vec![1; 300])
        .add_file("etc/two", Vec::new());
    for step in script.chunks_exact(5).take(500) {
        let size = [1, 2, 4, 8][usize::from(step[0] >> 6)];
        let port = u64::from(step[0] & 0x1f) % PORTS;
        if port + size as u64 > PORTS {
            continue;
        }
        let mut data = [0; 8];
        data[..4].copy_from_slice(&step[1..]);
        match step[0] & 0x20 {
            0 => device.write(port, &data[..size]),
            _ => device.read(port, &mut data[..size]),
        }
    }
});
