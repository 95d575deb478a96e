//! Nothing outlives the launcher, even when it is killed.
//!
//! Before it starts a job, the process splits in two: the child goes on as the launcher, and the parent, the
//! watchdog, only waits. Both adopt orphans. So when the launcher is killed, all that the job ever started comes to
//! the watchdog, which kills it; and when the watchdog is killed, the launcher sees that and ends the job.
//!
//! ```text
//!  shell ──► watchdog ──► launcher ──► processes of the job ──► what they started by themselves
//!               └── pipe ────┘
//! ```
#![expect(unsafe_code, reason = "fork, signals and waiting for one process have no safe interface in std")]

use std::{
    fs,
    io::{self, Write},
    mem,
    os::fd::OwnedFd,
    process, ptr,
    time::Duration,
};

use manager::orphans::{become_subreaper, kill_descendants};
use protocol::ending::signal_name;

/// The half of the process that goes on.
pub(crate) struct Launcher {
    /// Readable, at its end, when the watchdog is gone.
    pub(crate) parent_gone: OwnedFd,
}

/// How long to look for processes that are left, before giving up on those that don't die.
pub(crate) const KILL_LIMIT: Duration = Duration::from_secs(5);

/// Signals that mean that a job has to stop.
const STOP_SIGNALS: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// Splits this process, and returns in the child. The parent waits for the child and ends as it does.
///
/// # Errors
/// When this process has more than one thread, or when the kernel refuses to fork or to adopt orphans.
pub(crate) fn split() -> io::Result<Launcher> {
    let threads = fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!(
            "only a process with one thread can split, this one has {threads}"
        )));
    }
    become_subreaper()?;
    let (reader, writer) = io::pipe()?;
    let signals = set_of(stop_signals().into_iter().chain([libc::SIGCHLD]));
    // SAFETY: the default action is no code of ours. It may have been inherited as ignored, and then the kernel
    // would take the exit status of every child away.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    let before = change_mask(libc::SIG_BLOCK, &signals)?;
    // SAFETY: there is no other thread, as counted above, whose locks and half-done work the child would inherit.
    match unsafe { libc::fork() } {
        -1 => {
            let error = io::Error::last_os_error();
            change_mask(libc::SIG_SETMASK, &before)?;
            Err(error)
        }
        0 => {
            drop(writer);
            change_mask(libc::SIG_SETMASK, &before)?;
            // This is not inherited.
            become_subreaper()?;
            Ok(Launcher { parent_gone: reader.into() })
        }
        launcher => {
            drop(reader);
            let code = watch(launcher, &signals);
            // The launcher has seen until now that somebody holds this.
            drop(writer);
            process::exit(code)
        }
    }
}

/// The signals that stop a job, without those that were ignored from the start, as `nohup` has it.
pub(crate) fn stop_signals() -> Vec<i32> {
    STOP_SIGNALS.into_iter().filter(|signal| !is_ignored(*signal)).collect()
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: a C struct of integers, for which zero is a value.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: nothing is set, and `action` is a live value of the type that the call writes.
    let asked = unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Waits for the launcher's end and passes signals on to it. Returns the exit code.
fn watch(launcher: i32, signals: &libc::sigset_t) -> i32 {
    loop {
        let mut signal = 0;
        // SAFETY: both are live values of the types that the call reads and writes.
        if unsafe { libc::sigwait(signals, &raw mut signal) } != 0 {
            continue;
        }
        if signal == libc::SIGCHLD {
            if let Some(code) = ended(launcher) {
                return code;
            }
        } else {
            // It may have come to this half alone. If it came to both, the launcher passes over the second.
            // SAFETY: the call takes two integers; the launcher is not reaped yet, so its id is its own.
            unsafe { libc::kill(launcher, signal) };
        }
    }
}

/// The exit code of the launcher, if it has ended. What a launcher that was killed has left behind is killed too.
fn ended(launcher: i32) -> Option<i32> {
    let mut status = 0;
    // SAFETY: `status` is a live integer.
    if unsafe { libc::waitpid(launcher, &raw mut status, libc::WNOHANG) } != launcher {
        return None;
    }
    if libc::WIFEXITED(status) {
        return Some(libc::WEXITSTATUS(status));
    }
    let signal = libc::WTERMSIG(status);
    let left = kill_descendants(KILL_LIMIT);
    if !STOP_SIGNALS.contains(&signal) {
        let name = signal_name(signal).unwrap_or("a signal");
        let rest = match left {
            Ok(0) => "all processes of the job were ended".to_owned(),
            Ok(left) => format!("{left} processes of the job are left and do not end"),
            Err(error) => format!("processes of the job may be left: {error}"),
        };
        let _ = writeln!(io::stderr(), "archean: the launcher was ended by {name} (signal {signal}); {rest}");
    }
    Some(128 + signal)
}

fn set_of(signals: impl IntoIterator<Item = i32>) -> libc::sigset_t {
    // SAFETY: a C struct of integers, for which zero is a value.
    let mut set = unsafe { mem::zeroed() };
    // SAFETY: `set` is a live value of the type that the call writes.
    unsafe { libc::sigemptyset(&raw mut set) };
    for signal in signals {
        // SAFETY: as above, and `sigemptyset` has initialised it.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}

/// Changes which signals are held back, and returns which were before.
fn change_mask(how: i32, set: &libc::sigset_t) -> io::Result<libc::sigset_t> {
    let mut before = set_of([]);
    // SAFETY: both are live values of the type that the call reads and writes.
    match unsafe { libc::sigprocmask(how, set, &raw mut before) } {
        0 => Ok(before),
        _ => Err(io::Error::last_os_error()),
    }
}
