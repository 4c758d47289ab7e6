// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Images that are made to do harm: whatever they hold, reading them ends in an error or in bytes.

use super::*;

/// Reads until the end, an error, or more than any image here can honestly hold.
fn read_all(path: &Path) -> Outcome<u64> {
    let mut disk = Qcow2Disk::open(path)?;
    let mut at = 0;
    for _ in 0..200 {
        match disk.next(Vec::new())? {
            None => return Ok(at),
            Some(Chunk::Zeros(count)) => {
                assert!(count > 0);
                at += count;
            }
            Some(Chunk::Data(bytes)) => {
                assert!(!bytes.is_empty() && bytes.len() <= 1 << 20);
                at += bytes.len() as u64;
            }
        }
        assert!(at <= disk.size());
    }
    Ok(at)
}

/// A good image with plain and compressed clusters, in 4 KiB clusters so that it is small.
fn good(dir: &Dir) -> Vec<u8> {
    raw(&dir.path("raw"), 3 << 20, &[(0, 20_000, 7), (1 << 20, 30_000, 256), (2 << 20, 9_000, 2)]);
    let convert = ["convert", "-c", "-O", "qcow2", "-o", "cluster_size=4k", "raw", "image"];
    dir.run("qemu-img", &convert);
    dir.run("qemu-io", &["-c", "write -P 3 8k 4k", "-c", "write -z 1M 4k", "image"]);
    fs::read(dir.path("image")).unwrap()
}

#[test]
fn tables_that_point_at_themselves_give_bytes_and_end() {
    let dir = Dir::new();
    // The L1 table, the L2 table and the data are one and the same cluster.
    let mut bytes = super::super::header::header(16, 8 << 20, (1 << 16, 1), (1 << 16, 1));
    bytes.resize(2 << 16, 0);
    for entry in bytes[1 << 16..].as_chunks_mut::<8>().0 {
        *entry = (1u64 << 16 | COPIED).to_be_bytes();
    }
    fs::write(dir.path("image"), &bytes).unwrap();
    let (data, size) = chunks(&mut Qcow2Disk::open(&dir.path("image")).unwrap()).unwrap();
    assert_eq!((data.len(), size), (8, 8 << 20));
    // And compressed clusters that begin in their own table.
    for entry in bytes[(1 << 16) + 8..].as_chunks_mut::<8>().0 {
        *entry = (COMPRESSED | 0xff << 54 | 1 << 16 | 77).to_be_bytes();
    }
    fs::write(dir.path("image"), &bytes).unwrap();
    let failure = read_all(&dir.path("image")).unwrap_err();
    assert!(failure.summary().contains("cannot be expanded"), "{failure}");
}

#[test]
fn offsets_outside_the_file_and_between_clusters_are_named() {
    let dir = Dir::new();
    let tables = |l1: u64, l2: u64| {
        let mut bytes = super::super::header::header(16, 1 << 20, (1 << 16, 1), (1 << 16, 1));
        bytes.resize(3 << 16, 0);
        bytes[1 << 16..][..8].copy_from_slice(&l1.to_be_bytes());
        bytes[2 << 16..][8..16].copy_from_slice(&l2.to_be_bytes());
        fs::write(dir.path("image"), &bytes).unwrap();
        read_all(&dir.path("image"))
    };
    assert_eq!(tables(2 << 16, 0).unwrap(), 1 << 20);
    for (l1, l2, expected) in [
        (3 << 16, 0, "cut short"),
        (OFFSET_MASK & !0xffff, 0, "cut short"),
        (2 << 16 | 512, 0, "an L2 table at offset 131584"),
        (2 << 16, 3 << 16, "cut short"),
        (2 << 16, OFFSET_MASK & !0xffff, "cut short"),
        (2 << 16, 1 << 16 | 1024, "a cluster at offset 66560"),
        (2 << 16, COMPRESSED | 3 << 16, "cut short"),
        (2 << 16, u64::MAX, "cut short"),
        (2 << 16, COMPRESSED | 0xff << 54 | ((3 << 16) - 1), "cannot be expanded"),
    ] {
        let failure = tables(l1, l2).unwrap_err();
        assert!(failure.summary().contains(expected), "{l1:#x} {l2:#x}: {failure}");
        assert!(failure.to_string().contains("disk     "), "{failure}");
    }
}

#[test]
fn an_image_cut_anywhere_is_an_error_or_the_same_disk() {
    let dir = Dir::new();
    let image = good(&dir);
    let whole = chunks(&mut Qcow2Disk::open(&dir.path("image")).unwrap()).unwrap();
    for length in (0..image.len()).step_by(509) {
        fs::write(dir.path("cut"), &image[..length]).unwrap();
        if let Ok(mut disk) = Qcow2Disk::open(&dir.path("cut"))
            && let Ok(read) = chunks(&mut disk)
        {
            assert!(read == whole, "{length}");
        }
    }
}

#[test]
fn version_2_has_no_zero_clusters() {
    let dir = Dir::new();
    raw(&dir.path("raw"), 1 << 20, &[(0, 1 << 20, 7)]);
    dir.run("qemu-img", &["convert", "-O", "qcow2", "-o", "compat=0.10", "raw", "image"]);
    let mut bytes = fs::read(dir.path("image")).unwrap();
    let long = |bytes: &[u8], at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    let l1 = long(&bytes, 40) as usize;
    let l2 = (long(&bytes, l1) & OFFSET_MASK) as usize;
    bytes[l2 + 7] |= 1;
    fs::write(dir.path("image"), bytes).unwrap();
    let failure = read_all(&dir.path("image")).unwrap_err();
    assert!(failure.summary().contains("zero cluster in an image of version 2"), "{failure}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bytes_do_no_harm(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        in_tables in any::<bool>(),
    ) {
        // Made once: qemu-img takes longer than everything else here.
        static GOOD: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let image = GOOD.get_or_init(|| good(&Dir::new()));
        let mut image = image.clone();
        // Half of the time only where the header and the first tables are.
        let end = if in_tables { 6 * 4096 } else { image.len() };
        for (index, value) in changes {
            image[4.max(index.index(end))] = value;
        }
        let dir = Dir::new();
        fs::write(dir.path("image"), &image).unwrap();
        let _ = read_all(&dir.path("image"));
    }

    #[test]
    fn random_tables_do_no_harm(
        cluster_bits in 9u32..=12,
        entries in proptest::collection::vec(any::<u64>(), 512),
        mask in prop::sample::select(vec![u64::MAX, 0x7fff, 0x4000_0000_0000_3fff, 0x7e01]),
    ) {
        let dir = Dir::new();
        let mut image = super::super::header::header(cluster_bits, 1 << 20, (4096, 512), (0, 1));
        image.resize(4096, 0);
        image.extend(entries.iter().flat_map(|entry| (entry & mask).to_be_bytes()));
        image.resize(32_768, 1);
        fs::write(dir.path("image"), &image).unwrap();
        let _ = read_all(&dir.path("image"));
    }
}
