//! No process outlives its manager.
//!
//! A user's process may start others by itself, and they may outlive it. The manager adopts such orphans (it is a
//! subreaper), so all that its processes ever started is found among its children when it ends, generation by
//! generation.
#![expect(unsafe_code, reason = "prctl, waitid and pidfds have no safe interface in std")]

use std::{
    fs, io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process, ptr,
    time::{Duration, Instant},
};

/// Makes this process the parent of its descendants whose own parent has ended.
///
/// # Errors
/// What the kernel says, if it does not allow that.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: this option takes one integer.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) }).map(drop)
}

/// Kills and reaps all children of this process, and those that it inherits from them, until none is left. Returns how
/// many are left when `limit` has passed; zero means that all are gone.
///
/// It takes the exit status of every child, so it comes last, when nobody else waits for one. Without
/// [`become_subreaper`] first, only the children themselves are found.
///
/// # Errors
/// What the kernel says, when children can't be listed, or when no descriptor is free.
pub fn kill_descendants(limit: Duration) -> io::Result<usize> {
    let start = Instant::now();
    while reap_ended()? {
        let children = children()?;
        let mut last = None;
        for child in &children {
            last = kill(*child)?.or(last);
        }
        let left = limit.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(children.len().max(1));
        }
        wait(last.as_ref(), left.min(LOOK_AGAIN))?;
    }
    Ok(0)
}

/// How long to wait for the death of one child before looking for others.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Reaps all children that have ended; `true` if others are left.
fn reap_ended() -> io::Result<bool> {
    loop {
        match wait_id(libc::P_ALL, 0, 0) {
            Ok(true) => {}
            Ok(false) => return Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// Kills a child. `None` if that is no child of this process any more, or may not be killed.
fn kill(child: i32) -> io::Result<Option<OwnedFd>> {
    // SAFETY: the call takes two integers.
    let fd = match check(unsafe { libc::syscall(libc::SYS_pidfd_open, child, 0) } as i32) {
        // SAFETY: the call has just made the descriptor, and nobody else owns it.
        Ok(fd) => unsafe { OwnedFd::from_raw_fd(fd) },
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        Err(error) => return Err(error),
    };
    // Had it been reaped since it was listed, another process could have its id: the kernel knows whose child it is.
    if wait_id(libc::P_PIDFD, fd.as_raw_fd() as libc::id_t, libc::WNOWAIT).is_err() {
        return Ok(None);
    }
    let (fd_number, details) = (fd.as_raw_fd(), ptr::null::<libc::siginfo_t>());
    // SAFETY: the descriptor is open as long as `fd` lives; no details are passed, which is allowed.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd_number, libc::SIGKILL, details, 0) };
    Ok((sent == 0).then_some(fd))
}

/// Looks for an ended child without waiting, and reaps it unless `options` says otherwise; `true` if there was one.
fn wait_id(kind: libc::idtype_t, id: libc::id_t, options: i32) -> io::Result<bool> {
    let options = libc::WEXITED | libc::WNOHANG | libc::__WALL | options;
    // SAFETY: a C struct of integers, for which zero is a value.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    // SAFETY: `info` is a live value of the type that the call writes.
    check(unsafe { libc::waitid(kind, id, &raw mut info, options) })?;
    // SAFETY: `waitid` filled in the variant that has a process id, or left all zero.
    Ok(unsafe { info.si_pid() } != 0)
}

/// Waits until the process has ended, but no longer than `limit`; without a process, just as long.
fn wait(process: Option<&OwnedFd>, limit: Duration) -> io::Result<()> {
    let fd = process.map_or(-1, AsRawFd::as_raw_fd);
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let milliseconds = limit.as_millis().max(1) as i32;
    // SAFETY: one live `pollfd`, as counted; a negative descriptor in it is passed over.
    match check(unsafe { libc::poll(&raw mut poll, 1, milliseconds) }) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

/// The living children of this process, as far as they can be seen while they come and go.
fn children() -> io::Result<Vec<i32>> {
    match children_by_thread() {
        // Not every kernel has those lists.
        Err(error) if error.kind() == io::ErrorKind::NotFound => children_by_walk(),
        children => children,
    }
}

fn children_by_thread() -> io::Result<Vec<i32>> {
    fs::metadata("/proc/thread-self/children")?;
    let mut children = Vec::new();
    for thread in fs::read_dir("/proc/self/task")? {
        // A thread that ends meanwhile leaves its children to another.
        let list = fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        children.extend(list.split_ascii_whitespace().filter_map(|child| child.parse::<i32>().ok()));
    }
    Ok(children)
}

fn children_by_walk() -> io::Result<Vec<i32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok())
            && parent(pid) == Some(process::id())
        {
            children.push(pid);
        }
    }
    Ok(children)
}

/// The parent of a process that still lives; its name, which may hold anything, is passed over.
fn parent(pid: i32) -> Option<u32> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let behind_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let mut fields = str::from_utf8(&stat[behind_name..]).ok()?.split_ascii_whitespace();
    fields.nth(1)?.parse().ok()
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        env,
        io::Read,
        process::{Child, Command, Stdio},
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// Names the process that is started beside the one that a test runs in.
    const SIBLING: &str = "ARCHEAN_TEST_SIBLING";

    /// Runs `test`, which kills all children of its process, in a process of its own. A sibling must survive it.
    fn in_own_process(name: &str, test: impl FnOnce()) {
        const MARK: &str = "ARCHEAN_TEST_OF_ORPHANS";
        if env::var_os(MARK).is_some() {
            return test();
        }
        let (_, module) = module_path!().split_once("::").unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", &format!("{module}::{name}"), "--nocapture"]).env(MARK, "1");
        let mut sibling = shell("exec sleep 1000");
        let output = command.env(SIBLING, sibling.id().to_string()).output().unwrap();
        let sibling_lived = sibling.try_wait().unwrap().is_none();
        sibling.kill().unwrap();
        sibling.wait().unwrap();
        assert!(sibling_lived, "only its own descendants may be killed");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
    }

    fn shell(script: &str) -> Child {
        Command::new("sh").args(["-c", script]).stdin(Stdio::null()).spawn().unwrap()
    }

    fn is_gone(pid: i32) -> bool {
        // SAFETY: signal 0 only asks whether the process exists.
        unsafe { libc::kill(pid, 0) == -1 }
    }

    #[test]
    fn orphans_are_adopted_and_killed() {
        in_own_process("orphans_are_adopted_and_killed", || {
            become_subreaper().unwrap();
            let mut parent = shell("setsid sleep 1000 & setsid sleep 1000 & exit");
            assert!(parent.wait().unwrap().success());
            let orphans = children().unwrap();
            assert_eq!(orphans.len(), 2);
            assert_eq!(kill_descendants(LONG).unwrap(), 0);
            assert!(orphans.into_iter().all(is_gone));
            assert_eq!(children().unwrap(), []);
        });
    }

    #[test]
    fn whole_trees_are_killed() {
        in_own_process("whole_trees_are_killed", || {
            become_subreaper().unwrap();
            let branch = "(setsid sh -c 'sleep 1000 & sleep 1000 & echo; wait' & wait)";
            let script = format!("{branch} & {branch} & {branch} & wait");
            let mut root = Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
            // Every branch prints a line when it has grown, and its leaves hold the pipe open.
            let mut pipe = root.stdout.take().unwrap();
            pipe.read_exact(&mut [0; 3]).unwrap();
            assert_eq!(kill_descendants(LONG).unwrap(), 0);
            assert_eq!(pipe.read(&mut [0]).unwrap(), 0, "nobody is left who could write");
            assert!(root.wait().is_err(), "it is reaped already");
        });
    }

    #[test]
    fn what_is_left_at_the_deadline_is_counted() {
        in_own_process("what_is_left_at_the_deadline_is_counted", || {
            let mut child = shell("exec sleep 1000");
            assert_eq!(kill_descendants(Duration::ZERO).unwrap(), 1);
            assert_eq!(kill_descendants(Duration::MAX).unwrap(), 0);
            assert!(child.wait().is_err(), "it is reaped already");
        });
    }

    #[test]
    fn other_processes_live_on() {
        in_own_process("other_processes_live_on", || {
            become_subreaper().unwrap();
            let sibling: i32 = env::var(SIBLING).unwrap().parse().unwrap();
            let mut own = shell("exec sleep 1000");
            assert!(kill(sibling).unwrap().is_none(), "it is no child, so it is not touched");
            assert_eq!(kill_descendants(LONG).unwrap(), 0);
            assert!(own.wait().is_err() && !is_gone(sibling));
        });
    }

    #[test]
    fn both_ways_of_looking_find_the_same_children() {
        in_own_process("both_ways_of_looking_find_the_same_children", || {
            let started: BTreeSet<_> = (0..3).map(|_| shell("exec sleep 1000").id() as i32).collect();
            assert_eq!(BTreeSet::from_iter(children_by_walk().unwrap()), started);
            if let Ok(children) = children_by_thread() {
                assert_eq!(BTreeSet::from_iter(children), started);
            }
            assert_eq!(kill_descendants(LONG).unwrap(), 0);
        });
    }
}
