//! What is said at the end of a job.

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use manager::{JobEnd, output::escaped};
use protocol::ending::{Cause, Ending, Usage, signal_name};
use serde_json::{Value, json};

use crate::run::{Outcome, Reason, RunError};

/// The exit code of a launcher that itself failed.
const FAILED_CODE: u8 = 125;

/// Tells why there is no job.
pub(crate) fn failed(error: &RunError, is_json: bool) -> ExitCode {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(deeper) = source {
        text = format!("{text}: {deeper}");
        source = deeper.source();
    }
    let code = error.exit_code();
    tell(false, &if is_json { json!({"exit_code": code, "error": text}).to_string() } else { plain(&text) });
    ExitCode::from(code)
}

/// Tells how a job ended, when that isn't plain from its exit code, or when it was asked for as JSON.
pub(crate) fn ended(outcome: &Outcome, is_json: bool) -> ExitCode {
    let code = exit_code(outcome);
    if is_json {
        tell(outcome.is_mid_line, &summary(code, outcome).to_string());
    } else if let Some(text) = remark(outcome) {
        tell(outcome.is_mid_line, &plain(&text));
    }
    ExitCode::from(code)
}

fn exit_code(outcome: &Outcome) -> u8 {
    match (&outcome.reason, &outcome.end) {
        (Some(Reason::Signal(signal)), _) => 128 + *signal as u8,
        (Some(Reason::Output(error)), _) if error.kind() == io::ErrorKind::BrokenPipe => {
            128 + libc::SIGPIPE as u8
        }
        (Some(Reason::Unwatched), _) => 128 + libc::SIGKILL as u8,
        (None, Some(end)) => end.exit.ending.exit_code(),
        (Some(Reason::Output(_)), _) | (None, None) => FAILED_CODE,
    }
}

fn remark(outcome: &Outcome) -> Option<String> {
    match (&outcome.reason, &outcome.end) {
        (Some(Reason::Output(error)), _) if error.kind() != io::ErrorKind::BrokenPipe => {
            Some(format!("the job was stopped: what it prints can't be written ({error})"))
        }
        (Some(Reason::Unwatched), _) => {
            Some("the job was stopped: the process that watches over it is gone".to_owned())
        }
        (Some(_), _) | (None, None) => None,
        (None, Some(JobEnd { exit, .. })) => {
            let is_plain = matches!(exit.ending, Ending::Exited { .. }) && exit.cause.is_none();
            (!is_plain && !exit.ending.is_success()).then(|| exit.to_string())
        }
    }
}

fn summary(code: u8, outcome: &Outcome) -> Value {
    let stopped_by = outcome.reason.as_ref().map(|reason| match reason {
        Reason::Signal(signal) => signal_name(*signal).unwrap_or("a signal").to_owned(),
        Reason::Output(error) => format!("its output, which can't be written: {error}"),
        Reason::Unwatched => "the end of its watchdog".to_owned(),
    });
    let exit = outcome.end.as_ref().map(|end| &end.exit);
    json!({
        "exit_code": code,
        "stopped_by": stopped_by,
        "ending": exit.map(|exit| ending(&exit.ending)),
        "cause": exit.and_then(|exit| exit.cause.as_ref()).map(cause),
        "usage": exit.map(|exit| usage(&exit.usage)),
        "processes": outcome.end.as_ref().map(|end| end.processes),
    })
}

fn ending(ending: &Ending) -> Value {
    let mut value = match ending {
        Ending::Returned => json!({"kind": "returned"}),
        Ending::Exited { code } => json!({"kind": "exited", "code": code}),
        Ending::Failed { text } => json!({"kind": "failed", "error": text}),
        Ending::Panicked { message, location } => {
            json!({"kind": "panicked", "message": message, "location": location})
        }
        Ending::Signalled { signal, core } => json!({"kind": "signalled", "signal": signal, "core": core}),
        Ending::TimedOut { limit } => json!({"kind": "timed_out", "limit_ns": nanoseconds(*limit)}),
        Ending::Killed { by } => json!({"kind": "killed", "by": by}),
        Ending::MachineLost { text } => json!({"kind": "machine_lost", "text": text}),
        _ => json!({"kind": "other"}),
    };
    value["text"] = json!(ending.to_string());
    value
}

fn cause(cause: &Cause) -> Value {
    json!({"process": cause.process.to_string(), "name": cause.name, "ending": ending(&cause.ending)})
}

fn usage(usage: &Usage) -> Value {
    json!({
        "wall_ns": nanoseconds(usage.wall),
        "user_ns": nanoseconds(usage.user),
        "system_ns": nanoseconds(usage.system),
        "memory_max_bytes": usage.memory_max_bytes,
    })
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// One line; names and texts of processes can't drive the terminal.
fn plain(text: &str) -> String {
    let mut line = b"archean: ".to_vec();
    escaped(text.as_bytes(), &mut line);
    String::from_utf8_lossy(&line).into_owned()
}

fn tell(is_mid_line: bool, line: &str) {
    let start = if is_mid_line { "\n" } else { "" };
    // That it can't be written is nothing that could be told to anybody.
    let _ = io::stderr().write_all(format!("{start}{line}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use protocol::{ending::Exit, ids::ProcessId};

    use super::*;

    fn outcome(ending: Ending, reason: Option<Reason>) -> Outcome {
        let exit = Exit {
            process: ProcessId(1),
            name: "root".into(),
            ending,
            usage: Usage { wall: Duration::from_micros(5), ..Usage::default() },
            stderr_tail: String::new(),
            cause: None,
        };
        Outcome { end: Some(JobEnd { exit, processes: 3, left: 0 }), reason, is_mid_line: false }
    }

    #[test]
    fn an_exit_code_speaks_for_itself() {
        for (code, byte) in [(0, 0), (7, 7), (-1, 255)] {
            let plain = outcome(Ending::Exited { code }, None);
            assert_eq!((exit_code(&plain), remark(&plain)), (byte, None));
        }
        let returned = outcome(Ending::Returned, None);
        assert_eq!((exit_code(&returned), remark(&returned)), (0, None));
    }

    #[test]
    fn other_bad_ends_are_told() {
        let failed = outcome(Ending::Failed { text: "no\x1b[2J".into() }, None);
        let text = remark(&failed).unwrap();
        assert_eq!(plain(&text), "archean: process root (0000000000000001) failed: no\\x1b[2J");
        let mut follower = outcome(Ending::Exited { code: 3 }, None);
        let cause = Cause { process: ProcessId(2), name: "cell".into(), ending: Ending::Returned };
        follower.end.as_mut().unwrap().exit.cause = Some(cause);
        assert!(
            remark(&follower).unwrap().ends_with("first cause: process cell (0000000000000002) returned")
        );
    }

    #[test]
    fn a_stop_from_outside_decides_the_code() {
        let killed = || Ending::Killed { by: "the end of the job".into() };
        for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143), (libc::SIGHUP, 129)] {
            let stopped = outcome(killed(), Some(Reason::Signal(signal)));
            assert_eq!((exit_code(&stopped), remark(&stopped)), (code, None));
        }
        let broken = outcome(killed(), Some(Reason::Output(io::ErrorKind::BrokenPipe.into())));
        assert_eq!((exit_code(&broken), remark(&broken)), (141, None));
        let full = outcome(killed(), Some(Reason::Output(io::ErrorKind::StorageFull.into())));
        assert_eq!(exit_code(&full), 125);
        assert!(remark(&full).unwrap().contains("can't be written"));
    }

    #[test]
    fn the_summary_holds_all_there_is() {
        let panicked = Ending::Panicked { message: "no".into(), location: "src/main.rs:1:2".into() };
        assert_eq!(
            summary(101, &outcome(panicked, None)),
            json!({
                "exit_code": 101,
                "stopped_by": null,
                "ending": {
                    "kind": "panicked",
                    "message": "no",
                    "location": "src/main.rs:1:2",
                    "text": "panicked at src/main.rs:1:2: no",
                },
                "cause": null,
                "usage": {"wall_ns": 5000, "user_ns": 0, "system_ns": 0, "memory_max_bytes": 0},
                "processes": 3,
            })
        );
    }
}
