// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Counters that show whether a guest is alive: from QMP and from the host's process table.

use std::time::Duration;

use serde_json::Value;

use super::{CDROM_ID, DISK_ID};

/// Bytes read from disk and CD, and written to the disk.
pub(crate) fn block_counters(answer: &Value) -> (u64, u64) {
    let mut sums = (0u64, 0u64);
    for device in answer.as_array().map(Vec::as_slice).unwrap_or_default() {
        // A device is named by its id, or by a path that holds it.
        let owner = device.get("qdev").and_then(Value::as_str).unwrap_or_default();
        let disk = owner.split('/').any(|part| part == DISK_ID);
        let cdrom = owner.split('/').any(|part| part == CDROM_ID);
        let count = |key: &str| {
            device.get("stats").and_then(|s| s.get(key)).and_then(Value::as_u64).unwrap_or_default()
        };
        if disk || cdrom {
            sums.0 = sums.0.saturating_add(count("rd_bytes"));
        }
        if disk {
            sums.1 = sums.1.saturating_add(count("wr_bytes"));
        }
    }
    sums
}

/// Processor time and peak memory of a process from Linux's `/proc`; zero where there is none.
pub(crate) fn process_counters(pid: u32) -> (Duration, u64) {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}"));
    (
        read("stat").ok().and_then(|text| cpu_time(&text)).unwrap_or_default(),
        read("status").ok().and_then(|text| peak_rss(&text)).unwrap_or_default(),
    )
}

/// User and system time in `/proc/PID/stat`: fields 14 and 15, in hundredths of a second (`USER_HZ`
/// on every architecture here); the name in field 2 may hold blanks and parentheses.
fn cpu_time(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis(user.checked_add(system)?.checked_mul(10)?))
}

fn peak_rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counters_come_from_the_disk_and_the_cd() {
        let device = |qdev: &str, read: u64, written: u64| json!({"qdev": qdev, "stats": {"rd_bytes": read, "wr_bytes": written}});
        let answer = json!([
            device("/machine/system.flash1", 1000, 1000),
            device("/machine/peripheral/disk0/virtio-backend", 5, 7),
            device("cdrom", 11, 0),
        ]);
        assert_eq!(block_counters(&answer), (16, 7));
        assert_eq!(block_counters(&json!("?")), (0, 0));
        assert_eq!(block_counters(&json!([null, {"qdev": 1}, {"qdev": "cdrom"}])), (0, 0));
    }

    #[test]
    fn process_counters_survive_odd_names() {
        let stat = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0";
        assert_eq!(cpu_time(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu_time("12 (x"), None);
        assert_eq!(peak_rss("VmPeak:\t 1 kB\nVmHWM:\t  2048 kB\n"), Some(2 << 20));
        assert_eq!(peak_rss(""), None);
        assert_eq!(process_counters(u32::MAX), (Duration::ZERO, 0));
    }
}
