// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The firmware on this host: found, checked, and where in the guest it lies.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::variables;
use super::volume::{self, Kind};
use crate::qemu::{OVMF_PLACES, beside};
use crate::ui::{Failure, Outcome};
use crate::vm::memory::HIGH_BASE;

/// More than this and the ROM would reach down to the local APICs.
const LARGEST: u64 = 16 << 20;
/// Both are multiples of what processors map.
const PAGE: usize = 4096;

/// Where platforms with bhyve keep theirs: SmartOS, OmniOS, FreeBSD.
const BHYVE: [&str; 4] = [
    "usr/share/bhyve/uefi-rom.bin",
    "usr/share/bhyve/firmware/BHYVE_RELEASE.fd",
    "usr/share/bhyve/firmware/BHYVE.fd",
    "usr/local/share/uefi-firmware/BHYVE_UEFI.fd",
];

const INSTALL: &str = "install it: `apt-get install ovmf` (Debian, Ubuntu), \
     `dnf install edk2-ovmf` (Fedora), or set IMGFORGE_OVMF_CODE to its path";

/// What a firmware expects of its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// The bhyve platform's: needs an HPET, has its ACPI timer at 0x408, shows its picture on a
    /// bhyve frame buffer, finds SMBIOS in RAM.
    Bhyve,
    /// OVMF for QEMU's machines: asks fw_cfg for everything, powers off through port 0xB004.
    Ovmf,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bhyve => "bhyve",
            Self::Ovmf => "OVMF",
        })
    }
}

/// A firmware that passed the checks.
#[derive(Clone, PartialEq, Eq)]
pub struct Rom {
    /// Where it was found.
    pub path: PathBuf,
    /// What it expects.
    pub profile: Profile,
    /// The code: ends at 4 GiB, read-only.
    pub code: Vec<u8>,
    /// The initial content of the flash for variables, which ends where the code begins.
    pub variables: Vec<u8>,
}

impl fmt::Debug for Rom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rom")
            .field("path", &self.path)
            .field("profile", &self.profile)
            .field("code", &self.code_range())
            .field("flash", &self.flash_range())
            .finish()
    }
}

impl Rom {
    /// Guest-physical addresses of the code.
    pub fn code_range(&self) -> Range<u64> {
        HIGH_BASE - self.code.len() as u64..HIGH_BASE
    }

    /// Guest-physical addresses of the flash for variables.
    pub fn flash_range(&self) -> Range<u64> {
        let end = self.code_range().start;
        end - self.variables.len() as u64..end
    }

    /// Reads and checks a firmware file: code alone, or variables and code in one image. `profile`
    /// is worked out of the content when not given; `store` is the variables' template, an empty
    /// store being made when there is none.
    ///
    /// # Errors
    /// The file is missing, empty, too large, not UEFI firmware, a variable store, or without a
    /// reset vector; or the store does not belong to the code.
    pub fn open(path: &Path, profile: Option<Profile>, store: Option<&Path>) -> Outcome<Self> {
        let mut code = read(path)?;
        let refuse = |what: &str| {
            Failure::input(what).fact("file", path.display()).fact("size", code.len()).hint(INSTALL)
        };
        if code.is_empty() || code.len() % PAGE != 0 {
            return Err(refuse("a firmware's size must be a multiple of 4096 bytes"));
        }
        let mut variables = None;
        match volume::kind(&code) {
            None => return Err(refuse("this is not a UEFI firmware: no firmware volume")),
            Some(Kind::Code) => {}
            Some(Kind::Variables { size }) if size == code.len() => {
                return Err(refuse("this is a variable store, without a firmware's code"));
            }
            Some(Kind::Variables { size }) => {
                if volume::kind(code.get(size..).unwrap_or_default()) != Some(Kind::Code) {
                    return Err(refuse("no firmware follows the variable store in this image"));
                }
                let rest = code.split_off(size);
                variables = Some(std::mem::replace(&mut code, rest));
            }
        }
        if !volume::has_reset_vector(&code) {
            return Err(Failure::input(
                "this firmware has no reset vector: a part of it is missing",
            )
            .fact("file", path.display())
            .fact("size", code.len())
            .hint(INSTALL));
        }
        let profile = profile.unwrap_or_else(|| recognize(path, &code));
        let variables = match (store, variables) {
            (Some(store), _) => read_store(store)?,
            (None, Some(variables)) => variables,
            (None, None) => variables::empty_for(code.len()).ok_or_else(|| {
                Failure::input("there is no variable store for this firmware")
                    .fact("file", path.display())
                    .fact("size", code.len())
                    .hint("set IMGFORGE_OVMF_VARS to the store that belongs to it")
            })?,
        };
        fit(path, &code, &variables)?;
        Ok(Self { path: path.to_owned(), profile, code, variables })
    }
}

/// Where to look. [`Search::from_environment`] is what a build uses.
#[derive(Debug, Clone)]
pub struct Search {
    /// `IMGFORGE_OVMF_CODE`, or `IMGFORGE_BHYVE_ROM` with its profile.
    pub named: Option<(PathBuf, Option<Profile>)>,
    /// `IMGFORGE_OVMF_VARS`.
    pub variables: Option<PathBuf>,
    /// Root of the file system that is searched.
    pub root: PathBuf,
}

impl Search {
    /// Looks at `IMGFORGE_BHYVE_ROM`, `IMGFORGE_OVMF_CODE` and `IMGFORGE_OVMF_VARS`.
    pub fn from_environment() -> Self {
        let file = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let rom = file("IMGFORGE_BHYVE_ROM").map(|path| (path, Some(Profile::Bhyve)));
        Self {
            named: rom.or_else(|| file("IMGFORGE_OVMF_CODE").map(|path| (path, None))),
            variables: file("IMGFORGE_OVMF_VARS"),
            root: PathBuf::from("/"),
        }
    }

    /// Finds a firmware: the named one, else an installed one of the first profile in `order` that
    /// has any.
    ///
    /// # Errors
    /// There is none, or the one found does not pass the checks of [`Rom::open`].
    pub fn find(&self, order: &[Profile]) -> Outcome<Rom> {
        if let Some((path, profile)) = &self.named {
            let store = self.variables.clone().or_else(|| beside(path));
            return Rom::open(path, *profile, store.as_deref()).map_err(|failure| {
                failure.hint("correct or unset IMGFORGE_OVMF_CODE and IMGFORGE_BHYVE_ROM")
            });
        }
        for profile in order {
            let mut installed = places(*profile).into_iter().map(|place| self.root.join(place));
            if let Some(path) = installed.find(|path| path.is_file()) {
                return Rom::open(&path, Some(*profile), beside(&path).as_deref());
            }
        }
        let looked = order.iter().filter_map(|profile| places(*profile).into_iter().next());
        let looked: Vec<String> =
            looked.map(|place| self.root.join(place).display().to_string()).collect();
        Err(Failure::build("there is no UEFI firmware for the virtual machine")
            .fact("looked", looked.join("\n"))
            .fact("also in", "the places of other distributions")
            .hint(INSTALL))
    }
}

/// Where firmware of a profile is installed, below the root.
fn places(profile: Profile) -> Vec<&'static str> {
    match profile {
        Profile::Bhyve => BHYVE.to_vec(),
        Profile::Ovmf => OVMF_PLACES.iter().map(|(code, _)| *code).collect(),
    }
}

/// Tells the profiles apart. OVMF ends in a table of GUIDs for whoever loads it; bhyve's ends in
/// the plain reset vector. Only the name tells an OVMF too old for that table.
fn recognize(path: &Path, code: &[u8]) -> Profile {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    if volume::has_loader_table(code) || name.contains("ovmf") {
        Profile::Ovmf
    } else {
        Profile::Bhyve
    }
}

/// Code and variables share a flash of 1, 2, 4, 8 or 16 MiB.
fn fit(path: &Path, code: &[u8], variables: &[u8]) -> Outcome<()> {
    let sum = code.len() + variables.len();
    if sum.is_power_of_two() && sum as u64 <= LARGEST {
        return Ok(());
    }
    Err(Failure::input("the variable store does not belong to this firmware")
        .fact("file", path.display())
        .fact("size", code.len())
        .fact("store", format!("{} bytes", variables.len()))
        .hint("set IMGFORGE_OVMF_VARS to the store that was installed with the firmware"))
}

fn read_store(path: &Path) -> Outcome<Vec<u8>> {
    let store = read(path)?;
    if volume::kind(&store) == Some(Kind::Variables { size: store.len() }) {
        return Ok(store);
    }
    Err(Failure::input("this is not a store of UEFI variables")
        .fact("file", path.display())
        .fact("size", store.len())
        .hint("set IMGFORGE_OVMF_VARS to the store that was installed with the firmware"))
}

/// Reads a file, never more than a ROM may have.
fn read(path: &Path) -> Outcome<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut content)).map_err(
        |error| {
            Failure::input("cannot read the firmware")
                .because(error)
                .fact("file", path.display())
                .hint(INSTALL)
        },
    )?;
    if content.len() as u64 > LARGEST {
        return Err(Failure::input("the firmware is too large")
            .fact("file", path.display())
            .fact("limit", format!("{LARGEST} bytes"))
            .hint(INSTALL));
    }
    Ok(content)
}
