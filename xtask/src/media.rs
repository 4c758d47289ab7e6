// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `cargo xtask media`: installation media made from Debian packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use crate::packages;
use crate::process::{self, Outcome};

/// A medium that the project can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Medium {
    /// Debian's own installer 12.
    Debian12,
    /// Debian's own installer 13.
    Debian13,
    /// The installer in miniature.
    Tiny,
}

impl Medium {
    fn parse(name: &str) -> Outcome<Self> {
        match name {
            "debian-12" => Ok(Self::Debian12),
            "debian-13" => Ok(Self::Debian13),
            "tiny" => Ok(Self::Tiny),
            _ => Err(format!("no such medium: {name}; there are debian-12, debian-13 and tiny")),
        }
    }

    /// Its usual place.
    pub(crate) fn path(self) -> PathBuf {
        process::root().join(match self {
            Self::Debian12 => "target/media/debian-12.iso",
            Self::Debian13 => "target/media/debian-13.iso",
            Self::Tiny => "target/media/tiny.iso",
        })
    }

    /// The recipe's own arguments.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Debian12 => &["12"],
            Self::Debian13 => &["13"],
            Self::Tiny => &[],
        }
    }

    /// What it is made by; the first file is the script to run.
    fn sources(self) -> Vec<PathBuf> {
        let mut sources = vec![process::recipe(match self {
            Self::Debian12 | Self::Debian13 => "debian-medium.sh",
            Self::Tiny => "tiny-medium.sh",
        })];
        sources.push(process::recipe("packages.sh"));
        sources.push(process::recipe("netinst-grub.cfg"));
        if self == Self::Tiny {
            let files = fs::read_dir(process::recipe("tiny"));
            sources.extend(files.into_iter().flatten().flatten().map(|entry| entry.path()));
        }
        sources
    }
}

/// `media NAME [OUT]`.
pub(crate) fn main(words: &[&str]) -> Outcome {
    let (medium, out) = match words {
        [name] => (Medium::parse(name)?, Medium::parse(name)?.path()),
        [name, out] => (Medium::parse(name)?, PathBuf::from(out)),
        _ => return Err("usage: cargo xtask media debian-12|debian-13|tiny [OUT]".into()),
    };
    make(medium, &out, process::run)?;
    println!("{}", out.display());
    Ok(())
}

/// Makes the medium unless it is newer than everything it is made by. `run` runs the recipe.
pub(crate) fn make(
    medium: Medium,
    out: &Path,
    run: impl FnOnce(&mut Command) -> Outcome,
) -> Outcome {
    let sources = medium.sources();
    if is_newer(out, &sources) {
        return Ok(());
    }
    packages::ensure(packages::MEDIUM)?;
    let script = &sources[0];
    run(Command::new(script)
        .args(medium.arguments())
        .arg(out)
        .arg(process::root().join("target/media/cache")))
}

fn is_newer(out: &Path, sources: &[PathBuf]) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|facts| facts.modified()).ok();
    let Some(made) = changed(out) else { return false };
    sources.iter().all(|source| changed(source).unwrap_or_else(SystemTime::now) < made)
}
