// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use vm_memory::MmapRegion;

use super::super::pci::mock::Board;
use super::*;

const PLACE: (u8, u8) = (30, 0);
const SIZE: usize = 16 << 20;

type Seen = Arc<Mutex<Vec<Option<u64>>>>;

fn screen(face: Face) -> (Board, Arc<Framebuffer>, [Option<u64>; 6], Seen) {
    let region = Arc::new(MmapRegion::new(SIZE).unwrap());
    let screen = Framebuffer::new(face, DeviceMemory { slot: 3, region }).unwrap();
    let mut board = Board::new();
    let seen = Seen::default();
    let places = Arc::clone(&seen);
    let place: Place = Arc::new(move |address| places.lock().unwrap().push(address));
    board.plug(PLACE.0, screen.function(place, &board.spaces));
    let bars = board.assign(PLACE);
    (board, screen, bars, seen)
}

fn draw(screen: &Framebuffer, at: usize, pixel: u32) {
    let memory = screen.memory.region.get_slice(at, 4).unwrap();
    memory.copy_from(&[pixel]);
}

#[test]
fn bhyves_firmware_sets_a_mode() {
    let (board, screen, bars, seen) = screen(Face::Bhyve);
    assert_eq!((board.config32(PLACE, 0), board.config32(PLACE, 8) >> 8), (0x40fb_fb5d, 0x03_0000));
    let (registers, memory) = (bars[0].unwrap(), bars[1].unwrap());
    assert_eq!(*seen.lock().unwrap(), [Some(memory)]);
    assert_eq!(board.read(registers), (SIZE as u32).to_le_bytes());
    assert_eq!(board.read::<8>(registers + 4), [0, 4, 0, 3, 32, 0, 0, 0]);
    assert_eq!(screen.mode(), (1024, 768, 4096));
    for (register, value) in [(4, 800u16), (6, 600), (8, 32)] {
        board.mmio.write(registers + register, &value.to_le_bytes());
    }
    board.mmio.write(registers, &[0; 4]);
    assert_eq!(board.read(registers), (SIZE as u32).to_le_bytes());
    assert_eq!(board.read::<1>(registers + 127), [0]);
    assert_eq!(screen.mode(), (800, 600, 3200));
    draw(&screen, 3200 * 599 + 4 * 799, 0x00ff_8040);
    let mut picture = Vec::new();
    assert_eq!(screen.copy(&mut picture), (800, 600));
    assert_eq!((picture.len(), picture[800 * 600 - 1]), (480_000, 0x00ff_8040));
    // Back to VGA: there is none. Too large: the last mode stays.
    board.mmio.write(registers + 4, &[0; 4]);
    board.mmio.write(registers + 4, &[0xff; 4]);
    let (width, height, stride) = screen.mode();
    assert!(height as usize * stride as usize <= SIZE && width > 0);
    board.pci().reset();
    assert_eq!(screen.mode(), (1024, 768, 4096));
    assert_eq!(*seen.lock().unwrap(), [Some(memory), None]);
}

#[test]
fn linux_sets_a_mode_of_bochs_display() {
    let (board, screen, bars, seen) = screen(Face::Bochs);
    assert_eq!((board.config32(PLACE, 0), board.config32(PLACE, 8) >> 8), (0x1111_1234, 0x03_8000));
    assert_eq!(board.config32(PLACE, 0x10) & 0xf, 8);
    let (memory, registers) = (bars[0].unwrap(), bars[2].unwrap());
    assert_eq!((bars[1], &*seen.lock().unwrap()), (None, &vec![Some(memory)]));
    let word = |index: u64| u16::from_le_bytes(board.read(registers + 0x500 + 2 * index));
    let set = |index: u64, value: u16| {
        board.mmio.write(registers + 0x500 + 2 * index, &value.to_le_bytes());
    };
    assert_eq!((word(0), word(10)), (0xb0c5, 256));
    assert_eq!(board.read::<8>(registers), [0; 8], "no EDID");
    for (index, value) in [(4, 0), (3, 32), (1, 1280), (2, 800), (5, 0), (6, 1280), (7, 800)] {
        set(index, value);
        assert_eq!(screen.mode(), (1024, 768, 4096));
    }
    set(4, 0x41);
    assert_eq!((screen.mode(), word(4)), ((1280, 800, 5120), 0x41));
    // Panned into a larger picture.
    set(6, 2048);
    set(8, 3);
    set(9, 10);
    assert_eq!(screen.mode(), (1280, 800, 8192));
    draw(&screen, 10 * 8192 + 12, 0x0012_3456);
    let mut picture = Vec::new();
    screen.copy(&mut picture);
    assert_eq!(picture[0], 0x0012_3456);
    set(9, 0xffff);
    set(0, 0);
    set(10, 0xffff);
    assert_eq!((screen.mode(), word(0), word(10)), ((1280, 800, 8192), 0xb0c5, 256));
    set(9, 0);
    set(3, 16);
    set(1, 640);
    assert_eq!(screen.mode(), (1280, 800, 8192));
}

#[test]
fn memory_that_no_bar_can_have_is_refused() {
    for size in [4096, 3 << 22] {
        let region = Arc::new(MmapRegion::new(size).unwrap());
        assert!(Framebuffer::new(Face::Bhyve, DeviceMemory { slot: 0, region }).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn every_mode_lies_in_memory(
        is_bhyve in any::<bool>(),
        writes in prop::collection::vec((0u64..0x20, 0usize..4, any::<u64>()), 1..60),
    ) {
        let face = if is_bhyve { Face::Bhyve } else { Face::Bochs };
        let (board, screen, bars, _) = screen(face);
        let base = if is_bhyve { bars[0] } else { bars[2].map(|bar| bar + 0x500) }.unwrap();
        board.mmio.write(base + 6, &32u16.to_le_bytes());
        for (offset, size, value) in writes {
            // Small numbers make modes, too.
            let value = if value & 1 == 0 { value } else { value & 0x0fff_0fff_0fff_0fff };
            board.mmio.write(base + offset, &value.to_le_bytes()[..1 << size]);
            board.mmio.read(base + offset, &mut [0; 8][..1 << size]);
            let (width, height, stride) = screen.mode();
            prop_assert!(u64::from(stride) * u64::from(height - 1) + u64::from(4 * width) <= SIZE as u64);
        }
        let (width, height, _) = screen.mode();
        let mut picture = Vec::new();
        prop_assert_eq!(screen.copy(&mut picture), (width, height));
    }
}
