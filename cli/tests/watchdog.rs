//! Whichever half of `archean run` is killed, nothing of the job is left.
//!
//! The program of the job is this test binary: its note says that it is built with the SDK, and as the root of a
//! job it starts a process of its own that has left the session, as user code can.
#![expect(unsafe_code, reason = "the note needs a section of its own, and kill has no safe interface in std")]

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
};

use protocol::note::Note;

#[used]
#[unsafe(link_section = ".note.archean")]
static NOTE: Note = Note::THIS;

/// Says to the test of the job's program that it runs as such.
const IS_ROOT: &str = "ARCHEAN_TEST_IS_ROOT";

/// The job's program: prints a line when its own process runs, and waits for ever.
#[test]
fn job() {
    if env::var_os(IS_ROOT).is_some() {
        let script = "sleep 1000 & echo started; wait";
        let status = Command::new("setsid").args(["sh", "-c", script]).status().unwrap();
        panic!("the process that should outlive this one has ended: {status}");
    }
}

/// `archean run`, once its job is at work. `stdout` is open as long as one of its halves lives.
struct Job {
    watchdog: Child,
    stdout: BufReader<ChildStdout>,
}

impl Job {
    fn start() -> Job {
        let program = env::current_exe().unwrap();
        let mut watchdog = Command::new(env!("CARGO_BIN_EXE_archean"))
            .args(["run".as_ref(), program.as_os_str()])
            .args(["--exact", "job", "--nocapture"])
            .env(IS_ROOT, "")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(watchdog.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("started") {
            line.clear();
            assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "the job did not start");
        }
        Job { watchdog, stdout }
    }

    fn watchdog(&self) -> i32 {
        self.watchdog.id() as i32
    }

    fn launcher(&self) -> i32 {
        let children = children(self.watchdog());
        assert_eq!(children.len(), 1, "{children:?}");
        children[0]
    }

    /// Waits for the end of both halves, and checks that those of `pids` are gone. Returns how the watchdog ended,
    /// and what was written to standard error.
    fn end(mut self, pids: &[i32]) -> (ExitStatus, String) {
        self.stdout.read_to_end(&mut Vec::new()).unwrap();
        let stderr = io::read_to_string(self.watchdog.stderr.take().unwrap()).unwrap();
        let status = self.watchdog.wait().unwrap();
        for pid in pids {
            assert!(!is_alive(*pid), "{pid} is left");
        }
        (status, stderr)
    }
}

fn children(pid: i32) -> Vec<i32> {
    let all = fs::read_dir("/proc").unwrap();
    let pids = all.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(|child| field(*child, 1).as_deref() == Some(&pid.to_string()[..])).collect()
}

/// All that descend from `pid`.
fn descendants(pid: i32) -> Vec<i32> {
    let below = |child| [vec![child], descendants(child)].concat();
    children(pid).into_iter().flat_map(below).collect()
}

/// A field of the process's state, counted from the one behind its name.
fn field(pid: i32, index: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(index).map(str::to_owned)
}

/// A zombie is dead: whoever adopted it reaps it in its own time.
fn is_alive(pid: i32) -> bool {
    !matches!(field(pid, 0).as_deref(), None | Some("Z" | "X"))
}

fn kill(pid: i32, signal: i32) {
    // SAFETY: the call takes two integers.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

#[test]
fn a_killed_launcher_leaves_nothing() {
    let job = Job::start();
    let (launcher, pids) = (job.launcher(), descendants(job.watchdog()));
    assert!(pids.len() >= 4, "launcher, root, shell and sleep: {pids:?}");
    kill(launcher, libc::SIGKILL);
    let (status, stderr) = job.end(&pids);
    assert_eq!(status.code(), Some(128 + libc::SIGKILL), "{stderr}");
    assert!(stderr.ends_with("by SIGKILL (signal 9); all processes of the job were ended\n"), "{stderr}");
}

#[test]
fn a_killed_watchdog_leaves_nothing() {
    let job = Job::start();
    let pids = descendants(job.watchdog());
    kill(job.watchdog(), libc::SIGKILL);
    let (status, stderr) = job.end(&pids[1..]);
    assert_eq!(status.signal(), Some(libc::SIGKILL));
    assert!(stderr.ends_with("the process that watches over it is gone\n"), "{stderr}");
}

#[test]
fn signals_stop_the_job() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let job = Job::start();
        let pids = descendants(job.watchdog());
        kill(job.watchdog(), signal);
        let (status, stderr) = job.end(&pids);
        assert_eq!(status.code(), Some(128 + signal), "{stderr}");
    }
}
