//! `archean scheduler`, `archean manager` and `archean runner`: the processes of a cluster.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use cluster::{Authority, AuthorityError, EnrolError, FileError, Identity, IdentityError, Role, enrol};
use manager::{
    daemon::{Config, DaemonError},
    orphans::kill_descendants,
    runner::RunnerError,
};
use protocol::{
    control::CONTROL_FD,
    placement::Capacity,
    resources::{Cores, Memory},
};
use tokio::{
    net::{TcpListener, unix::pipe},
    runtime,
    task::LocalSet,
};
use tracing_subscriber::EnvFilter;
use transport::socket::Socket;

use crate::{
    complain,
    watchdog::{self, KILL_LIMIT},
};

#[derive(clap::Args)]
pub(crate) struct SchedulerArgs {
    /// The folder of the cluster's authority, as `archean cluster create` has made it
    #[arg(long)]
    dir: PathBuf,
    /// Where managers and clients connect
    #[arg(long, default_value = "0.0.0.0:7400")]
    listen: SocketAddr,
}

#[derive(clap::Args)]
pub(crate) struct ManagerArgs {
    /// The folder for this machine's certificate and images
    #[arg(long)]
    dir: PathBuf,
    /// The scheduler's address
    #[arg(long, value_name = "HOST:PORT")]
    scheduler: String,
    /// Where other machines and clients connect
    #[arg(long, default_value = "0.0.0.0:7401")]
    listen: SocketAddr,
    /// Where they reach this machine, if not where it listens
    #[arg(long, value_name = "ADDRESS:PORT")]
    advertise: Option<SocketAddr>,
    /// Join the cluster with this token of `archean cluster token`; needed once
    #[arg(long, value_name = "TOKEN")]
    join: Option<String>,
    /// The machine's name in the cluster, when it joins [default: its host name]
    #[arg(long)]
    name: Option<String>,
    /// Cores that jobs may reserve [default: all]
    #[arg(long)]
    cores: Option<Cores>,
    /// Memory that jobs may reserve [default: all]
    #[arg(long)]
    memory: Option<Memory>,
    /// So much space images may take
    #[arg(long, default_value = "16 GiB")]
    images: Memory,
    /// What goes over links between machines: `sealed` or, on a network that is trusted, `plain`
    #[arg(long, default_value = "sealed")]
    links: Links,
}

/// What goes over links between machines.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Links {
    /// Encrypted and authenticated.
    Sealed,
    /// As it is.
    Plain,
}

/// The file in which a daemon says where it listens.
pub(crate) const ADDRESS_FILE: &str = "address";

/// Why a daemon does not run.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    #[error(transparent)]
    Runner(#[from] RunnerError),
    #[error("there is no certificate in `{}`: join with `--join TOKEN`, which `archean cluster token` makes", .0.display())]
    NoIdentity(PathBuf),
    #[error("`{0}` has no host name that can be its name in the cluster: give it one with `--name`")]
    NoName(&'static str),
    #[error("the watchdog of the runner was killed, so its part of the job was ended")]
    Unwatched,
    #[error("{doing}: {error}")]
    System { doing: String, error: io::Error },
}

fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
    let doing = doing.into();
    move |error| Failure::System { doing, error }
}

/// Runs the scheduler of a cluster.
pub(crate) fn scheduler(args: SchedulerArgs) -> ExitCode {
    finish(block_on(async {
        let authority = Authority::open(&args.dir)?;
        let folder = args.dir.join(Role::Scheduler.to_string());
        let identity = Identity::load(&folder)?;
        let listener = listen(args.listen, &args.dir).await?;
        scheduler::fleet::serve(listener, &identity, authority).await.map_err(system("serving"))
    }))
}

/// Runs the manager of a machine.
pub(crate) fn manager(args: ManagerArgs) -> ExitCode {
    finish(block_on(async {
        manager::prepare().map_err(RunnerError::from)?;
        let machine = manager::capacity();
        fs::create_dir_all(&args.dir).map_err(system(format!("making `{}`", args.dir.display())))?;
        match (Identity::load(&args.dir), &args.join) {
            (Ok(_), _) => {}
            (Err(IdentityError::Missing(_)), Some(token)) => {
                let name = args.name.clone().or_else(host_name).ok_or(Failure::NoName("this machine"))?;
                enrol(&args.scheduler, token, Role::Manager, &name).await?.save(&args.dir)?;
            }
            (Err(IdentityError::Missing(_)), None) => return Err(Failure::NoIdentity(args.dir)),
            (Err(error), _) => return Err(error.into()),
        }
        let listener = listen(args.listen, &args.dir).await?;
        let config = Config {
            folder: args.dir,
            scheduler: args.scheduler,
            capacity: Capacity {
                cores: args.cores.unwrap_or(machine.cores),
                memory: args.memory.unwrap_or(machine.memory),
                processes: machine.processes,
            },
            advertise: args.advertise,
            is_sealed: args.links == Links::Sealed,
            store_bytes: args.images.bytes(),
        };
        Ok(manager::daemon::run(config, listener).await?)
    }))
}

/// Runs one job's part for the manager that has started this process.
pub(crate) fn runner() -> ExitCode {
    let run = || {
        let socket = Socket::inherited(CONTROL_FD).map_err(system("looking for the manager's socket"))?;
        manager::prepare().map_err(RunnerError::from)?;
        let launcher = watchdog::split().map_err(system("splitting off the watchdog"))?;
        block_on(async {
            let watchdog = pipe::Receiver::from_owned_fd(launcher.parent_gone);
            let watchdog = watchdog.map_err(system("watching the watchdog"))?;
            tokio::select! {
                run = manager::runner::run(socket) => Ok(run?),
                // It is readable at its end only. Without a watchdog, what runs could be left behind.
                _ = watchdog.readable() => {
                    kill_descendants(KILL_LIMIT).map_err(system("ending the job's processes"))?;
                    Err(Failure::Unwatched)
                }
            }
        })
    };
    finish(run())
}

fn block_on(daemon: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let filter = EnvFilter::try_from_env("ARCHEAN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_writer(io::stderr).init();
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("starting the runtime"))?;
    runtime.block_on(LocalSet::new().run_until(daemon))
}

fn finish(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(error);
            ExitCode::FAILURE
        }
    }
}

/// Listens, and says in a file where.
async fn listen(address: SocketAddr, folder: &Path) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address).await.map_err(system(format!("listening at {address}")))?;
    let address = listener.local_addr().map_err(system("listening"))?;
    let (path, new) = (folder.join(ADDRESS_FILE), folder.join("address.new"));
    let written = fs::write(&new, address.to_string()).and_then(|()| fs::rename(&new, &path));
    written.map_err(system(format!("writing `{}`", path.display())))?;
    Ok(listener)
}

fn host_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| cluster::check_name(name).is_ok())
}
