// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;

use super::*;
use crate::vm::bus::BusDevice;
use crate::vm::hv::{Bytes, KernelDevices};
use crate::vm::memory::{DeviceMemory, Memory};

/// A kernel whose vCPU leaves the guest as a list says, and records the answers.
struct Script {
    exits: Mutex<VecDeque<VcpuExit>>,
    answers: Arc<Mutex<Vec<Vec<u8>>>>,
    kicks: AtomicU64,
}

struct ScriptVcpu(VecDeque<VcpuExit>, Arc<Mutex<Vec<Vec<u8>>>>);

impl Vcpu for ScriptVcpu {
    fn run(&mut self) -> Outcome<VcpuExit> {
        Ok(self.0.pop_front().unwrap_or(VcpuExit::Again))
    }

    fn answer(&mut self, data: &[u8]) {
        self.1.lock().unwrap().push(data.to_vec());
    }

    fn registers(&self) -> String {
        "rip 1234".into()
    }
}

impl Vm for Script {
    fn memory(&self) -> Memory {
        unreachable!("not needed")
    }

    fn kernel_devices(&self) -> KernelDevices {
        KernelDevices { rtc: false, hpet: false, pm_timer: false }
    }

    fn set_rom(&self, _: &[u8]) -> Outcome<()> {
        Ok(())
    }

    fn device_memory(&self, _: &str, _: u64) -> Outcome<DeviceMemory> {
        Err(Failure::build("none"))
    }

    fn read_memory(&self, _: &str, _: u64) -> Outcome<Option<DeviceMemory>> {
        Ok(None)
    }

    fn place(&self, _: &DeviceMemory, _: Option<u64>) -> Outcome<()> {
        Ok(())
    }

    fn vcpu(&self, _: u32) -> Outcome<Box<dyn Vcpu>> {
        let exits = std::mem::take(&mut *self.exits.lock().unwrap());
        Ok(Box::new(ScriptVcpu(exits, Arc::clone(&self.answers))))
    }

    fn set_irq(&self, _: u32, _: bool) {}

    fn send_msi(&self, _: u64, _: u32) {}

    fn write_cmos(&self, _: u8, _: u8) {}

    fn kick(&self, _: u32) {
        self.kicks.fetch_add(1, Ordering::Relaxed);
    }
}

struct Register(u8);

impl BusDevice for Register {
    fn read(&mut self, _: u64, data: &mut [u8]) {
        data.fill(self.0);
    }

    fn write(&mut self, _: u64, data: &[u8]) {
        self.0 = data[0];
    }
}

fn play(exits: Vec<VcpuExit>) -> (End, Vec<Vec<u8>>, Vec<String>) {
    let answers = Arc::new(Mutex::new(Vec::new()));
    let vm: Arc<dyn Vm> = Arc::new(Script {
        exits: Mutex::new(exits.into()),
        answers: Arc::clone(&answers),
        kicks: AtomicU64::new(0),
    });
    let buses = Arc::new(Buses::default());
    buses.ports.insert(0x60..0x61, Arc::new(Mutex::new(Register(7)))).unwrap();
    buses.mmio.insert(0xfed0_0000..0xfed0_0400, Arc::new(Mutex::new(Register(9)))).unwrap();
    let run = Run::new(buses);
    let threads = Threads::start(&run, &vm, 1).unwrap();
    let end = run.wait(Duration::from_secs(20)).unwrap();
    drop(threads);
    let answers = answers.lock().unwrap().clone();
    (end, answers, run.unclaimed())
}

#[test]
fn accesses_go_to_devices_and_answers_back() {
    let (end, answers, unclaimed) = play(vec![
        VcpuExit::PortRead { port: 0x60, size: 1 },
        VcpuExit::PortWrite { port: 0x60, data: Bytes::new(&[5]) },
        VcpuExit::PortRead { port: 0x60, size: 1 },
        VcpuExit::PortRead { port: 0xaf00, size: 4 },
        VcpuExit::MmioWrite { address: 0xfed0_0010, data: Bytes::new(&[3; 8]) },
        VcpuExit::MmioRead { address: 0xfed0_0010, size: 8 },
        VcpuExit::MmioRead { address: 0xdead_beef, size: 2 },
        VcpuExit::TripleFault,
    ]);
    assert_eq!(end, End::TripleFault("rip 1234".into()));
    assert_eq!(answers, [vec![7], vec![5], vec![0xff; 4], vec![3; 8], vec![0xff; 2]]);
    assert_eq!(unclaimed, ["read of 0xdeadb000, 2 bytes", "read of port 0xaf00, 4 bytes"]);
}

#[test]
fn the_first_end_counts_and_broken_kernels_say_why() {
    let (end, ..) = play(vec![VcpuExit::Asked(Request::Reset), VcpuExit::TripleFault]);
    assert_eq!(end, End::Asked(Request::Reset));
    let (end, ..) = play(vec![VcpuExit::Broken("suberror 1".into())]);
    assert_eq!(end, End::Broken("suberror 1\nrip 1234".into()));
}
