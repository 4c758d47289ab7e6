// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The lines of a journal: what is written, how it is read back after a crash, and which paths a
//! journal may speak of at all.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::process::Identity;
use super::state::StateDirs;

/// Journals larger than this are not ours.
pub(super) const LARGEST: u64 = 16 << 20;

/// An effect on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(super) enum Effect {
    /// A child process.
    Process {
        /// Program.
        argv0: String,
    },
    /// Machines in the kernel.
    Machine {
        /// Their name; a number follows it.
        name: String,
    },
    /// A directory with everything in it.
    Dir {
        /// Absolute path.
        path: PathBuf,
    },
    /// One file.
    File {
        /// Absolute path.
        path: PathBuf,
    },
    /// A UNIX socket.
    Socket {
        /// Absolute path.
        path: PathBuf,
    },
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub(super) enum Record {
    /// First line: whose journal this is.
    Build {
        id: String,
        target: String,
        pid: u32,
        /// Start time of that process.
        #[serde(default)]
        start: Option<u64>,
        boot: Option<String>,
        run_dir: PathBuf,
    },
    /// An effect is about to happen.
    Will {
        entry: u64,
        #[serde(flatten)]
        effect: Effect,
    },
    /// The process of an entry runs.
    Started { entry: u64, pid: u32, start: Option<u64>, name: Option<String>, group: Option<i32> },
    /// An entry needs no undoing any more.
    Done { entry: u64 },
    /// The user asked to keep what there is; only `clean` removes it.
    Kept { why: String },
}

/// One effect and what became of it.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) entry: u64,
    pub(super) effect: Effect,
    pub(super) pid: Option<u32>,
    pub(super) identity: Option<Identity>,
}

/// A journal as read.
#[derive(Debug, Clone, Default)]
pub(super) struct Contents {
    /// Id in the first line.
    pub(super) id: String,
    pub(super) target: String,
    pub(super) pid: u32,
    pub(super) start: Option<u64>,
    pub(super) boot: Option<String>,
    pub(super) run_dir: PathBuf,
    /// Effects not done, oldest first.
    pub(super) pending: Vec<Pending>,
    pub(super) kept: Option<String>,
    /// The text does not end with a newline: the last write was cut short.
    pub(super) torn: bool,
    /// Lines that could not be read, as `line N: why`.
    pub(super) damaged: Vec<String>,
}

/// Reads a journal. A torn last line is no damage: its effect had not begun.
pub(super) fn parse(bytes: &[u8]) -> Contents {
    let torn = bytes.last().is_some_and(|b| *b != b'\n');
    let mut contents = Contents { torn, ..Contents::default() };
    let lines: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
    let last = lines.len().saturating_sub(1);
    for (number, line) in lines.iter().enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) || (number == last && contents.torn) {
            continue;
        }
        match serde_json::from_slice::<Record>(line) {
            Ok(record) => contents.apply(record),
            Err(error) => contents.damaged.push(format!("line {}: {error}", number + 1)),
        }
    }
    contents
}

impl Contents {
    fn apply(&mut self, record: Record) {
        match record {
            Record::Build { id, target, pid, start, boot, run_dir } if self.id.is_empty() => {
                (self.id, self.target, self.pid, self.start) = (id, target, pid, start);
                (self.boot, self.run_dir) = (boot, run_dir);
            }
            Record::Build { .. } => self.damaged.push("a second first line".into()),
            Record::Will { entry, effect } => {
                self.pending.push(Pending { entry, effect, pid: None, identity: None });
            }
            Record::Started { entry, pid, start, name, group } => {
                if let Some(pending) = self.pending.iter_mut().find(|p| p.entry == entry) {
                    pending.pid = Some(pid);
                    pending.identity = start.zip(name).map(|(start, name)| Identity {
                        start,
                        name,
                        group: group.unwrap_or(0),
                        ended: false,
                    });
                }
            }
            Record::Done { entry } => self.pending.retain(|p| p.entry != entry),
            Record::Kept { why } => self.kept = Some(why),
        }
    }
}

/// Which paths belong to a build, by its id alone: its directory under a runtime root, and
/// anything inside a directory named `….imgforge-ID8`. Whatever else a journal says is refused.
#[derive(Debug, Clone)]
pub(super) struct Territory {
    roots: Vec<PathBuf>,
    suffix: String,
}

impl Territory {
    pub(super) fn of(dirs: &StateDirs, id: &str) -> Self {
        let short = short_id(id);
        let roots = dirs.runtime_roots().iter().map(|root| root.join(short)).collect();
        Self { roots, suffix: scratch_suffix(id) }
    }

    /// The path is ours by its text: absolute, without `.` and `..`.
    pub(super) fn holds(&self, path: &Path) -> bool {
        let plain = path.is_absolute()
            && path.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
        plain && (self.roots.iter().any(|root| path.starts_with(root)) || self.is_scratch(path))
    }

    /// The path is ours by its text and stays ours when symbolic links on the way are followed.
    /// The last component itself is not followed.
    pub(super) fn holds_really(&self, path: &Path) -> bool {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return false };
        let Ok(parent) = parent.canonicalize() else { return false };
        let real = parent.join(name);
        let real_root = |root: &PathBuf| {
            let (above, name) = (root.parent()?, root.file_name()?);
            Some(above.canonicalize().ok()?.join(name))
        };
        self.holds(path)
            && (self.roots.iter().filter_map(real_root).any(|root| real.starts_with(root))
                || self.is_scratch(&real))
    }

    fn is_scratch(&self, path: &Path) -> bool {
        path.components().any(|component| {
            component.as_os_str().to_str().is_some_and(|name| name.ends_with(&self.suffix))
        })
    }
}

/// The first eight digits of a build's id: unique enough for directories, short enough for
/// socket paths.
pub(super) fn short_id(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// The end of the name of every scratch directory and file of a build.
pub(super) fn scratch_suffix(id: &str) -> String {
    format!(".imgforge-{}", short_id(id))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "12345678-1111-4222-8333-444444444444";

    fn territory() -> Territory {
        Territory::of(&StateDirs::at("/var/lib/imgforge", "/run/imgforge"), ID)
    }

    #[test]
    fn only_paths_of_the_build_are_ours() {
        let ours = territory();
        for path in [
            "/run/imgforge/12345678",
            "/run/imgforge/12345678/qmp",
            "/home/u/out/.debian-13.imgforge-12345678",
            "/home/u/out/.debian-13.imgforge-12345678/disk.raw",
        ] {
            assert!(ours.holds(Path::new(path)), "{path}");
        }
        for path in [
            "/",
            "/etc/passwd",
            "/run/imgforge",
            "/run/imgforge/12345679/qmp",
            "/run/imgforge/12345678/../../../etc",
            "run/imgforge/12345678",
            "/home/u/out/.debian-13.imgforge-12345679/x",
            "/home/u/x.imgforge-12345678/../../root",
            "",
        ] {
            assert!(!ours.holds(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn a_link_does_not_lead_out_of_the_territory() {
        let top = tempfile::tempdir().unwrap();
        let victim = top.path().join("victim");
        std::fs::create_dir(&victim).unwrap();
        let scratch = top.path().join(".x.imgforge-12345678");
        std::os::unix::fs::symlink(&victim, &scratch).unwrap();
        let ours = territory();
        assert!(ours.holds(&scratch.join("file")));
        assert!(!ours.holds_really(&scratch.join("file")));
        assert!(ours.holds_really(&scratch), "the link itself may be removed");
    }

    #[test]
    fn a_torn_last_line_is_forgotten() {
        let whole = r#"{"record":"will","entry":1,"kind":"file","path":"/a"}"#;
        let text = format!("{whole}\n{}", &whole[..30]);
        let contents = parse(text.as_bytes());
        assert!(contents.torn);
        assert!(contents.damaged.is_empty());
        assert_eq!(contents.pending.len(), 1);
        let contents = parse(format!("{}\n{whole}\n", &whole[..30]).as_bytes());
        assert_eq!(contents.damaged.len(), 1);
        assert_eq!(contents.pending.len(), 1);
    }

    #[test]
    fn records_survive_the_round_trip() {
        let records = [
            Record::Build {
                id: ID.into(),
                target: "debian-13".into(),
                pid: 7,
                start: Some(3),
                boot: None,
                run_dir: "/run/imgforge/12345678".into(),
            },
            Record::Will { entry: 1, effect: Effect::Process { argv0: "qemu".into() } },
            Record::Started {
                entry: 1,
                pid: 9,
                start: Some(5),
                name: Some("qemu".into()),
                group: Some(9),
            },
            Record::Will { entry: 2, effect: Effect::Dir { path: "/x".into() } },
            Record::Done { entry: 2 },
            Record::Kept { why: "asked".into() },
        ];
        let text: String =
            records.iter().map(|r| serde_json::to_string(r).unwrap() + "\n").collect();
        let contents = parse(text.as_bytes());
        assert_eq!(contents.id, ID);
        assert_eq!(contents.pending.len(), 1);
        assert_eq!(contents.pending[0].identity.as_ref().unwrap().start, 5);
        assert_eq!(contents.kept.as_deref(), Some("asked"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_cut_at_any_byte_loses_at_most_one_record(cut in 0usize..2000) {
            let line = |n: u64| serde_json::to_string(&Record::Will {
                entry: n, effect: Effect::File { path: format!("/run/{n}").into() } }).unwrap() + "\n";
            let text: String = (0..20).map(line).collect();
            let cut = cut.min(text.len());
            let contents = parse(&text.as_bytes()[..cut]);
            prop_assert!(contents.damaged.is_empty());
            prop_assert_eq!(contents.pending.len(), text[..cut].matches('\n').count());
        }
    }
}
