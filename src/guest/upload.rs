// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Files and trees into the guest and logs out of it, with nothing but a shell on the far side.
//!
//! Works with busybox: `cat`, `mv`, `chmod`, `wc`, and `tar` where there is one.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::distr::{Alphanumeric, SampleString};

use super::command::{Command, quote};
use super::session::Session;
use crate::target::AssetFile;
use crate::ui::{Failure, Outcome};

/// Slowest transfer that is still a transfer, in bytes per second.
const SLOWEST: u64 = 64 * 1024;
/// Most bytes of a guest's complaint that are kept.
const COMPLAINT: usize = 8 * 1024;

/// Writes a file in the guest: under its name it is either whole, with its mode, or not there.
/// The directory must exist.
pub async fn upload_bytes(session: &Session, bytes: &[u8], to: &str, mode: u32) -> Outcome<()> {
    absolute(to)?;
    // A complaint to a connection that is gone must not end the script before it has cleaned up,
    // nor must a signal to the whole process group end the `rm` that does so.
    let tag = Alphanumeric.sample_string(&mut rand::rng(), 8);
    let text = format!(
        "set -u; umask 077; to={to}; new=\"$to.imgforge-{tag}\"; dir=$(dirname \"$to\")\n\
         [ -d \"$dir\" ] || {{ echo \"$dir is no directory\" >&2; exit 1; }}\n\
         [ ! -d \"$to\" ] || {{ echo \"$to is a directory; end its name with /\" >&2; exit 1; }}\n\
         clean() {{ trap '' HUP INT TERM; rm -f \"$new\"; }}\n\
         trap clean EXIT; trap 'clean; exit 1' HUP INT TERM; trap '' PIPE\n\
         cat >\"$new\" || exit 1\n\
         [ \"$(wc -c <\"$new\")\" -eq {size} ] || {{ echo 'the transfer was cut short' >&2; exit 1; }}\n\
         chmod {mode:o} \"$new\" && mv -f \"$new\" \"$to\"",
        to = quote(to),
        size = bytes.len(),
        mode = mode & 0o7777,
    );
    let command =
        Command::new(text).stdin(bytes.to_vec()).within(transfer_time(bytes.len() as u64));
    session.capture(&command, COMPLAINT).await?.or_fail(&format!("write {to}"))?;
    Ok(())
}

/// Puts files below a directory of the guest, which is made when it is missing; files that are
/// there already and not among the new ones stay. One tar stream, or file by file without tar.
pub async fn upload_tree(session: &Session, files: &[AssetFile], to: &str) -> Outcome<()> {
    absolute(to)?;
    let archive = archive(files)?;
    let size = archive.len() as u64;
    // The probe eats the stream, so that a guest without tar does not close it half way.
    let text = format!(
        "mkdir -p {to} || exit 1\n\
         command -v tar >/dev/null 2>&1 || {{ cat >/dev/null; exit 117; }}\n\
         exec tar -xpomf - -C {to}",
        to = quote(to)
    );
    let command = Command::new(text).stdin(archive).within(transfer_time(size));
    let got = session.capture(&command, COMPLAINT).await?;
    if got.ended == super::Ended::Code(117) {
        return one_by_one(session, files, to).await;
    }
    got.or_fail(&format!("unpack files into {to}"))?;
    Ok(())
}

async fn one_by_one(session: &Session, files: &[AssetFile], to: &str) -> Outcome<()> {
    let to = to.trim_end_matches('/');
    for directory in directories(files) {
        let text = format!("mkdir -p {}", quote(&format!("{to}/{directory}")));
        let made = session.capture(&Command::new(text), COMPLAINT).await?;
        made.or_fail(&format!("make the directory {to}/{directory}"))?;
    }
    for file in files {
        upload_bytes(session, &file.bytes, &format!("{to}/{}", file.path), file.mode).await?;
    }
    Ok(())
}

/// A file of the guest, at most `limit` bytes of it; `None` when it cannot be read.
pub async fn download(session: &Session, path: &str, limit: usize) -> Outcome<Option<Vec<u8>>> {
    absolute(path)?;
    let command = Command::new(format!("exec cat {}", quote(path)))
        .within(transfer_time(limit.min(1 << 40) as u64));
    let got = session.capture(&command, limit).await?;
    Ok(got.ended.good().then_some(got.stdout))
}

fn transfer_time(bytes: u64) -> Duration {
    Duration::from_secs(60 + bytes / SLOWEST)
}

fn absolute(path: &str) -> Outcome<()> {
    if path.starts_with('/') && !path.contains('\0') {
        return Ok(());
    }
    Err(Failure::input(format!("`{path}` is no absolute path in the guest"))
        .hint("begin the path with `/`"))
}

/// A tar archive of the files, owned by root, with the directories that they need.
fn archive(files: &[AssetFile]) -> Outcome<Vec<u8>> {
    let failed = |error| Failure::build("cannot pack files for the guest").because(error);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
    let header = |kind, size, mode| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(mode & 0o7777);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(now);
        header
    };
    for file in files {
        relative(&file.path)?;
    }
    let mut builder = tar::Builder::new(Vec::new());
    for directory in directories(files) {
        let mut header = header(tar::EntryType::Directory, 0, 0o755);
        builder
            .append_data(&mut header, format!("{directory}/"), std::io::empty())
            .map_err(failed)?;
    }
    for file in files {
        let mut header = header(tar::EntryType::Regular, file.bytes.len() as u64, file.mode);
        builder.append_data(&mut header, &file.path, file.bytes.as_slice()).map_err(failed)?;
    }
    builder.into_inner().map_err(failed)
}

pub(super) fn relative(path: &str) -> Outcome<()> {
    let good = !path.is_empty()
        && path.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'));
    if good {
        return Ok(());
    }
    Err(Failure::input(format!("`{path}` cannot be the name of a file for the guest")))
}

/// Every directory above a file, parents first.
fn directories(files: &[AssetFile]) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for file in files {
        for (at, _) in file.path.match_indices('/') {
            all.insert(file.path[..at].to_owned());
        }
    }
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn file(path: &str) -> AssetFile {
        AssetFile { path: path.into(), mode: 0o644, bytes: b"x".to_vec() }
    }

    #[test]
    fn directories_come_before_what_is_in_them() {
        let all = directories(&[file("a/b/c/d"), file("a/x"), file("top")]);
        assert_eq!(all.into_iter().collect::<Vec<_>>(), ["a", "a/b", "a/b/c"]);
    }

    #[test]
    fn refuses_paths_that_leave_the_tree() {
        for path in ["../x", "/etc/passwd", "a//b", "a/../../b", "", "./x"] {
            assert!(archive(&[file(path)]).is_err(), "{path}");
        }
    }
}
