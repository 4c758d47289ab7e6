// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The system calls that a running monitor may make, by Linux' seccomp filters. A guest that takes
//! the monitor over starts no program, opens no network connection, traces nobody.
//!
//! With KVM that is all. bhyve's kernel is not Linux: on Linux its device nodes are there only when
//! something inside this process plays them, in front of the C library, and what it needs for that
//! the filter lets through, too: [`BHYVE`] and the requests beside it. Such a machine is for trials,
//! and its filter keeps the rest: no program, no new network connection, no look at another process
//! that the kernel would not allow anyway.

use std::collections::BTreeMap;

use super::Hypervisor;
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

/// What whoever plays bhyve's kernel in this process needs beside all that: memory that is mapped
/// twice, locks and files that several processes share as a zone's machines, events that wake a
/// sleeping vCPU, a look at the signals that wait for it, and copies from and to pointers that may
/// be bad.
const BHYVE: &[i64] = &[
    libc::SYS_memfd_create,
    libc::SYS_flock,
    libc::SYS_eventfd2,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_dup,
    libc::SYS_dup2,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_getdents64,
    libc::SYS_mkdir,
    libc::SYS_rename,
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
];

/// Requests to a tap device (`linux/if_tun.h`), which plays a link: the mask, and what it leaves.
/// Those to terminals, which share the second byte, have smaller numbers.
const TAP: (u64, u64) = (0xffc0, 0x54c0);

/// `KVMIO`, the second byte of each request to KVM.
const KVM: u64 = 0xae00;

/// Forbids everything else, to all threads and those that they start. What is forbidden fails as
/// for want of permission.
///
/// # Errors
/// When the kernel has no filters.
pub(super) fn enter(hypervisor: Hypervisor) -> Result<(), seccompiler::Error> {
    apply_filter_all_threads(&filter(hypervisor)?)
}

/// How often guest memory may be mapped into this process: by the monitor, and by whoever plays
/// bhyve's kernel in it.
pub(super) fn guest_mappings(hypervisor: Hypervisor) -> u64 {
    match hypervisor {
        Hypervisor::Kvm => 1,
        Hypervisor::Bhyve => 2,
    }
}

fn filter(hypervisor: Hypervisor) -> Result<BpfProgram, BackendError> {
    let is_played = hypervisor == Hypervisor::Bhyve;
    let extra = if is_played { BHYVE } else { &[] };
    let all = [FILES, MEMORY, THREADS, SOCKETS, extra].concat();
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        all.into_iter().map(|call| (call, Vec::new())).collect();
    let request = |operation, value| {
        let condition = SeccompCondition::new(1, SeccompCmpArgLen::Dword, operation, value)?;
        SeccompRule::new(vec![condition])
    };
    let mut requests = vec![
        request(SeccompCmpOp::MaskedEq(0xff00), KVM)?,
        request(SeccompCmpOp::Eq, libc::FIONBIO)?,
        request(SeccompCmpOp::Eq, libc::FIOCLEX)?,
        request(SeccompCmpOp::Eq, SET_OFFLOAD.into())?,
    ];
    if is_played {
        requests.push(request(SeccompCmpOp::MaskedEq(TAP.0), TAP.1)?);
    }
    rules.insert(libc::SYS_ioctl, requests);
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let architecture = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, refused, SeccompAction::Allow, architecture)?.try_into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, unsafe_code)]
mod tests {
    use std::io::{ErrorKind, Write};
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::*;

    const INSIDE: &str = "IMGFORGE_TEST_INSIDE_FILTER";

    /// There is no way out of a filter: each test runs this program once more, which goes into it.
    fn again(test: &str) -> bool {
        if std::env::var_os(INSIDE).is_some() {
            return true;
        }
        let name = format!("vm::monitor::sandbox::seccomp::tests::{test}");
        let mut again = Command::new(std::env::current_exe().unwrap());
        let status =
            again.args(["--exact", &name, "--nocapture"]).env(INSIDE, "1").status().unwrap();
        assert!(status.success(), "{status}");
        false
    }

    /// What is forbidden whoever runs the guest, and what is not.
    fn try_out(hypervisor: Hypervisor) {
        let dir = tempfile::tempdir().unwrap();
        let before = UnixListener::bind(dir.path().join("before")).unwrap();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let start = || Command::new("true").status().map_err(|error| error.kind());
        let earlier = std::thread::spawn(move || {
            gone.recv().unwrap();
            start()
        });
        assert!(start().unwrap().success());
        enter(hypervisor).unwrap();
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

    #[test]
    fn programs_and_connections_are_forbidden_and_files_are_not() {
        if again("programs_and_connections_are_forbidden_and_files_are_not") {
            try_out(Hypervisor::Kvm);
            assert_eq!(play(), Some(ErrorKind::PermissionDenied));
        }
    }

    #[test]
    fn a_kernel_that_is_played_in_this_process_has_what_it_needs_and_no_more() {
        if again("a_kernel_that_is_played_in_this_process_has_what_it_needs_and_no_more") {
            try_out(Hypervisor::Bhyve);
            assert_eq!(play(), None);
        }
    }

    /// What plays a kernel: memory under a name, a lock on it, requests to KVM and to a tap device
    /// (which this file is not, as it says), an event, a copy of our own memory.
    fn play() -> Option<ErrorKind> {
        let memory = match memfd_create(c"played", MFdFlags::MFD_CLOEXEC) {
            Ok(memory) => std::fs::File::from(memory),
            Err(errno) => return Some(std::io::Error::from(errno).kind()),
        };
        memory.set_len(4096).unwrap();
        memory.lock().unwrap();
        memory.try_clone().unwrap();
        let descriptor = memory.as_raw_fd();
        // `KVM_GET_API_VERSION`, `TUNSETIFF`.
        for (number, wanted) in [(0xae00u32, libc::ENOTTY), (0x4004_54ca, libc::ENOTTY)] {
            // SAFETY: neither request gets to a device that would take the argument.
            let result = unsafe { libc::ioctl(descriptor, number.into(), 0usize) };
            let error = std::io::Error::last_os_error();
            assert_eq!((result, error.raw_os_error()), (-1, Some(wanted)), "{number:#x}");
        }
        // Unknown ones, and `TIOCSTI`, which types into a terminal.
        for number in [0x1234u32, 0x5412] {
            // SAFETY: as above; the filter knows no such request.
            assert_eq!(unsafe { libc::ioctl(descriptor, number.into(), 0usize) }, -1);
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EPERM));
        }
        let (from, mut to) = ([7u8; 16], [0u8; 16]);
        let local = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: 16 };
        let remote = libc::iovec { iov_base: from.as_ptr().cast_mut().cast(), iov_len: 16 };
        // SAFETY: both places are 16 bytes of this function; the second one is only read.
        let copied = unsafe {
            libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0)
        };
        assert_eq!((copied, to), (16, from));
        // SAFETY: a call without pointers.
        assert!(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) } >= 0);
        // SAFETY: a set of zeros is the empty set; the kernel fills it, and reads the other one.
        unsafe {
            let mut waiting: libc::sigset_t = std::mem::zeroed();
            assert_eq!(libc::sigpending(&raw mut waiting), 0);
            let (none, now) = (std::mem::zeroed(), std::mem::zeroed());
            assert_eq!(
                libc::sigtimedwait(&raw const none, std::ptr::null_mut(), &raw const now),
                -1
            );
        }
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EAGAIN));
        None
    }

    #[test]
    fn guest_memory_has_room_as_often_as_it_is_mapped() {
        assert_eq!([Hypervisor::Kvm, Hypervisor::Bhyve].map(guest_mappings), [1, 2]);
    }
}
