// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use crate::vm::firmware::rom::{Profile, Rom, Search};
use crate::vm::firmware::variables;

const CODE_2M: usize = 0x1e_0000;
const CODE_4M: usize = 0x37_c000;

/// A code image: a volume's header and a reset vector.
fn code(size: usize) -> Vec<u8> {
    let mut image = variables::empty_for(CODE_2M).unwrap();
    image.truncate(72);
    image[16..32].copy_from_slice(&[7; 16]);
    image[32..40].copy_from_slice(&(size as u64).to_le_bytes());
    image[50..52].copy_from_slice(&[0, 0]);
    let words = image.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let sum = words.fold(0_u16, u16::wrapping_sub);
    image[50..52].copy_from_slice(&sum.to_le_bytes());
    image.resize(size, 0);
    image[size - 16..].fill(0x90);
    image
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    fn search(&self) -> Search {
        Search { named: None, variables: None, root: self.0.path().to_owned() }
    }
}

fn refusal(path: &Path) -> String {
    Rom::open(path, None, None).unwrap_err().to_string()
}

#[test]
fn the_two_layouts_lie_where_the_firmware_expects_them() {
    let place = Place::new();
    let small = place.file("uefi-rom.bin", &code(CODE_2M));
    let rom = Rom::open(&small, None, None).unwrap();
    assert_eq!(rom.profile, Profile::Bhyve);
    assert_eq!(rom.code_range(), 0xffe2_0000..0x1_0000_0000);
    assert_eq!(rom.flash_range(), 0xffe0_0000..0xffe2_0000);
    let large = place.file("OVMF_CODE_4M.fd", &code(CODE_4M));
    let rom = Rom::open(&large, None, None).unwrap();
    assert_eq!(rom.profile, Profile::Ovmf);
    assert_eq!(rom.code_range().start, 0xffc8_4000);
    assert_eq!(rom.flash_range().start, 0xffc0_0000);
}

#[test]
fn images_with_variables_are_taken_apart() {
    let place = Place::new();
    let store = variables::empty_for(CODE_2M).unwrap();
    let whole = [store.clone(), code(CODE_2M)].concat();
    let rom = Rom::open(&place.file("OVMF.fd", &whole), None, None).unwrap();
    assert_eq!((rom.code.len(), &rom.variables), (CODE_2M, &store));
    let torn = [store.clone(), vec![0xff; CODE_2M]].concat();
    assert!(refusal(&place.file("torn.fd", &torn)).contains("no firmware follows"));
    assert!(refusal(&place.file("VARS.fd", &store)).contains("a variable store, without"));
}

#[test]
fn bad_images_are_refused_with_the_reason() {
    let place = Place::new();
    let missing = refusal(&place.0.path().join("none.fd"));
    assert!(missing.contains("cannot read") && missing.contains("No such file"), "{missing}");
    assert!(missing.contains("apt-get install ovmf"), "{missing}");
    assert!(refusal(place.0.path()).contains("cannot read"));
    assert!(refusal(&place.file("empty", &[])).contains("multiple of 4096"));
    assert!(refusal(&place.file("odd", &code(CODE_2M)[1..])).contains("multiple of 4096"));
    assert!(refusal(&place.file("large", &vec![0; (16 << 20) + 1])).contains("too large"));
    assert!(refusal(&place.file("zeros", &[0; 8192])).contains("not a UEFI firmware"));
    let mut changed = code(CODE_2M);
    changed[20] ^= 1;
    assert!(refusal(&place.file("changed", &changed)).contains("not a UEFI firmware"));
    let mut cut = code(CODE_2M);
    cut.truncate(CODE_2M / 2);
    assert!(refusal(&place.file("cut", &cut)).contains("not a UEFI firmware"));
    let mut deaf = code(CODE_2M);
    deaf[CODE_2M - 16..].fill(0xff);
    assert!(refusal(&place.file("deaf", &deaf)).contains("no reset vector"));
    assert!(refusal(&place.file("size", &code(0x10_0000))).contains("no variable store"));
}

#[test]
fn a_store_must_belong_to_its_code() {
    let place = Place::new();
    let rom = place.file("CODE.fd", &code(CODE_2M));
    let other = place.file("other.fd", &variables::empty_for(CODE_4M).unwrap());
    let failure = Rom::open(&rom, None, Some(&other)).unwrap_err().to_string();
    assert!(failure.contains("does not belong"), "{failure}");
    let none = place.file("none.fd", &[0xff; 131_072]);
    let failure = Rom::open(&rom, None, Some(&none)).unwrap_err().to_string();
    assert!(failure.contains("not a store"), "{failure}");
}

#[test]
fn the_first_profile_that_is_installed_is_taken() {
    let place = Place::new();
    let failure = place.search().find(&[Profile::Bhyve, Profile::Ovmf]).unwrap_err().to_string();
    assert!(failure.contains("uefi-rom.bin") && failure.contains("OVMF_CODE_4M.fd"), "{failure}");
    place.file("usr/share/OVMF/OVMF_CODE.fd", &code(CODE_2M));
    let mut store = variables::empty_for(CODE_2M).unwrap();
    store[5000] = 1;
    place.file("usr/share/OVMF/OVMF_VARS.fd", &store);
    let rom = place.search().find(&[Profile::Bhyve, Profile::Ovmf]).unwrap();
    assert_eq!((rom.profile, rom.variables == store), (Profile::Ovmf, true));
    let bhyve = place.file("usr/share/bhyve/uefi-rom.bin", &code(CODE_2M));
    let rom = place.search().find(&[Profile::Bhyve, Profile::Ovmf]).unwrap();
    assert_eq!((rom.profile, &rom.path), (Profile::Bhyve, &bhyve));
    let named = Search { named: Some((bhyve, None)), ..place.search() };
    assert_eq!(named.find(&[Profile::Ovmf]).unwrap().profile, Profile::Bhyve);
    let gone = Search { named: Some((PathBuf::from("/none"), None)), ..place.search() };
    let failure = gone.find(&[Profile::Ovmf]).unwrap_err().to_string();
    assert!(failure.contains("IMGFORGE_OVMF_CODE"), "{failure}");
}

#[test]
fn installed_firmware_passes() {
    let directory = Path::new("/usr/share/OVMF");
    for (name, size) in [("CODE", CODE_2M), ("CODE_4M", CODE_4M)] {
        let path = directory.join(format!("OVMF_{name}.fd"));
        if !path.is_file() {
            println!("skipped: {} is not installed", path.display());
            continue;
        }
        // Under a name that does not tell.
        let place = Place::new();
        let copy = place.file("firmware.bin", &std::fs::read(&path).unwrap());
        let rom = Rom::open(&copy, None, None).unwrap();
        assert_eq!((rom.profile, rom.code.len()), (Profile::Ovmf, size));
        // An empty store is byte for byte what edk2 builds.
        let store = path.with_file_name(format!("OVMF_{}.fd", name.replace("CODE", "VARS")));
        let store = std::fs::read(store).unwrap();
        assert!(rom.variables == store, "{name}: the store differs");
    }
    let rom = Path::new("/usr/share/bhyve/uefi-rom.bin");
    let rom = std::env::var_os("IMGFORGE_BHYVE_ROM").map_or_else(|| rom.to_owned(), PathBuf::from);
    if !rom.is_file() {
        println!("skipped: no bhyve ROM is installed, and IMGFORGE_BHYVE_ROM names none");
        return;
    }
    let place = Place::new();
    let copy = place.file("firmware.bin", &std::fs::read(&rom).unwrap());
    let rom = Rom::open(&copy, None, None).unwrap();
    assert_eq!(rom.profile, Profile::Bhyve);
    // In a flash of 2 MiB, as SmartOS has it, or of 4, as Debian's edk2 makes it.
    assert!([0xffe2_0000, 0xffc8_4000].contains(&rom.code_range().start), "{rom:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn images_of_any_content_are_taken_or_refused(
        header in proptest::collection::vec(any::<u8>(), 80), sign: bool, pages in 0_usize..3,
    ) {
        let mut image = header;
        if sign {
            image[40..44].copy_from_slice(b"_FVH");
        }
        image.resize(pages * 4096, 1);
        let place = Place::new();
        let _ = Rom::open(&place.file("any", &image), None, None);
    }
}
