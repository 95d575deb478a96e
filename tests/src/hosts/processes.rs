//! The processes in a network namespace, found in `/proc`.
#![expect(unsafe_code, reason = "processes are sent signals")]

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    thread,
    time::Duration,
};

use super::namespace::Namespace;

/// The processes in namespaces with these numbers.
pub fn processes_in(namespaces: &[u64]) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes.filter(|process| is_in(*process, namespaces)).collect()
}

/// Kills all that runs in these namespaces, until nothing does.
pub fn end_all(namespaces: &[u64]) {
    loop {
        let processes = processes_in(namespaces);
        if processes.is_empty() {
            return;
        }
        for process in processes {
            // One that has gone by itself is fine too.
            let _ = signal_in(namespaces, process, libc::SIGKILL);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Sends a signal to a process in a namespace.
///
/// # Panics
/// When it is not there.
pub(super) fn signal(namespace: &Namespace, process: u32, signal: i32) {
    signal_in(&[namespace.id()], process, signal)
        .unwrap_or_else(|error| panic!("process {process} of that host: {error}"));
}

/// Whether a process is stopped.
pub(super) fn has_stopped(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
}

/// Whether a process is in one of these namespaces. One that is dead and was not waited for is in none.
fn is_in(process: u32, namespaces: &[u64]) -> bool {
    fs::metadata(format!("/proc/{process}/ns/net"))
        .is_ok_and(|namespace| namespaces.contains(&namespace.ino()))
}

fn signal_in(namespaces: &[u64], process: u32, signal: i32) -> io::Result<()> {
    // SAFETY: the call takes two integers, and gives a descriptor or an error.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) };
    if opened < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made, and nobody else has it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(opened as i32) };
    // Asked while the process can't be taken for another.
    if !is_in(process, namespaces) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let no_details = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the call takes a descriptor that is open, integers, and a null pointer where it allows one.
    let sent =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_details, 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
