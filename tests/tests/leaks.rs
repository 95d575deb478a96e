//! Nothing of a job is left when it is over, however it ends.
#![expect(unsafe_code, reason = "jobs are ended by signals")]

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use tests::{children, until};

const VICTIM: &str = env!("CARGO_BIN_EXE_victim");

/// A job at work, with a folder for temporary files that nobody else uses.
struct Job {
    watchdog: Child,
    folder: TempDir,
}

impl Job {
    /// Starts a job of four processes or more, three of which have started others by themselves.
    fn start() -> Job {
        let folder = TempDir::new().unwrap();
        let mut command = tests::run(VICTIM, &["stay"]);
        command.env("TMPDIR", folder.path()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut watchdog = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(watchdog.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "started\n");
        Job { watchdog, folder }
    }

    /// Both halves of `archean run`, the processes of the job, and what they have started, with their start times.
    fn processes(&self) -> BTreeSet<Identity> {
        let mut found = BTreeSet::new();
        let mut unseen = vec![self.watchdog.id()];
        while let Some(process) = unseen.pop() {
            found.extend(Identity::of(process));
            unseen.extend(children(process));
        }
        assert_eq!(found.len(), 2 + 1 + 3 + 3, "{found:?}");
        found
    }

    /// Waits for the end of the job, whose processes were these. Gives its exit code.
    fn end(mut self, processes: &BTreeSet<Identity>) -> Option<i32> {
        until("the job has ended", || self.watchdog.try_wait().unwrap().is_some());
        until("no process is left", || !processes.iter().any(Identity::lives));
        assert_eq!(files_in(self.folder.path()), 0);
        let status = self.watchdog.wait().unwrap();
        status.code().or(status.signal().map(|signal| -signal))
    }
}

/// A process that is told from others which get its id later.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Identity {
    process: u32,
    started: String,
}

impl Identity {
    fn of(process: u32) -> Option<Identity> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        let (_, behind_name) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = behind_name.split_ascii_whitespace().collect();
        // A zombie does nothing any more, and waits for a parent that is none of ours.
        (fields[0] != "Z").then(|| Identity { process, started: fields[19].to_owned() })
    }

    fn lives(&self) -> bool {
        Identity::of(self.process).as_ref() == Some(self)
    }
}

fn files_in(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

fn send(process: u32, signal: i32) {
    // SAFETY: the call takes two integers.
    assert_eq!(unsafe { libc::kill(process as i32, signal) }, 0);
}

#[test]
fn a_signal_to_either_half_ends_the_job() {
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143), (libc::SIGHUP, 129)] {
        for is_watchdog in [true, false] {
            let job = Job::start();
            let processes = job.processes();
            let watchdog = job.watchdog.id();
            send(if is_watchdog { watchdog } else { children(watchdog)[0] }, signal);
            assert_eq!(job.end(&processes), Some(code));
        }
    }
}

#[test]
fn killing_the_launcher_leaves_nothing() {
    let job = Job::start();
    let processes = job.processes();
    send(children(job.watchdog.id())[0], libc::SIGKILL);
    assert_eq!(job.end(&processes), Some(128 + libc::SIGKILL));
}

#[test]
fn killing_the_watchdog_leaves_nothing() {
    let job = Job::start();
    let processes = job.processes();
    send(job.watchdog.id(), libc::SIGKILL);
    assert_eq!(job.end(&processes), Some(-libc::SIGKILL));
}

#[test]
fn the_end_of_the_root_leaves_nothing() {
    let job = Job::start();
    let processes = job.processes();
    let launcher = children(job.watchdog.id())[0];
    let is_root = |process: &u32| {
        let arguments = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        arguments.ends_with(b"stay\0")
    };
    send(children(launcher).into_iter().find(is_root).unwrap(), libc::SIGKILL);
    assert_eq!(job.end(&processes), Some(128 + libc::SIGKILL));
}

#[test]
fn a_job_that_runs_to_its_end_leaves_no_files() {
    let folder = TempDir::new().unwrap();
    let output = tests::run(VICTIM, &["leave"]).env("TMPDIR", folder.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(files_in(folder.path()), 0);
}

/// The exit code of a job, and what it wrote to standard error.
fn code_of(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn the_exit_code_is_the_roots() {
    for code in ["0", "3", "255"] {
        assert_eq!(code_of(tests::run(VICTIM, &["exit", code])), (code.parse().ok(), String::new()));
    }
    let (code, text) = code_of(tests::run(VICTIM, &["panic"]));
    assert!(code == Some(101) && text.contains("as was asked"), "{code:?} {text}");
    let (code, text) = code_of(tests::run(VICTIM, &["nonsense"]));
    assert!(code == Some(1) && text.contains("nonsense"), "{code:?} {text}");
    for (signal, name) in [(libc::SIGKILL, "SIGKILL"), (libc::SIGSEGV, "SIGSEGV"), (libc::SIGABRT, "SIGABRT")]
    {
        let (code, text) = code_of(tests::run(VICTIM, &["signal", &signal.to_string()]));
        assert!(code == Some(128 + signal) && text.contains(name), "{code:?} {text}");
    }
    let absent = format!("{VICTIM}-is-absent");
    let (code, text) = code_of(tests::run(&absent, &[]));
    assert!(code == Some(127) && text.contains("is-absent"), "{code:?} {text}");
}
