// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The system calls that a running monitor may make, by Linux' seccomp filters. A guest that takes
//! the monitor over starts no program, opens no network connection, traces nobody.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, apply_filter_all_threads,
};

use crate::vm::hv::tap::SET_OFFLOAD;

/// Files: the disk, the medium, logs, the variables, a screenshot.
const FILES: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_lseek,
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fcntl,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_readlink,
    libc::SYS_getcwd,
];

/// Memory, of the process and of the next board's guest.
const MEMORY: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
];

/// Threads, their signals, and time.
const THREADS: &[i64] = &[
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_membarrier,
    libc::SYS_prctl,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Sockets that are open already, and clients that come to them.
const SOCKETS: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
];

/// `KVMIO`, the second byte of each request to KVM.
const KVM: u64 = 0xae00;

/// Forbids everything else, to all threads and those that they start. What is forbidden fails as
/// for want of permission.
///
/// # Errors
/// When the kernel has no filters.
pub(super) fn enter() -> Result<(), seccompiler::Error> {
    apply_filter_all_threads(&filter()?)
}

fn filter() -> Result<BpfProgram, BackendError> {
    let all = [FILES, MEMORY, THREADS, SOCKETS].concat();
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        all.into_iter().map(|call| (call, Vec::new())).collect();
    let request = |operation, value| {
        let condition = SeccompCondition::new(1, SeccompCmpArgLen::Dword, operation, value)?;
        SeccompRule::new(vec![condition])
    };
    let requests = vec![
        request(SeccompCmpOp::MaskedEq(0xff00), KVM)?,
        request(SeccompCmpOp::Eq, libc::FIONBIO)?,
        request(SeccompCmpOp::Eq, libc::FIOCLEX)?,
        request(SeccompCmpOp::Eq, SET_OFFLOAD.into())?,
    ];
    rules.insert(libc::SYS_ioctl, requests);
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let architecture = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, refused, SeccompAction::Allow, architecture)?.try_into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{ErrorKind, Write};
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use super::*;

    const INSIDE: &str = "IMGFORGE_TEST_INSIDE_FILTER";

    /// There is no way out of a filter: the test runs this program once more, which goes into it.
    #[test]
    fn programs_and_connections_are_forbidden_and_files_are_not() {
        if std::env::var_os(INSIDE).is_none() {
            let name = "vm::monitor::sandbox::seccomp::tests::programs_and_connections_are_forbidden_and_files_are_not";
            let mut again = Command::new(std::env::current_exe().unwrap());
            let status =
                again.args(["--exact", name, "--nocapture"]).env(INSIDE, "1").status().unwrap();
            assert!(status.success(), "{status}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let before = UnixListener::bind(dir.path().join("before")).unwrap();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let start = || Command::new("true").status().map_err(|error| error.kind());
        let earlier = std::thread::spawn(move || {
            gone.recv().unwrap();
            start()
        });
        assert!(start().unwrap().success());
        enter().unwrap();
        go.send(()).unwrap();
        for thread in [earlier, std::thread::spawn(start)] {
            assert_eq!(thread.join().unwrap().unwrap_err(), ErrorKind::PermissionDenied);
        }
        let socket = std::net::TcpStream::connect(("127.0.0.1", 9));
        assert_eq!(socket.unwrap_err().kind(), ErrorKind::PermissionDenied);
        let socket = std::os::unix::net::UnixStream::connect(dir.path().join("before"));
        assert_eq!(socket.unwrap_err().kind(), ErrorKind::PermissionDenied);
        before.set_nonblocking(true).unwrap();
        assert_eq!(before.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        let mut file = std::fs::File::create(dir.path().join("file")).unwrap();
        file.write_all(b"written").unwrap();
        file.sync_data().unwrap();
        assert_eq!(std::fs::read(dir.path().join("file")).unwrap(), b"written");
        // Nobody is left to remove the directory by another process.
        std::fs::remove_file(dir.path().join("file")).unwrap();
    }
}
