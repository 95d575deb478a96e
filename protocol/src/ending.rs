//! How a process ended, as data.

use std::{fmt, time::Duration};

use crate::ids::ProcessId;

/// How a process ended.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Ending {
    /// Its entry returned, and its result was delivered.
    Returned,
    /// It ended itself with `exit`, before its entry had returned.
    Exited {
        /// The code that it gave.
        code: i32,
    },
    /// Its entry returned an error, or what it returned could not be delivered.
    Failed {
        /// The error's text.
        text: String,
    },
    /// It panicked.
    Panicked {
        /// The panic's message.
        message: String,
        /// File, line and column of the panic.
        location: String,
    },
    /// A signal ended it.
    Signalled {
        /// The signal's number.
        signal: i32,
        /// A core was dumped.
        core: bool,
    },
    /// It ran longer than its time limit.
    TimedOut {
        /// The limit that was set.
        limit: Duration,
    },
    /// Another process, or the end of the job, killed it.
    Killed {
        /// Who did it, in words.
        by: String,
    },
    /// The machine that it ran on is lost, or the way to it.
    MachineLost {
        /// Which machine, and how that came, in words.
        text: String,
    },
}

impl Ending {
    /// `true` for a process that did what it was started for.
    pub const fn is_success(&self) -> bool {
        matches!(self, Ending::Returned | Ending::Exited { code: 0 })
    }

    /// `true` for a process that was lost with its machine: what it had sent may not have arrived.
    pub const fn is_lost(&self) -> bool {
        matches!(self, Ending::MachineLost { .. })
    }

    /// The exit code by which a shell would know this ending: the process's own, 101 for a panic, 124 for a time
    /// limit, 128 and the signal's number for a signal, 1 for a failure.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Ending::Returned => 0,
            Ending::Exited { code } => *code as u8,
            Ending::Failed { .. } => 1,
            Ending::Panicked { .. } => 101,
            Ending::Signalled { signal, .. } => 128u8.wrapping_add(*signal as u8),
            Ending::TimedOut { .. } => 124,
            Ending::Killed { .. } | Ending::MachineLost { .. } => 137,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Returned => write!(f, "returned"),
            Ending::Exited { code } => write!(f, "exited with code {code}"),
            Ending::Failed { text } => write!(f, "failed: {text}"),
            Ending::Panicked { message, location } => write!(f, "panicked at {location}: {message}"),
            Ending::Signalled { signal, core } => {
                let core = if *core { ", core dumped" } else { "" };
                match signal_name(*signal) {
                    Some(name) => write!(f, "was ended by {name} (signal {signal}{core})"),
                    None => write!(f, "was ended by signal {signal}{core}"),
                }
            }
            Ending::TimedOut { limit } => write!(f, "ran longer than its time limit of {limit:?}"),
            Ending::Killed { by } => write!(f, "was killed by {by}"),
            Ending::MachineLost { text } => write!(f, "was lost with its machine: {text}"),
        }
    }
}

/// The name of a signal on Linux, x86-64 and aarch64.
pub const fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return None,
    })
}

/// What a process used while it lived.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// From its start to its end.
    pub wall: Duration,
    /// Processor time in its own code.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// The most memory that it held at once, in bytes.
    pub memory_max_bytes: u64,
}

/// The first death in a cascade: the one that the others followed from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cause {
    /// Who died first.
    pub process: ProcessId,
    /// Its name.
    pub name: String,
    /// How it ended.
    pub ending: Ending,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({}) {}", self.name, self.process, self.ending)
    }
}

/// How one end of a channel came to its end, as the other end is told after everything that was committed before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Over {
    /// It was dropped.
    Closed,
    /// It was given up, with a reason.
    Reset {
        /// The reason.
        reason: String,
    },
    /// The process that held it ended while it held it.
    Died(Cause),
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Over::Closed => write!(f, "closed"),
            Over::Reset { reason } => write!(f, "reset: {reason}"),
            Over::Died(cause) => write!(f, "{cause}"),
        }
    }
}

/// The record of a process's end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exit {
    /// Whose end this is.
    pub process: ProcessId,
    /// Its name.
    pub name: String,
    /// How it ended.
    pub ending: Ending,
    /// What it used.
    pub usage: Usage,
    /// The last of what it wrote to its standard error.
    pub stderr_tail: String,
    /// The death that this one followed from, if there is one.
    pub cause: Option<Cause>,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({}) {}", self.name, self.process, self.ending)?;
        match &self.cause {
            Some(cause) => write!(f, "; first cause: {cause}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_read_as_sentences() {
        let cause = Cause {
            process: ProcessId(1),
            name: "cell".into(),
            ending: Ending::Signalled { signal: 9, core: false },
        };
        let exit = Exit {
            process: ProcessId(2),
            name: "neighbour".into(),
            ending: Ending::Panicked { message: "no border".into(), location: "src/main.rs:4:5".into() },
            usage: Usage::default(),
            stderr_tail: String::new(),
            cause: Some(cause),
        };
        assert_eq!(
            exit.to_string(),
            "process neighbour (0000000000000002) panicked at src/main.rs:4:5: no border; \
             first cause: process cell (0000000000000001) was ended by SIGKILL (signal 9)"
        );
    }
}
