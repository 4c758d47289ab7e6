// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A guest that means harm: several vCPUs write garbage to every port, BAR and ring at once.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap, MmapRegion};

use super::*;
use crate::vm::dev::virtio::{FrameHeader, RawFile, Wake};
use crate::vm::hv::{Bytes, KernelDevices, Vcpu, VcpuExit};
use crate::vm::memory::{DeviceMemory, Memory};
use crate::vm::vcpu::End;

const RAM: u64 = 64 << 20;
const CPUS: u32 = 4;
/// Accesses of each vCPU.
const ACCESSES: u32 = 30_000;
/// Where most rings are.
const RINGS: u64 = 0x2_0000;
/// Machines, one after the other.
const BOARDS: u64 = 60;
/// Where the test puts BARs.
const BARS: u64 = 0xc000_0000;
const SCREEN: u64 = 0xd000_0000;
const SLOTS: [u8; 5] = [CD_SLOT, DISK_SLOT, RNG_SLOT, NET_SLOT, SCREEN_SLOT];
/// Places where something is, beside BARs.
const PLACES: [(u64, u64); 4] =
    [(0xfec0_0000, 0x1000), (0xfed0_0000, 0x1000), (0xfee0_0000, 0x1000), (0xffb0_0000, 0x10_0000)];
const PORTS: [(u16, u16); 12] = [
    (0x20, 2),
    (0x40, 4),
    (0x60, 8),
    (0x70, 2),
    (0x80, 1),
    (0x92, 1),
    (0x2f8, 8),
    (0x3f8, 8),
    (0x400, 0x80),
    (0x510, 12),
    (0xcf8, 8),
    (0xb000, 16),
];

/// A hypervisor with memory, but without a processor: vCPUs do what the test wants.
struct Hostile {
    memory: Memory,
    seed: u64,
    interrupts: AtomicUsize,
}

impl Hostile {
    fn device(bytes: u64) -> DeviceMemory {
        DeviceMemory { slot: 0, region: Arc::new(MmapRegion::new(bytes as usize).unwrap()) }
    }
}

impl Vm for Hostile {
    fn memory(&self) -> Memory {
        Arc::clone(&self.memory)
    }

    fn kernel_devices(&self) -> KernelDevices {
        KernelDevices { rtc: false, hpet: false, pm_timer: false }
    }

    fn set_rom(&self, _: &[u8]) -> Outcome<()> {
        Ok(())
    }

    fn device_memory(&self, _: &str, bytes: u64) -> Outcome<DeviceMemory> {
        Ok(Self::device(bytes))
    }

    fn read_memory(&self, _: &str, bytes: u64) -> Outcome<Option<DeviceMemory>> {
        Ok(Some(Self::device(bytes)))
    }

    fn place(&self, _: &DeviceMemory, _: Option<u64>) -> Outcome<()> {
        Ok(())
    }

    fn vcpu(&self, number: u32) -> Outcome<Box<dyn Vcpu>> {
        Ok(Box::new(HostileVcpu {
            random: StdRng::seed_from_u64(self.seed + u64::from(number)),
            memory: Arc::clone(&self.memory),
            plan: VecDeque::new(),
            left: ACCESSES,
            is_first: number == 0,
            slot: SLOTS[number as usize],
        }))
    }

    fn set_irq(&self, _: u32, _: bool) {
        self.interrupts.fetch_add(1, Ordering::Relaxed);
    }

    fn send_msi(&self, _: u64, _: u32) {
        self.interrupts.fetch_add(1, Ordering::Relaxed);
    }

    fn write_cmos(&self, _: u8, _: u8) {}

    fn kick(&self, _: u32) {}
}

struct HostileVcpu {
    random: StdRng,
    memory: Memory,
    plan: VecDeque<VcpuExit>,
    left: u32,
    /// Keeps the BARs where garbage can reach them, and asks for the end.
    is_first: bool,
    /// Whose driver this vCPU is.
    slot: u8,
}

impl Vcpu for HostileVcpu {
    fn run(&mut self) -> Outcome<VcpuExit> {
        if self.left == 0 {
            let end = VcpuExit::Asked(Request::PowerOff);
            return Ok(if self.is_first { end } else { VcpuExit::Again });
        }
        self.left -= 1;
        if self.plan.is_empty() {
            self.think();
        }
        Ok(self.plan.pop_front().unwrap_or(VcpuExit::Again))
    }

    fn answer(&mut self, _: &[u8]) {}

    fn registers(&self) -> String {
        "none".into()
    }
}

impl HostileVcpu {
    /// What comes next.
    fn think(&mut self) {
        match self.random.random_range(0..10) {
            0 if self.is_first => self.enable_bars(),
            0..4 => self.drive(),
            4..6 => self.scribble(),
            6..8 => self.any_port(),
            _ => self.any_address(),
        }
    }

    fn out(&mut self, port: u16, data: &[u8]) {
        self.plan.push_back(VcpuExit::PortWrite { port, data: Bytes::new(data) });
    }

    fn write(&mut self, address: u64, data: &[u8]) {
        self.plan.push_back(VcpuExit::MmioWrite { address, data: Bytes::new(data) });
    }

    fn configure(&mut self, slot: u8, register: u32, value: u32) {
        let address = 0x8000_0000 | u32::from(slot) << 11 | register;
        self.out(0xcf8, &address.to_le_bytes());
        self.out(0xcfc, &value.to_le_bytes());
    }

    fn enable_bars(&mut self) {
        for slot in SLOTS {
            let base = BARS + (u64::from(slot) << 20);
            let first = if slot == SCREEN_SLOT { SCREEN } else { base };
            self.configure(slot, 0x10, first as u32);
            self.configure(slot, 0x14, (base + 0x8_0000) as u32);
            self.configure(slot, 0x18, (base + 0x9_0000) as u32);
            self.configure(slot, 4, 0x407);
            self.configure(slot, 0x84, 0x8000_0000);
        }
    }

    /// Brings a virtio function up as a driver does, with rings anywhere.
    fn drive(&mut self) {
        let bar = BARS + (u64::from(self.slot) << 20);
        let features = [1u64 << 32, 0x1_1000_0000, 0x1_2000_0000, 0x1_3000_6640, u64::MAX];
        let features = features[self.random.random_range(0..features.len())];
        for status in [0u8, 1, 3] {
            self.write(bar + 0x14, &[status]);
        }
        for half in 0..2u32 {
            self.write(bar + 8, &half.to_le_bytes());
            self.write(bar + 12, &((features >> (32 * half)) as u32).to_le_bytes());
        }
        self.write(bar + 0x14, &[0xb]);
        for vector in 0..4u64 {
            let entry = bar + 0x8_0000 + 16 * vector;
            self.write(entry, &0xfee0_0000u64.to_le_bytes());
            self.write(entry + 8, &vector.to_le_bytes());
        }
        for queue in 0..3u16 {
            let size = 1u16 << self.random.random_range(0..9);
            let vector = self.random.random_range(0..5u16);
            self.write(bar + 0x16, &queue.to_le_bytes());
            self.write(bar + 0x18, &size.to_le_bytes());
            self.write(bar + 0x1a, &vector.to_le_bytes());
            for (register, place) in [0x20, 0x28, 0x30].into_iter().zip(self.ring(size)) {
                self.write(bar + register, &place.to_le_bytes());
            }
            self.write(bar + 0x1c, &[1, 0]);
        }
        self.write(bar + 0x14, &[0xf]);
        for queue in 0..3u64 {
            self.write(bar + 0x3000 + 4 * queue, &[queue as u8, 0]);
        }
    }

    /// Places for a ring's three parts, which mostly hold what a driver might have put there.
    fn ring(&mut self, size: u16) -> [u64; 3] {
        let places = std::array::from_fn(|_| match self.random.random_range(0..32) {
            0 => self.random.random_range(0..RAM + 0x1000) & !0xf,
            _ => self.random.random_range(0..RINGS) & !0xf,
        });
        let [table, available, _] = places;
        let most = u64::from(size) + 4;
        if available < RINGS && table < RINGS && self.random.random_bool(0.9) {
            self.fill(table, usize::from(size) * 16);
            let mut words = vec![0, self.random.random_range(0..=size)];
            words.extend((0..size).map(|_| self.random.random_range(0..most) as u16));
            let bytes: Vec<u8> = words.into_iter().flat_map(u16::to_le_bytes).collect();
            self.memory.write_slice(&bytes, GuestAddress(available)).unwrap();
        }
        places
    }

    /// Fills memory with what may pass for rings: small numbers, and addresses.
    fn scribble(&mut self) {
        let at = self.random.random_range(0..RINGS) & !0xf;
        self.fill(at, 0x1000);
        self.plan.push_back(VcpuExit::Again);
    }

    fn fill(&mut self, at: u64, length: usize) {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let address = match self.random.random_range(0..8) {
                0 => self.random.random(),
                _ => self.random.random_range(0..RAM),
            };
            let length = match self.random.random_range(0..16) {
                0 => 1u32 << self.random.random_range(0..32),
                _ => [1, 16, 512, 4096][self.random.random_range(0..4)],
            };
            let flags = self.random.random_range(0..8u16);
            let next = self.random.random_range(0..16u16);
            bytes.extend(address.to_le_bytes());
            bytes.extend(length.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
            bytes.extend(next.to_le_bytes());
        }
        self.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
    }

    fn any_port(&mut self) {
        let port = match self.random.random_range(0..4) {
            0 => self.random.random(),
            _ => {
                let (first, count) = PORTS[self.random.random_range(0..PORTS.len())];
                first + self.random.random_range(0..count)
            }
        };
        let size = 1u8 << self.random.random_range(0..3);
        // Not so often that nothing is where it was for long.
        let moves = (0xcf8..0xd00).contains(&port) && self.random.random_bool(0.98);
        if moves || self.random.random_bool(0.5) {
            self.plan.push_back(VcpuExit::PortRead { port, size });
        } else {
            let value: u32 = self.random.random();
            self.out(port, value.to_le_bytes().get(..usize::from(size)).unwrap());
        }
    }

    fn any_address(&mut self) {
        let address = match self.random.random_range(0..8) {
            0 => self.random.random(),
            1..3 => {
                let (first, bytes) = PLACES[self.random.random_range(0..PLACES.len())];
                first + self.random.random_range(0..bytes)
            }
            _ => {
                let slot = u64::from(SLOTS[self.random.random_range(0..SLOTS.len())]);
                let places = [0, 0x1000, 0x2000, 0x3000, 0x8_0000, 0x9_0000];
                let place = places[self.random.random_range(0..places.len())];
                BARS + (slot << 20) + place + self.random.random_range(0..0x1000u64)
            }
        };
        let size = self.random.random_range(1..=8u8);
        if self.random.random_bool(0.4) {
            self.plan.push_back(VcpuExit::MmioRead { address, size });
        } else {
            let value: u64 = self.random.random();
            self.write(address, value.to_le_bytes().get(..usize::from(size)).unwrap());
        }
    }
}

/// A network that returns what it is sent.
#[derive(Default)]
struct Echo(Mutex<VecDeque<Vec<u8>>>);

impl Frames for Echo {
    fn send(&self, _: &FrameHeader, frame: &[u8]) {
        let mut frames = lock(&self.0);
        if frames.len() < 16 {
            frames.push_back(frame.to_vec());
        }
    }

    fn recv(&self, _: &mut FrameHeader, frame: &mut [u8]) -> Option<usize> {
        let next = lock(&self.0).pop_front()?;
        frame.get_mut(..next.len())?.copy_from_slice(&next);
        Some(next.len())
    }

    fn set_wake(&self, _: Wake) {}
}

fn backends(dir: &std::path::Path) -> Backends {
    let file = |name: &str, is_read_only| {
        let path = dir.join(name);
        std::fs::write(&path, vec![0x5a; 4 << 20]).unwrap();
        Arc::new(RawFile::open(&path, is_read_only).unwrap())
    };
    Backends {
        disk: file("disk", false),
        cd: Some(ScsiCd::new(file("cd", true))),
        network: Some(([2, 0, 0, 0, 0, 1], Wire::Cable(Arc::new(Echo::default())))),
        serial: Arc::new(|| Box::new(std::io::sink())),
        variables: Arc::new(Mutex::new(vec![0xff; 0x1_0000])),
    }
}

fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

#[test]
fn garbage_everywhere_harms_nobody() {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        usual(panic);
    }));
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let dir = tempfile::tempdir().unwrap();
    let backends = backends(dir.path());
    let (mut done, mut touched) = (0, 0);
    // A reset or power-off that the garbage hits ends a board's run, as it should.
    for round in 0..BOARDS {
        let profile = if round % 2 == 0 { Profile::Ovmf } else { Profile::Bhyve };
        let rom = Rom {
            path: "test".into(),
            profile,
            code: vec![0xf4; 0x40_0000],
            variables: vec![0xff; 0x1_0000],
        };
        let uuid = Uuid::nil();
        let plan = Plan { cpus: CPUS, memory_bytes: RAM, rom, uuid, smartos: true };
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap();
        let interrupts = AtomicUsize::new(0);
        let seed = seed.wrapping_add(round * 1000);
        let hostile = Arc::new(Hostile { memory: Arc::new(memory), seed, interrupts });
        let vm: Arc<dyn Vm> = Arc::clone(&hostile) as _;
        let mut board = Board::new(&plan, &backends, &vm).unwrap();
        let begin = Instant::now();
        board.start().unwrap();
        let end = board.run().wait(Duration::from_secs(120)).expect("the guest hangs its monitor");
        assert!(matches!(end, End::Asked(_)), "{end:?}");
        board.press_power_button();
        board.key(0x61, true);
        board.screen().copy(&mut Vec::new());
        let exits = board.run().exits();
        let moved = board.disk().stats();
        touched += moved.read_bytes + moved.written_bytes;
        drop(board);
        let interrupts = hostile.interrupts.load(Ordering::Relaxed);
        let time = begin.elapsed();
        println!("{exits} exits, {interrupts} interrupts, {touched} bytes of the disk, {time:?}");
        done += exits;
    }
    assert!(done > BOARDS * 100 && touched > 0, "{done} exits only, {touched} bytes of the disk");
    assert_eq!(PANICS.load(Ordering::SeqCst), 0, "a thread panicked; seed {seed}");
    assert_eq!(backends.disk.size(), 4 << 20, "the disk keeps its size");
    assert!(peak_memory() < 600_000, "{} kB of memory", peak_memory());
}
