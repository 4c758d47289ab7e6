// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Guest memory: segments, and where the guest sees them. illumos
//! `usr/src/uts/intel/io/vmm/vmm.c` and `vmm_sol_dev.c`.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::Arc;

use crate::abi::{DEVMEM, put, u32_at, u64_at};
use crate::kvm::Kvm;
use crate::{Answer, Errno, errno, real};

const PAGE: u64 = 4096;
const SEGMENTS: usize = 5;
const MAPS: usize = 8;
const WIRED: u32 = 1;

/// Memory that was allocated, behind a `memfd`.
struct Segment {
    memory: OwnedFd,
    /// Where the model has it, for the guest and for viona.
    host: *mut u8,
    len: u64,
    name: [u8; 128],
    /// The program has a mapping of it at a guest-physical offset.
    is_seen_by_address: bool,
}

// SAFETY: the pointer is to a shared mapping of the segment's own, which only ends with it. What
// lies there is never borrowed, only copied.
unsafe impl Send for Segment {}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: the range is this segment's mapping, and nobody else knows of it any more: KVM's
        // machine has been dropped before.
        unsafe { libc::munmap(self.host.cast(), self.len as usize) };
    }
}

impl Segment {
    /// System memory has no name and survives `VM_REINIT` where it is mapped.
    fn is_system(&self) -> bool {
        self.name[0] == 0
    }
}

/// A range of a segment that the guest sees.
#[derive(Debug, Clone, Copy)]
struct Map {
    gpa: u64,
    segment: usize,
    offset: u64,
    len: u64,
    prot: u32,
    flags: u32,
    /// Its number under KVM.
    slot: u32,
}

impl Map {
    fn may_write(&self) -> bool {
        self.prot & 2 != 0
    }

    fn has(&self, gpa: u64) -> bool {
        self.gpa <= gpa && gpa - self.gpa < self.len
    }

    fn overlaps(&self, gpa: u64, end: u64) -> bool {
        self.gpa < end && gpa < self.gpa + self.len
    }
}

/// The memory of a machine.
#[derive(Default)]
pub(crate) struct Space {
    /// Dropped before the memory it shows.
    kvm: Option<Arc<Kvm>>,
    segments: [Option<Segment>; SEGMENTS],
    maps: Vec<Map>,
}

impl Space {
    fn segment(&self, number: u32) -> Option<&Segment> {
        self.segments.get(number as usize)?.as_ref()
    }

    /// `VM_ALLOC_MEMSEG`.
    pub(crate) fn allocate(&mut self, bytes: &[u8]) -> Answer {
        let (number, len) = (u32_at(bytes, 0), u64_at(bytes, 8));
        let invalid = Errno(libc::EINVAL);
        if len == 0 || !len.is_multiple_of(PAGE) {
            return Err(invalid);
        }
        let place = self.segments.get_mut(number as usize).ok_or(invalid)?;
        if let Some(old) = place {
            return Err(if old.len == len { Errno(libc::EEXIST) } else { invalid });
        }
        let mut name = [0; 128];
        put(&mut name, 0, bytes.get(16..144).unwrap_or_default());
        if name[127] != 0 {
            return Err(invalid);
        }
        let memory = memfd(len)?;
        let host = view(&memory, len)?;
        *place = Some(Segment { memory, host, len, name, is_seen_by_address: false });
        Ok(0)
    }

    /// `VM_GET_MEMSEG`: what is not allocated has no length.
    pub(crate) fn describe(&self, bytes: &mut [u8]) -> Answer {
        let number = u32_at(bytes, 0);
        if number as usize >= SEGMENTS {
            return Err(Errno(libc::EINVAL));
        }
        let segment = self.segment(number);
        put(bytes, 8, &segment.map_or(0, |segment| segment.len).to_le_bytes());
        put(bytes, 16, &segment.map_or([0; 128], |segment| segment.name));
        Ok(0)
    }

    /// `VM_MMAP_MEMSEG`.
    pub(crate) fn map(&mut self, bytes: &[u8]) -> Answer {
        let map = Map {
            gpa: u64_at(bytes, 0),
            segment: u32_at(bytes, 8) as usize,
            offset: u64_at(bytes, 16),
            len: u64_at(bytes, 24),
            prot: u32_at(bytes, 32),
            flags: u32_at(bytes, 36),
            slot: (0..).find(|slot| self.maps.iter().all(|map| map.slot != *slot)).unwrap_or(0),
        };
        self.check(&map)?;
        let end = map.gpa + map.len;
        if self.maps.len() == MAPS {
            return Err(Errno(libc::ENOSPC));
        }
        if self.maps.iter().any(|other| other.overlaps(map.gpa, end)) {
            return Err(Errno(libc::EFAULT));
        }
        self.show(&map)?;
        self.maps.push(map);
        self.maps.sort_by_key(|map| map.gpa);
        Ok(0)
    }

    fn check(&self, map: &Map) -> Answer<()> {
        let invalid = Errno(libc::EINVAL);
        let segment = self.segment(map.segment as u32).ok_or(invalid)?;
        let is_whole = [map.gpa, map.offset, map.len].iter().all(|n| n.is_multiple_of(PAGE));
        let prot = map.prot & !8;
        let is_allowed = (1..=7).contains(&prot) && map.flags & !WIRED == 0;
        let is_inside =
            map.offset.checked_add(map.len).is_some_and(|end| end <= segment.len) && map.len > 0;
        let fits = map.gpa.checked_add(map.len).is_some_and(|end| end <= DEVMEM);
        if is_whole && is_allowed && is_inside && fits { Ok(()) } else { Err(invalid) }
    }

    /// `VM_MUNMAP_MEMSEG`: exactly one map.
    pub(crate) fn unmap(&mut self, bytes: &[u8]) -> Answer {
        let (gpa, len) = (u64_at(bytes, 0), u64_at(bytes, 8));
        let found = self.maps.iter().position(|map| map.gpa == gpa && map.len == len);
        let map = self.maps.remove(found.ok_or(Errno(libc::EINVAL))?);
        self.hide(&map)
    }

    /// `VM_MMAP_GETNEXT`: the first map at or above the address.
    pub(crate) fn next(&self, bytes: &mut [u8]) -> Answer {
        let gpa = u64_at(bytes, 0);
        let map = self.maps.iter().find(|map| map.gpa >= gpa).ok_or(Errno(libc::ENOENT))?;
        put(bytes, 0, &map.gpa.to_le_bytes());
        put(bytes, 8, &(map.segment as u32).to_le_bytes());
        put(bytes, 16, &map.offset.to_le_bytes());
        put(bytes, 24, &map.len.to_le_bytes());
        put(bytes, 32, &map.prot.to_le_bytes());
        put(bytes, 36, &map.flags.to_le_bytes());
        Ok(0)
    }

    /// `VM_DEVMEM_GETOFFSET`: where to map a segment, seen by the guest or not.
    pub(crate) fn device_offset(&self, bytes: &mut [u8]) -> Answer {
        let number = u32_at(bytes, 0);
        self.segment(number).ok_or(Errno(libc::ENOENT))?;
        put(bytes, 8, &start(number as usize).to_le_bytes());
        Ok(0)
    }

    /// What `VM_REINIT` does: maps of device memory go.
    pub(crate) fn reinit(&mut self) {
        let segments = &self.segments;
        let gone: Vec<Map> = self
            .maps
            .extract_if(.., |map| !segments[map.segment].as_ref().is_some_and(Segment::is_system))
            .collect();
        for map in gone {
            let _ = self.hide(&map);
        }
    }

    /// Has KVM show the guest its memory from now on, or nobody.
    pub(crate) fn attach(&mut self, kvm: Option<Arc<Kvm>>) -> Answer {
        self.kvm = kvm;
        self.maps.iter().try_for_each(|map| self.show(map).map(drop)).map(|()| 0)
    }

    fn show(&self, map: &Map) -> Answer {
        let (Some(kvm), Some(segment)) = (&self.kvm, &self.segments[map.segment]) else {
            return Ok(0);
        };
        let host = segment.host as u64 + map.offset;
        kvm.show(map.slot, map.gpa, host, map.len, map.may_write())
    }

    fn hide(&self, map: &Map) -> Answer {
        self.kvm.as_ref().map_or(Ok(0), |kvm| kvm.show(map.slot, map.gpa, 0, 0, true))
    }

    /// Whether the guest sees memory there.
    pub(crate) fn is_mapped(&self, gpa: u64) -> bool {
        self.maps.iter().any(|map| map.has(gpa))
    }

    /// Where `len` bytes of guest memory are; only system memory when `of_system`.
    fn place(&self, gpa: u64, len: usize, of_system: bool) -> Option<*mut u8> {
        let map = self.maps.iter().find(|map| map.has(gpa))?;
        let segment = self.segments[map.segment].as_ref()?;
        let inside = gpa - map.gpa;
        if (of_system && !segment.is_system()) || map.len - inside < len as u64 {
            return None;
        }
        Some(segment.host.wrapping_add((map.offset + inside) as usize))
    }

    /// Whether so many bytes there are RAM.
    pub(crate) fn is_ram(&self, gpa: u64, len: usize) -> bool {
        self.place(gpa, len, true).is_some()
    }

    /// Copies guest memory; false when it is not all in one map.
    pub(crate) fn read(&self, gpa: u64, bytes: &mut [u8]) -> bool {
        let Some(from) = self.place(gpa, bytes.len(), false) else { return false };
        // SAFETY: `place` has checked that so many bytes of the segment's mapping are there, and
        // `bytes` is our own. A guest that writes meanwhile tears the copy, as on real hardware.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
        true
    }

    /// Writes to RAM; false when it is not all in one map.
    pub(crate) fn write(&self, gpa: u64, bytes: &[u8]) -> bool {
        let Some(to) = self.place(gpa, bytes.len(), true) else { return false };
        // SAFETY: as for `read`, the other way round.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        true
    }

    /// The file and offset behind an `mmap` of the machine's descriptor.
    pub(crate) fn host(&mut self, offset: u64, len: u64, prot: i32) -> Answer<(i32, i64)> {
        let absent = Errno(libc::ENODEV);
        let len = len.div_ceil(PAGE) * PAGE;
        let end = offset.checked_add(len).ok_or(absent)?;
        if offset >= DEVMEM {
            let number = usize::try_from((offset - DEVMEM) >> SHIFT).map_err(|_| absent)?;
            let segment = self.segments.get(number).and_then(Option::as_ref).ok_or(absent)?;
            let inside = offset - start(number);
            if inside + len > segment.len {
                return Err(absent);
            }
            return Ok((segment.memory.as_raw_fd(), inside.cast_signed()));
        }
        let map = self.maps.iter().find(|map| map.gpa <= offset && end <= map.gpa + map.len);
        let map = *map.ok_or(absent)?;
        if prot & libc::PROT_WRITE != 0 && map.prot & 2 == 0 {
            return Err(Errno(libc::EACCES));
        }
        let segment = self.segments[map.segment].as_mut().ok_or(absent)?;
        segment.is_seen_by_address = true;
        Ok((segment.memory.as_raw_fd(), (offset - map.gpa + map.offset).cast_signed()))
    }

    /// Bytes that are allocated.
    pub(crate) fn allocated(&self) -> u64 {
        self.segments.iter().flatten().map(|segment| segment.len).sum()
    }

    /// What the end of the machine does to mappings by guest-physical address that are left.
    pub(crate) fn invalidate(&mut self) {
        for segment in self.segments.iter().flatten() {
            if segment.is_seen_by_address {
                // SAFETY: takes two numbers. The program that still reads there gets SIGBUS, as
                // it does on illumos.
                unsafe { libc::ftruncate64(segment.memory.as_raw_fd(), 0) };
            }
        }
    }
}

/// Room between the offsets of two segments.
const SHIFT: u32 = 42;

fn start(segment: usize) -> u64 {
    DEVMEM + ((segment as u64) << SHIFT)
}

fn memfd(len: u64) -> Answer<OwnedFd> {
    // SAFETY: the name is a C string; the result is checked.
    let fd = unsafe { libc::memfd_create(c"vmm-segment".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(Errno(libc::ENOMEM));
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let memory = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: takes two numbers.
    if unsafe { libc::ftruncate64(fd, len.cast_signed()) } != 0 {
        let _ = errno();
        return Err(Errno(libc::ENOMEM));
    }
    Ok(memory)
}

/// The model's own mapping of a segment.
fn view(memory: &OwnedFd, len: u64) -> Answer<*mut u8> {
    let (prot, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_NORESERVE);
    let len = usize::try_from(len).map_err(|_| Errno(libc::ENOMEM))?;
    let host = real::mmap(std::ptr::null_mut(), len, prot, flags, memory.as_raw_fd(), 0);
    if host == libc::MAP_FAILED { Err(Errno(libc::ENOMEM)) } else { Ok(host.cast()) }
}
