// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What a stream is, for people and programs.

use std::collections::BTreeMap;

use serde::Serialize;

/// A stream's description. Complete once the stream was read to its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StreamInfo {
    /// The snapshot's name.
    pub name: String,
    /// The snapshot's `guid`, in decimal as IMGAPI has it.
    pub guid: String,
    /// When the snapshot was made, in seconds since 1970.
    pub creation: i64,
    /// The volume's size in bytes.
    pub volsize: u64,
    /// The volume's block size in bytes.
    pub volblocksize: u64,
    /// Wrapped into a package, as `zfs send -p` and `-R` do.
    pub package: bool,
    /// The names of the feature flags that are set.
    pub features: Vec<&'static str>,
    /// Bytes of the stream, without compression of the whole.
    pub stream_bytes: u64,
    /// Records by kind.
    pub records: BTreeMap<&'static str, u64>,
    /// Every record has its own checksum, which senders before 2015 did not write.
    pub record_checksums: bool,
    /// Bytes of the volume that the stream carries.
    pub data_bytes: u64,
    /// Ranges of the volume that it does not carry, which are zero.
    pub holes: u64,
    /// Bytes in them.
    pub hole_bytes: u64,
}

impl StreamInfo {
    /// As lines of `key: value`.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let features = match self.features.as_slice() {
            [] => "none: every receiver takes it".to_owned(),
            names => names.join(", "),
        };
        let created = jiff::Timestamp::from_second(self.creation)
            .map_or_else(|_| "out of range".to_owned(), |time| time.to_string());
        let records: Vec<String> =
            self.records.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        let checksums = if self.record_checksums {
            "right, each record has one"
        } else {
            "right at the end; the records have none"
        };
        let mib = |bytes: u64| format!("{bytes} ({} MiB)", bytes >> 20);
        vec![
            ("name", self.name.clone()),
            ("guid", self.guid.clone()),
            ("creation", format!("{} ({created})", self.creation)),
            ("volsize", mib(self.volsize)),
            ("volblocksize", self.volblocksize.to_string()),
            ("package", if self.package { "yes" } else { "no" }.to_owned()),
            ("features", features),
            ("records", records.join(", ")),
            ("checksums", checksums.to_owned()),
            ("stream", mib(self.stream_bytes)),
            ("data", mib(self.data_bytes)),
            ("holes", format!("{}, {} bytes", self.holes, self.hole_bytes)),
        ]
    }
}
