// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use proptest::prelude::*;

use super::super::clock::FakeClock;
use super::super::debug::DebugPort;
use super::super::mock::{Asked, Line, acts, inb, outb, read};
use super::*;

fn block() -> (PowerManagement, Arc<FakeClock>, Arc<Line>, Arc<Asked>) {
    let (clock, line, asked) = (FakeClock::at(0), Line::new(), Asked::new());
    let requests = Arc::clone(&asked) as Arc<dyn Requests>;
    let block = PowerManagement::new(Arc::clone(&clock) as _, Arc::clone(&line) as _, requests);
    (block, clock, line, asked)
}

#[test]
fn the_timer_runs_at_its_rate() {
    let (mut block, clock, ..) = block();
    assert_eq!(read(&mut block, TIMER), [0; 4]);
    clock.advance(Duration::from_secs(1));
    assert_eq!(u32::from_le_bytes(read(&mut block, TIMER)), HERTZ);
    clock.advance(Duration::from_secs(1199));
    assert_eq!(read::<4>(&mut block, TIMER), (1200 * u64::from(HERTZ)).to_le_bytes()[..4]);
    block.write(TIMER, &[0; 4]);
    assert_ne!(inb(&mut block, TIMER + 1), 0);
}

#[test]
fn the_button_raises_the_sci_until_it_is_served() {
    let (mut block, _, line, _) = block();
    assert_eq!(read(&mut block, CONTROL), [1, 0]);
    block.press_power_button();
    assert!(!line.is_high());
    block.write(ENABLE, &[0xff, 0xff]);
    assert_eq!(read(&mut block, ENABLE), [0x21, 0x85]);
    assert!(line.is_high());
    block.write(STATUS, &[0xff, 0xfe]);
    assert!(line.is_high());
    // By bytes as well.
    assert_eq!(inb(&mut block, STATUS + 1), 1);
    outb(&mut block, STATUS + 1, 1);
    assert_eq!((line.is_high(), read(&mut block, STATUS)), (false, [0, 0]));
    // Status and enable in one.
    block.press_power_button();
    assert_eq!(read(&mut block, STATUS), [0, 1, 0x21, 0x85]);
    assert!(line.is_high());
    block.write(STATUS, &[0, 0, 0, 0]);
    assert!(!line.is_high());
}

#[test]
fn sleep_is_power_off() {
    let (mut block, _, _, asked) = block();
    block.write(CONTROL, &[0x02, 0x14]);
    assert_eq!((asked.take(), read(&mut block, CONTROL)), (vec![], [0x03, 0x14]));
    block.write(CONTROL, &[0x00, 0x34]);
    assert_eq!((asked.take(), read(&mut block, CONTROL)), (vec![Request::PowerOff], [0x01, 0x14]));
    outb(&mut block, CONTROL + 1, 0x20);
    assert_eq!(asked.take(), [Request::PowerOff]);
    let mut alias = PowerOffPort::new(Arc::clone(&asked) as _);
    alias.write(0, &[0xff, 0x1f]);
    assert_eq!((asked.take(), read(&mut alias, 0)), (vec![], [1, 0]));
    alias.write(0, &[0x00, 0x20]);
    outb(&mut alias, 1, 0x3c);
    assert_eq!(asked.take(), [Request::PowerOff, Request::PowerOff]);
}

#[test]
fn the_timers_highest_bit_interrupts() {
    let (mut block, clock, line, _) = block();
    assert_eq!(block.next_deadline(), None);
    block.write(ENABLE, &[1, 0]);
    for half in 1..4_u64 {
        let deadline = block.next_deadline().unwrap();
        clock.advance(deadline - clock.now());
        block.tick();
        assert!(line.is_high());
        assert_eq!(block.next_deadline(), None);
        assert_eq!(ticks(clock.now(), HERTZ), half << 31);
        block.write(STATUS, &[1, 0]);
        assert!(!line.is_high());
    }
}

#[test]
fn one_byte_at_the_enable_register_is_for_the_debug_port() {
    let (block, ..) = block();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lines);
    let port = DebugPort::new(Box::new(move |line| seen.lock().unwrap().push(line.to_owned())));
    let mut block = block.with_debug_port(Arc::new(Mutex::new(port)));
    assert_eq!(inb(&mut block, ENABLE), 0xe9);
    for byte in *b"hi\n" {
        outb(&mut block, ENABLE, byte);
    }
    assert_eq!(*lines.lock().unwrap(), ["hi"]);
    assert_eq!(read(&mut block, ENABLE), [0, 0]);
    block.write(ENABLE, &[0, 1]);
    assert_eq!(read(&mut block, ENABLE), [0, 1]);
}

proptest! {
    #[test]
    fn nothing_breaks_it(acts in acts(PORTS)) {
        let (mut block, clock, line, _) = block();
        for act in acts {
            act.apply(&mut block, &clock);
            block.tick();
            prop_assert_eq!(line.is_high(), block.status & block.enable != 0);
            prop_assert!(block.next_deadline().is_none_or(|next| next > clock.now()));
        }
    }
}
