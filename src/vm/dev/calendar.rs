// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The calendar of the real-time clock: registers to seconds and back.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// How the guest wants to see numbers and hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    /// Binary, not BCD.
    pub(super) is_binary: bool,
    /// Hours from 0 to 23, not from 1 to 12 with a bit for the afternoon.
    pub(super) is_24h: bool,
}

const AFTERNOON: u8 = 0x80;

impl Format {
    pub(super) fn encode(self, value: u8) -> u8 {
        if self.is_binary { value } else { value / 10 * 16 + value % 10 }
    }

    pub(super) fn decode(self, value: u8) -> u8 {
        if self.is_binary { value } else { (value >> 4) * 10 + (value & 0x0f) }
    }

    pub(super) fn encode_hour(self, hour: u8) -> u8 {
        if self.is_24h {
            return self.encode(hour);
        }
        let afternoon = if hour >= 12 { AFTERNOON } else { 0 };
        let hour = if hour.is_multiple_of(12) { 12 } else { hour % 12 };
        self.encode(hour) | afternoon
    }

    pub(super) fn decode_hour(self, value: u8) -> u8 {
        if self.is_24h {
            return self.decode(value);
        }
        let afternoon = if value & AFTERNOON == 0 { 0 } else { 12 };
        self.decode(value & !AFTERNOON) % 12 + afternoon
    }
}

/// A date and time, as the registers hold it: year without century, Sunday is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Calendar {
    pub(super) second: u8,
    pub(super) minute: u8,
    pub(super) hour: u8,
    pub(super) weekday: u8,
    pub(super) day: u8,
    pub(super) month: u8,
    pub(super) year: u8,
    pub(super) century: u8,
}

impl Calendar {
    /// The date and time in UTC that many seconds after 1970.
    pub(super) fn of(seconds: i64) -> Self {
        let time = Timestamp::from_second(seconds).unwrap_or_default();
        let time = TimeZone::UTC.to_datetime(time);
        // Each part is within its register: the year is from 0 to 9999.
        let byte = |value: i8| value.unsigned_abs();
        let year = time.year().max(0);
        let part = |value: i16| u8::try_from(value).unwrap_or(0);
        Self {
            second: byte(time.second()),
            minute: byte(time.minute()),
            hour: byte(time.hour()),
            weekday: byte(time.weekday().to_sunday_one_offset()),
            day: byte(time.day()),
            month: byte(time.month()),
            year: part(year % 100),
            century: part(year / 100),
        }
    }

    /// Seconds after 1970; none for what is no date or time. The weekday does not matter.
    pub(super) fn seconds(&self) -> Option<i64> {
        let byte = |value: u8| i8::try_from(value).ok();
        if self.year > 99 || self.century > 99 {
            return None;
        }
        let time = DateTime::new(
            i16::from(self.century) * 100 + i16::from(self.year),
            byte(self.month)?,
            byte(self.day)?,
            byte(self.hour)?,
            byte(self.minute)?,
            byte(self.second)?,
            0,
        );
        Some(TimeZone::UTC.to_timestamp(time.ok()?).ok()?.as_second())
    }
}

/// When an alarm goes off: each part a number, or none for any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alarm {
    pub(super) second: Option<u8>,
    pub(super) minute: Option<u8>,
    pub(super) hour: Option<u8>,
}

impl Alarm {
    /// The first second from `from` on, within a day, at which it goes off. None when a part is
    /// no number that ever comes.
    pub(super) fn next(&self, from: i64) -> Option<i64> {
        let fits = |part: Option<u8>, now: i64| part.is_none_or(|part| i64::from(part) == now);
        let mut at = from;
        // Steps to the next hour, minute and second that match.
        for _ in 0..=24 + 4 * 60 {
            if !fits(self.hour, at.rem_euclid(86_400) / 3600) {
                at += 3600 - at.rem_euclid(3600);
            } else if !fits(self.minute, at.rem_euclid(3600) / 60) {
                at += 60 - at.rem_euclid(60);
            } else if !fits(self.second, at.rem_euclid(60)) {
                at += 1;
            } else {
                return Some(at);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn formats() {
        let bcd = Format { is_binary: false, is_24h: true };
        assert_eq!((bcd.encode(59), bcd.decode(0x59), bcd.encode_hour(23)), (0x59, 59, 0x23));
        let half = Format { is_binary: false, is_24h: false };
        let hours = [(0, 0x12), (1, 0x01), (11, 0x11), (12, 0x92), (13, 0x81), (23, 0x91)];
        for (hour, register) in hours {
            assert_eq!(half.encode_hour(hour), register);
            assert_eq!(half.decode_hour(register), hour);
        }
        // Nonsense is a number, too.
        assert_eq!(bcd.decode(0xff), 165);
    }

    #[test]
    fn dates() {
        let date = Calendar::of(1_709_210_096);
        let (weekday, century) = (5, 20);
        let expected = Calendar {
            second: 56,
            minute: 34,
            hour: 12,
            weekday,
            day: 29,
            month: 2,
            year: 24,
            century,
        };
        assert_eq!((date, date.seconds()), (expected, Some(1_709_210_096)));
        assert_eq!(Calendar { day: 30, ..date }.seconds(), None);
        assert_eq!(Calendar { month: 0, ..date }.seconds(), None);
        assert_eq!(Calendar { hour: 165, ..date }.seconds(), None);
        assert_eq!(Calendar { century: 100, ..date }.seconds(), None);
    }

    #[test]
    fn alarms() {
        let daily = Alarm { second: Some(5), minute: Some(30), hour: Some(7) };
        let at = 7 * 3600 + 30 * 60 + 5;
        assert_eq!((daily.next(0), daily.next(at), daily.next(at + 1)), {
            (Some(at), Some(at), Some(86_400 + at))
        });
        let every = Alarm { second: None, minute: None, hour: None };
        assert_eq!(every.next(77), Some(77));
        assert_eq!(Alarm { second: Some(60), ..every }.next(0), None);
        assert_eq!(Alarm { hour: Some(24), ..every }.next(0), None);
        assert_eq!(Alarm { second: Some(59), ..every }.next(60), Some(119));
    }

    proptest! {
        #[test]
        fn dates_return(seconds in -62_000_000_000_i64..250_000_000_000) {
            prop_assert_eq!(Calendar::of(seconds).seconds(), Some(seconds));
        }

        #[test]
        fn alarms_fit(hour in 0..24_u8, minute in 0..60_u8, second in 0..60_u8, from in 0..1_i64 << 40) {
            let alarm = Alarm { second: Some(second), minute: Some(minute), hour: Some(hour) };
            let at = alarm.next(from).unwrap_or(0);
            let of_day = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
            prop_assert!(at >= from && at < from + 86_400 && at % 86_400 == of_day);
        }
    }
}
