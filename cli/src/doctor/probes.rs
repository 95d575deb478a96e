//! Probes of the kernel: each one really tries the thing.
#![expect(unsafe_code, reason = "these system calls have no safe interface in std")]

use std::{
    fs::{self, File},
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process, ptr,
};

use super::{Finding, Need};

/// All probes, the most important first.
pub(super) fn all() -> Vec<Finding> {
    vec![
        kernel(),
        futex_waitv(),
        memory_files(),
        runnable_memory_files(),
        data_memory_files(),
        pidfd(),
        close_range(),
        proc(),
        io_uring(),
        user_namespaces(),
        landlock(),
        seccomp(),
    ]
}

/// A working thing, or what the kernel says and what to do about it.
fn finding(name: &'static str, need: Need, tried: io::Result<()>, advice: &'static str) -> Finding {
    match tried {
        Ok(()) => Finding::ok(name, need, "works"),
        Err(error) => Finding::missing(name, need, error, advice),
    }
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The descriptor that a call has just returned.
///
/// # Safety
/// If `result` is not negative, it is an open descriptor that nobody else owns.
unsafe fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    // SAFETY: the caller promises it.
    check(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn kernel() -> Finding {
    match fs::read_to_string("/proc/sys/kernel/osrelease") {
        Ok(release) => Finding::ok("kernel", Need::Needed, format!("Linux {}", release.trim())),
        Err(error) => Finding::limited(
            "kernel",
            Need::Useful,
            error.to_string(),
            "its version can't be read; mount /proc",
        ),
    }
}

/// One word to wait for, as the kernel has it.
#[repr(C)]
struct Waiter {
    expected: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

/// A waiter's word has four bytes.
const FUTEX_U32: u32 = 2;

fn futex_waitv() -> Finding {
    let word = 0u32;
    let address = (&raw const word).addr() as u64;
    // The word has another value than expected, so the call returns at once.
    let waiter = Waiter { expected: 1, address, flags: FUTEX_U32, reserved: 0 };
    let (count, no_flags, no_limit) = (1, 0, ptr::null::<libc::timespec>());
    let (waiters, clock) = (&raw const waiter, libc::CLOCK_MONOTONIC);
    // SAFETY: one live waiter, as counted, that names a live word; no time limit is passed, which is allowed.
    let tried = unsafe { libc::syscall(libc::SYS_futex_waitv, waiters, count, no_flags, no_limit, clock) };
    let tried = match check(tried) {
        Err(error) if error.raw_os_error() != Some(libc::EAGAIN) => Err(error),
        _ => Ok(()),
    };
    let advice = "a process can't wait for several channels; take Linux 5.16 or newer, and allow the call in the \
                  container's seccomp profile";
    finding("futex_waitv", Need::Needed, tried, advice)
}

fn memory_file(flags: u32) -> io::Result<File> {
    // SAFETY: the name is a NUL-terminated constant.
    let fd = unsafe { libc::memfd_create(c"archean-doctor".as_ptr(), libc::MFD_CLOEXEC | flags) };
    // SAFETY: the call has just made the descriptor.
    unsafe { owned(fd.into()) }.map(File::from)
}

fn memory_files() -> Finding {
    let tried = memory_file(libc::MFD_ALLOW_SEALING).and_then(|file| {
        file.set_len(4096)?;
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: the descriptor is open as long as `file` lives, and this command takes one integer.
        check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) }.into())?;
        match file.set_len(0) {
            Ok(()) => Err(io::Error::other("a sealed file could be cut")),
            Err(_) => Ok(()),
        }
    });
    let advice = "there are no channels without sealed memory files; allow memfd_create in the container's seccomp \
                  profile";
    finding("memfd", Need::Needed, tried, advice)
}

fn runnable_memory_files() -> Finding {
    let tried = memory_file(libc::MFD_EXEC).or_else(|error| match error.raw_os_error() {
        // Kernels before 6.3 don't know the flag, and make every memory file executable.
        Some(libc::EINVAL) => memory_file(0),
        _ => Err(error),
    });
    let advice = "programs can't be started from memory; set the sysctl vm.memfd_noexec to 0 or 1";
    finding("memfd exec", Need::Needed, tried.map(drop), advice)
}

fn data_memory_files() -> Finding {
    let advice = "rings can't be marked as not executable; take Linux 6.3 or newer";
    finding("memfd noexec", Need::Useful, memory_file(libc::MFD_NOEXEC_SEAL).map(drop), advice)
}

fn pidfd() -> Finding {
    // SAFETY: the call takes two integers, and the descriptor that it returns is new.
    let fd = unsafe { owned(libc::syscall(libc::SYS_pidfd_open, process::id(), 0)) };
    let tried = fd.and_then(|fd| {
        let (number, details) = (fd.as_raw_fd(), ptr::null::<libc::siginfo_t>());
        // SAFETY: the descriptor is open as long as `fd` lives; no details are passed, which is allowed; signal 0
        // only asks whether one could be sent.
        check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, number, 0, details, 0) })
    });
    let advice = "the end of a process can't be watched; take Linux 5.4 or newer, and allow pidfd_open and \
                  pidfd_send_signal in the container's seccomp profile";
    finding("pidfd", Need::Needed, tried.map(drop), advice)
}

fn close_range() -> Finding {
    let highest = u32::MAX;
    // SAFETY: the call takes three integers, and no descriptor has so high a number, so none is touched.
    let tried = unsafe { libc::syscall(libc::SYS_close_range, highest, highest, libc::CLOSE_RANGE_CLOEXEC) };
    let advice = "descriptors can't be kept from new processes; take Linux 5.11 or newer";
    finding("close_range", Need::Needed, check(tried).map(drop), advice)
}

fn proc() -> Finding {
    let tried = fs::read_to_string("/proc/self/stat").and_then(|stat| match stat.split_once(' ') {
        Some((pid, _)) if pid.parse() == Ok(process::id()) => Ok(()),
        _ => Err(io::Error::other("it belongs to another pid namespace")),
    });
    let advice = "processes that are left behind can't be found; mount /proc in this pid namespace";
    finding("/proc", Need::Needed, tried, advice)
}

/// The size of the parameters of a ring.
const IO_URING_PARAMETERS_BYTES: usize = 120;

fn io_uring() -> Finding {
    let mut parameters = [0u64; IO_URING_PARAMETERS_BYTES / 8];
    // SAFETY: the kernel reads and writes as many bytes as `parameters` has, and the descriptor that it returns is
    // new.
    let tried = unsafe { owned(libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr())) };
    let advice = "links between machines would be slower; set the sysctl kernel.io_uring_disabled to 0, and allow \
                  the calls in the container's seccomp profile";
    finding("io_uring", Need::Later, tried.map(drop), advice)
}

fn user_namespaces() -> Finding {
    let advice = "processes can't be isolated without root; see the sysctls user.max_user_namespaces and \
                  kernel.apparmor_restrict_unprivileged_userns";
    finding("user namespace", Need::Later, in_own_user_namespace(), advice)
}

/// Tries, in a child that ends at once, to enter a user namespace and to use the rights that it should give.
fn in_own_user_namespace() -> io::Result<()> {
    // SAFETY: the child makes system calls only, so it needs no lock that another thread may have held.
    let child = check(unsafe { libc::fork() }.into())? as i32;
    if child == 0 {
        // SAFETY: both calls take one integer.
        let is_entered =
            unsafe { libc::unshare(libc::CLONE_NEWUSER) == 0 && libc::unshare(libc::CLONE_NEWNS) == 0 };
        let code =
            if is_entered { 0 } else { io::Error::last_os_error().raw_os_error().unwrap_or(libc::EPERM) };
        // SAFETY: the call takes one integer and does not return.
        unsafe { libc::_exit(code) }
    }
    let mut status = 0;
    // SAFETY: `status` is a live integer.
    check(unsafe { libc::waitpid(child, &raw mut status, 0) }.into())?;
    match (libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
        (true, 0) => Ok(()),
        (true, errno) => Err(io::Error::from_raw_os_error(errno)),
        (false, _) => Err(io::Error::other("the call is answered with a signal")),
    }
}

/// Asks for the version instead of a ruleset.
const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;

fn landlock() -> Finding {
    let (no_rules, no_bytes) = (ptr::null::<u8>(), 0usize);
    let flags = LANDLOCK_CREATE_RULESET_VERSION;
    // SAFETY: with this flag the call takes no rules.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, no_rules, no_bytes, flags) };
    match check(version) {
        Ok(version @ SCOPED_VERSION..) => Finding::ok("landlock", Need::Later, format!("version {version}")),
        Ok(version) => Finding::limited(
            "landlock",
            Need::Later,
            format!("version {version}"),
            "it can't keep processes from signalling others; take Linux 6.12 or newer",
        ),
        Err(error) => Finding::missing(
            "landlock",
            Need::Later,
            error,
            "processes can't be kept from files; add landlock to the kernel's `lsm=` parameter",
        ),
    }
}

/// The version of Landlock that brought scopes.
const SCOPED_VERSION: libc::c_long = 6;

fn seccomp() -> Finding {
    let action = libc::SECCOMP_RET_USER_NOTIF;
    // SAFETY: the call reads one live integer.
    let tried =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    let advice = "processes can't be kept from system calls; take a kernel with CONFIG_SECCOMP_FILTER";
    finding("seccomp", Need::Later, check(tried).map(drop), advice)
}

const _: () = assert!(mem::size_of::<Waiter>() == 24);

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn what_the_kernel_refuses_is_missing() {
        let refused = finding("it", Need::Needed, Err(io::Error::from_raw_os_error(libc::ENOSYS)), "do this");
        assert_eq!((refused.status, refused.advice), (Status::Missing, Some("do this")));
        assert!(refused.found.contains("Function not implemented"), "{}", refused.found);
    }

    #[test]
    fn the_probes_agree_with_what_the_tests_stand_on() {
        // These tests need /proc and memory files by themselves, so the probes have to find them.
        for probed in [proc(), kernel(), memory_files()] {
            assert_eq!(probed.status, Status::Ok, "{}: {}", probed.name, probed.found);
        }
    }

    #[test]
    fn a_probe_leaves_this_process_where_it_is() {
        let namespaces =
            || ["user", "mnt"].map(|kind| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap());
        let before = namespaces();
        let probed = user_namespaces();
        assert_eq!(namespaces(), before, "{probed:?}");
    }
}
