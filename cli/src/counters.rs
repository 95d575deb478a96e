//! `archean counters`: what the channels of running jobs have carried.
//!
//! Each process counts in a file without a name that its manager keeps open. It is read as it is: nobody is stopped or
//! asked.

use std::{
    fmt::Write,
    fs,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::PathBuf,
    process::ExitCode,
};

use serde_json::json;
use transport::{counters::Counted, layout::COUNTERS_PREFIX, segment::Counters};

use crate::{complain, say};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these processes, by their ids in the system; otherwise all whose jobs this user may look at
    pids: Vec<u32>,

    /// Print a line of JSON for each end
    #[arg(long)]
    json: bool,
}

/// A process of a job, and its open counters file.
struct Process {
    pid: u32,
    name: String,
    file: PathBuf,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let mut processes = processes();
    if let Some(missing) = args.pids.iter().find(|pid| processes.iter().all(|process| process.pid != **pid)) {
        complain(format_args!(
            "process {missing} is none of a job that this user may look at; `archean counters` shows which are"
        ));
        return ExitCode::FAILURE;
    }
    processes.retain(|process| args.pids.is_empty() || args.pids.contains(&process.pid));
    processes.sort_by_key(|process| process.pid);
    let mut text = if args.json { String::new() } else { heading() };
    for process in &processes {
        for counted in process.read() {
            text.push_str(&if args.json { json_line(process, &counted) } else { line(process, &counted) });
        }
    }
    match say(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("cannot write the counters: {error}; write them to a disk with room"));
            ExitCode::FAILURE
        }
    }
}

/// The processes of jobs whose managers let this user look at their files.
fn processes() -> Vec<Process> {
    let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
    let files =
        folders.flat_map(|folder| fs::read_dir(folder.path().join("fd")).into_iter().flatten().flatten());
    files.filter_map(|file| Process::of(file.path())).collect()
}

impl Process {
    fn of(file: PathBuf) -> Option<Process> {
        let target = fs::read_link(&file).ok()?;
        let text = String::from_utf8_lossy(target.as_os_str().as_bytes());
        let label =
            text.strip_prefix("/memfd:")?.strip_prefix(COUNTERS_PREFIX)?.strip_suffix(" (deleted)")?;
        let (pid, name) = label.split_once('.')?;
        Some(Process { pid: pid.parse().ok()?, name: name.to_owned(), file })
    }

    /// What it has counted; nothing when it has ended meanwhile.
    fn read(&self) -> Vec<Counted> {
        let counters = fs::File::open(&self.file).and_then(|file| Counters::map(file.as_fd(), false));
        counters.map_or(Vec::new(), |counters| counters.read().collect())
    }
}

fn heading() -> String {
    format!(
        "{:>8} {:16} {:25} {:9} {:>12} {:>15} {:>9} {:>9} {:>9}  TYPE\n",
        "PID", "PROCESS", "END", "KIND", "MESSAGES", "BYTES", "FULL", "SLEEPS", "WAKES"
    )
}

fn line(process: &Process, counted: &Counted) -> String {
    let Counted { end, type_name, frames, bytes, full, sleeps, wakes, .. } = counted;
    let mut line = String::new();
    let _ = writeln!(
        line,
        "{:>8} {:16} {:25} {:9} {frames:>12} {bytes:>15} {full:>9} {sleeps:>9} {wakes:>9}  {}",
        process.pid,
        process.name.escape_debug().to_string(),
        end.to_string(),
        kind(counted),
        type_name.escape_debug(),
    );
    line
}

fn json_line(process: &Process, counted: &Counted) -> String {
    let Counted { end, type_name, frames, bytes, full, sleeps, wakes, .. } = counted;
    let value = json!({
        "pid": process.pid, "process": process.name, "end": end.to_string(), "kind": kind(counted),
        "type": type_name, "messages": frames, "bytes": bytes, "full": full, "sleeps": sleeps, "wakes": wakes,
    });
    format!("{value}\n")
}

fn kind(counted: &Counted) -> &'static str {
    if counted.sends { "sender" } else { "receiver" }
}
