// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Where QEMU and its UEFI firmware are on this host.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::ui::{Failure, Outcome};
use crate::vm::child::on_path;

const PROGRAM: &str = "qemu-system-x86_64";
/// The oldest QEMU with every option that the driver uses (`-action`).
const OLDEST: (u32, u32) = (6, 0);
const INSTALL_QEMU: &str = "install it: `apt-get install qemu-system-x86` (Debian, Ubuntu), \
     `dnf install qemu-system-x86-core` (Fedora), or set IMGFORGE_QEMU to its path";
const INSTALL_OVMF: &str = "install it: `apt-get install ovmf` (Debian, Ubuntu), \
     `dnf install edk2-ovmf` (Fedora), or set IMGFORGE_OVMF_CODE and IMGFORGE_OVMF_VARS";

/// Code and variable images that belong together, as distributors install them; first the ones
/// with 4 MiB of flash, which newer releases maintain.
pub(crate) const OVMF_PLACES: [(&str, &str); 10] = [
    ("usr/share/OVMF/OVMF_CODE_4M.fd", "usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("usr/share/OVMF/OVMF_CODE.fd", "usr/share/OVMF/OVMF_VARS.fd"),
    ("usr/share/edk2/ovmf/OVMF_CODE.fd", "usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("usr/share/edk2/x64/OVMF_CODE.4m.fd", "usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("usr/share/edk2-ovmf/x64/OVMF_CODE.fd", "usr/share/edk2-ovmf/x64/OVMF_VARS.fd"),
    ("usr/share/edk2-ovmf/OVMF_CODE.fd", "usr/share/edk2-ovmf/OVMF_VARS.fd"),
    ("usr/share/qemu/ovmf-x86_64-4m-code.bin", "usr/share/qemu/ovmf-x86_64-4m-vars.bin"),
    ("usr/share/qemu/ovmf-x86_64-code.bin", "usr/share/qemu/ovmf-x86_64-vars.bin"),
    ("usr/share/qemu/edk2-x86_64-code.fd", "usr/share/qemu/edk2-i386-vars.fd"),
    ("usr/local/share/qemu/edk2-x86_64-code.fd", "usr/local/share/qemu/edk2-i386-vars.fd"),
];

/// A QEMU that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// Its version: `7.2.22`.
    pub version: String,
}

/// UEFI firmware for a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UefiFirmware {
    /// Code image, used read-only.
    pub code: PathBuf,
    /// Template of the variable store; every machine gets a copy.
    pub variables: PathBuf,
}

/// Where to look. [`Search::from_environment`] is what a build uses.
#[derive(Debug, Clone)]
pub struct Search {
    /// Directories of programs, as in `PATH`.
    pub path: OsString,
    /// `IMGFORGE_QEMU`: the program itself.
    pub qemu: Option<PathBuf>,
    /// `IMGFORGE_OVMF_CODE`.
    pub ovmf_code: Option<PathBuf>,
    /// `IMGFORGE_OVMF_VARS`.
    pub ovmf_variables: Option<PathBuf>,
    /// Root of the file system that is searched for firmware.
    pub root: PathBuf,
}

impl Search {
    /// Looks at `PATH`, `IMGFORGE_QEMU`, `IMGFORGE_OVMF_CODE` and `IMGFORGE_OVMF_VARS`.
    pub fn from_environment() -> Self {
        let file = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        Self {
            path: std::env::var_os("PATH").unwrap_or_default(),
            qemu: file("IMGFORGE_QEMU"),
            ovmf_code: file("IMGFORGE_OVMF_CODE"),
            ovmf_variables: file("IMGFORGE_OVMF_VARS"),
            root: PathBuf::from("/"),
        }
    }

    /// Finds QEMU and asks its version (some 30 ms).
    ///
    /// # Errors
    /// It is missing, does not run or is too old; each with the remedy.
    pub fn program(&self) -> Outcome<Program> {
        let path = match &self.qemu {
            Some(path) => path.clone(),
            None => on_path(PROGRAM, &self.path).ok_or_else(|| {
                Failure::build("QEMU is not installed")
                    .fact("looked", format!("{PROGRAM} in {}", self.path.to_string_lossy()))
                    .hint(INSTALL_QEMU)
            })?,
        };
        let broken = |reason: String| {
            let failure = Failure::build("QEMU does not run")
                .fact("file", path.display())
                .fact("reason", reason);
            match &self.qemu {
                Some(_) => failure.hint("correct or unset IMGFORGE_QEMU"),
                None => failure.hint(INSTALL_QEMU),
            }
        };
        let answer = first_words(&path).map_err(|error| broken(error.to_string()))?;
        let version = version_in(&answer)
            .ok_or_else(|| broken(format!("`--version` does not name a version: {answer:?}")))?;
        if version.1 < OLDEST {
            return Err(Failure::build("QEMU is too old")
                .fact("file", path.display())
                .fact("version", version.0)
                .fact("needed", format!("{}.{}", OLDEST.0, OLDEST.1))
                .hint(INSTALL_QEMU));
        }
        Ok(Program { path, version: version.0 })
    }

    /// Finds UEFI firmware.
    ///
    /// # Errors
    /// There is none, or a named file cannot be read; with the remedy.
    pub fn uefi(&self) -> Outcome<UefiFirmware> {
        if let Some(code) = &self.ovmf_code {
            let variables = match &self.ovmf_variables {
                Some(variables) => variables.clone(),
                None => beside(code).ok_or_else(|| {
                    Failure::input("IMGFORGE_OVMF_CODE is set, but IMGFORGE_OVMF_VARS is not")
                        .fact("code", code.display())
                        .hint("set IMGFORGE_OVMF_VARS to the variable store that belongs to it")
                })?,
            };
            let firmware = UefiFirmware { code: code.clone(), variables };
            for file in [&firmware.code, &firmware.variables] {
                std::fs::File::open(file).map_err(|error| {
                    Failure::input("cannot read the UEFI firmware named in the environment")
                        .because(error)
                        .fact("file", file.display())
                        .hint("correct or unset IMGFORGE_OVMF_CODE and IMGFORGE_OVMF_VARS")
                })?;
            }
            return Ok(firmware);
        }
        OVMF_PLACES
            .iter()
            .map(|(code, variables)| UefiFirmware {
                code: self.root.join(code),
                variables: self.root.join(variables),
            })
            .find(|firmware| firmware.code.is_file() && firmware.variables.is_file())
            .ok_or_else(|| {
                Failure::build("there is no UEFI firmware for QEMU (OVMF)")
                    .fact("looked", self.root.join(OVMF_PLACES[0].0).display())
                    .fact("also in", "the places of Fedora, Arch, SUSE, Gentoo and QEMU itself")
                    .hint(INSTALL_OVMF)
            })
    }

    /// `setpriv` of util-linux, by which QEMU dies with us.
    pub fn setpriv(&self) -> Option<PathBuf> {
        on_path("setpriv", &self.path)
    }
}

/// The variable store beside a code image, by the usual names.
pub(crate) fn beside(code: &Path) -> Option<PathBuf> {
    let name = code.file_name()?.to_str()?;
    let pairs = [("CODE", "VARS"), ("code", "vars")];
    let candidates = pairs.iter().filter(|(from, _)| name.contains(from));
    candidates.map(|(from, to)| code.with_file_name(name.replace(from, to))).find(|f| f.is_file())
}

/// What `program --version` prints, bounded in size and time.
fn first_words(program: &Path) -> std::io::Result<String> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let mut child = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let started = Instant::now();
    while child.try_wait()?.is_none() {
        if started.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            return Err(std::io::Error::other("`--version` did not end within 10 s"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut answer = String::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(4096).read_to_string(&mut answer)?;
    }
    Ok(answer)
}

/// `7.2.22` and `(7, 2)` of `QEMU emulator version 7.2.22 (Debian …)`.
fn version_in(answer: &str) -> Option<(String, (u32, u32))> {
    let (_, rest) = answer.split_once("QEMU emulator version ")?;
    let text: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    let mut numbers = text.split('.');
    let pair = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    Some((text, pair))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn nowhere(root: &Path) -> Search {
        Search {
            path: root.join("bin").into_os_string(),
            qemu: None,
            ovmf_code: None,
            ovmf_variables: None,
            root: root.to_owned(),
        }
    }

    fn script(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn missing_parts_say_what_to_install() {
        let dir = tempfile::tempdir().unwrap();
        let search = nowhere(dir.path());
        let text = search.program().unwrap_err().to_string();
        assert!(text.contains("apt-get install qemu-system-x86"), "{text}");
        let text = search.uefi().unwrap_err().to_string();
        assert!(text.contains("apt-get install ovmf"), "{text}");
        assert_eq!(search.setpriv(), None);
    }

    #[test]
    fn finds_the_program_and_judges_its_version() {
        let dir = tempfile::tempdir().unwrap();
        let search = nowhere(dir.path());
        let program = dir.path().join("bin").join(PROGRAM);
        script(&program, "echo 'QEMU emulator version 8.0.4 (Somebody 1:8)'");
        let found = search.program().unwrap();
        assert_eq!((found.path, found.version.as_str()), (program.clone(), "8.0.4"));
        let named = Search { qemu: Some(program.clone()), path: "".into(), ..search.clone() };
        assert_eq!(named.program().unwrap().version, "8.0.4");
        script(&program, "echo 'QEMU emulator version 5.2.0'");
        let text = search.program().unwrap_err().to_string();
        assert!(text.contains("too old") && text.contains("6.0"), "{text}");
        script(&program, "echo something else");
        let text = search.program().unwrap_err().to_string();
        assert!(text.contains("something else"), "{text}");
    }

    #[test]
    fn a_named_program_that_is_not_there_is_blamed() {
        let mut search = nowhere(Path::new("/nonexistent"));
        search.qemu = Some("/nonexistent/qemu".into());
        let text = search.program().unwrap_err().to_string();
        assert!(text.contains("IMGFORGE_QEMU") && text.contains("/nonexistent/qemu"), "{text}");
    }

    #[test]
    fn firmware_pairs_belong_together() {
        let dir = tempfile::tempdir().unwrap();
        let mut search = nowhere(dir.path());
        let place = |name: &str| {
            let file = dir.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, "fw").unwrap();
            file
        };
        place("usr/share/OVMF/OVMF_CODE_4M.fd");
        let code = place("usr/share/edk2/x64/OVMF_CODE.4m.fd");
        let variables = place("usr/share/edk2/x64/OVMF_VARS.4m.fd");
        let expected = UefiFirmware { code: code.clone(), variables };
        assert_eq!(search.uefi().unwrap(), expected, "a code image alone is no firmware");
        search.ovmf_code = Some(code);
        assert_eq!(search.uefi().unwrap(), expected, "the store beside the named code");
        search.ovmf_code = Some(dir.path().join("usr/share/OVMF/OVMF_CODE_4M.fd"));
        assert!(search.uefi().unwrap_err().to_string().contains("IMGFORGE_OVMF_VARS"));
        search.ovmf_variables = Some("/nonexistent.fd".into());
        assert!(search.uefi().unwrap_err().to_string().contains("/nonexistent.fd"));
    }

    #[test]
    fn versions() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright";
        assert_eq!(version_in(debian), Some(("7.2.22".into(), (7, 2))));
        assert_eq!(version_in("QEMU emulator version x"), None);
        assert_eq!(version_in(""), None);
    }
}
