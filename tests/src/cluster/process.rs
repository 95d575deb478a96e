//! The processes of a cluster.
#![expect(unsafe_code, reason = "processes are sent signals, and die with the thread that started them")]

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::Place;
use crate::{children, until};

/// A process, so that no other can be taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub id: u32,
    /// When it started, in the kernel's ticks.
    started: u64,
}

impl Process {
    /// The process with that id, if it lives.
    pub fn find(id: u32) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name, in parentheses, may hold anything.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        let started = fields.nth(18)?.parse().ok()?;
        (state != "Z" && state != "X").then_some(Process { id, started })
    }

    /// Whether it lives.
    pub fn is_alive(&self) -> bool {
        Process::find(self.id).as_ref() == Some(self)
    }

    /// Its arguments.
    pub fn command_line(&self) -> String {
        let line = fs::read(format!("/proc/{}/cmdline", self.id)).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()
    }

    /// Kills it, if it lives.
    pub fn kill(&self) {
        if self.is_alive() {
            signal(self.id, libc::SIGKILL);
        }
    }

    /// Waits until it is dead.
    pub fn until_dead(&self) {
        until("the process is dead", || !self.is_alive());
    }
}

/// A scheduler or a manager.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    place: Place,
    arguments: Vec<String>,
    folder: PathBuf,
    /// How often it was started.
    starts: usize,
}

impl Daemon {
    /// Starts one that keeps its files in `folder`, and waits until it listens.
    pub(super) fn start<'a>(
        place: Place,
        arguments: impl IntoIterator<Item = &'a str>,
        folder: &Path,
    ) -> Daemon {
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        let child = start(&place, &arguments, &log_file(folder, 1));
        let daemon = Daemon { child, place, arguments, folder: folder.to_owned(), starts: 1 };
        daemon.until_listening();
        daemon
    }

    /// Its process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    ///
    /// # Panics
    /// When it has not said so.
    pub fn address(&self) -> String {
        fs::read_to_string(self.folder.join("address")).expect("it has said where it listens")
    }

    /// What it was started with after this option.
    ///
    /// # Panics
    /// When it was not given that.
    pub fn argument_of(&self, option: &str) -> String {
        let at = self.arguments.iter().position(|argument| argument == option);
        at.and_then(|at| self.arguments.get(at + 1)).expect("an option with a value").clone()
    }

    /// What it has logged since it was started last.
    pub fn log(&self) -> String {
        fs::read_to_string(log_file(&self.folder, self.starts)).unwrap_or_default()
    }

    /// Waits until that stands in its log.
    pub fn until_said(&self, text: &str) {
        until(text, || {
            let log = self.log();
            assert!(Process::find(self.id()).is_some() || log.contains(text), "it has ended:\n{log}");
            log.contains(text)
        });
    }

    /// All that it has started and that lives, with what these have started.
    pub fn descendants(&self) -> Vec<Process> {
        let mut found = children(self.child.id());
        let mut next = 0;
        while let Some(process) = found.get(next) {
            found.extend(children(*process));
            next += 1;
        }
        found.into_iter().filter_map(Process::find).collect()
    }

    /// Kills it, and nothing else.
    ///
    /// # Panics
    /// When it does not die.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// Stops it, until [`thaw`](Self::thaw).
    pub fn freeze(&self) {
        signal(self.id(), libc::SIGSTOP);
        until("it has stopped", || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        });
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        signal(self.id(), libc::SIGCONT);
    }

    /// Starts it again after it was killed, at the same address, and waits until it listens.
    pub fn restart(&mut self) {
        let address = self.address();
        if let Some(at) = self.arguments.iter().position(|argument| argument == "--listen") {
            self.arguments[at + 1] = address;
        }
        // The token was used.
        if let Some(at) = self.arguments.iter().position(|argument| argument == "--join") {
            self.arguments.drain(at..at + 2);
        }
        fs::remove_file(self.folder.join("address")).expect("its file can be removed");
        self.starts += 1;
        self.child = start(&self.place, &self.arguments, &log_file(&self.folder, self.starts));
        self.until_listening();
    }

    fn until_listening(&self) {
        until("it listens", || {
            assert!(Process::find(self.id()).is_some(), "it has ended:\n{}", self.log());
            self.folder.join("address").exists()
        });
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn log_file(folder: &Path, starts: usize) -> PathBuf {
    folder.join(format!("log-{starts}"))
}

fn start(place: &Place, arguments: &[String], log: &Path) -> Child {
    let log = File::create(log).expect("a log can be made");
    let mut command = place.command();
    command.args(arguments).env_remove("ARCHEAN_LOG").env("NO_COLOR", "1").stdin(Stdio::null());
    command.stdout(log.try_clone().expect("one more descriptor")).stderr(log);
    die_with_parent(&mut command);
    command.spawn().expect("`archean` can be executed")
}

/// Has the process killed when the thread that starts it ends.
pub(super) fn die_with_parent(command: &mut Command) {
    let die = || {
        // SAFETY: this option takes one integer.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec it makes one system call, and neither allocates nor takes a lock.
    unsafe { command.pre_exec(die) };
}

pub(super) fn signal(process: u32, signal: i32) {
    // SAFETY: the call takes two integers.
    unsafe { libc::kill(process as i32, signal) };
}
