// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Which host ports QEMU's user-mode network took.

/// Finds the host ports in the answer to `info usernet`: pairs of guest port and host port.
pub(super) fn forwarded_ports(table: &str) -> Vec<(u16, u16)> {
    let row = |line: &str| {
        let mut words = line.split_whitespace();
        if !words.next()?.starts_with("TCP[HOST_FORWARD]") {
            return None;
        }
        // After it: descriptor, host address, host port, guest address, guest port.
        let words: Vec<&str> = words.collect();
        Some((words.get(4)?.parse().ok()?, words.get(2)?.parse().ok()?))
    };
    table.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_the_table_of_forwarded_ports() {
        let table = "Hub -1 (net0):\r\n  Protocol[State]    FD  Source Address  Port   \
                     Dest. Address  Port RecvQ SendQ\r\n  TCP[HOST_FORWARD]  16       127.0.0.1 \
                     39143       10.0.2.15    22     0     0\r\n  TCP[ESTABLISHED]  17 127.0.0.1 \
                     1 10.0.2.15 22 0 0\r\n  TCP[HOST_FORWARD]  15       127.0.0.1 39441       \
                     10.0.2.15    80     0     0\r\n";
        assert_eq!(forwarded_ports(table), [(22, 39143), (80, 39441)]);
    }

    proptest! {
        #[test]
        fn any_text_is_a_table(text in "[ -~\\n]{0,300}") {
            let _ = forwarded_ports(&text);
        }
    }
}
