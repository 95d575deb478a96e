//! A cluster of real processes: a scheduler and the managers of some machines, in folders of its own.
//!
//! They live on loopback addresses, or each on one of some [`Hosts`]. Each can be stopped, killed and started anew.
//! When the cluster is dropped, or the thread that made it ends in whatever way, all of it is gone.

mod job;
mod process;

pub use job::{Job, Outcome};
pub use process::{Daemon, Process};

use std::{
    env, fs,
    ops::Deref,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use tempfile::TempDir;

use crate::{hosts::Hosts, until};

/// Where a daemon runs.
#[derive(Debug, Clone)]
struct Place {
    hosts: Option<Arc<Hosts>>,
    number: usize,
}

impl Place {
    fn new(hosts: Option<&Arc<Hosts>>, number: usize) -> Place {
        Place { hosts: hosts.cloned(), number }
    }

    fn listen(&self) -> String {
        match &self.hosts {
            Some(hosts) => format!("{}:0", hosts[self.number].address()),
            None => format!("127.0.0.{}:0", self.number + 1),
        }
    }

    fn command(&self) -> Command {
        match &self.hosts {
            Some(hosts) => hosts[self.number].command(archean()),
            None => Command::new(archean()),
        }
    }
}

/// The name of every such cluster.
const NAME: &str = "test";

/// See the [module](self).
#[derive(Debug)]
pub struct Cluster {
    // Daemons end before their folders and hosts do.
    scheduler: Daemon,
    machines: Vec<Daemon>,
    hosts: Option<Arc<Hosts>>,
    folder: TempDir,
}

/// What a cluster is made of.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// So many machines.
    pub machines: usize,
    /// So many cores has each.
    pub cores: u32,
    /// Each is a host of its own, and so are the scheduler and its clients.
    pub on_hosts: bool,
    /// What goes over links.
    pub links: &'static str,
}

impl Plan {
    /// So many machines on loopback addresses, with sealed links and two cores each.
    pub const fn of(machines: usize) -> Plan {
        Plan { machines, cores: 2, on_hosts: false, links: "sealed" }
    }

    /// Starts all of it, and waits until all machines have joined.
    ///
    /// # Panics
    /// When it can't be had.
    pub fn start(self) -> Cluster {
        let hosts =
            self.on_hosts.then(|| Arc::new(Hosts::new(self.machines + 1).expect("hosts can be made")));
        let folder = TempDir::new().expect("a folder can be made");
        let authority = authority(folder.path());
        let made = command(folder.path(), ["cluster", "create", NAME]).output().expect("`archean` runs");
        assert!(made.status.success(), "{made:?}");
        let place = |number| Place::new(hosts.as_ref(), number);
        let path = |path: &Path| path.display().to_string();
        let arguments = ["scheduler", "--dir", &path(&authority), "--listen", &place(0).listen()];
        let scheduler = Daemon::start(place(0), arguments, &authority);
        let address = scheduler.address();
        let mut cluster = Cluster { scheduler, machines: Vec::new(), hosts: hosts.clone(), folder };
        for number in 1..=self.machines {
            let (token, name) = (cluster.token("manager"), format!("machine-{number}"));
            let own = cluster.folder.path().join(&name);
            fs::create_dir(&own).expect("its folder can be made");
            let (dir, listen, cores) = (path(&own), place(number).listen(), self.cores.to_string());
            let arguments = ["manager", "--dir", &dir, "--scheduler", &address, "--listen", &listen];
            let rest = ["--join", &token, "--name", &name, "--cores", &cores, "--memory", "1 GiB"];
            let arguments = arguments.into_iter().chain(rest).chain(["--links", self.links]);
            let daemon = Daemon::start(place(number), arguments, &own);
            daemon.until_said("joined");
            cluster.machines.push(daemon);
        }
        cluster
    }
}

impl Cluster {
    /// Its scheduler.
    pub fn scheduler(&mut self) -> &mut Daemon {
        &mut self.scheduler
    }

    /// The manager of a machine, by the number that the cluster knows it by: from 1 on.
    pub fn machine(&mut self, number: usize) -> &mut Daemon {
        &mut self.machines[number - 1]
    }

    /// The hosts: first that of the scheduler and the clients, then one for each machine.
    ///
    /// # Panics
    /// When it has none.
    pub fn hosts(&self) -> &Hosts {
        self.hosts.as_ref().expect("a cluster that was started on hosts")
    }

    /// All processes that machines have started and that live, with those that these have started.
    pub fn running(&self) -> Vec<Process> {
        self.machines.iter().flat_map(Daemon::descendants).collect()
    }

    /// Waits until no machine has anything of a job.
    pub fn until_idle(&self) {
        until("nothing of any job is left", || self.running().is_empty());
    }

    /// `archean` as a client of this cluster has it.
    pub fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Place::new(self.hosts.as_ref(), 0).command();
        command.args(arguments);
        own(&mut command, self.folder.path());
        command
    }

    /// `archean run`, on this cluster, with a program that lies beside it.
    pub fn run(&self, options: &[&str], program: &str, arguments: &[&str]) -> Command {
        let program = archean().with_file_name(program).display().to_string();
        let words = ["run", "--cluster", NAME].into_iter().chain(options.iter().copied());
        self.command(words.chain(["--", &program]).chain(arguments.iter().copied()))
    }

    /// Starts a job of `roamer`.
    pub fn roam(&self, options: &[&str], arguments: &[&str]) -> Job {
        Job::start(self.run(options, "roamer", arguments))
    }

    /// A token with which somebody joins in that role.
    ///
    /// # Panics
    /// When there is none to be had.
    pub fn token(&self, role: &str) -> String {
        let output = self.command(["cluster", "token", "--role", role]).output().expect("`archean` runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    /// The folder of the cluster's authority.
    pub fn authority(&self) -> PathBuf {
        authority(self.folder.path())
    }

    /// A folder for what a test needs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Cluster {
    /// Ends all of it, and waits until it is gone.
    fn drop(&mut self) {
        let started = self.running();
        self.machines.iter_mut().for_each(Daemon::kill);
        self.scheduler.kill();
        if std::thread::panicking() {
            let logs = self.machines.iter().chain([&self.scheduler]).map(Daemon::log);
            logs.for_each(|log| eprintln!("{log}"));
            started.iter().for_each(Process::kill);
        } else {
            until("nothing of the cluster is left", || !started.iter().any(Process::is_alive));
        }
    }
}

/// What a job of `roamer` reports to the test that watches it, and what the test tells it: files in a folder.
#[derive(Debug, Clone)]
pub struct Marks(PathBuf);

impl Marks {
    /// Marks in this folder, which is there.
    pub fn new(folder: impl Into<PathBuf>) -> Marks {
        Marks(folder.into())
    }

    /// Says that something has happened.
    ///
    /// # Panics
    /// When it can't be said.
    pub fn set(&self, name: &str) {
        fs::write(self.0.join(name), "").expect("a file can be written");
    }

    /// Whether that has happened.
    pub fn is_set(&self, name: &str) -> bool {
        self.0.join(name).exists()
    }

    /// Waits until that has happened.
    pub fn until(&self, name: &str) {
        until(name, || self.is_set(name));
    }
}

impl Deref for Marks {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

/// The `archean` that stands beside this package's programs.
///
/// # Panics
/// When it was not built.
pub fn archean() -> PathBuf {
    let own = env::current_exe().expect("a test finds its own file");
    // Tests are one folder below programs.
    let found =
        own.ancestors().skip(1).take(2).map(|folder| folder.join("archean")).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("no `archean` beside {}: `cargo build -p cli` first", own.display()))
}

/// `archean`, with a folder for its configuration of its own.
pub fn command<'a>(config: &Path, arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(archean());
    command.args(arguments);
    own(&mut command, config);
    command
}

fn own(command: &mut Command, config: &Path) {
    command.env("XDG_CONFIG_HOME", config);
    for variable in ["ARCHEAN_CLUSTER", "ARCHEAN_LINKS", "ARCHEAN_LOG", "LD_LIBRARY_PATH"] {
        command.env_remove(variable);
    }
}

fn authority(config: &Path) -> PathBuf {
    config.join("archean/clusters").join(NAME)
}
