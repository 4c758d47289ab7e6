// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `cargo xtask demo`: from a fresh machine to a finished image with one command.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::media::{self, Medium};
use crate::process::{self, Outcome};
use crate::{mirror, packages};

/// `demo [--tiny]`.
pub(crate) fn main(words: &[&str]) -> Outcome {
    let tiny = match words {
        [] => false,
        ["--tiny"] => true,
        _ => return Err("usage: cargo xtask demo [--tiny]".into()),
    };
    announce(tiny);
    let begin = Instant::now();
    packages::ensure(packages::BUILD)?;
    packages::ensure(packages::MEDIUM)?;
    let medium = if tiny { Medium::Tiny } else { Medium::Debian13 };
    media::make(medium, &medium.path(), process::run)?;
    let binary = binary()?;
    let output = process::root().join("output-demo");
    process::run(&mut build(&binary, medium, &output)?)?;
    let image = find(&output, ".zfs.gz")
        .ok_or_else(|| format!("the build left no .zfs.gz in {}", output.display()))?;
    farewell(&image, begin.elapsed().as_secs());
    Ok(())
}

fn announce(tiny: bool) {
    if tiny {
        eprintln!("demo: the whole pipeline with an installer in miniature: about 90 seconds");
        eprintln!(
            "demo: (more the first time, while imgforge is compiled and packages are fetched)"
        );
    } else {
        eprintln!(
            "demo: Debian 13 from Debian's own installer: 30 to 90 minutes where QEMU emulates"
        );
        eprintln!("demo: the processor, a few where it has hardware virtualization");
        eprintln!("demo: `cargo xtask demo --tiny` shows the same pipeline in about 90 seconds");
    }
}

fn farewell(image: &Path, seconds: u64) {
    let image = image.strip_prefix(process::root()).unwrap_or(image).display();
    eprintln!("demo: done after {} min {:02} s; the image:", seconds / 60, seconds % 60);
    println!("{image}");
    eprintln!("demo: to boot it:");
    eprintln!("  target/debug/imgforge convert {image} /tmp/image.raw");
    eprintln!("  cp /usr/share/OVMF/OVMF_VARS_4M.fd /tmp/vars.fd");
    eprintln!("  qemu-system-x86_64 -machine q35 -m 1024 -nographic \\");
    eprintln!(
        "    -drive if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd \\"
    );
    eprintln!("    -drive if=pflash,format=raw,file=/tmp/vars.fd \\");
    eprintln!("    -drive if=virtio,format=raw,file=/tmp/image.raw");
}

/// Compiles imgforge and returns the program.
pub(crate) fn binary() -> Outcome<PathBuf> {
    process::run(process::cargo().args(["build", "--package", "imgforge", "--bin", "imgforge"]))?;
    Ok(target_directory().join("debug/imgforge"))
}

/// Cargo's target directory.
pub(crate) fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| process::root().join("target"), PathBuf::from)
}

/// The build of a medium's target, for this machine's mirror.
pub(crate) fn build(binary: &Path, medium: Medium, output: &Path) -> Outcome<Command> {
    let mut command = Command::new(binary);
    command.arg("build");
    match medium {
        Medium::Tiny => {
            command.args(["tiny", "--target-file", "tests/data/tiny/tiny.yaml"]);
        }
        Medium::Debian12 => debian(&mut command, "debian-12", "bookworm")?,
        Medium::Debian13 => debian(&mut command, "debian-13", "trixie")?,
    }
    command.arg("--iso").arg(medium.path()).arg("--output").arg(output).arg("--force");
    command.current_dir(process::root());
    Ok(command)
}

fn debian(command: &mut Command, target: &str, suite: &str) -> Outcome {
    command.arg(target);
    command.args(["--var", &format!("mirror={}", mirror::debian()?)]);
    command.args(["--var", &format!("security_mirror={}", mirror::security(suite)?)]);
    Ok(())
}

/// The first file below `directory` whose name ends with `suffix`.
pub(crate) fn find(directory: &Path, suffix: &str) -> Option<PathBuf> {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    let is_wanted = |path: &PathBuf| path.is_file() && path.to_string_lossy().ends_with(suffix);
    entries
        .iter()
        .find(|path| is_wanted(path))
        .cloned()
        .or_else(|| entries.iter().filter(|path| path.is_dir()).find_map(|path| find(path, suffix)))
}
