// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Processes as the journal knows them: a pid alone is never trusted.
//!
//! A pid is reused once its process is gone, so a process is identified by pid, start time and
//! name together (a process that has become another program by exec, by the mark of its build in
//! its environment instead of its name), as `/proc` tells them: `/proc/PID/stat` where it exists (proc(5): field 22 in
//! clock ticks since boot), else the binary `/proc/PID/psinfo` (proc(5) of illumos, LP64
//! layout). A process that `/proc` does not show is taken for gone.

use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// Environment variable that every process of a build carries, its value being the build's id.
/// It finds processes that were started but not yet written down when the build died.
pub const BUILD_VARIABLE: &str = "IMGFORGE_BUILD";

/// How long a process may take to obey SIGTERM, and then to vanish after SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// How long an exec may leave a process without its environment.
const EXEC: Duration = Duration::from_millis(500);
/// How often a vanishing process is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What `/proc` says of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// Start time in the unit of the source; only ever compared.
    pub(super) start: u64,
    /// The kernel's short name of the program.
    pub(super) name: String,
    /// Process group.
    pub(super) group: i32,
    /// Ended, but its parent has not asked for its status yet.
    pub(super) ended: bool,
}

/// A process that a build started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    /// Its pid.
    pub(super) pid: u32,
    /// What it was when it was found or written down.
    pub(super) identity: Identity,
    /// The id of its build.
    pub(super) build: String,
    /// The program that the build meant to start; empty when that is not known. It counts as the
    /// process's name beside the one seen, for that one may have been seen too early, within
    /// the exec.
    pub(super) program: String,
}

/// Looks a process up.
pub(super) fn identify(pid: u32) -> Option<Identity> {
    let dir = Path::new("/proc").join(pid.to_string());
    match fs::read(dir.join("stat")) {
        Ok(text) => parse_stat(&text),
        Err(_) => parse_psinfo(pid, &fs::read(dir.join("psinfo")).ok()?),
    }
}

/// Reads `pid (name) state ppid pgrp … starttime`; the name may hold blanks and parentheses.
fn parse_stat(text: &[u8]) -> Option<Identity> {
    let text = String::from_utf8_lossy(text);
    let open = text.find('(')?;
    let close = text.rfind(')')?;
    let name = text.get(open + 1..close)?.to_owned();
    let rest: Vec<&str> = text.get(close + 1..)?.split_whitespace().collect();
    Some(Identity {
        name,
        ended: matches!(*rest.first()?, "Z" | "X" | "x"),
        group: rest.get(2)?.parse().ok()?,
        start: rest.get(19)?.parse().ok()?,
    })
}

/// Reads `psinfo_t`: pid at 8, process group at 16, start time at 88, name at 136.
fn parse_psinfo(pid: u32, bytes: &[u8]) -> Option<Identity> {
    let word = |at: usize| Some(i32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(i64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    if u32::try_from(word(8)?).ok()? != pid {
        return None;
    }
    let seconds = u64::try_from(long(88)?).ok()?;
    let start = seconds.checked_mul(1_000_000_000)?.checked_add(u64::try_from(long(96)?).ok()?)?;
    let name = bytes.get(136..152)?.split(|b| *b == 0).next()?;
    Some(Identity {
        start,
        name: String::from_utf8_lossy(name).into_owned(),
        group: word(16)?,
        ended: word(4)? == 0,
    })
}

/// A value that changes with every boot, where the system offers one.
pub(super) fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

/// Processes of this user that carry [`BUILD_VARIABLE`] with this build's id, or that are one of
/// the `programs` and name a file below `run_dir` on their command line.
pub(super) fn marked(id: &str, run_dir: &Path, programs: &[String]) -> Vec<u32> {
    let mut inside = run_dir.as_os_str().as_bytes().to_vec();
    inside.push(b'/');
    let own = nix::unistd::geteuid().as_raw();
    let Ok(list) = fs::read_dir("/proc") else { return Vec::new() };
    list.filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid > 1 && *pid != std::process::id())
        .filter(|pid| fs::metadata(format!("/proc/{pid}")).is_ok_and(|m| m.uid() == own))
        .filter(|pid| {
            let cmdline = || fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            carries_mark(*pid, id) || is_program_of_run(&cmdline(), &inside, programs)
        })
        .collect()
}

fn is_program_of_run(cmdline: &[u8], inside: &[u8], programs: &[String]) -> bool {
    let first = cmdline.split(|b| *b == 0).next().unwrap_or_default();
    let first = String::from_utf8_lossy(first);
    programs.iter().any(|program| base_name(program) == base_name(&first))
        && cmdline.windows(inside.len()).any(|part| part == inside)
}

pub(super) fn base_name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// How an attempt to end a process went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was running and is gone now.
    Killed,
    /// It was not running any more (or the pid belongs to somebody else now).
    Gone,
}

/// Ends exactly this process: SIGTERM first unless `at_once`, then SIGKILL. A process that leads
/// a group takes its group with it.
pub(super) fn end(known: &Known, at_once: bool) -> Result<Ended, String> {
    if !lives(known) {
        return Ok(Ended::Gone);
    }
    if !at_once && signal(known, Signal::SIGTERM)? && wait_gone(known) {
        return Ok(Ended::Killed);
    }
    if !lives(known) {
        return Ok(Ended::Killed);
    }
    signal(known, Signal::SIGKILL)?;
    if wait_gone(known) {
        return Ok(Ended::Killed);
    }
    Err(format!("{known} did not end within {} s of SIGKILL", GRACE.as_secs()))
}

/// Still the process that was written down, and alive.
pub(super) fn lives(known: &Known) -> bool {
    known.pid > 1
        && identify(known.pid).is_some_and(|now| {
            !now.ended
                && now.start == known.identity.start
                && (now.name == known.identity.name
                    || (!known.program.is_empty() && now.name == short_name(&known.program))
                    || carries_mark(known.pid, &known.build))
        })
}

/// A living process has this pid, whichever it is. True as well where `/proc` tells nothing.
pub(super) fn exists(pid: u32) -> bool {
    identify(std::process::id()).is_none() || identify(pid).is_some_and(|now| !now.ended)
}

/// What the kernel makes of a program's name: at most 15 bytes.
fn short_name(program: &str) -> &str {
    let name = base_name(program);
    name.char_indices()
        .take_while(|(at, c)| at + c.len_utf8() <= 15)
        .last()
        .map_or("", |(at, c)| &name[..at + c.len_utf8()])
}

/// The process has [`BUILD_VARIABLE`] with this build's id in its environment. A process in the
/// middle of an exec shows an empty environment for a moment: only one that stays empty counts.
fn carries_mark(pid: u32, build: &str) -> bool {
    let variable = format!("{BUILD_VARIABLE}={build}");
    let deadline = Instant::now() + EXEC;
    loop {
        let environ = match fs::read(format!("/proc/{pid}/environ")) {
            Ok(environ) => environ,
            Err(_) => return false,
        };
        // Kernel threads and the dead have no program, and never get an environment.
        let runs_program = fs::read_link(format!("/proc/{pid}/exe")).is_ok();
        if !environ.is_empty() || !runs_program {
            return environ.split(|b| *b == 0).any(|v| v == variable.as_bytes());
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(LOOK);
    }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.identity.name, self.pid)
    }
}

/// Sends the signal; false when the process is gone already.
fn signal(known: &Known, signal: Signal) -> Result<bool, String> {
    let failed = |why: &dyn fmt::Display| format!("cannot send {signal} to {known}: {why}");
    let number = i32::try_from(known.pid).map_err(|error| failed(&error))?;
    let leads_group = known.identity.group == number && number != nix::unistd::getpgrp().as_raw();
    let sent = if leads_group {
        killpg(Pid::from_raw(number), signal)
    } else {
        kill(Pid::from_raw(number), signal)
    };
    match sent {
        Ok(()) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(error) => Err(failed(&error)),
    }
}

/// Looks again and again, until [`GRACE`] is over: the end of a process that is not our child is
/// no event on every system.
fn wait_gone(known: &Known) -> bool {
    let deadline = Instant::now() + GRACE;
    while lives(known) {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::{Command, Stdio};

    #[test]
    fn reads_names_with_parentheses() {
        let text = b"42 (a) b) S 1 41 41 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 2 3";
        let identity = parse_stat(text).unwrap();
        assert_eq!(identity.name, "a) b");
        assert_eq!((identity.group, identity.start, identity.ended), (41, 98765, false));
    }

    #[test]
    fn reads_psinfo() {
        let mut bytes = vec![0u8; 416];
        bytes[4..8].copy_from_slice(&2i32.to_ne_bytes());
        bytes[8..12].copy_from_slice(&77i32.to_ne_bytes());
        bytes[16..20].copy_from_slice(&70i32.to_ne_bytes());
        bytes[88..96].copy_from_slice(&5i64.to_ne_bytes());
        bytes[96..104].copy_from_slice(&6i64.to_ne_bytes());
        bytes[136..141].copy_from_slice(b"bhyve");
        let identity = parse_psinfo(77, &bytes).unwrap();
        assert_eq!(identity.start, 5_000_000_006);
        assert_eq!((identity.name.as_str(), identity.group), ("bhyve", 70));
        assert!(parse_psinfo(78, &bytes).is_none(), "another process's record");
    }

    fn known(pid: u32) -> Known {
        Known {
            pid,
            identity: identify(pid).unwrap(),
            build: "none".into(),
            program: String::new(),
        }
    }

    #[test]
    fn names_are_cut_as_the_kernel_cuts_them() {
        assert_eq!(short_name("/usr/bin/qemu-system-x86_64"), "qemu-system-x86");
        assert_eq!(short_name("sh"), "sh");
        assert_eq!(short_name("12345678901234é"), "12345678901234");
        assert_eq!(short_name(""), "");
    }

    #[test]
    fn a_name_seen_within_the_exec_does_not_hide_the_process() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let mut early = known(child.id());
        early.identity.name = "imgforge".into();
        early.program = "/bin/sleep".into();
        assert_eq!(end(&early, true).unwrap(), Ended::Killed);
        child.wait().unwrap();
    }

    #[test]
    fn ends_the_process_it_knows_and_no_other() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let real = known(child.id());
        assert_eq!(real.identity.name, "sleep");
        let mut recycled = real.clone();
        recycled.identity.start += 1;
        assert_eq!(end(&recycled, false).unwrap(), Ended::Gone);
        let mut renamed = real.clone();
        renamed.identity.name = "qemu".into();
        assert_eq!(end(&renamed, true).unwrap(), Ended::Gone);
        assert!(child.try_wait().unwrap().is_none(), "a process with another identity was killed");
        assert_eq!(end(&real, false).unwrap(), Ended::Killed);
        child.wait().unwrap();
        assert_eq!(end(&real, false).unwrap(), Ended::Gone);
    }

    #[test]
    fn a_wrapper_that_becomes_another_program_is_still_known() {
        let mut child =
            Command::new("sleep").arg("60").env(BUILD_VARIABLE, "0-1-2").spawn().unwrap();
        let mut wrapper = known(child.id());
        wrapper.identity.name = "sh".into();
        wrapper.build = "0-1-2".into();
        assert_eq!(end(&wrapper, true).unwrap(), Ended::Killed);
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_ignores_sigterm_is_killed() {
        use std::io::Read;
        let mut child = Command::new("sh")
            .args(["-c", "trap '' TERM; echo ready; while :; do sleep 1; done"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0u8; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        assert_eq!(end(&known(child.id()), false).unwrap(), Ended::Killed);
        child.wait().unwrap();
    }

    #[test]
    fn finds_processes_by_variable_and_by_run_directory() {
        let id = uuid::Uuid::new_v4().to_string();
        let run = format!("/run/imgforge/{}", &id[..8]);
        let mut by_variable =
            Command::new("sleep").arg("60").env(BUILD_VARIABLE, &id).spawn().unwrap();
        let script = format!("read x; : {run}/qmp");
        let run = Path::new(&run);
        let mut by_path =
            Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
        assert_eq!(marked(&id, run, &["qemu".into()]), vec![by_variable.id()]);
        let mut both = vec![by_variable.id(), by_path.id()];
        both.sort_unstable();
        let mut found = marked(&id, run, &["/bin/sh".into()]);
        found.sort_unstable();
        assert_eq!(found, both);
        for child in [&mut by_variable, &mut by_path] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    proptest! {
        #[test]
        fn any_stat_text_is_read_or_refused(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_stat(&text);
            let _ = parse_psinfo(1, &text);
        }
    }
}
