// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Records of a send stream: 312 bytes, little-endian. Offsets are those of illumos'
//! `dmu_replay_record_t`.

use super::fletcher::Fletcher4;

/// Bytes per record.
pub(super) const LENGTH: usize = 312;
/// Where the running checksum stands in all records but BEGIN.
pub(super) const CHECKSUM: usize = 280;
/// Marks a BEGIN record.
pub(super) const MAGIC: u64 = 0x2_F5BA_CBAC;
/// Header types in BEGIN: one snapshot's stream, and a package of them (`zfs send -p`, `-R`).
pub(super) const SUBSTREAM: u64 = 1;
pub(super) const COMPOUND: u64 = 2;
/// The kind of data set that a volume is, `DMU_OST_ZVOL`.
pub(super) const OBJSET_ZVOL: u32 = 3;
/// The volume's data and its properties: always these objects, of these types.
pub(super) const DATA: Object = Object { number: 1, kind: 23 };
pub(super) const PROPERTIES: Object = Object { number: 2, kind: 24 };
/// Bytes of the properties' block that we write.
pub(super) const PROPERTIES_BLOCK: u32 = 512;
/// "To the end of the object".
pub(super) const TO_THE_END: u64 = u64::MAX;
/// BEGIN's flag: FREE and FREEOBJECTS records are there.
pub(super) const FLAG_FREE_RECORDS: u32 = 4;
/// Room for the snapshot's name with its NUL.
pub(super) const NAME: std::ops::Range<usize> = 56..312;

/// An object of the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) number: u64,
    /// Its `dmu_object_type_t`.
    pub(super) kind: u32,
}

/// Record types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Begin,
    Object,
    FreeObjects,
    Write,
    Free,
    End,
    WriteByRef,
    Spill,
    WriteEmbedded,
    ObjectRange,
    Redact,
}

impl Kind {
    const ALL: [(Self, &'static str); 11] = [
        (Self::Begin, "BEGIN"),
        (Self::Object, "OBJECT"),
        (Self::FreeObjects, "FREEOBJECTS"),
        (Self::Write, "WRITE"),
        (Self::Free, "FREE"),
        (Self::End, "END"),
        (Self::WriteByRef, "WRITE_BYREF"),
        (Self::Spill, "SPILL"),
        (Self::WriteEmbedded, "WRITE_EMBEDDED"),
        (Self::ObjectRange, "OBJECT_RANGE"),
        (Self::Redact, "REDACT"),
    ];

    fn from_number(number: u32) -> Option<Self> {
        let index = usize::try_from(number).ok()?;
        Self::ALL.get(index).map(|(kind, _)| *kind)
    }

    /// ZFS' word for it.
    pub(super) fn name(self) -> &'static str {
        Self::ALL.get(self as usize).map_or("", |(_, name)| name)
    }
}

/// One record.
#[derive(Clone)]
pub(super) struct Record(pub(super) [u8; LENGTH]);

impl Record {
    /// An empty one of a kind.
    pub(super) fn new(kind: Kind) -> Self {
        let mut record = Self([0; LENGTH]);
        record.set_u32(0, kind as u32);
        record
    }

    pub(super) fn kind(&self) -> Option<Kind> {
        Kind::from_number(self.u32(0))
    }

    pub(super) fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let slice = self.0.get(at..at + N);
        slice.and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
    }

    pub(super) fn u8(&self, at: usize) -> u8 {
        u8::from_le_bytes(self.bytes(at))
    }

    pub(super) fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    pub(super) fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }

    pub(super) fn set(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        if let Some(place) = self.0.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        self
    }

    pub(super) fn set_u32(&mut self, at: usize, value: u32) -> &mut Self {
        self.set(at, &value.to_le_bytes())
    }

    pub(super) fn set_u64(&mut self, at: usize, value: u64) -> &mut Self {
        self.set(at, &value.to_le_bytes())
    }

    /// Stores the running checksum where the record keeps it, and sums the record.
    pub(super) fn seal(&mut self, sum: &mut Fletcher4) {
        sum.update(&self.0[..CHECKSUM]);
        if self.kind() != Some(Kind::Begin) {
            self.set(CHECKSUM, &sum.to_bytes());
        }
        sum.update(&self.0[CHECKSUM..]);
    }

    /// Sums the record and says whether its checksum is right. Streams of old senders have none
    /// (all zero), which is right too.
    pub(super) fn verify(&self, sum: &mut Fletcher4) -> bool {
        sum.update(&self.0[..CHECKSUM]);
        let stored: [u8; 32] = self.bytes(CHECKSUM);
        let is_right =
            self.kind() == Some(Kind::Begin) || stored == [0; 32] || stored == sum.to_bytes();
        sum.update(&self.0[CHECKSUM..]);
        is_right
    }

    /// The name in BEGIN, what is not UTF-8 replaced.
    pub(super) fn name(&self) -> String {
        let bytes = self.0.get(NAME).unwrap_or_default();
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
    }
}
