// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The lengths of waits, with the rules of Go's duration parser where packer uses it.
//!
//! ```text
//! integer  := "0" | [1-9][0-9]*
//! number   := "-"? integer ("." [0-9]+)?
//! duration := ( number unit )+
//! unit     := "ns" | "us" | "µs" | "ms" | "s" | "m" | "h"
//! ```

const UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// What stands between `<wait` and `>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Amount {
    /// With units; in nanoseconds, which may be negative.
    Duration(i64),
    /// A bare integer.
    Seconds(i64),
}

/// Matches `( duration | integer )?` and says what follows it.
pub(super) fn amount(text: &str) -> Result<(Option<Amount>, &str), String> {
    let mut rest = text;
    let mut parts = Vec::new();
    while let Some(part) = part(rest)? {
        rest = part.after;
        parts.push(part);
    }
    if !parts.is_empty() {
        let token = text.get(..text.len() - rest.len()).unwrap_or(text);
        let total = total(&parts).map_err(|why| format!("`{token}` {why}"))?;
        return Ok((Some(Amount::Duration(total)), rest));
    }
    Ok(integer(text)?.map_or((None, text), |(value, after)| (Some(Amount::Seconds(value)), after)))
}

/// One number with its unit.
struct Part<'t> {
    negative: bool,
    integer: i64,
    fraction: &'t str,
    unit: u64,
    after: &'t str,
}

fn part(text: &str) -> Result<Option<Part<'_>>, String> {
    let (negative, unsigned) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let Some((value, mut after)) = integer(unsigned)? else { return Ok(None) };
    let mut fraction = "";
    if let Some(digits) = after.strip_prefix('.') {
        let (found, rest) = digits.split_at(digit_count(digits));
        if !found.is_empty() {
            (fraction, after) = (found, rest);
        }
    }
    Ok(UNITS.iter().find_map(|(name, unit)| {
        let after = after.strip_prefix(name)?;
        Some(Part { negative, integer: value, fraction, unit: *unit, after })
    }))
}

/// An integer without leading zeros: its value and what follows.
fn integer(text: &str) -> Result<Option<(i64, &str)>, String> {
    let count = if text.starts_with('0') { 1 } else { digit_count(text) };
    let (digits, after) = text.split_at(count);
    if digits.is_empty() {
        return Ok(None);
    }
    let value = digits.parse().map_err(|_| format!("the number {digits} is too large"))?;
    Ok(Some((value, after)))
}

fn digit_count(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// The sum of the parts in nanoseconds. A sign may only stand before the first.
fn total(parts: &[Part<'_>]) -> Result<i64, &'static str> {
    const TOO_LONG: &str = "is too long (the longest wait is about 292 years)";
    const LIMIT: u64 = 1 << 63;
    if parts.iter().skip(1).any(|part| part.negative) {
        return Err("has a sign inside; only the whole duration may have one");
    }
    let mut sum: u64 = 0;
    for part in parts {
        let value = part
            .integer
            .unsigned_abs()
            .checked_mul(part.unit)
            .and_then(|value| value.checked_add(fraction_of(part.fraction, part.unit)))
            .ok_or(TOO_LONG)?;
        sum = sum.checked_add(value).filter(|sum| *sum <= LIMIT).ok_or(TOO_LONG)?;
    }
    if parts.first().is_some_and(|part| part.negative) {
        return Ok(0_i64.wrapping_sub_unsigned(sum));
    }
    i64::try_from(sum).map_err(|_| TOO_LONG)
}

/// A decimal fraction of a unit in whole nanoseconds, rounded down the way Go does: digits that
/// no longer fit 63 bits are dropped, the rest is scaled in double precision.
fn fraction_of(digits: &str, unit: u64) -> u64 {
    let mut value: u64 = 0;
    let mut scale = 1.0_f64;
    for digit in digits.bytes().map(|byte| u64::from(byte - b'0')) {
        if value > ((1 << 63) - 1) / 10 {
            break;
        }
        let next = value * 10 + digit;
        if next > 1 << 63 {
            break;
        }
        value = next;
        scale *= 10.0;
    }
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let nanoseconds = (value as f64 * (unit as f64 / scale)) as u64;
    nanoseconds
}
