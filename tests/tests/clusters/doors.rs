//! Who is let in, who is not, and what those can do who are not.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tests::{
    cluster::{Cluster, Job, Marks, Plan, Process, command},
    until,
};

/// Has a machine join with this token, and gives what is said if it can't.
fn refusal(cluster: &mut Cluster, token: &str) -> String {
    let scheduler = cluster.scheduler().address();
    let folder = cluster.folder().join("stranger").display().to_string();
    let output = cluster
        .command(["manager", "--dir", &folder, "--scheduler", &scheduler, "--listen", "127.0.0.9:0"])
        .args(["--join", token, "--name", "stranger"])
        .output()
        .expect("`archean` runs");
    assert!(!output.status.success() && !Path::new(&folder).join("address").exists(), "{output:?}");
    String::from_utf8(output.stderr).expect("text")
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().expect("`archean` runs");
    assert!(output.status.success(), "{output:?}");
    output
}

#[test]
fn a_token_lets_one_machine_in_once_and_in_time() {
    let mut cluster = Plan::of(1).start();
    let token = cluster.token("manager");
    // `archean-SECRET-FINGERPRINT`: one digit of each is another.
    let changed = |at: usize| {
        let other = if &token[at..=at] == "0" { "1" } else { "0" };
        format!("{}{other}{}", &token[..at], &token[at + 1..])
    };
    for (token, text) in [
        (changed(token.find('-').expect("three parts") + 1), "not known"),
        (changed(token.len() - 1), "another cluster"),
        ("nonsense".to_owned(), "no token"),
    ] {
        let said = refusal(&mut cluster, &token);
        assert!(said.contains(text), "{text:?} is not in {said}");
    }
    // One for a client makes no manager.
    let other = cluster.token("scheduler");
    let text = refusal(&mut cluster, &other);
    assert!(text.contains("token") || text.contains("role"), "{text}");
    let used = cluster.machine(1).argument_of("--join");
    let text = refusal(&mut cluster, &used);
    assert!(text.contains("token"), "{text}");
    let output = succeed(&mut cluster.command(["cluster", "token", "--valid", "1s"]));
    let (late, made) = (String::from_utf8(output.stdout).expect("text"), Instant::now());
    until("the token has expired", || made.elapsed() > Duration::from_millis(2100));
    let text = refusal(&mut cluster, late.trim());
    assert!(text.contains("expired"), "{text}");
}

/// Makes a client of that role the one that the cluster's commands use.
fn become_client(cluster: &Cluster, role: &str, name: &str) -> TempDir {
    let config = TempDir::new().expect("a folder");
    let folder = config.path().join("archean/clusters/test");
    fs::create_dir_all(&folder).expect("a folder");
    let out = folder.display().to_string();
    succeed(&mut cluster.command(["cluster", "client", name, "--role", role, "--out", &out]));
    fs::copy(cluster.authority().join("address"), folder.join("address")).expect("its address");
    config
}

fn run_as(config: &TempDir, cluster: &Cluster) -> Job {
    let mut command = cluster.run(&[], "roamer", &["sum", "1"]);
    command.env("XDG_CONFIG_HOME", config.path());
    Job::start(command)
}

#[test]
fn who_may_not_submit_is_refused() {
    let cluster = Plan::of(1).start();
    let submitter = become_client(&cluster, "submit", "worker");
    run_as(&submitter, &cluster).succeed();
    let viewer = become_client(&cluster, "view", "viewer");
    run_as(&viewer, &cluster).fail("may not start jobs");
    let stranger = Plan::of(1).start();
    let foreign = become_client(&stranger, "submit", "worker");
    let address = |cluster: &Cluster| cluster.authority().join("address");
    let there = foreign.path().join("archean/clusters/test/address");
    fs::copy(address(&cluster), there).expect("its address");
    run_as(&foreign, &cluster).fail("the cluster did not run it");

    succeed(&mut cluster.command(["cluster", "revoke", "worker"]));
    until("a revoked client is refused", || !run_as(&submitter, &cluster).end().status.success());
    run_as(&submitter, &cluster).fail("revoked");
    cluster.roam(&[], &["sum", "1"]).succeed();
}

#[test]
fn garbage_at_the_door_disturbs_nobody() {
    let mut cluster = Plan::of(2).start();
    let marks = Marks::new(cluster.folder());
    let mut job = cluster.roam(&[], &["stream", &marks.display().to_string()]);
    job.line("streams");
    let addresses =
        [cluster.machine(1).address(), cluster.machine(2).address(), cluster.scheduler().address()];
    let silent = addresses[..2].iter().flat_map(|address| (0..500).map(move |_| address));
    let silent: Vec<TcpStream> = silent.map(|address| TcpStream::connect(address).unwrap()).collect();
    let hello = [b'A'; 16];
    let tls = [0x16, 3, 1, 0x40, 0, 1, 2, 3, 4];
    let junk: [&[u8]; 5] = [b"GET / HTTP/1.1\r\n\r\n", &tls, &[0x16; 4096], &hello, &[0; 100_000]];
    for address in &addresses {
        for bytes in junk {
            let mut stream = TcpStream::connect(address).unwrap();
            // It may be closed before all of it was taken.
            let _ = stream.write_all(bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    }
    // While they are all there, others come and go.
    cluster.roam(&[], &["sum", "4"]).succeed();
    drop(silent);
    marks.set("end");
    assert!(job.succeed().has("nothing was lost"));
}

#[test]
fn up_and_down_may_be_said_twice() {
    let folder = TempDir::new().expect("a folder");
    let archean = |arguments: &[&str]| command(folder.path(), arguments.iter().copied());
    assert!(String::from_utf8_lossy(&succeed(&mut archean(&["down"])).stdout).contains("no cluster is up"));
    // Whatever happens here, it ends.
    struct Down(TempDir);
    impl Drop for Down {
        fn drop(&mut self) {
            let _ = command(self.0.path(), ["down"]).output();
        }
    }
    let up = ["up", "--machines", "2"];
    // Where it is to be is no folder.
    let blocked = folder.path().join("archean");
    fs::write(&blocked, "").expect("a file");
    let output = archean(&up).output().expect("`archean` runs");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("archean"), "{output:?}");
    fs::remove_file(&blocked).expect("it is there");

    let text = String::from_utf8(succeed(&mut archean(&up)).stdout).expect("text");
    assert!(text.contains("2 machines"), "{text}");
    let processes = fs::read_to_string(blocked.join("clusters/local/processes.json")).expect("its list");
    let ids = processes.split("\"pid\":").skip(1).filter_map(|rest| rest.split(',').next()?.parse().ok());
    let members: Vec<Process> = ids.filter_map(Process::find).collect();
    assert_eq!(members.len(), 3, "{processes}");
    let folder = Down(folder);
    let archean = |arguments: &[&str]| command(folder.0.path(), arguments.iter().copied());
    let again = archean(&up).output().expect("`archean` runs");
    assert!(!again.status.success(), "{again:?}");
    assert!(String::from_utf8_lossy(&again.stderr).contains("up already"), "{again:?}");
    assert!(members.iter().all(Process::is_alive));

    // A port that is taken, and a folder that can't be made.
    let taken = fs::read_to_string(blocked.join("clusters/local/address")).expect("its address");
    let dir = blocked.join("clusters/local").display().to_string();
    let output = archean(&["scheduler", "--dir", &dir, "--listen", taken.trim()]).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains(taken.trim()), "{text}");
    let output =
        archean(&["manager", "--dir", "/proc/none", "--scheduler", &taken]).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("/proc/none"), "{text}");

    succeed(&mut archean(&["down"]));
    assert!(!members.iter().any(Process::is_alive));
    assert!(!blocked.join("clusters/local").exists());
    assert!(String::from_utf8_lossy(&succeed(&mut archean(&["down"])).stdout).contains("no cluster is up"));
}
