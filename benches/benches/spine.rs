//! The first figures: a simulation on two processes against one, a spawn against `posix_spawn`, a round trip over
//! a ring against the floor that the cores' distance sets.
//!
//! `cargo bench -p benches --bench spine [-- --quick]`
#![expect(unsafe_code, reason = "posix_spawn is called as a C program would")]

use std::{
    env,
    ffi::{CString, c_char},
    fs::File,
    io::{Read, Write, pipe},
    os::fd::{AsRawFd, FromRawFd},
    process::Command,
    ptr,
    time::Instant,
};

use archean::{Receiver, Sender};
use benches::{Goal, build_archean, pin::pin, ping_pong, print_target, quantile};

/// Says to a bench that it runs in a job; the file that it was started from follows.
const IN_JOB: &str = "--in-job";
/// Says to a bench that it is the other end of a pipe, on the descriptor that follows.
const AT_PIPE: &str = "--at-pipe";

fn main() {
    let arguments: Vec<String> = env::args().collect();
    let after = |flag: &str| arguments.iter().skip_while(|argument| *argument != flag).nth(1).cloned();
    if let Some(fd) = after(AT_PIPE) {
        return answer_pipe(&fd);
    }
    let is_quick = arguments.iter().any(|argument| argument == "--quick");
    match after(IN_JOB) {
        None if env::var_os("ARCHEAN_CONTROL").is_some() => archean::init(),
        None => outside(is_quick),
        Some(file) => {
            archean::init();
            in_job(&file, is_quick);
        }
    }
}

/// Runs the simulation as a user would, then itself in a job.
fn outside(is_quick: bool) {
    let archean = build_archean();
    let (rounds, generations) = if is_quick { (3, 300) } else { (7, 1000) };
    let mut speeds = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (processes, speeds) in speeds.iter_mut().enumerate() {
            speeds.push(life(&archean, processes + 1, generations));
        }
    }
    let [one, two] = speeds.map(|mut speeds| quantile(&mut speeds, 0.5));
    println!(
        "Life, 8192 x 8192 cells   1 process {one:8.1} generations/s   2 processes {two:8.1} generations/s"
    );

    let bench = env::current_exe().expect("a bench finds its own file");
    let mut job = Command::new(&archean);
    job.args(["run", "--"]).arg(&bench).arg(IN_JOB).arg(&bench);
    let status = job.args(is_quick.then_some("--quick")).stdin(std::process::Stdio::null()).output();
    let output = status.expect("archean was built");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "the job failed: {text}{}", String::from_utf8_lossy(&output.stderr));
    let (targets, table): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("target "));
    table.iter().for_each(|line| println!("{line}"));
    println!();
    print_target("life_two_processes_over_one", two / one, Goal::AtLeast(1.7));
    targets.iter().for_each(|line| println!("{line}"));
}

fn life(archean: &std::path::Path, processes: usize, generations: u32) -> f64 {
    let output = Command::new(archean)
        .args(["demo", "--json", "--pattern", "soup", "--size", "8192x8192"])
        .args(["--generations", &generations.to_string(), "--processes", &processes.to_string()])
        .output()
        .expect("archean was built");
    let text = String::from_utf8_lossy(&output.stdout);
    let result: serde_json::Value =
        serde_json::from_str(text.trim()).expect("the demo prints a line of JSON");
    result["generations_per_s"].as_f64().expect("the demo tells its speed")
}

/// What needs a job: spawns and round trips.
fn in_job(file: &str, is_quick: bool) {
    let rounds = if is_quick { 100 } else { 400 };
    let (mut spawns, mut posix) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        spawns.push(spawn_to_first_message());
        posix.push(posix_spawn_to_first_byte(file));
    }
    let (spawn, base) = (quantile(&mut spawns, 0.5), quantile(&mut posix, 0.5));
    println!(
        "spawn to first message    archean {:8.0} us           posix_spawn and a pipe {:8.0} us",
        spawn / 1e3,
        base / 1e3
    );

    let (commands, inbox) = archean::channel();
    let echo_side = archean::channel();
    let answers = archean::channel();
    let echo = archean::spawn(echo, (inbox, echo_side.0)).cores(1).start_blocking().expect("a core is free");
    let rounds = if is_quick { 5 } else { 20 };
    let trips = (commands, echo_side.1, answers.0, rounds);
    let measure = archean::spawn(measure, trips).cores(1).start_blocking().expect("a core is free");
    let mut answers = answers.1;
    let result = answers.recv_owned_blocking().expect("the measuring process answers");
    measure.join_blocking().expect("it ends well");
    echo.join_blocking().expect("it ends well");
    let [ring, ring_p99, floor, floor_p99] = result;
    println!(
        "64-byte round trip        ring {ring:6.0} ns (p99 {ring_p99:.0})   two-line ping-pong {floor:6.0} ns (p99 {floor_p99:.0})"
    );
    print_target("spawn_over_posix_spawn", spawn / base, Goal::AtMost(1.5));
    print_target("round_trip_over_ping_pong", ring / floor, Goal::AtMost(2.0));
}

fn spawn_to_first_message() -> f64 {
    let (sender, mut receiver) = archean::channel::<u64>();
    let start = Instant::now();
    let child = archean::spawn(say_hello, sender).start_blocking().expect("a process is started");
    let hello = *receiver.recv_blocking().expect("it says hello");
    let elapsed = start.elapsed().as_nanos() as f64;
    assert_eq!(hello, 1);
    child.join_blocking().expect("it ends well");
    elapsed
}

fn say_hello(mut sender: Sender<u64>) {
    sender.send_blocking(1).expect("the parent listens");
}

fn posix_spawn_to_first_byte(file: &str) -> f64 {
    let (mut read, write) = pipe().expect("a pipe");
    // SAFETY: plain system calls on descriptors that live here; the strings outlive the call, the arrays end with
    // null, and the child is reaped below.
    let pid = unsafe {
        libc::fcntl(write.as_raw_fd(), libc::F_SETFD, 0);
        let arguments =
            [file, AT_PIPE, &write.as_raw_fd().to_string()].map(|text| CString::new(text).expect("no NUL"));
        let mut argv: Vec<*mut c_char> = arguments.iter().map(|text| text.as_ptr().cast_mut()).collect();
        argv.push(ptr::null_mut());
        let envp = [ptr::null_mut()];
        let start = Instant::now();
        let mut pid = 0;
        let failed =
            libc::posix_spawn(&mut pid, argv[0], ptr::null(), ptr::null(), argv.as_ptr(), envp.as_ptr());
        assert_eq!(failed, 0, "posix_spawn");
        drop(write);
        let mut byte = [0];
        read.read_exact(&mut byte).expect("it says hello");
        (pid, start.elapsed().as_nanos() as f64)
    };
    // SAFETY: a child of ours that nobody else reaps.
    unsafe { libc::waitpid(pid.0, ptr::null_mut(), 0) };
    pid.1
}

fn answer_pipe(fd: &str) {
    let fd = fd.parse().expect("a descriptor");
    // SAFETY: the parent opened it for this process alone.
    let mut pipe = unsafe { File::from_raw_fd(fd) };
    pipe.write_all(&[1]).expect("the parent listens");
}

/// Sixty-four bytes.
#[archean::data]
struct Ball {
    bytes: [u8; 64],
}

fn echo(mut balls: Receiver<Ball>, mut back: Sender<Ball>) {
    pin(1);
    while let Ok(ball) = balls.recv_blocking() {
        let ball = ball.into_owned();
        if back.send_ref_blocking(&ball).is_err() {
            return;
        }
    }
}

/// Takes turns between the ring and the bare cores; medians and 99th percentiles of both, in nanoseconds.
fn measure(mut out: Sender<Ball>, mut back: Receiver<Ball>, mut result: Sender<[f64; 4]>, rounds: u32) {
    const TRIPS: usize = 20_000;
    pin(0);
    let clock = quanta::Clock::new();
    let (mut ring, mut floor) = (Vec::new(), Vec::new());
    let mut ball = Ball { bytes: [7; 64] };
    for round in 0..rounds {
        for trip in 0..TRIPS {
            ball.bytes[trip % 64] = trip as u8;
            let start = clock.raw();
            out.send_ref_blocking(&ball).expect("the echo lives");
            let answer = back.recv_blocking().expect("the echo lives");
            let elapsed = clock.delta_as_nanos(start, clock.raw());
            assert_eq!(answer.bytes, ball.bytes);
            drop(answer);
            // The first round fills the ring's pages.
            if round > 0 {
                ring.push(elapsed as f64);
            }
        }
        floor.extend(ping_pong::round_trips(1, TRIPS, &clock));
    }
    drop(out);
    let figures = [
        quantile(&mut ring, 0.5),
        quantile(&mut ring, 0.99),
        quantile(&mut floor, 0.5),
        quantile(&mut floor, 0.99),
    ];
    result.send_blocking(figures).expect("the root listens");
}
