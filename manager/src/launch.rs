//! Starts a process without copying the manager, and tells how it ended.
//!
//! A fork copies the page tables of its parent, so it costs more the more memory the manager has. Here the child
//! borrows the manager's memory until it has become its program (`CLONE_VM | CLONE_VFORK`), while the calling thread
//! waits. So between `clone` and `execveat` the child makes system calls and nothing else: no allocation, no lock,
//! no panic; all signals are blocked meanwhile, so that no handler of the manager runs in it.
#![expect(unsafe_code, reason = "clone, the calls of the child and wait4 have no safe interface in std")]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_long, c_void},
    fmt, io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
    time::Duration,
};

/// What to start, and with what.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The executable, open; see [`Image`](crate::image::Image).
    pub image: BorrowedFd<'a>,
    /// Its arguments, the name first.
    pub argv: &'a [CString],
    /// Its whole environment, as `NAME=value`.
    pub env: &'a [CString],
    /// The folder that it starts in.
    pub directory: &'a CStr,
    /// Its descriptors 0, 1, 2 and so on. It gets no others.
    pub descriptors: &'a [BorrowedFd<'a>],
}

/// A process that runs its program.
#[derive(Debug)]
pub struct Launched {
    /// Its id, valid until it is reaped.
    pub pid: i32,
    /// It, whoever else may get its id later. Readable when it has ended.
    pub pidfd: OwnedFd,
}

/// What was being done when a launch failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Step {
    /// Getting a stack for the child.
    Stack,
    /// Making the child.
    Clone,
    /// Resetting the signal handlers.
    Signals,
    /// Giving it a session of its own.
    Session,
    /// Binding its life to the manager's.
    Death,
    /// Putting its descriptors in place.
    Descriptors,
    /// Closing all others.
    Closing,
    /// Entering its folder.
    Directory,
    /// Forbidding core files.
    Cores,
    /// Becoming its program.
    Exec,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Stack => "allocating a stack",
            Step::Clone => "making a new process",
            Step::Signals => "resetting its signals",
            Step::Session => "giving it a session of its own",
            Step::Death => "binding its life to the manager's",
            Step::Descriptors => "placing its descriptors",
            Step::Closing => "closing all other descriptors",
            Step::Directory => "entering its folder",
            Step::Cores => "forbidding core files",
            Step::Exec => "executing its image",
        })
    }
}

/// A process could not be started. Nothing is left of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{step} failed: {}; {}", io::Error::from_raw_os_error(*errno), self.remedy())]
pub struct LaunchError {
    /// What failed.
    pub step: Step,
    /// The kernel's reason.
    pub errno: i32,
}

impl LaunchError {
    fn remedy(&self) -> &'static str {
        match (self.step, self.errno) {
            (Step::Clone, libc::EAGAIN) => "run fewer processes at once, or raise `ulimit -u` and `pids.max`",
            (_, libc::EMFILE | libc::ENFILE) => "raise `ulimit -n`",
            (_, libc::ENOMEM) => "run fewer processes at once, or give the machine more memory",
            (Step::Closing, _) => "Linux 5.11 or later is needed",
            (Step::Directory, _) => "check that the folder exists and that this user may enter it",
            (Step::Exec, libc::E2BIG) => "make its arguments and environment smaller, or raise `ulimit -s`",
            (Step::Exec, libc::ENOENT) => "install the dynamic loader that it names, or link it statically",
            (Step::Exec, libc::ENOEXEC) => "build it for this machine",
            (Step::Exec, libc::EACCES) => "check that executing files in memory is allowed here",
            _ => "check what confines the manager (seccomp, a security module, limits)",
        }
    }
}

/// Starts a process and returns when it runs its program.
///
/// It leads a session of its own, has no signals blocked, ignored or handled, has the given descriptors and no others,
/// and leaves no core file behind. It gets SIGKILL when the calling **thread** ends, since that is what the kernel
/// watches: so call this from a thread that lives as long as the manager.
///
/// # Errors
/// [`LaunchError`] says which step failed. What the kernel finds out only when the old memory is gone (a loader that
/// is broken, say) is no error here: it shows as a process that a signal has ended.
pub fn launch(launch: &Launch<'_>) -> Result<Launched, LaunchError> {
    let error = |step| move |errno| LaunchError { step, errno };
    let argv = pointers(launch.argv);
    let env = pointers(launch.env);
    let mut sources: Vec<c_int> = launch.descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let stack = Stack::new().map_err(error(Step::Stack))?;
    let mut plan = Plan {
        image: launch.image.as_raw_fd(),
        argv: argv.as_ptr(),
        env: env.as_ptr(),
        directory: launch.directory.as_ptr(),
        sources: sources.as_mut_ptr(),
        count: sources.len() as c_int,
        parent: std::process::id() as c_int,
        failure: None,
    };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let mut pidfd: c_int = -1;
    let plan_pointer = (&raw mut plan).cast::<c_void>();
    let mask = set_signal_mask(u64::MAX);
    // SAFETY: `child` runs on the top of `stack`, which is larger than it needs (guarded below) and lives until after
    // the child is done with it: CLONE_VFORK holds this thread until then. So do the plan and all that it points to,
    // which this function owns or borrows and does not touch meanwhile. `pidfd` is where CLONE_PIDFD puts its result.
    let pid = unsafe { libc::clone(child, stack.top(), flags, plan_pointer, &raw mut pidfd) };
    let clone_errno = errno();
    set_signal_mask(mask);
    if pid < 0 {
        return Err(error(Step::Clone)(clone_errno));
    }
    // SAFETY: the clone succeeded, so this is a descriptor that it made and that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    // SAFETY: `plan` is alive and initialised; it is read afresh, since the child wrote to it through its pointer.
    match unsafe { plan_pointer.cast::<Plan>().read() }.failure {
        None => Ok(Launched { pid, pidfd }),
        Some(failure) => {
            discard(pid);
            Err(failure)
        }
    }
}

/// How a process ended, and what it used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reaped {
    /// How it ended.
    pub end: End,
    /// Processor time in its own code, and in that of children that it reaped.
    pub user: Duration,
    /// Processor time in the kernel, likewise.
    pub system: Duration,
    /// The most memory that it held at once. The kernel counts from before `execveat` on, when the memory was still
    /// the manager's: this is never less than what the manager itself held at the launch.
    pub memory_max_bytes: u64,
}

/// How the kernel says that a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// By `exit`, with this code.
    Exited(i32),
    /// By a signal.
    Signalled {
        /// Its number.
        signal: i32,
        /// A core was dumped.
        core: bool,
    },
}

/// Takes the record of a child that has ended; `None` while it runs. Its id may be used anew from then on.
///
/// # Errors
/// `ECHILD` when there is no such child, or it was reaped before.
pub fn reap(pid: i32) -> io::Result<Option<Reaped>> {
    let mut status = 0;
    // SAFETY: `rusage` is a C struct of integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: both pointers are to live values of the types that the call writes.
    match unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        _ => Ok(Some(Reaped {
            end: match libc::WIFSIGNALED(status) {
                true => End::Signalled { signal: libc::WTERMSIG(status), core: libc::WCOREDUMP(status) },
                false => End::Exited(libc::WEXITSTATUS(status)),
            },
            user: duration(usage.ru_utime),
            system: duration(usage.ru_stime),
            memory_max_bytes: (usage.ru_maxrss.max(0) as u64).saturating_mul(1024),
        })),
    }
}

/// The process with that id, whoever else may get the id later.
///
/// # Errors
/// An error of the system call: there is no such process.
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call on two numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// Sends a signal to a process. One that has ended already is fine.
///
/// # Errors
/// `EPERM` when the process has taken another user's rights, `EINVAL` for a number that is no signal.
pub fn kill(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let pidfd = pidfd.as_fd().as_raw_fd();
    // SAFETY: the descriptor is borrowed, so it is open; no struct of details is passed, which is allowed.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, signal, ptr::null::<c_void>(), 0) };
    match io::Error::last_os_error() {
        error if sent != 0 && error.raw_os_error() != Some(libc::ESRCH) => Err(error),
        _ => Ok(()),
    }
}

/// All that the child reads, and the one thing that it writes.
struct Plan {
    image: c_int,
    argv: *const *const c_char,
    env: *const *const c_char,
    directory: *const c_char,
    sources: *mut c_int,
    count: c_int,
    parent: c_int,
    failure: Option<LaunchError>,
}

/// Runs in the child, on its own stack, in the manager's memory.
extern "C" fn child(plan: *mut c_void) -> c_int {
    let plan = plan.cast::<Plan>();
    // SAFETY: `launch` passes a pointer to its plan, keeps it alive, and is held by CLONE_VFORK, so that nobody else
    // uses it; all in it is as `become_program` asks.
    unsafe { (*plan).failure = become_program(&*plan).err() };
    // SAFETY: ends the child alone, and runs nothing of the manager's (no `atexit`).
    unsafe { libc::_exit(127) }
}

/// Makes the calling process what the plan says. Returns only when that failed.
///
/// # Safety
/// For a child of `clone` alone. The plan's pointers must be to NULL-terminated lists of strings, a string, and
/// `count` numbers that nobody else uses.
unsafe fn become_program(plan: &Plan) -> Result<(), LaunchError> {
    use Step::{Closing, Cores, Death, Descriptors, Directory, Exec, Session, Signals};

    // What is ignored stays ignored through `execveat`, so every signal gets its default back, while all are blocked.
    // The kernel's own call is used since libc keeps two signals to itself.
    let default_action = [0u64; 4];
    for signal in 1..=64 {
        if signal != libc::SIGKILL && signal != libc::SIGSTOP {
            let (old, mask_bytes) = (ptr::null_mut::<c_void>(), size_of::<u64>());
            // SAFETY: the action is readable and at least as large as the kernel's struct, in which zero means the
            // default; the child has a table of handlers of its own, since CLONE_SIGHAND was not asked for.
            step(Signals, unsafe {
                libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default_action, old, mask_bytes)
            })?;
        }
    }
    set_signal_mask(0);
    // SAFETY: no memory is involved.
    step(Session, unsafe { libc::setsid() }.into())?;
    // SAFETY: this option takes one integer.
    step(Death, unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }.into())?;
    // SAFETY: no memory is involved.
    if unsafe { libc::getppid() } != plan.parent {
        // The manager died before that was set, so nobody will kill this process, and nobody waits for the error.
        return Err(LaunchError { step: Death, errno: libc::ESRCH });
    }
    // Descriptors whose numbers are about to be taken move out of the way first.
    let move_up = |source: c_int| match source < plan.count {
        // SAFETY: this command takes one integer.
        true => step(Descriptors, unsafe { libc::fcntl(source, libc::F_DUPFD_CLOEXEC, plan.count) }.into()),
        false => Ok(source.into()),
    };
    let image = move_up(plan.image)? as c_int;
    // SAFETY: the caller promises that many numbers, for us alone.
    let sources = unsafe { std::slice::from_raw_parts_mut(plan.sources, plan.count as usize) };
    for source in sources.iter_mut() {
        *source = move_up(*source)? as c_int;
    }
    for (target, source) in (0..).zip(sources) {
        // SAFETY: no memory is involved; the child has a table of descriptors of its own.
        step(Descriptors, unsafe { libc::dup2(*source, target) }.into())?;
    }
    // SAFETY: no memory is involved. The image must stay open until it runs, so they close on execution.
    step(Closing, unsafe {
        libc::syscall(libc::SYS_close_range, plan.count, c_int::MAX, libc::CLOSE_RANGE_CLOEXEC)
    })?;
    // SAFETY: the caller promises a string.
    step(Directory, unsafe { libc::chdir(plan.directory) }.into())?;
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is a live value of the right type.
    step(Cores, unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) }.into())?;
    // SAFETY: the caller promises NULL-terminated lists of strings; the empty path is a constant.
    step(Exec, unsafe {
        libc::syscall(libc::SYS_execveat, image, c"".as_ptr(), plan.argv, plan.env, libc::AT_EMPTY_PATH)
    })?;
    Ok(())
}

/// The result of a system call that gives -1 when it fails.
fn step(step: Step, result: c_long) -> Result<c_long, LaunchError> {
    if result == -1 { Err(LaunchError { step, errno: errno() }) } else { Ok(result) }
}

fn errno() -> i32 {
    // SAFETY: libc gives the address of this thread's errno; the child has the waiting thread's.
    unsafe { *libc::__errno_location() }
}

/// Sets the calling thread's mask of blocked signals, and returns the one before.
fn set_signal_mask(mask: u64) -> u64 {
    let mut before = 0u64;
    let (new, old) = (&raw const mask, &raw mut before);
    // SAFETY: both are live words of the size that is given; the kernel's own call is used since libc leaves out two
    // signals of its own, whose handlers must not run in the child either.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, new, old, size_of::<u64>()) };
    before
}

/// The child's stack: its lowest page can't be touched, so that an overflow faults and spoils nothing.
struct Stack {
    start: *mut c_void,
}

impl Stack {
    const BYTES: usize = 128 << 10;
    const GUARD_BYTES: usize = 64 << 10;

    fn new() -> Result<Stack, i32> {
        let (flags, protection) =
            (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory that is in use.
        let start = unsafe { libc::mmap(ptr::null_mut(), Self::BYTES, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(errno());
        }
        let stack = Stack { start };
        // SAFETY: the start of our own mapping, whose pages are no larger than the guard; nobody uses it yet.
        match unsafe { libc::mprotect(start, Self::GUARD_BYTES, libc::PROT_NONE) } {
            0 => Ok(stack),
            _ => Err(errno()),
        }
    }

    /// Where the stack begins; it grows down.
    fn top(&self) -> *mut c_void {
        self.start.wrapping_byte_add(Self::BYTES)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: this is what `new` mapped, it is unmapped once, and CLONE_VFORK ended the child's use of it.
        unsafe { libc::munmap(self.start, Self::BYTES) };
    }
}

/// A list of strings as C wants it, valid while the strings are.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// Waits for a child that has failed to start, so that nothing is left of it.
fn discard(pid: i32) {
    // SAFETY: a null status is allowed, and no other memory is involved.
    while unsafe { libc::waitpid(pid, ptr::null_mut(), 0) } == -1 && errno() == libc::EINTR {}
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, pipe},
        thread,
    };

    use super::*;

    const ROOT: &CStr = c"/";

    fn strings(texts: &[&str]) -> Vec<CString> {
        texts.iter().map(|text| CString::new(*text).unwrap()).collect()
    }

    /// Starts a shell that runs `script` in the folder `/`.
    fn shell(script: &str, descriptors: &[BorrowedFd<'_>]) -> Launched {
        let image = File::open("/bin/sh").unwrap();
        let (argv, env) = (strings(&["sh", "-c", script, "zero", "one"]), strings(&["NAME=value"]));
        let (image, directory) = (image.as_fd(), ROOT);
        launch(&Launch { image, argv: &argv, env: &env, directory, descriptors }).unwrap()
    }

    fn null() -> File {
        File::options().read(true).write(true).open("/dev/null").unwrap()
    }

    /// What `script` writes to its standard output, and how it ends.
    fn output(script: &str) -> (String, End) {
        let (null, (mut reader, writer)) = (null(), pipe().unwrap());
        let process = shell(script, &[null.as_fd(), writer.as_fd(), writer.as_fd()]);
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        (text, wait(&process).end)
    }

    fn wait(process: &Launched) -> Reaped {
        let mut poll = libc::pollfd { fd: process.pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one live `pollfd`, as counted.
        while unsafe { libc::poll(&raw mut poll, 1, -1) } != 1 {}
        reap(process.pid).unwrap().unwrap()
    }

    #[test]
    fn a_process_gets_what_it_is_given() {
        let (text, end) = output("echo $0 $1 $NAME; pwd -P; ulimit -c; exit 7");
        assert_eq!((text.as_str(), end), ("zero one value\n/\n0\n", End::Exited(7)));
    }

    #[test]
    fn a_process_leads_its_session() {
        let (text, _) = output("echo $$; cut -d' ' -f5,6 /proc/$$/stat");
        let [pid, group_and_session] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert_eq!(group_and_session, format!("{pid} {pid}"));
    }

    #[test]
    fn no_signal_is_blocked_or_ignored() {
        let usr1 = 1 << (libc::SIGUSR1 - 1);
        let before = set_signal_mask(usr1);
        // The test harness itself ignores SIGPIPE, as every Rust program does.
        let (text, _) = output("grep -E '^Sig(Blk|Ign)' /proc/self/status");
        assert_eq!(text, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
        assert_eq!(set_signal_mask(before), usr1, "the caller's mask is as it was");
    }

    #[test]
    fn no_other_descriptor_is_inherited() {
        let null = null();
        // SAFETY: this command takes one integer; the descriptor that it makes is owned here alone.
        let open = unsafe { OwnedFd::from_raw_fd(libc::fcntl(null.as_raw_fd(), libc::F_DUPFD, 200)) };
        let path = format!("/proc/$$/fd/{}", open.as_raw_fd());
        let (text, _) = output(&format!("[ -e {path} ] && echo leaked; [ -e /proc/$$/fd/1 ] && echo given"));
        assert_eq!(text, "given\n");
    }

    #[test]
    fn descriptors_may_have_each_others_numbers() {
        const COUNT: usize = 100;
        let (mut reader, writer) = pipe().unwrap();
        let files: Vec<File> = (0..COUNT).map(numbered_file).collect();
        let mut descriptors: Vec<_> = files.iter().rev().map(File::as_fd).collect();
        descriptors[1] = writer.as_fd();
        assert!(descriptors.iter().any(|fd| fd.as_raw_fd() < COUNT as c_int), "nothing would be in the way");
        let paths: Vec<_> = (2..COUNT).map(|n| format!("/proc/self/fd/{n}")).collect();
        let process = shell(&format!("exec cat {}", paths.join(" ")), &descriptors);
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let expected: String = (0..COUNT - 2).rev().map(|n| format!("{n}\n")).collect();
        assert_eq!((text, wait(&process).end), (expected, End::Exited(0)));
    }

    fn numbered_file(number: usize) -> File {
        use std::io::{Seek, Write};
        let mut file = tempfile::tempfile().unwrap();
        writeln!(file, "{number}").unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn a_running_process_is_not_reaped_and_a_killed_one_tells_its_signal() {
        let (null, (reader, _writer)) = (null(), pipe().unwrap());
        let process = shell("read line", &[reader.as_fd(), null.as_fd(), null.as_fd()]);
        assert_eq!(reap(process.pid).unwrap(), None);
        assert!(kill(&process.pidfd, 1000).is_err());
        kill(&process.pidfd, libc::SIGKILL).unwrap();
        let reaped = wait(&process);
        assert_eq!(reaped.end, End::Signalled { signal: libc::SIGKILL, core: false });
        assert!(reaped.memory_max_bytes > 0);
        assert_eq!(reap(process.pid).unwrap_err().raw_os_error(), Some(libc::ECHILD));
        kill(&process.pidfd, libc::SIGKILL).unwrap();
    }

    #[test]
    fn processor_time_is_counted() {
        let null = null();
        let script = "n=0; while [ $n -lt 100000 ]; do n=$((n + 1)); done";
        let reaped = wait(&shell(script, &[null.as_fd(), null.as_fd(), null.as_fd()]));
        assert_eq!(reaped.end, End::Exited(0));
        assert!(reaped.user + reaped.system > Duration::ZERO);
    }

    #[test]
    fn a_process_ends_with_the_thread_that_started_it() {
        let (reader, _writer) = pipe().unwrap();
        let start = || {
            let null = null();
            shell("read line", &[reader.as_fd(), null.as_fd(), null.as_fd()])
        };
        let process = thread::scope(|scope| scope.spawn(start).join()).unwrap();
        assert_eq!(wait(&process).end, End::Signalled { signal: libc::SIGKILL, core: false });
    }

    #[test]
    fn a_failure_names_its_step_and_leaves_nothing_behind() {
        let (null, shell) = (null(), File::open("/bin/sh").unwrap());
        let (argv, long) = (strings(&["sh"]), strings(&["sh", &"x".repeat(1 << 20)]));
        let try_launch = |image: &File, argv: &[CString], directory| {
            let descriptors = [null.as_fd()];
            let plan = Launch { image: image.as_fd(), argv, env: &[], directory, descriptors: &descriptors };
            launch(&plan).unwrap_err()
        };
        let absent = try_launch(&shell, &argv, c"/absent");
        assert_eq!(absent, LaunchError { step: Step::Directory, errno: libc::ENOENT });
        let unfit = try_launch(&null, &argv, ROOT);
        assert_eq!(unfit, LaunchError { step: Step::Exec, errno: libc::EACCES });
        let too_long = try_launch(&shell, &long, ROOT);
        assert_eq!(
            too_long.to_string(),
            "executing its image failed: Argument list too long (os error 7); make its arguments and environment \
             smaller, or raise `ulimit -s`"
        );
        let options = libc::WNOHANG | libc::__WNOTHREAD;
        // SAFETY: a null status is allowed. The option leaves out the children of other threads.
        assert_eq!(unsafe { libc::waitpid(-1, ptr::null_mut(), options) }, -1);
        assert_eq!(errno(), libc::ECHILD);
    }
}
