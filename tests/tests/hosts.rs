//! The hosts that other tests run on: they reach each other, can be cut off, and leave nothing.

use std::{
    env, fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::process::ExitStatusExt,
    panic::{AssertUnwindSafe, catch_unwind},
    process::{Command, Stdio},
    time::Duration,
};

use tests::{
    hosts::{Host, Hosts, processes_in},
    until,
};

/// A TCP connection from one host to another.
fn connect(from: &Host, to: &Host) -> (TcpStream, TcpStream) {
    let listener = to.run(|| TcpListener::bind((to.address(), 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let client = from.run(|| TcpStream::connect(address)).unwrap();
    let (server, peer) = listener.accept().unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
    assert_eq!(peer.ip(), IpAddr::from(from.address()));
    (client, server)
}

/// Who asks, and who is asked.
struct Echo {
    client: UdpSocket,
    server: UdpSocket,
}

impl Echo {
    fn new(from: &Host, to: &Host) -> Echo {
        let socket = |host: &Host| {
            let socket = host.run(|| UdpSocket::bind((host.address(), 0))).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            socket
        };
        Echo { client: socket(from), server: socket(to) }
    }

    /// Whether a question arrives.
    fn reaches(&self) -> bool {
        self.client.send_to(b"?", self.server.local_addr().unwrap()).is_ok()
            && match self.server.recv_from(&mut [0]) {
                Ok((_, from)) => from == self.client.local_addr().unwrap(),
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
                    false
                }
            }
    }
}

/// The number of the namespace in which a host's commands run.
fn namespace(host: &Host) -> u64 {
    let output = host.command("stat").args(["-L", "-c", "%i", "/proc/self/ns/net"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// Whether any process is in one of these namespaces, or holds one open.
fn is_held(namespaces: &[u64]) -> bool {
    let targets: Vec<String> = namespaces.iter().map(|number| format!("net:[{number}]")).collect();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let files = processes.flat_map(|process| fs::read_dir(process.path().join("fd")).into_iter().flatten());
    let mut held = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
    held.any(|target| targets.iter().any(|one| *one == target.to_string_lossy()))
        || !processes_in(namespaces).is_empty()
}

/// A process that lives until it is killed, and one that it has started and that has left its session.
fn lasting(host: &Host) -> std::process::Child {
    let before = host.processes().len();
    let script = "setsid sleep 1000 & echo started; wait";
    let mut shell = host.command("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "started\n");
    until("both have been executed", || host.processes().len() == before + 2);
    shell
}

#[test]
fn on_hosts_each_reaches_each() -> anyhow::Result<()> {
    let hosts = Hosts::new(3)?;
    for from in hosts.iter() {
        for to in hosts.iter() {
            let (mut client, mut server) = connect(from, to);
            client.write_all(b"hello")?;
            let mut bytes = [0; 5];
            server.read_exact(&mut bytes)?;
            assert_eq!(&bytes, b"hello");
        }
    }
    // Nothing of it is reached from outside: another set has the same addresses.
    let others = Hosts::new(1)?;
    let listener = hosts[0].run(|| TcpListener::bind((hosts[0].address(), 0)))?;
    let address = listener.local_addr()?;
    assert_eq!(others[0].address(), hosts[0].address());
    let error = others[0].run(|| TcpStream::connect(address)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(Hosts::new(0).is_err() && Hosts::new(1000).is_err());
    Ok(())
}

#[test]
fn on_hosts_a_link_is_cut_and_mended() -> anyhow::Result<()> {
    let hosts = Hosts::new(3)?;
    let (through, beside) = (Echo::new(&hosts[0], &hosts[1]), Echo::new(&hosts[0], &hosts[2]));
    let own = Echo::new(&hosts[1], &hosts[1]);
    until("questions arrive", || through.reaches() && beside.reaches());
    let (mut client, mut server) = connect(&hosts[0], &hosts[1]);
    for _ in 0..3 {
        hosts[1].cut();
        for _ in 0..3 {
            assert!(!through.reaches(), "the cable is out");
        }
        until("the others are not concerned", || beside.reaches() && own.reaches());
        // What TCP has taken comes when the cable is back.
        client.write_all(b"later")?;
        server.set_read_timeout(Some(Duration::from_millis(20)))?;
        assert!(server.read(&mut [0; 5]).is_err());
        hosts[1].mend();
        until("questions arrive again", || through.reaches());
        server.set_read_timeout(None)?;
        let mut bytes = [0; 5];
        server.read_exact(&mut bytes)?;
        assert_eq!(&bytes, b"later");
    }
    Ok(())
}

#[test]
fn on_hosts_a_process_is_frozen_and_killed() -> anyhow::Result<()> {
    let hosts = Hosts::new(2)?;
    let mut copy = hosts[0].command("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (mut input, mut output) = (copy.stdin.take().unwrap(), copy.stdout.take().unwrap());
    let mut ask = || -> std::io::Result<()> {
        input.write_all(b"x")?;
        output.read_exact(&mut [0])
    };
    ask()?;
    assert_eq!((hosts[0].processes(), hosts[1].processes()), (vec![copy.id()], vec![]));
    // It is no process of that host.
    assert!(catch_unwind(AssertUnwindSafe(|| hosts[1].freeze(copy.id()))).is_err());
    ask()?;
    hosts[0].freeze(copy.id());
    let stat = fs::read_to_string(format!("/proc/{}/stat", copy.id()))?;
    assert!(stat.contains(") T "), "{stat}");
    hosts[0].thaw(copy.id());
    ask()?;
    let (mut first, mut second) = (lasting(&hosts[0]), lasting(&hosts[1]));
    hosts[0].freeze(copy.id());
    hosts[0].kill_all();
    assert_eq!((hosts[0].processes().len(), hosts[1].processes().len()), (0, 2));
    assert_eq!((first.wait()?.signal(), copy.wait()?.signal()), (Some(9), Some(9)));
    assert!(second.try_wait()?.is_none());
    // A host goes on after that.
    assert!(hosts[0].command("true").status()?.success());
    hosts[1].kill_all();
    assert_eq!(second.wait()?.signal(), Some(9));
    Ok(())
}

#[test]
fn on_hosts_nothing_is_left_when_they_are_dropped() -> anyhow::Result<()> {
    for panics in [false, true] {
        let mut numbers = Vec::new();
        let mut processes = Vec::new();
        let result = catch_unwind(AssertUnwindSafe(|| {
            let hosts = Hosts::new(2).unwrap();
            numbers.extend(hosts.iter().map(namespace));
            processes.extend(hosts.iter().map(lasting));
            assert!(is_held(&numbers));
            assert!(!panics, "as was asked");
        }));
        assert_eq!(result.is_err(), panics);
        // The namespaces themselves were held by this process and the keeper.
        assert!(!is_held(&numbers));
        for mut process in processes {
            assert_eq!(process.wait()?.signal(), Some(9));
        }
    }
    Ok(())
}

/// Makes the test below a program that is killed with its hosts.
const IS_VICTIM: &str = "ARCHEAN_TEST_IS_VICTIM";

#[test]
fn on_hosts_nothing_is_left_when_their_process_is_killed() -> anyhow::Result<()> {
    if env::var_os(IS_VICTIM).is_some() {
        let hosts = Hosts::new(2)?;
        let processes: Vec<_> = hosts.iter().map(lasting).collect();
        println!("\nnamespaces {} {}", namespace(&hosts[0]), namespace(&hosts[1]));
        for mut process in processes {
            process.wait()?;
        }
        panic!("what should last has ended");
    }
    let mut victim = Command::new(env::current_exe()?)
        .args(["--exact", "on_hosts_nothing_is_left_when_their_process_is_killed", "--nocapture"])
        .env(IS_VICTIM, "")
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let line = lines.map_while(Result::ok).find(|line| line.starts_with("namespaces ")).unwrap();
    let numbers: Vec<u64> = line.split(' ').skip(1).map(|number| number.parse().unwrap()).collect();
    assert!(is_held(&numbers));
    victim.kill()?;
    assert_eq!(victim.wait()?.signal(), Some(9));
    until("nothing is left", || !is_held(&numbers));
    Ok(())
}
