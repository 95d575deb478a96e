//! What a job is, seen from outside: what to run, what it prints, how it ends.

use std::{ffi::OsString, io, path::PathBuf, sync::Arc};

use protocol::{ending::Exit, resources::Request};

use super::Links;
use crate::image::Image;

/// What to run.
#[derive(Debug)]
pub struct JobSpec {
    /// The program.
    pub image: Image,
    /// What the root is called with, the program's own name left out.
    pub arguments: Vec<OsString>,
    /// The folder that every process starts in.
    pub directory: PathBuf,
    /// The root's whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// The environment that every other process starts from.
    pub process_env: Vec<(OsString, OsString)>,
    /// Where the loader looks for the program's libraries, if that was set: part of how the image is loaded.
    pub library_path: Option<OsString>,
    /// What the root asks of its machine.
    pub request: Request,
    /// The job lasts until its last process has ended, and not only until its root has.
    pub wait: bool,
    /// How channels between different processes travel, when they are not to share memory.
    pub links: Option<Links>,
    /// The root is a test binary: what its harness prints before `init` goes nowhere.
    pub harness: bool,
}

/// Why a job is stopped from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Ctrl-C.
    Interrupt,
    /// A request to end.
    Terminate,
    /// The terminal, or whoever had started the job, is gone.
    HangUp,
}

impl Stop {
    /// Why, in words.
    pub fn text(self) -> &'static str {
        match self {
            Stop::Interrupt => "an interrupt (Ctrl-C)",
            Stop::Terminate => "a request to end the job (SIGTERM)",
            Stop::HangUp => "the loss of whoever had started the job",
        }
    }
}

/// A piece of a process's output.
#[derive(Debug, Clone)]
pub struct Output {
    /// The process's name.
    pub name: Arc<str>,
    /// It is the root of the job.
    pub is_root: bool,
    /// It came from standard error, and not from standard output.
    pub is_stderr: bool,
    /// For the root: bytes as they came. For others: one line, without its end.
    pub bytes: Vec<u8>,
    /// It is a piece of a longer line that goes on.
    pub continues: bool,
}

/// How a job ended.
#[derive(Debug)]
pub struct JobEnd {
    /// The root's end.
    pub exit: Exit,
    /// How many processes were started.
    pub processes: u64,
    /// Processes that could not be ended, because they fork faster than they die.
    pub left: usize,
}

/// Why a job could not be run.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Its root was not started.
    #[error("the program was not started: {0}")]
    Root(String),
    /// The cluster did not run it to its end.
    #[error("the cluster did not run it: {0}")]
    Cluster(String),
    /// The operating system refused something.
    #[error("the manager can't work here: {what}: {error}")]
    System {
        /// What.
        what: &'static str,
        /// How it refused.
        error: io::Error,
    },
    /// This process may not have enough open files.
    #[error(
        "the limit of open files is {limit}, and a job needs {needed} at least: raise it with `ulimit -n`"
    )]
    Descriptors {
        /// The limit.
        limit: u64,
        /// What is needed.
        needed: u64,
    },
    /// An argument or a variable holds a NUL byte, which no program can be given.
    #[error("`{0}` holds a NUL byte")]
    Nul(String),
}
