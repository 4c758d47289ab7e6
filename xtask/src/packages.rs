// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Debian packages that tasks need: which are missing, and how to get them.

use std::path::Path;
use std::process::Command;

use crate::process::{self, Outcome};

/// A program or file, and the Debian package that brings it.
pub(crate) type Need = (&'static str, &'static str);

/// What making a medium needs.
pub(crate) const MEDIUM: &[Need] = &[
    ("curl", "curl"),
    ("xz", "xz-utils"),
    ("cpio", "cpio"),
    ("depmod", "kmod"),
    ("mformat", "mtools"),
    ("xorriso", "xorriso"),
    ("strings", "binutils"),
    ("/etc/ssl/certs/ca-certificates.crt", "ca-certificates"),
];

/// What running a build needs.
pub(crate) const BUILD: &[Need] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf"),
    ("cc", "gcc"),
    ("/usr/include/stdlib.h", "libc6-dev"),
];

/// What looking at a finished image needs.
pub(crate) const INSPECT: &[Need] = &[
    ("ssh", "openssh-client"),
    ("python3", "python3-minimal"),
    ("partx", "util-linux"),
    ("mount", "mount"),
    ("mdir", "mtools"),
];

/// What tests on this machine itself need.
pub(crate) const TESTS: &[Need] = &[
    ("/usr/sbin/sshd", "openssh-server"),
    ("ssh", "openssh-client"),
    ("ansible-playbook", "ansible-core"),
    ("openssl", "openssl"),
    ("qemu-img", "qemu-utils"),
    ("iasl", "acpica-tools"),
    ("dmidecode", "dmidecode"),
];

/// The packages of `needs` that are not there.
pub(crate) fn missing(needs: &[Need]) -> Vec<&'static str> {
    let mut packages: Vec<&str> = needs
        .iter()
        .filter(|(probe, _)| {
            if probe.starts_with('/') {
                !Path::new(probe).exists()
            } else {
                process::which(probe).is_none()
            }
        })
        .map(|(_, package)| *package)
        .collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Sees to it that everything is there: installs it as root, names the command otherwise.
pub(crate) fn ensure(needs: &[Need]) -> Outcome {
    let packages = missing(needs);
    if packages.is_empty() {
        return Ok(());
    }
    if process::which("apt-get").is_none() {
        return Err(format!(
            "these Debian packages (or their likes) are missing: {}",
            packages.join(" ")
        ));
    }
    if !process::is_root() {
        return Err(format!("not installed; run: sudo apt-get install {}", packages.join(" ")));
    }
    eprintln!("xtask: installing {}", packages.join(" "));
    if install(&packages).is_err() {
        process::run(Command::new("apt-get").args(["-qq", "update"]))?;
        install(&packages)?;
    }
    let left = missing(needs);
    if left.is_empty() {
        Ok(())
    } else {
        Err(format!("installed, but still not usable: {}", left.join(" ")))
    }
}

fn install(packages: &[&str]) -> Outcome {
    process::run(
        Command::new("apt-get")
            .args(["-qq", "-y", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0", "install"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null()),
    )
}
