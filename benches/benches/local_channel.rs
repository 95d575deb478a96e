//! Channels between two processes of one machine, beside those of others.
//!
//! `cargo bench -p benches --bench local_channel [-- --quick]`
//!
//! The bench runs itself as a job. There two processes, each on a core of its own, let all contenders have their
//! turns. A row's figures are medians over the turns.

use std::{
    env,
    process::{Command, Stdio},
};

use archean::{Bytes, Receiver, Sender};
use benches::{
    Goal, build_archean,
    contest::{Contender, Ends, Link, OwnBuffer, Partner, Play},
    effort::Counting,
    peers::{Batched, Duplex, Role, Setup, duplex, remove_leftovers, rtrb, rtrb_chunks},
    pin::pin,
    print_target,
    rows::{FLOOR, Figure, Figures, Pace, Row},
    version,
};

#[global_allocator]
static COUNTING: Counting = Counting;

/// Says to the bench that it runs in a job; the folder for its files follows.
const IN_JOB: &str = "--in-job";

fn main() {
    let arguments: Vec<String> = env::args().collect();
    let folder = arguments.iter().skip_while(|argument| *argument != IN_JOB).nth(1);
    let is_quick = arguments.iter().any(|argument| argument == "--quick");
    match folder {
        None if env::var_os("ARCHEAN_CONTROL").is_some() => archean::init(),
        None => outside(is_quick),
        Some(folder) => {
            archean::init();
            in_job(folder.clone(), is_quick);
        }
    }
}

/// Runs itself in a job, and clears away what is left.
fn outside(is_quick: bool) {
    let archean = build_archean();
    for peer in ["rtrb", "crossbeam-channel", "iceoryx2", "ipc-channel"] {
        println!("{peer} {}", version(peer));
    }
    let folder = tempfile::Builder::new().prefix("archean-bench-").tempdir().expect("a temporary folder");
    let bench = env::current_exe().expect("a bench finds its own file");
    let mut job = Command::new(&archean);
    job.args(["run", "--"]).arg(&bench).arg(IN_JOB).arg(folder.path()).args(is_quick.then_some("--quick"));
    let status = job.stdin(Stdio::null()).status();
    remove_leftovers(folder.path()).expect("files of one's own can be removed");
    folder.close().expect("a folder of one's own can be removed");
    assert!(status.expect("archean was built").success(), "the job failed");
}

/// The root: starts the processes that measure, and tells what they find.
fn in_job(folder: String, is_quick: bool) {
    let mut figures = Figures::default();
    for scene in [Scene::Awake, Scene::Sleepers] {
        let (there, here) = Channels::pair();
        let (link, partners_link) = Link::pair();
        let (rows, mut measured) = archean::channel::<Vec<Figure>>();
        let cores = if scene == Scene::Awake { "1" } else { "1/4" };
        let partner = archean::spawn(follow, (scene, partners_link, there, folder.clone()));
        let partner = partner.name("partner").cores(cores).env("TMPDIR", folder.as_bytes());
        let lead = archean::spawn(lead, (scene, link, here, folder.clone(), rows, is_quick));
        let lead = lead.name("lead").cores(cores).env("TMPDIR", folder.as_bytes());
        let partner = partner.start_blocking().expect("a core is free");
        let lead = lead.start_blocking().expect("a core is free");
        while let Ok(row) = measured.recv_owned_blocking() {
            figures.show(row);
        }
        lead.join_blocking().expect("the lead ends well");
        partner.join_blocking().expect("the partner ends well");
    }
    println!();
    print_targets(&figures);
}

fn print_targets(figures: &Figures) {
    // How many times as fast as another ours is.
    let speed = |row, own, other| figures.time(row, other) / figures.time(row, own);
    let at_least =
        |name, row, own, other, goal| print_target(name, speed(row, own, other), Goal::AtLeast(goal));
    let at_most =
        |name, row, own, other, goal| print_target(name, 1.0 / speed(row, own, other), Goal::AtMost(goal));
    at_most("round_trip_64_over_ping_pong", TRIPS_64, ARCHEAN, FLOOR, 1.25);
    let [p50, _, p999] = figures.of(TRIPS_64, ARCHEAN).times_ns;
    print_target("round_trip_64_p99.9_over_own_p50", p999 / p50, Goal::AtMost(2.0));
    at_least("stream_64_over_iceoryx2", STREAM_64, ARCHEAN, "iceoryx2", 25.0);
    at_least("stream_64_over_rtrb", STREAM_64, ARCHEAN, "rtrb", 1.5);
    at_least("batches_64_over_iceoryx2", BATCHES_64, ARCHEAN, "iceoryx2", 35.0);
    at_least("batches_64_over_rtrb_one_by_one", BATCHES_64, ARCHEAN, "rtrb", 2.5);
    at_least("stream_1024_over_iceoryx2", STREAM_1024, ARCHEAN, "iceoryx2", 8.0);
    at_least("stream_4096_over_iceoryx2", STREAM_4096, ARCHEAN, "iceoryx2", 3.0);
    at_least("stream_65536_over_own_buffer", STREAM_65536, ARCHEAN, OWN_BUFFER, 0.95);
    at_most("round_trip_1_mib_over_iceoryx2", TRIPS_MIB, ARCHEAN, "iceoryx2", 0.9);
    at_most("sleeping_round_trip_over_futex", TRIPS_ASLEEP, ARCHEAN, "futex", 1.05);
    at_most("one_core_round_trip_over_futex", TRIPS_ONE_CORE, ARCHEAN, "futex", 1.2);
    at_most("select_over_one_receiver", TRIPS_SELECT, "archean, select", ARCHEAN, 1.5);
    at_least("wake_check_over_spin_only", WAKE_CHECK, "ring", "ring, spin-only", 0.97);
    let (allocations, frames) = figures.of(STREAM_64, ARCHEAN).allocations;
    print_target("allocations_per_message", allocations as f64 / frames as f64, Goal::AtMost(0.0));
}

const ARCHEAN: &str = "archean";
const OWN_BUFFER: &str = "own buffer";

const TRIPS_64: &str = "64 B round trip, both spin";
const TRIPS_MIB: &str = "1 MiB round trip";
const STREAM_64: &str = "64 B stream, each frame published at once";
const BATCHES_64: &str = "64 B stream in batches, beside frames one by one";
const STREAM_1024: &str = "1 KiB stream";
const STREAM_4096: &str = "4 KiB stream";
const STREAM_65536: &str = "64 KiB stream";
const WAKE_CHECK: &str = "64 B stream over the bare ring";
const TRIPS_SELECT: &str = "64 B round trip, one receiver against select over it and 10 000 idle ones";
const TRIPS_ASLEEP: &str = "64 B round trip, partner asleep";
const TRIPS_ONE_CORE: &str = "64 B round trip, both on one core";

/// What the two processes are like.
#[archean::data]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    /// They have a core each, and so spin before they sleep.
    Awake,
    /// They have a part of a core, and sleep at once.
    Sleepers,
}

/// Our channels, for the rows that need them to take.
#[archean::data]
struct Channels {
    small: Vec<Duplex<[u8; 64]>>,
    large: Vec<Duplex<Bytes>>,
}

impl Channels {
    fn pair() -> (Channels, Channels) {
        let (small_there, small_here) = (0..5).map(|_| duplex(1 << 20)).unzip();
        let (large_there, large_here) = (0..4).map(|_| duplex(4 << 20)).unzip();
        (
            Channels { small: small_there, large: large_there },
            Channels { small: small_here, large: large_here },
        )
    }

    fn small(&mut self) -> Duplex<[u8; 64]> {
        self.small.pop().expect("there is one for each row")
    }

    fn large<const N: usize>(&mut self) -> Ends<N, Sender<Bytes>, Receiver<Bytes>> {
        let (outlet, inlet) = self.large.pop().expect("there is one for each row");
        Ends::new(outlet, inlet)
    }
}

fn lead(
    scene: Scene,
    mut link: Link,
    channels: Channels,
    folder: String,
    mut out: Sender<Vec<Figure>>,
    is_quick: bool,
) {
    pin(0);
    let (rounds, turn_ns) = if is_quick { (5, 20_000_000) } else { (25, 60_000_000) };
    for mut row in rows(scene, &mut Setup::new(Role::Lead, &mut link, &folder), channels) {
        let figures = row.measure(&mut link, Pace { rounds, turn_ns });
        out.send_blocking(figures).expect("the root listens");
    }
}

fn follow(scene: Scene, mut link: Link, channels: Channels, folder: String) {
    let rows = rows(scene, &mut Setup::new(Role::Partner, &mut link, &folder), channels);
    link.follow(rows.into_iter().flat_map(|row| row.contenders).collect());
}

/// All rows of a scene; both processes make them, in step.
fn rows(scene: Scene, setup: &mut Setup, mut ours: Channels) -> Vec<Row> {
    let row =
        |name, play, core, contenders| Row { name, play, core, contenders, has_floor: name == TRIPS_64 };
    let small = |ours: &mut Channels| {
        let (outlet, inlet) = ours.small();
        Ends::new(outlet, inlet)
    };
    let trips = Play::RoundTrips(0);
    if scene == Scene::Sleepers {
        // By then the partner sleeps.
        let pause = Play::RoundTrips(100_000);
        return vec![
            row(TRIPS_ASLEEP, pause, 1, vec![setup.process(ARCHEAN, small(&mut ours)), setup.futex()]),
            row(TRIPS_ONE_CORE, trips, 0, vec![setup.process(ARCHEAN, small(&mut ours)), setup.futex()]),
        ];
    }
    let (batches_out, batches_in) = ours.small();
    let batches = vec![
        setup.process(ARCHEAN, Ends::new(Batched(batches_out), batches_in)),
        rtrb_chunks::<64>(),
        rtrb::<64>(),
        setup.iceoryx2::<64>(),
    ];
    let select = vec![setup.process(ARCHEAN, small(&mut ours)), setup.select(ours.small(), 10_000)];
    let own_buffer = Box::new(OwnBuffer::<65_536>::default());
    let mib = vec![
        setup.process(ARCHEAN, ours.large::<1_048_576>()),
        setup.iceoryx2::<1_048_576>(),
        setup.unix_socket::<1_048_576>(),
    ];
    let streams_65536 = vec![
        setup.process(ARCHEAN, ours.large::<65_536>()),
        setup.iceoryx2::<65_536>(),
        Contender { name: OWN_BUFFER, side: own_buffer, partner: Partner::None },
    ];
    vec![
        row(TRIPS_64, trips, 1, setup.all::<64>(small(&mut ours))),
        row(TRIPS_MIB, trips, 1, mib),
        row(STREAM_64, Play::Stream, 1, setup.all::<64>(small(&mut ours))),
        row(BATCHES_64, Play::Stream, 1, batches),
        row(STREAM_1024, Play::Stream, 1, setup.all::<1024>(ours.large())),
        row(STREAM_4096, Play::Stream, 1, setup.all::<4096>(ours.large())),
        row(STREAM_65536, Play::Stream, 1, streams_65536),
        row(TRIPS_SELECT, trips, 1, select),
        row(WAKE_CHECK, Play::Stream, 1, setup.rings::<64>()),
    ]
}
