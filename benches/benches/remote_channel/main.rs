//! Channels between processes that share no memory, beside other ways over TCP.
//!
//! `cargo bench -p benches --bench remote_channel [-- --quick]`
//!
//! The bench runs itself as a job whose channels are links over the loopback. There two processes let all contenders
//! have their turns, once each on a core of its own and once both on one. A row's figures are medians over the turns.
//! Sockets of others have the options that links have, so that all do the same work.

mod idle;
mod rows;
mod spawns;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use benches::{
    Goal, build_archean,
    effort::Counting,
    peers::zeromq::{FILE, Library},
    print_target,
};

#[global_allocator]
static COUNTING: Counting = Counting;

/// Says to the bench that it runs in a job; what it measures there and a folder follow.
const IN_JOB: &str = "--in-job";

fn main() {
    let arguments: Vec<String> = env::args().collect();
    let mut after = arguments.iter().skip_while(|argument| *argument != IN_JOB).skip(1);
    let is_quick = arguments.iter().any(|argument| argument == "--quick");
    match (after.next(), after.next()) {
        (Some(part), Some(folder)) => {
            archean::init();
            match part.as_str() {
                "plain" => rows::plain(folder, is_quick),
                "sealed" => rows::sealed(folder, is_quick),
                "idle" => idle::measure(),
                "spawns" => spawns::measure(is_quick),
                _ => panic!("no part of this bench is called `{part}`"),
            }
        }
        _ if env::var_os("ARCHEAN_CONTROL").is_some() => archean::init(),
        _ => outside(is_quick),
    }
}

/// Runs itself in jobs, and tells at last which targets were met.
fn outside(is_quick: bool) {
    let mut bench = Bench { archean: build_archean(), is_quick, targets: Vec::new() };
    for peer in ["tokio", "rustls"] {
        println!("{peer} {}", benches::version(peer));
    }
    match Library::open() {
        Some(library) => println!("ZeroMQ {}", library.version()),
        None => println!("ZeroMQ is left out: this machine has no {FILE}"),
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load before: {}", load.trim());
    let folder = tempfile::Builder::new().prefix("archean-bench-").tempdir().expect("a temporary folder");
    // Clusters of this user are out of sight.
    bench.run(folder.path(), "plain", Some("plain"));
    bench.run(folder.path(), "sealed", Some("sealed"));
    bench.run(folder.path(), "idle", Some("plain"));
    let cluster = Cluster::up(&bench.archean, folder.path());
    bench.run(folder.path(), "spawns", None);
    drop(cluster);
    folder.close().expect("a folder of one's own can be removed");
    println!();
    bench.targets.iter().for_each(|line| println!("{line}"));
}

struct Bench {
    archean: PathBuf,
    is_quick: bool,
    targets: Vec<String>,
}

impl Bench {
    /// Runs one part in a job, shows what it finds, and keeps its targets.
    fn run(&mut self, folder: &Path, part: &str, links: Option<&str>) {
        let bench = env::current_exe().expect("a bench finds its own file");
        let mut job = Command::new(&self.archean);
        job.env("XDG_CONFIG_HOME", folder).env_remove("ARCHEAN_LINKS").arg("run");
        job.args(links.map(|how| format!("--links={how}")));
        job.arg("--").arg(&bench).args([IN_JOB, part]).arg(folder).args(self.is_quick.then_some("--quick"));
        let output = job.stdin(Stdio::null()).stderr(Stdio::inherit()).output().expect("archean was built");
        let text = String::from_utf8_lossy(&output.stdout);
        for line in text.lines() {
            if line.starts_with("target ") {
                self.targets.push(line.to_owned());
            } else {
                println!("{line}");
            }
        }
        assert!(output.status.success(), "the job `{part}` failed");
    }
}

/// A cluster of two machines on this one, until it is dropped.
struct Cluster {
    archean: PathBuf,
    folder: PathBuf,
}

impl Cluster {
    fn up(archean: &Path, folder: &Path) -> Cluster {
        let cluster = Cluster { archean: archean.to_owned(), folder: folder.to_owned() };
        assert!(cluster.say(&["up", "--machines", "2", "--cores", "2"]), "no cluster is up");
        cluster
    }

    fn say(&self, arguments: &[&str]) -> bool {
        let mut command = Command::new(&self.archean);
        command.env("XDG_CONFIG_HOME", &self.folder).args(arguments).stdin(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.say(&["down"]) {
            eprintln!("the cluster in {} is not down", self.folder.display());
        }
    }
}

fn at_most(name: &str, measured: f64, goal: f64) {
    print_target(name, measured, Goal::AtMost(goal));
}

fn at_least(name: &str, measured: f64, goal: f64) {
    print_target(name, measured, Goal::AtLeast(goal));
}
