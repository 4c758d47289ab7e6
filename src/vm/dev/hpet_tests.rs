// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::super::clock::FakeClock;
use super::super::mock::{Messages, acts, read};
use super::*;

const TIMER_0: u64 = FIRST_TIMER;
const COMPARATOR_0: u64 = FIRST_TIMER + 8;
/// Ticks of 10 ms.
const TEN_MS: u32 = 167_772;
const MESSAGE_0: (u64, u32) = (0xfee0_0000, 0x4031);

struct Desk {
    hpet: Hpet,
    clock: Arc<FakeClock>,
    messages: Arc<Messages>,
}

impl Desk {
    fn new() -> Self {
        let (clock, messages) = (FakeClock::at(0), Messages::new());
        let hpet = Hpet::new(Arc::clone(&clock) as _, Arc::clone(&messages) as _);
        Self { hpet, clock, messages }
    }

    fn get(&mut self, offset: u64) -> u64 {
        u64::from_le_bytes(read(&mut self.hpet, offset))
    }

    fn set(&mut self, offset: u64, value: u64) {
        self.hpet.write(offset, &value.to_le_bytes());
    }

    fn set_low(&mut self, offset: u64, value: u32) {
        self.hpet.write(offset, &value.to_le_bytes());
    }

    fn counter(&mut self) -> u32 {
        self.get(COUNTER) as u32
    }

    /// Waits for the deadline, which must exist, and returns how long that took.
    fn wait(&mut self) -> Duration {
        let waited = self.hpet.next_deadline().unwrap() - self.clock.now();
        self.clock.advance(waited);
        self.hpet.tick();
        waited
    }
}

#[test]
fn it_is_what_the_acpi_table_says() {
    let mut desk = Desk::new();
    assert_eq!(desk.get(CAPABILITIES), 0x038d_7ea4_8086_0201);
    assert_eq!(read(&mut desk.hpet, 4), 59_604_644_u32.to_le_bytes());
    for index in 0..4 {
        let config = desk.get(FIRST_TIMER + index * TIMER_BYTES);
        assert_eq!(config, if index < 3 { 0x8010 } else { 0 });
    }
    desk.set(CONFIGURATION, u64::MAX);
    assert_eq!(desk.get(CONFIGURATION), 1);
    desk.set(TIMER_0, u64::MAX);
    assert_eq!(desk.get(TIMER_0), 0xc05e);
    assert_eq!(desk.get(0x3f8), 0);
}

#[test]
fn the_counter_runs_stops_and_wraps() {
    let mut desk = Desk::new();
    desk.clock.advance(Duration::from_secs(1));
    assert_eq!(desk.counter(), 0);
    desk.set(CONFIGURATION, 1);
    desk.clock.advance(Duration::from_secs(1));
    assert_eq!(desk.counter(), 16_777_216);
    desk.set(CONFIGURATION, 0);
    desk.clock.advance(Duration::from_secs(1));
    assert_eq!(desk.counter(), 16_777_216);
    desk.set(COUNTER, 0x1_ffff_ffff);
    assert_eq!(desk.get(COUNTER), 0xffff_ffff);
    desk.set_low(COUNTER + 4, 7);
    desk.set(CONFIGURATION, 1);
    desk.clock.advance(Duration::from_nanos(60));
    assert_eq!(desk.get(COUNTER), 0);
}

#[test]
fn firmware_ticks_by_messages() {
    let mut desk = Desk::new();
    desk.set(TIMER_0 + 0x10, MESSAGE_0.0 << 32 | u64::from(MESSAGE_0.1));
    desk.set_low(TIMER_0, (MESSAGE | TIMER_ENABLE) as u32);
    assert_eq!(desk.hpet.next_deadline(), None);
    for _ in 0..3 {
        desk.set(CONFIGURATION, 0);
        let next = desk.counter() + TEN_MS;
        desk.set(COMPARATOR_0, next.into());
        desk.set(CONFIGURATION, 1);
        let waited = desk.wait();
        assert!(waited.abs_diff(Duration::from_millis(10)) < Duration::from_micros(1));
        assert_eq!(desk.messages.take(), [MESSAGE_0]);
        desk.hpet.tick();
        assert_eq!((desk.messages.take(), desk.get(STATUS)), (vec![], 0));
    }
    // One that lies behind goes off at once, and then after a turn.
    let behind = desk.counter() - 1;
    desk.set_low(COMPARATOR_0, behind);
    assert_eq!(desk.messages.take(), [MESSAGE_0]);
    assert!(desk.wait() > Duration::from_secs(255));
    assert_eq!(desk.messages.take(), [MESSAGE_0]);
    // Stopped, it keeps still.
    desk.set_low(CONFIGURATION, 0);
    assert_eq!(desk.hpet.next_deadline(), None);
}

#[test]
fn periodic_timers_leave_out_what_was_missed() {
    let mut desk = Desk::new();
    desk.set(CONFIGURATION, 1);
    desk.set(TIMER_0 + 0x10, MESSAGE_0.0 << 32 | u64::from(MESSAGE_0.1));
    desk.set(TIMER_0, MESSAGE | TIMER_ENABLE | PERIODIC | SET_VALUE | LEVEL);
    desk.set_low(COMPARATOR_0, 1000);
    desk.set_low(COMPARATOR_0, TEN_MS);
    desk.messages.take();
    assert!(desk.wait() < Duration::from_micros(60));
    assert_eq!((desk.messages.take().len(), desk.get(STATUS)), (1, 1));
    desk.set(STATUS, 1);
    assert_eq!(desk.get(STATUS), 0);
    let waited = desk.wait();
    assert!(waited.abs_diff(Duration::from_millis(10)) < Duration::from_micros(1));
    desk.clock.advance(Duration::from_secs(1));
    desk.hpet.tick();
    assert_eq!(desk.messages.take().len(), 2);
    assert!(desk.wait() <= Duration::from_millis(10));
    // A period too short to keep up with.
    desk.set_low(COMPARATOR_0, 1);
    desk.hpet.tick();
    assert!(desk.wait() + desk.wait() > Duration::from_micros(99));
}

proptest! {
    #[test]
    fn nothing_breaks_it(acts in acts(0x180)) {
        let mut desk = Desk::new();
        for act in acts {
            act.apply(&mut desk.hpet, &desk.clock);
            desk.hpet.tick();
            // What is due has been sent, and no more than once for each timer and act.
            let now = desk.clock.now();
            prop_assert!(desk.hpet.next_deadline().is_none_or(|next| next > now));
            prop_assert!(desk.messages.take().len() <= 3 * TIMERS);
        }
    }
}
