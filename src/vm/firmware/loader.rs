// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `etc/table-loader`: the script by which the firmware places tables and fixes their pointers and
//! checksums.

/// Bytes of one command; the script's size must be a multiple of it.
const COMMAND: usize = 128;
/// Bytes of a file name, the final NUL included.
const NAME: usize = 56;

/// Where the firmware allocates a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Zone {
    /// Anywhere.
    High,
    /// Below 1 MiB.
    Low,
}

/// A script in the making. Commands take effect in their order: a checksum must follow the pointers
/// within its range.
#[derive(Debug, Default)]
pub(super) struct Script(Vec<u8>);

impl Script {
    /// Places a file.
    pub(super) fn allocate(&mut self, file: &str, align: u32, zone: Zone) {
        let mut fields = name(file);
        fields.extend_from_slice(&align.to_le_bytes());
        fields.push(match zone {
            Zone::High => 1,
            Zone::Low => 2,
        });
        self.command(1, &fields);
    }

    /// Adds `target`'s address to the `size` bytes (4 or 8) at `offset` of `file`, which hold an
    /// offset into `target`.
    pub(super) fn pointer(&mut self, file: &str, offset: u32, size: u8, target: &str) {
        let mut fields = name(file);
        fields.extend_from_slice(&name(target));
        fields.extend_from_slice(&offset.to_le_bytes());
        fields.push(size);
        self.command(2, &fields);
    }

    /// Sets the byte at `at` so that the range sums to 0; the byte lies in the range and holds 0.
    pub(super) fn checksum(&mut self, file: &str, at: u32, start: u32, length: u32) {
        let mut fields = name(file);
        for value in [at, start, length] {
            fields.extend_from_slice(&value.to_le_bytes());
        }
        self.command(3, &fields);
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }

    fn command(&mut self, number: u32, fields: &[u8]) {
        let end = self.0.len() + COMMAND;
        self.0.extend_from_slice(&number.to_le_bytes());
        self.0.extend_from_slice(fields);
        self.0.resize(end, 0);
    }
}

fn name(file: &str) -> Vec<u8> {
    let mut field = file.as_bytes().to_vec();
    field.truncate(NAME - 1);
    field.resize(NAME, 0);
    field
}
