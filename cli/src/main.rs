//! The binary `archean`: runs jobs, makes projects, and looks at machines.

mod cluster;
mod completions;
mod config;
mod counters;
mod daemons;
mod demo;
mod doctor;
mod new;
mod output;
mod remote;
mod report;
mod run;
mod up;
mod watchdog;

use std::{
    env,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use archean::__private::Role;
use clap::{Parser, Subcommand};

/// Runs programs that spread over processes as if they were threads.
#[derive(Parser)]
#[command(name = "archean", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a program as a job
    Run(run::Args),
    /// Make a new project
    New(new::Args),
    /// Show what this machine offers to jobs, and what is missing
    Doctor(doctor::Args),
    /// Watch a job at work
    Demo(demo::Args),
    /// Make a cluster, and say who belongs to it
    Cluster(cluster::Args),
    /// Show what the channels of running jobs have carried
    Counters(counters::Args),
    /// Start a cluster of several machines on this one, to try things out
    Up(up::UpArgs),
    /// End the cluster of `archean up`
    Down(up::DownArgs),
    /// Place processes and know the machines of a cluster: its scheduler
    Scheduler(daemons::SchedulerArgs),
    /// Run processes on this machine for a cluster: its manager
    Manager(daemons::ManagerArgs),
    /// One job's part, as its manager starts it
    #[command(hide = true)]
    Runner,
    /// Print the completions for a shell
    Completions(completions::Args),
}

fn main() -> ExitCode {
    // This binary is a program of jobs itself: a process of the demo ends in here and does not come back.
    let role = archean::__private::enter();
    match Cli::parse().command {
        Command::Run(args) => run::run(args),
        Command::New(args) => new::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Demo(args) if matches!(role, Role::Root) => demo::root(args),
        Command::Demo(args) => start_demo(&args),
        Command::Cluster(args) => cluster::run(args),
        Command::Counters(args) => counters::run(&args),
        Command::Up(args) => up::up(&args),
        Command::Down(args) => up::down(&args),
        Command::Scheduler(args) => daemons::scheduler(args),
        Command::Manager(args) => daemons::manager(args),
        Command::Runner => daemons::runner(),
        Command::Completions(args) => completions::run(&args),
    }
}

/// Runs this very binary as a job, with the same arguments and some more; on a cluster of its own if it is to be.
fn start_demo(args: &demo::Args) -> ExitCode {
    let more = match demo::check(args) {
        Ok(more) => more,
        Err(code) => return code,
    };
    let mut arguments: Vec<_> = env::args_os().skip(1).collect();
    // Behind the command's name, where nothing can stand that would change their meaning.
    arguments.splice(1..1, more);
    let run = |options| run::run_file(Path::new("/proc/self/exe"), Path::new("demo"), arguments, options);
    let Some(machines) = args.machines else { return run(run::Options::default()) };
    match up::Temporary::start(machines) {
        Ok(cluster) => match cluster.remote() {
            Ok(remote) => run(run::Options::on(remote)),
            Err(text) => fail(text),
        },
        Err(text) => fail(text),
    }
}

fn fail(text: String) -> ExitCode {
    complain(text);
    ExitCode::FAILURE
}

/// The exit code for a command line that makes no sense, as clap has it.
const USAGE_CODE: u8 = 2;

/// One line on standard error. That it can't be written is nothing that could be told to anybody.
fn complain(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "archean: {text}");
}

/// Writes what a command has to say. A reader that has heard enough is no error.
fn say(text: impl AsRef<[u8]>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_ref()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
