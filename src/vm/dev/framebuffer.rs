// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The picture: one linear frame buffer with two faces.
//!
//! Firmware sets the mode by registers and draws into memory; the guest's kernel goes on drawing
//! there. Pixels have 32 bits, blue in the lowest byte.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vm_memory::VolatileMemory;

use super::lanes;
use super::pci::{Bar, Function, Identity, Place, Spaces};
use crate::ui::{Failure, Outcome};
use crate::vm::bus::BusDevice;
use crate::vm::memory::DeviceMemory;

/// Before the guest sets a mode.
const DEFAULT: Mode = Mode { width: 1024, height: 768, stride: 1024 * 4, start: 0 };
const PIXEL: u32 = 4;

/// For whose driver the registers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// bhyve's frame buffer, FB5D:40FB: the driver of the bhyve firmware.
    Bhyve,
    /// bochs-display, 1234:1111: drivers of OVMF and Linux.
    Bochs,
}

/// A frame buffer.
pub struct Framebuffer {
    face: Face,
    memory: DeviceMemory,
    state: Mutex<State>,
}

struct State {
    /// bhyve: size, width, height, depth, refresh rate. Bochs: eleven words.
    registers: [u8; 32],
    /// The last mode that makes sense.
    mode: Mode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mode {
    width: u32,
    height: u32,
    /// Bytes from one line to the next.
    stride: u32,
    /// Bytes before the first pixel.
    start: u32,
}

impl Framebuffer {
    /// A frame buffer in memory that the hypervisor can place.
    ///
    /// # Errors
    /// When the memory's size is no power of two that a BAR can have, or too small for the first
    /// mode.
    pub fn new(face: Face, memory: DeviceMemory) -> Outcome<Arc<Self>> {
        let size = memory.region.size();
        if !size.is_power_of_two() || !(1 << 22..=1 << 28).contains(&size) {
            return Err(Failure::build("a frame buffer cannot have this size").fact("bytes", size));
        }
        let state = Mutex::new(State::new(face, size as u32));
        Ok(Arc::new(Self { face, memory, state }))
    }

    /// The PCI function. `place` shows the memory at an address, or hides it.
    pub fn function(self: &Arc<Self>, place: Place, spaces: &Arc<Spaces>) -> Function {
        let (vendor, device, class) = match self.face {
            Face::Bhyve => (0xfb5d, 0x40fb, 0x03_0000),
            Face::Bochs => (0x1234, 0x1111, 0x03_8000),
        };
        let identity = Identity { vendor, device, class, revision: 0, subsystem: (vendor, device) };
        let memory = Bar::memory(self.size(), place);
        let registers = Arc::new(Mutex::new(Registers(Arc::clone(self))));
        let function = Function::new(&identity, spaces);
        let function = match self.face {
            Face::Bhyve => function.bar(0, Bar::registers(128, registers)).bar(1, memory),
            Face::Bochs => function.bar(0, memory).bar(2, Bar::registers(4096, registers)),
        };
        let screen = Arc::clone(self);
        function.on_reset(move || *screen.state() = State::new(screen.face, screen.size()))
    }

    /// Width and height in pixels, and bytes from one line to the next. All of it lies in the
    /// memory.
    pub fn mode(&self) -> (u32, u32, u32) {
        let Mode { width, height, stride, .. } = self.state().mode;
        (width, height, stride)
    }

    /// Copies the picture, line after line, and gives its width and height.
    pub fn copy(&self, into: &mut Vec<u32>) -> (u32, u32) {
        let Mode { width, height, stride, start } = self.state().mode;
        into.resize(width as usize * height as usize, 0);
        for (line, pixels) in into.chunks_exact_mut(width as usize).enumerate() {
            let at = start as usize + line * stride as usize;
            if let Ok(memory) = self.memory.region.get_slice(at, width as usize * PIXEL as usize) {
                memory.copy_to(pixels);
            }
        }
        (width, height)
    }

    fn size(&self) -> u32 {
        u32::try_from(self.memory.region.size()).unwrap_or(u32::MAX)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Words of bochs-display, by index.
const ID: usize = 0;
const WIDTH: usize = 1;
const HEIGHT: usize = 2;
const DEPTH: usize = 3;
const ENABLE: usize = 4;
const VIRTUAL_WIDTH: usize = 6;
const X_OFFSET: usize = 8;
const Y_OFFSET: usize = 9;
const MEMORY: usize = 10;
/// Where they are in the BAR.
const WORDS: u64 = 0x500;

impl State {
    fn new(face: Face, size: u32) -> Self {
        let mut state = Self { registers: [0; 32], mode: DEFAULT };
        match face {
            Face::Bhyve => {
                lanes::put(&mut state.registers, 0, size.to_le_bytes());
                state.set_word(2, DEFAULT.width as u16);
                state.set_word(3, DEFAULT.height as u16);
                state.set_word(4, 32);
            }
            Face::Bochs => {
                state.set_word(ID, 0xb0c5);
                state.set_word(MEMORY, (size >> 16) as u16);
            }
        }
        state
    }

    fn word(&self, index: usize) -> u32 {
        let mut word = [0; 2];
        lanes::read(&self.registers, 2 * index as u64, &mut word);
        u16::from_le_bytes(word).into()
    }

    fn set_word(&mut self, index: usize, value: u16) {
        lanes::put(&mut self.registers, 2 * index, value.to_le_bytes());
    }

    /// Takes over what the registers say, unless it is no picture of ours.
    fn update(&mut self, face: Face, size: u32) {
        let mode = match face {
            Face::Bhyve => {
                let (width, height) = (self.word(2), self.word(3));
                Mode { width, height, stride: width * PIXEL, start: 0 }
            }
            Face::Bochs if self.word(ENABLE) & 1 == 0 || self.word(DEPTH) != 32 => return,
            Face::Bochs => {
                let stride = self.word(VIRTUAL_WIDTH).max(self.word(WIDTH)) * PIXEL;
                let lines = self.word(Y_OFFSET).saturating_mul(stride);
                let start = lines.saturating_add(self.word(X_OFFSET) * PIXEL);
                Mode { width: self.word(WIDTH), height: self.word(HEIGHT), stride, start }
            }
        };
        let Mode { width, height, stride, start } = mode;
        let lines = u64::from(stride) * u64::from(height.saturating_sub(1));
        let end = u64::from(start) + lines + u64::from(width * PIXEL);
        if width > 0 && height > 0 && end <= u64::from(size) {
            self.mode = mode;
        }
    }
}

/// The BAR with the registers.
struct Registers(Arc<Framebuffer>);

impl BusDevice for Registers {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let state = self.0.state();
        let offset = match self.0.face {
            Face::Bhyve => Some(offset),
            Face::Bochs => offset.checked_sub(WORDS),
        };
        // The rest of bochs-display's page, such as its EDID, is zero: absent.
        match offset {
            Some(offset) => lanes::read(&state.registers, offset, data),
            None => data.fill(0),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut state = self.0.state();
        match self.0.face {
            Face::Bhyve => {
                // The size is the device's own.
                let mask = [0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255];
                lanes::write(&mut state.registers, &mask, offset, data);
            }
            Face::Bochs => {
                let Some(offset) = offset.checked_sub(WORDS) else { return };
                let mut mask = [0xff; 22];
                // Neither id nor memory.
                mask[..2].fill(0);
                mask[20..].fill(0);
                lanes::write(&mut state.registers, &mask, offset, data);
            }
        }
        state.update(self.0.face, self.0.size());
    }
}

#[cfg(test)]
#[path = "framebuffer_tests.rs"]
mod tests;
