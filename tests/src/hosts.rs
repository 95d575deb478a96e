//! Real hosts on one machine: network namespaces with an address each, on a bridge in a namespace of its own.
//!
//! ```text
//!   host 0          host 1          host 2
//!  10.0.0.1        10.0.0.2        10.0.0.3
//!    eth0            eth0            eth0
//!     │               │               │
//!   port0 ────────── hub ────────── port2      another namespace
//! ```
//!
//! No namespace has a name: this process holds them by descriptors. A process beside it, the `keeper`, ends whatever
//! runs in them when this one drops them, panics or is killed; with the last descriptor and the last process the
//! kernel takes namespaces, links and bridge away.
//!
//! It needs the rights to make network namespaces, and `ip` (Debian package iproute2). Tests that use it have
//! `on_hosts` in their names, by which `./test` leaves them out, and says so, where that is not given.

mod namespace;
mod processes;

pub use processes::{end_all, processes_in};

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Write},
    net::Ipv4Addr,
    ops::Deref,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use anyhow::{Context, ensure};

use crate::until;
use namespace::Namespace;

/// Some hosts that reach each other. It is a slice of them; see the [module](self).
#[derive(Debug)]
pub struct Hosts {
    hosts: Vec<Host>,
    keeper: Child,
}

/// One of some [`Hosts`].
#[derive(Debug)]
pub struct Host {
    number: usize,
    own: Namespace,
    hub: Arc<Namespace>,
}

/// So many hosts have a port at the bridge at most.
const HOSTS_MAX: usize = 250;

impl Hosts {
    /// Makes so many hosts, and waits until they reach each other.
    ///
    /// # Errors
    /// What is missing or was refused.
    pub fn new(count: usize) -> anyhow::Result<Hosts> {
        ensure!((1..=HOSTS_MAX).contains(&count), "{count} hosts are none, or more than {HOSTS_MAX}");
        let hub = Arc::new(Namespace::new()?);
        let host = |number| Ok(Host { number, own: Namespace::new()?, hub: hub.clone() });
        let hosts: Vec<Host> = (0..count).map(host).collect::<anyhow::Result<_>>()?;
        let keeper = start_keeper(hosts.iter().map(|host| host.own.path()))?;
        let hosts = Hosts { hosts, keeper };

        let mut lines = "link add hub type bridge\nlink set hub up\n".to_owned();
        for host in hosts.iter() {
            let (port, path) = (host.port(), host.own.path());
            lines += &format!("link add {port} type veth peer name eth0 netns {path}\n");
            lines += &format!("link set {port} master hub up\n");
        }
        hub.ip(&lines)?;
        for host in hosts.iter() {
            let address = host.address();
            host.own.ip(&format!("link set lo up\naddr add {address}/16 dev eth0\nlink set eth0 up\n"))?;
        }
        hosts.iter().for_each(Host::until_connected);
        Ok(hosts)
    }
}

impl Deref for Hosts {
    type Target = [Host];

    fn deref(&self) -> &[Host] {
        &self.hosts
    }
}

impl Drop for Hosts {
    /// Ends all that runs on the hosts, and takes them away.
    fn drop(&mut self) {
        // The keeper waits for a byte; without one it takes this process for dead. It can only fail to come if the
        // keeper was killed.
        let told = self.keeper.stdin.take().map(|mut stdin| stdin.write_all(b"."));
        if self.keeper.wait().is_err() || !matches!(told, Some(Ok(()))) {
            self.hosts.iter().for_each(Host::kill_all);
        }
    }
}

impl Host {
    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, self.number as u8 + 1)
    }

    /// A command that will run on this host.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        self.own.enter_with(&mut command);
        command
    }

    /// Runs something on this host, on a thread of its own. A socket that it makes stays there.
    ///
    /// # Panics
    /// When `work` does.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.own.run(work)
    }

    /// Pulls the cable: what is sent from now on, to or from this host, is lost. Its interface stays as it is, but has
    /// no carrier.
    ///
    /// # Panics
    /// When it can't.
    pub fn cut(&self) {
        self.set_port("down");
        until("the port has no carrier", || !self.is_connected());
    }

    /// Puts the cable back, and waits until it carries.
    ///
    /// # Panics
    /// When it can't.
    pub fn mend(&self) {
        self.set_port("up");
        self.until_connected();
    }

    /// Stops one of this host's processes, until [`thaw`](Self::thaw).
    ///
    /// # Panics
    /// When that is none of them.
    pub fn freeze(&self, process: u32) {
        processes::signal(&self.own, process, libc::SIGSTOP);
        until("it has stopped", || processes::has_stopped(process));
    }

    /// Lets a process that was stopped go on.
    ///
    /// # Panics
    /// When that is none of this host's.
    pub fn thaw(&self, process: u32) {
        processes::signal(&self.own, process, libc::SIGCONT);
    }

    /// The processes that run on this host.
    pub fn processes(&self) -> Vec<u32> {
        processes_in(&[self.own.id()])
    }

    /// Kills all that runs on this host, as a loss of power would, and waits until it is gone.
    pub fn kill_all(&self) {
        end_all(&[self.own.id()]);
    }

    fn port(&self) -> String {
        format!("port{}", self.number)
    }

    fn set_port(&self, state: &str) {
        self.hub.ip(&format!("link set {} {state}\n", self.port())).expect("the port can be set");
    }

    fn is_connected(&self) -> bool {
        let port = self.hub.show(&self.port()).expect("the port can be looked at");
        let own = self.own.show("eth0").expect("the interface can be looked at");
        port.contains("state forwarding") && own.contains("LOWER_UP") && own.contains("state UP")
    }

    fn until_connected(&self) {
        until("the host is connected", || self.is_connected());
    }
}

/// Starts the process that ends what runs in these namespaces, when there is no other who does.
fn start_keeper(namespaces: impl Iterator<Item = String>) -> anyhow::Result<Child> {
    let own = std::env::current_exe().context("finding this test's own file")?;
    // Tests are one folder below programs.
    let keeper =
        own.ancestors().skip(1).take(2).map(|folder| folder.join("keeper")).find(|file| file.is_file());
    let keeper =
        keeper.with_context(|| format!("no `keeper` beside {}: cargo build -p tests", own.display()))?;
    let mut keeper = Command::new(keeper)
        .args(namespaces)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // Signals of the terminal are for the tests.
        .process_group(0)
        .spawn()
        .context("starting the keeper")?;
    // From its answer on it holds the namespaces.
    let mut answer = String::new();
    let output = keeper.stdout.take().context("the keeper's output")?;
    BufReader::new(output).read_line(&mut answer)?;
    ensure!(answer == "ready\n", "the keeper has said {answer:?}");
    Ok(keeper)
}
