//! `archean up` and `archean down`: a cluster of several machines on this one.
//!
//! Its processes are those of any cluster: a scheduler and a manager for each machine, on loopback addresses of their
//! own. They go on when the command has ended; a file says which they are.

use std::{
    env, fs,
    fs::File,
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use cluster::{Authority, Role, Validity};
use manager::launch;
use protocol::resources::{Cores, Memory};
use serde::{Deserialize, Serialize};
use tokio::runtime;

use crate::{
    cluster::place,
    complain,
    daemons::{ADDRESS_FILE, Links},
    remote::Remote,
    say,
};

#[derive(clap::Args)]
pub(crate) struct UpArgs {
    /// How many machines
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u8).range(1..=64))]
    machines: u8,
    /// Cores of each [default: an equal part of this machine's, one at least]
    #[arg(long)]
    cores: Option<Cores>,
    /// Memory of each [default: an equal part of this machine's]
    #[arg(long)]
    memory: Option<Memory>,
    /// What goes over links between them
    #[arg(long, default_value = "sealed")]
    links: Links,
}

#[derive(clap::Args)]
pub(crate) struct DownArgs {}

/// The name of this cluster.
const NAME: &str = "local";

/// The file that says which processes belong to it.
const PROCESSES_FILE: &str = "processes.json";

/// How long its processes may take to be there, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often it is looked whether they are.
const LOOK: Duration = Duration::from_millis(20);

/// A process, so that no other can be taken for it.
#[derive(Serialize, Deserialize, Clone, PartialEq)]
struct Process {
    pid: i32,
    /// In the kernel's ticks since the machine started.
    started: u64,
}

/// The cluster that a job is to run on: the one that is named, here or in `ARCHEAN_CLUSTER`, or that of `archean up`
/// while it runs; none when the variable is empty.
pub(crate) fn chosen(name: Option<&str>) -> Result<Option<Remote>, String> {
    let named = name.map(str::to_owned).or_else(|| env::var("ARCHEAN_CLUSTER").ok());
    if name.is_none() && named.as_deref() == Some("") {
        return Ok(None);
    }
    let folder = match named {
        Some(name) => place::new(&name, None).map_err(|error| error.to_string())?,
        // Where no clusters can be kept, none is up.
        None => match place::new(NAME, None) {
            Ok(folder) if running(&folder).next().is_some() => folder,
            _ => return Ok(None),
        },
    };
    Remote::open(&folder).map(Some)
}

/// A cluster that ends when this is dropped.
pub(crate) struct Temporary {
    folder: tempfile::TempDir,
    processes: Vec<Process>,
}

impl Temporary {
    /// Starts it, with equal parts of this machine for each of its machines.
    pub(crate) fn start(machines: u8) -> Result<Temporary, String> {
        let folder = tempfile::Builder::new().prefix("archean-").tempdir();
        let folder = folder.map_err(|error| format!("making a folder for the cluster: {error}"))?;
        let mut cluster = Temporary { folder, processes: Vec::new() };
        let args = UpArgs { machines, cores: None, memory: None, links: Links::Sealed };
        make(&cluster.folder.path().join(NAME), &args, &mut cluster.processes)?;
        Ok(cluster)
    }

    /// The way to use it.
    pub(crate) fn remote(&self) -> Result<Remote, String> {
        Remote::open(&self.folder.path().join(NAME))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        end(&self.processes);
    }
}

/// Starts the cluster.
pub(crate) fn up(args: &UpArgs) -> ExitCode {
    finish(start(args))
}

/// Ends it.
pub(crate) fn down(_: &DownArgs) -> ExitCode {
    finish(stop())
}

fn finish(result: Result<String, String>) -> ExitCode {
    match result {
        Ok(text) => say(text).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
        Err(text) => {
            complain(text);
            ExitCode::FAILURE
        }
    }
}

fn start(args: &UpArgs) -> Result<String, String> {
    let folder = place::new(NAME, None).map_err(|error| error.to_string())?;
    if running(&folder).next().is_some() {
        return Err("a cluster is up already: end it with `archean down`".to_owned());
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|error| format!("removing `{}`: {error}", folder.display()))?;
    }
    let mut started = Vec::new();
    let made = make(&folder, args, &mut started);
    if made.is_err() {
        end(&started);
    }
    made
}

fn make(folder: &Path, args: &UpArgs, started: &mut Vec<Process>) -> Result<String, String> {
    let authority = Authority::create(folder, NAME).map_err(|error| error.to_string())?;
    for role in [Role::Scheduler, Role::Admin] {
        let identity = authority.issue(role, &role.to_string(), Validity::lasting(role.lifetime()));
        let saved = identity.map(|identity| identity.save(&folder.join(role.to_string())));
        saved.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    }
    let mut launch = |name: &str, arguments: &[String]| {
        let mut child =
            spawn(folder, name, arguments).map_err(|error| format!("starting the {name}: {error}"))?;
        let process = identify(child.id() as i32)
            .ok_or(format!("the {name} ended at once: see {}", log(folder, name).display()))?;
        started.push(process);
        let text = serde_json::to_string(&started).map_err(|error| error.to_string())?;
        fs::write(folder.join(PROCESSES_FILE), text).map_err(|error| error.to_string())?;
        Ok::<_, String>(move || child.try_wait().is_ok_and(|ended| ended.is_none()))
    };
    let text = |path: &Path| path.display().to_string();
    let arguments = ["scheduler", "--dir", &text(folder), "--listen", "127.0.1.1:0"].map(str::to_owned);
    let mut is_alive = launch("scheduler", &arguments)?;
    let address = folder.join(ADDRESS_FILE);
    wait(|| is_alive().then(|| fs::read_to_string(&address).ok()).ok_or("it has ended")).map_err(|why| {
        format!("the scheduler does not start: {why}; see {}", log(folder, "scheduler").display())
    })?;
    let scheduler = fs::read_to_string(&address).map_err(|error| error.to_string())?;

    let machine = manager::capacity();
    let count = u64::from(args.machines);
    let least = Cores::whole(1);
    let cores = args.cores.unwrap_or(Cores::from_shares(machine.cores.shares() / count).max(least));
    let memory = args.memory.unwrap_or(Memory(machine.memory.bytes() / count));
    let mut managers = Vec::new();
    for number in 1..=args.machines {
        let name = format!("machine-{number}");
        let token = authority.new_token(Role::Manager, PATIENCE).map_err(|error| error.to_string())?;
        let (dir, listen) = (text(&folder.join("machines").join(&name)), format!("127.0.1.{}:0", number + 1));
        let (cores, memory) = (cores.to_string(), format!("{} B", memory.bytes()));
        let links = if args.links == Links::Sealed { "sealed" } else { "plain" };
        let arguments = [
            "manager",
            "--dir",
            &dir,
            "--scheduler",
            &scheduler,
            "--listen",
            &listen,
            "--join",
            &token,
            "--name",
            &name,
            "--cores",
            &cores,
            "--memory",
            &memory,
            "--links",
            links,
        ];
        managers.push(launch(&name, &arguments.map(str::to_owned))?);
    }
    let remote = Remote::open(folder)?;
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let joined = wait(|| {
        if !managers.iter_mut().all(|is_alive| is_alive()) {
            return Err("a manager has ended");
        }
        let joined = runtime.block_on(remote.machines());
        Ok(joined.is_ok_and(|joined| joined == usize::from(args.machines)).then(String::new))
    });
    joined
        .map_err(|why| format!("the machines did not join: {why}; see the logs in {}", folder.display()))?;
    Ok(format!(
        "a cluster of {} machines is up, each with {cores} cores and {memory}; `archean run` uses it until `archean down`\n",
        args.machines
    ))
}

fn log(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.log"))
}

/// Starts a process that does not end with this one.
fn spawn(folder: &Path, name: &str, arguments: &[String]) -> io::Result<Child> {
    let log = File::create(log(folder, name))?;
    Command::new("/proc/self/exe")
        .arg0("archean")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
}

/// Looks until there is something, or it is clear that there will be nothing.
fn wait<T>(mut look: impl FnMut() -> Result<Option<T>, &'static str>) -> Result<T, String> {
    let start = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if start.elapsed() > PATIENCE {
            return Err(format!("not within {} s", PATIENCE.as_secs()));
        }
        sleep(LOOK);
    }
}

fn stop() -> Result<String, String> {
    let folder = place::new(NAME, None).map_err(|error| error.to_string())?;
    let processes: Vec<_> = running(&folder).collect();
    if processes.is_empty() && !folder.exists() {
        return Ok("no cluster is up\n".to_owned());
    }
    let left = end(&processes);
    if left > 0 {
        return Err(format!("{left} processes of the cluster do not end; look at them with `ps`"));
    }
    fs::remove_dir_all(&folder).map_err(|error| format!("removing `{}`: {error}", folder.display()))?;
    Ok("the cluster is down\n".to_owned())
}

/// Ends processes, those that were started last first; gives how many are left.
fn end(processes: &[Process]) -> usize {
    let is_there = |process: &&Process| identify(process.pid).as_ref() == Some(process);
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        for process in processes.iter().rev() {
            // Opened first: then it is known who gets the signal. One that has just ended needs none.
            if let Ok(pidfd) = launch::open(process.pid)
                && is_there(&process)
            {
                let _ = launch::kill(pidfd, signal);
            }
        }
        let ended = wait(|| Ok((!processes.iter().any(|process| is_there(&process))).then_some(())));
        if ended.is_ok() {
            return 0;
        }
    }
    processes.iter().filter(is_there).count()
}

/// The processes of the cluster that run.
fn running(folder: &Path) -> impl Iterator<Item = Process> + use<> {
    let text = fs::read_to_string(folder.join(PROCESSES_FILE)).unwrap_or_default();
    let processes: Vec<Process> = serde_json::from_str(&text).unwrap_or_default();
    processes.into_iter().filter(|process| identify(process.pid).as_ref() == Some(process))
}

/// The process with that id, unless it has ended.
fn identify(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (state != "Z" && state != "X").then_some(Process { pid, started })
}
