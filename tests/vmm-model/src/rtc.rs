// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The clock with CMOS.

use std::time::{Duration, Instant};

use crate::abi::{put, u32_at, u64_at};
use crate::board::Served;
use crate::{Answer, Errno};

const STATUS_A: usize = 0x0a;
const STATUS_B: usize = 0x0b;
const STATUS_D: usize = 0x0d;
const CENTURY: usize = 0x32;
/// Bits of status B: 24 hours, and numbers in binary.
const HOURS_24: u8 = 2;
const BINARY: u8 = 4;

/// The device.
pub(crate) struct Rtc {
    bytes: [u8; 128],
    index: usize,
    /// The time that was set, and when.
    set: (Duration, Instant),
}

impl Default for Rtc {
    fn default() -> Self {
        let mut bytes = [0; 128];
        bytes[STATUS_A] = 0x20;
        bytes[STATUS_B] = HOURS_24;
        bytes[STATUS_D] = 0x80;
        Self { bytes, index: 0, set: (Duration::ZERO, Instant::now()) }
    }
}

/// Bytes that belong to the clock.
fn is_clock(index: usize) -> bool {
    index <= STATUS_D || index == CENTURY
}

impl Rtc {
    fn time(&self) -> Duration {
        self.set.0 + self.set.1.elapsed()
    }

    /// `VM_RTC_WRITE`.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Answer {
        let index = u32_at(bytes, 0) as usize;
        if index >= self.bytes.len() || is_clock(index) {
            return Err(Errno(libc::EINVAL));
        }
        self.bytes[index] = bytes[4];
        Ok(0)
    }

    /// `VM_RTC_READ`.
    pub(crate) fn read(&self, bytes: &mut [u8]) -> Answer {
        let index = u32_at(bytes, 0) as usize;
        if index >= self.bytes.len() {
            return Err(Errno(libc::EINVAL));
        }
        bytes[4] = self.byte(index);
        Ok(0)
    }

    /// `VM_RTC_SETTIME`: seconds, and nanoseconds where the kernel knows them.
    pub(crate) fn set(&mut self, bytes: &[u8]) -> Answer {
        let invalid = Errno(libc::EINVAL);
        let nanos = if bytes.len() < 16 { 0 } else { u64_at(bytes, 8) };
        let seconds = u64::try_from(u64_at(bytes, 0).cast_signed()).map_err(|_| invalid)?;
        let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
        self.set = (Duration::new(seconds, nanos.ok_or(invalid)?), Instant::now());
        Ok(0)
    }

    /// `VM_RTC_GETTIME`.
    pub(crate) fn get(&self, bytes: &mut [u8]) -> Answer {
        let time = self.time();
        put(bytes, 0, &time.as_secs().to_le_bytes());
        put(bytes, 8, &u64::from(time.subsec_nanos()).to_le_bytes());
        Ok(0)
    }

    /// The guest's access: bytes only.
    pub(crate) fn access(&mut self, port: u16, width: u8, written: Option<u32>) -> Served {
        if width != 1 {
            return Served::Refused;
        }
        match (port, written) {
            (0x70, Some(index)) => self.index = index as usize & 0x7f,
            (0x70, None) => return Served::Done(0xff),
            (_, Some(value)) => self.store(value as u8),
            (_, None) => return Served::Done(self.byte(self.index).into()),
        }
        Served::Done(0)
    }

    fn store(&mut self, value: u8) {
        match self.index {
            // Status C and D cannot be written. The time the guest sets is not played.
            0x0c | 0x0d => {}
            index => self.bytes[index] = value,
        }
    }

    /// A byte as the guest sees it.
    fn byte(&self, index: usize) -> u8 {
        let seconds = self.time().as_secs();
        let (year, month, day) = date(seconds / 86400);
        let value = match index {
            0x00 => seconds % 60,
            0x02 => seconds / 60 % 60,
            0x04 => return self.hour(seconds / 3600 % 24),
            0x06 => (seconds / 86400 + 4) % 7 + 1,
            0x07 => day,
            0x08 => month,
            0x09 => year % 100,
            CENTURY => year / 100,
            0x0c => return 0,
            _ => return self.bytes[index],
        };
        self.number(value as u8)
    }

    fn hour(&self, hour: u64) -> u8 {
        if self.bytes[STATUS_B] & HOURS_24 != 0 {
            return self.number(hour as u8);
        }
        let afternoon = if hour >= 12 { 0x80 } else { 0 };
        self.number(((hour + 11) % 12 + 1) as u8) | afternoon
    }

    fn number(&self, value: u8) -> u8 {
        if self.bytes[STATUS_B] & BINARY != 0 { value } else { value / 10 * 16 + value % 10 }
    }
}

/// Year, month and day by days since 1970, after Howard Hinnant's `civil_from_days`.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}
