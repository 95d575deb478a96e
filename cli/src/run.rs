//! `archean run`: runs a program as a job on this machine.
//!
//! Scheduler and manager live in this process, on one thread.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    io, iter,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    pin::Pin,
    process::ExitCode,
    time::Duration,
};

use clap::builder::{OsStringValueParser, TypedValueParser};
use manager::{
    Image, JobEnd, JobError, JobSpec, Links, Stop, image::Flaw, image::ImageError, orphans::kill_descendants,
};
use protocol::resources::{Cores, Memory, Request};
use tokio::{
    net::unix::pipe,
    runtime, select,
    signal::unix::{SignalKind, signal},
    sync::mpsc::{self, UnboundedSender, unbounded_channel},
    task::{LocalSet, spawn_local},
    time::sleep,
};

use crate::{
    complain,
    config::{Config, ConfigError, VARIABLE_NAME, is_variable_name},
    output,
    remote::Remote,
    report, up,
    watchdog::{self, KILL_LIMIT, Launcher},
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Take arguments, environment and requirements from this TOML file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// When the first process has ended, wait for the others instead of stopping them
    #[arg(long)]
    wait: bool,
    /// Set a variable for every process; a name alone passes on the variable of this shell, if it is set
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = OsStringValueParser::new().try_map(Variable::parse))]
    env: Vec<Variable>,
    /// Cores to reserve for the first process: `2`, `0.5`, `1/4`
    #[arg(long, value_name = "N")]
    cores: Option<Cores>,
    /// Memory to reserve for the first process: `64 MiB`, `2 GB`
    #[arg(long, value_name = "M")]
    memory: Option<Memory>,
    /// Run it on this cluster [default: the one of `archean up`, if that runs, else this machine alone]
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// At the end, write one line of JSON about the job to standard error
    #[arg(long)]
    json: bool,
    /// Carry channels between processes over connections, as between machines: `plain` or `sealed`
    #[arg(long, value_name = "HOW", hide = true, value_parser = links)]
    links: Option<Links>,
    /// The program is a test binary, and only the test's own output counts
    #[arg(long, hide = true)]
    harness: bool,
    /// The program, as a path or a name in PATH, and its arguments
    // The first value ends the options of `run`, so that those of the program can't be mistaken for them.
    #[arg(value_names = ["PROGRAM", "ARGS"], required = true, num_args = 1.., trailing_var_arg = true)]
    command: Vec<OsString>,
}

/// Says the same as `--links`, for programs that are started without it: tests, above all.
const LINKS_VARIABLE: &str = "ARCHEAN_LINKS";

fn links(text: &str) -> Result<Links, String> {
    match text {
        "plain" => Ok(Links::Plain),
        "sealed" => Ok(Links::Sealed),
        _ => Err(format!("links are `plain` or `sealed`, not `{text}`")),
    }
}

/// A variable as it stands on the command line.
#[derive(Clone)]
struct Variable {
    name: OsString,
    value: Option<OsString>,
}

impl Variable {
    fn parse(text: OsString) -> Result<Variable, String> {
        let bytes = text.as_bytes();
        let (name, value) = match bytes.iter().position(|byte| *byte == b'=') {
            Some(at) => (&bytes[..at], Some(OsStr::from_bytes(&bytes[at + 1..]).to_owned())),
            None => (bytes, None),
        };
        if !is_variable_name(name) {
            return Err(VARIABLE_NAME.to_owned());
        }
        Ok(Variable { name: OsStr::from_bytes(name).to_owned(), value })
    }

    fn resolve(self) -> Option<(OsString, OsString)> {
        let value = self.value.or_else(|| env::var_os(&self.name))?;
        Some((self.name, value))
    }
}

/// How a job is run, apart from what it runs.
#[derive(Default)]
pub(crate) struct Options {
    /// What is added to the environment of every process.
    process_env: Vec<(OsString, OsString)>,
    request: Request,
    links: Option<Links>,
    wait: bool,
    is_harness: bool,
    is_json: bool,
    /// The cluster that it runs on, if not on this machine alone.
    cluster: Option<Remote>,
}

impl Options {
    /// On a cluster.
    pub(crate) fn on(remote: Remote) -> Options {
        Options { cluster: Some(remote), ..Options::default() }
    }
}

/// Why there is no job.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the cluster can't be used: {0}")]
    Cluster(String),
    #[error(
        "cannot run `{}`: there is no such file here, and no such program in PATH; build the program first, or \
         check the name",
        .0.display()
    )]
    NotInPath(OsString),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("the current folder can't be found ({0}); change to one that exists")]
    Directory(io::Error),
    #[error("{LINKS_VARIABLE}: {0}")]
    Links(String),
    #[error("the launcher can't be set up: {doing}: {error}")]
    Launcher { doing: &'static str, error: io::Error },
    #[error(transparent)]
    Job(JobError),
}

impl RunError {
    /// The codes by which shells and wrappers like `env` tell these cases apart.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            RunError::NotInPath(_) | RunError::Image(ImageError { flaw: Flaw::NotFound, .. }) => 127,
            RunError::Image(ImageError { flaw: Flaw::MemoryFile(_) | Flaw::Io { .. }, .. }) => 125,
            RunError::Image(_) => 126,
            _ => 125,
        }
    }
}

fn setup(doing: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |error| RunError::Launcher { doing, error }
}

/// Runs a program as the command line has it.
pub(crate) fn run(args: Args) -> ExitCode {
    let is_json = args.json;
    match prepare(args) {
        Ok((path, arguments, options)) => run_file(&path, &path, arguments, options),
        Err(error) => report::failed(&error, is_json),
    }
}

fn prepare(args: Args) -> Result<(PathBuf, Vec<OsString>, Options), RunError> {
    let config = args.config.as_deref().map(Config::read).transpose()?.unwrap_or_default();
    let mut command = args.command.into_iter();
    let program = command.next().unwrap_or_default();
    let mut arguments: Vec<OsString> = command.collect();
    if arguments.is_empty() {
        arguments = config.args.into_iter().map(OsString::from).collect();
    }
    let variables = config.env.into_iter().map(|(name, value)| (name.into(), value.into()));
    let options = Options {
        process_env: variables.chain(args.env.into_iter().filter_map(Variable::resolve)).collect(),
        request: Request {
            cores: args.cores.unwrap_or(config.request.cores),
            memory: args.memory.unwrap_or(config.request.memory),
        },
        links: args.links,
        wait: args.wait,
        is_harness: args.harness,
        is_json: args.json,
        cluster: up::chosen(args.cluster.as_deref()).map_err(RunError::Cluster)?,
    };
    Ok((find(program)?, arguments, options))
}

/// A path is taken as it is; a name is first looked for here, then in `PATH`.
fn find(program: OsString) -> Result<PathBuf, RunError> {
    let path = PathBuf::from(&program);
    if program.as_bytes().contains(&b'/') || path.is_file() {
        return Ok(path);
    }
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let folders = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&folders).map(|folder| folder.join(&program)).find(is_program);
    found.or_else(|| path.exists().then_some(path)).ok_or(RunError::NotInPath(program))
}

/// Runs the program in a file as a job.
pub(crate) fn run_file(path: &Path, called: &Path, arguments: Vec<OsString>, options: Options) -> ExitCode {
    match Image::load(path) {
        Ok(image) => run_program(path, Image { path: called.to_owned(), ..image }, arguments, options),
        Err(error) => report::failed(&error.into(), options.is_json),
    }
}

/// Runs a program as a job, and tells how it ended. The process must have one thread only.
fn run_program(program: &Path, image: Image, arguments: Vec<OsString>, options: Options) -> ExitCode {
    let is_json = options.is_json;
    match launch(program, image, arguments, options) {
        Ok(outcome) => report::ended(&outcome, is_json),
        Err(error) => report::failed(&error, is_json),
    }
}

fn launch(
    program: &Path,
    image: Image,
    arguments: Vec<OsString>,
    options: Options,
) -> Result<Outcome, RunError> {
    let links = match (options.links, env::var(LINKS_VARIABLE)) {
        (None, Ok(text)) if !text.is_empty() => Some(links(&text).map_err(RunError::Links)?),
        (links, _) => links,
    };
    let inherited: BTreeMap<_, _> = env::vars_os().chain(options.process_env.iter().cloned()).collect();
    let spec = JobSpec {
        image,
        arguments,
        directory: env::current_dir().map_err(RunError::Directory)?,
        env: inherited.into_iter().collect(),
        process_env: options.process_env,
        library_path: env::var_os("LD_LIBRARY_PATH"),
        request: options.request,
        wait: options.wait,
        links,
        harness: options.is_harness,
    };
    manager::prepare().map_err(RunError::Job)?;
    let launcher = watchdog::split().map_err(setup("splitting off the watchdog"))?;
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build().map_err(setup("starting the runtime"))?;
    let place = options.cluster.map(|remote| (remote, program.to_owned()));
    runtime.block_on(LocalSet::new().run_until(supervise(spec, place, launcher)))
}

/// How a job went.
pub(crate) struct Outcome {
    /// How it ended; absent when that took too long to wait for.
    pub(crate) end: Option<JobEnd>,
    /// What stopped it from outside.
    pub(crate) reason: Option<Reason>,
    /// Standard error stands in the middle of a line.
    pub(crate) is_mid_line: bool,
}

/// Why a job is stopped.
pub(crate) enum Reason {
    /// This process was sent a signal.
    Signal(i32),
    /// What the job prints can't be written any more.
    Output(io::Error),
    /// The watchdog is gone.
    Unwatched,
}

impl Reason {
    const fn stop(&self) -> Stop {
        match self {
            Reason::Signal(libc::SIGINT) => Stop::Interrupt,
            Reason::Signal(libc::SIGHUP) | Reason::Output(_) | Reason::Unwatched => Stop::HangUp,
            Reason::Signal(_) => Stop::Terminate,
        }
    }
}

/// How long a job may take to stop before all of it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// How long a stopped job's last output may take to be written.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

async fn supervise(
    spec: JobSpec,
    place: Option<(Remote, PathBuf)>,
    launcher: Launcher,
) -> Result<Outcome, RunError> {
    let (stops, mut stopped) = unbounded_channel();
    listen(&stops).map_err(setup("listening to signals"))?;
    let on_failure = move |error| drop(stops.send(Reason::Output(error)));
    let writer = output::start(on_failure).map_err(setup("starting the output's thread"))?;
    let watchdog =
        pipe::Receiver::from_owned_fd(launcher.parent_gone).map_err(setup("watching the watchdog"))?;
    let (stop, stop_inbox) = mpsc::channel(1);
    let mut job: Pin<Box<dyn Future<Output = Result<JobEnd, JobError>>>> = match place {
        Some((remote, program)) => {
            Box::pin(async move { remote.run_job(&program, spec, writer.queue, stop_inbox).await })
        }
        None => {
            let (to_scheduler, inbox) = unbounded_channel();
            let (outbox, from_scheduler) = unbounded_channel();
            spawn_local(scheduler::run(inbox, outbox));
            Box::pin(manager::run_job(spec, to_scheduler, from_scheduler, writer.queue, stop_inbox))
        }
    };

    let mut reason = None;
    let end = select! {
        end = &mut job => Some(end),
        // Nothing is ever written to this pipe: it is readable at its end only, and stays so.
        _ = watchdog.readable() => {
            reason = Some(Reason::Unwatched);
            None
        }
        Some(first) = stopped.recv() => {
            // There is room for the one message that is ever sent; a job that ends just now needs none.
            let _ = stop.try_send(first.stop());
            reason = Some(first);
            select! {
                end = &mut job => Some(end),
                _ = watchdog.readable() => None,
                () = sleep(STOP_LIMIT) => None,
            }
        }
    };
    // What is left now was started by the job's processes on their own, and may hold their output open.
    drop(job);
    match kill_descendants(KILL_LIMIT) {
        Ok(0) => {}
        Ok(left) => complain(format_args!("{left} processes of the job do not end; look at them with `ps`")),
        Err(error) => complain(format_args!("processes of the job may be left: {error}")),
    }
    let is_mid_line = select! {
        is_mid_line = writer.finished => is_mid_line.unwrap_or(false),
        _ = watchdog.readable() => false,
        () = sleep(FLUSH_LIMIT), if reason.is_some() => false,
        Some(first) = stopped.recv(), if reason.is_none() => {
            reason = Some(first);
            false
        }
    };
    // When a terminal is closed, a write may fail before the signal comes; the signal says more.
    let reasons = reason.into_iter().chain(iter::from_fn(|| stopped.try_recv().ok()));
    let reason = reasons.min_by_key(|reason| !matches!(reason, Reason::Signal(_)));
    Ok(Outcome { end: end.transpose().map_err(RunError::Job)?, reason, is_mid_line })
}

/// From now on, signals that would end this process stop the job.
fn listen(stops: &UnboundedSender<Reason>) -> io::Result<()> {
    for number in watchdog::stop_signals() {
        let mut signals = signal(SignalKind::from_raw(number))?;
        let stops = stops.clone();
        spawn_local(async move {
            while signals.recv().await.is_some() && stops.send(Reason::Signal(number)).is_ok() {}
        });
    }
    Ok(())
}
