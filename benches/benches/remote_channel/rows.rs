//! Two processes that carry frames to each other.

use archean::{Bytes, Receiver, Sender};
use benches::{
    contest::{Contender, Ends, Link, Play},
    peers::{Duplex, Role, Setup, duplex},
    pin::pin_all,
    rows::{Figure, Figures, Pace, Row},
};

use crate::{at_least, at_most};

const ARCHEAN: &str = "archean";
const STD: &str = "std";
const ZEROMQ: &str = "ZeroMQ";

const TRIPS: [&str; 2] = ["64 B round trip, two cores", "64 B round trip, one core"];
const TRIPS_SPINNING: &str = "64 B round trip, two cores, ours spins";
const STREAM_64: [&str; 2] = ["64 B stream, two cores", "64 B stream, one core"];
const STREAM_16K: [&str; 2] = ["16 KiB stream, two cores", "16 KiB stream, one core"];
const STREAM_64K: [&str; 2] = ["64 KiB stream, two cores", "64 KiB stream, one core"];
const STREAM_MIB: [&str; 2] = ["1 MiB stream, two cores", "1 MiB stream, one core"];
const SEALED_64K: [&str; 2] = ["64 KiB sealed stream, two cores", "64 KiB sealed stream, one core"];

/// What is played.
#[archean::data]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    /// Both have a part of a core, and sleep at once.
    Sleepers,
    /// Both have a core, and spin before they sleep.
    Spinners,
    /// As sleepers, over sealed links.
    Sealed,
}

/// What goes over plain links.
pub(crate) fn plain(folder: &str, is_quick: bool) {
    let mut figures = Figures::default();
    play(Scene::Sleepers, folder, is_quick, &mut figures);
    play(Scene::Spinners, folder, is_quick, &mut figures);
    let speed = |row, other| figures.time(row, other) / figures.time(row, ARCHEAN);
    let cores = |cores, name: &str| format!("{name}{}", ["", "_one_core"][cores]);
    for (place, row) in TRIPS.into_iter().enumerate() {
        at_most(&cores(place, "round_trip_64_over_std"), 1.0 / speed(row, STD), 1.15);
    }
    at_most("round_trip_64_spinning_over_std", 1.0 / speed(TRIPS_SPINNING, STD), 0.28);
    for place in 0..2 {
        at_least(&cores(place, "stream_64_over_tokio"), speed(STREAM_64[place], "tokio"), 15.0);
        if figures.has(STREAM_64[place], ZEROMQ) {
            at_least(&cores(place, "stream_64_over_zeromq"), speed(STREAM_64[place], ZEROMQ), 4.0);
        }
        at_least(&cores(place, "stream_16_kib_over_std"), speed(STREAM_16K[place], STD), 0.9);
        at_least(&cores(place, "stream_64_kib_over_std"), speed(STREAM_64K[place], STD), 1.05);
        at_least(&cores(place, "stream_1_mib_over_std"), speed(STREAM_MIB[place], STD), 1.0);
    }
    for (name, row) in [("stream_64", STREAM_64[0]), ("round_trip_64", TRIPS[0])] {
        let (allocations, messages) = figures.of(row, ARCHEAN).allocations;
        at_most(&format!("allocations_per_message_{name}"), allocations as f64 / messages as f64, 0.0);
    }
}

/// What goes over sealed links.
pub(crate) fn sealed(folder: &str, is_quick: bool) {
    let mut figures = Figures::default();
    play(Scene::Sealed, folder, is_quick, &mut figures);
    for (row, name) in
        SEALED_64K.into_iter().zip(["sealed_64_kib_over_rustls", "sealed_64_kib_over_rustls_one_core"])
    {
        at_least(name, figures.time(row, "rustls") / figures.time(row, ARCHEAN), 1.0);
    }
}

/// Starts the processes that measure, and tells what they find.
fn play(scene: Scene, folder: &str, is_quick: bool, figures: &mut Figures) {
    let (there, here) = Channels::pair();
    let (link, partners_link) = Link::pair();
    let (rows, mut measured) = archean::channel::<Vec<Figure>>();
    let cores = if scene == Scene::Spinners { "1" } else { "1/4" };
    let folder = folder.to_owned();
    let path = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    let partner = archean::spawn(follow, (scene, partners_link, there, folder.clone()));
    let partner = partner.name("partner").cores(cores).env("LD_LIBRARY_PATH", path.as_bytes());
    let lead = archean::spawn(lead, (scene, link, here, folder, rows, is_quick));
    let lead = lead.name("lead").cores(cores).env("LD_LIBRARY_PATH", path.as_bytes());
    let partner = partner.start_blocking().expect("a core is free");
    let lead = lead.start_blocking().expect("a core is free");
    while let Ok(row) = measured.recv_owned_blocking() {
        figures.show(row);
    }
    lead.join_blocking().expect("the lead ends well");
    partner.join_blocking().expect("the partner ends well");
}

/// Our channels, for the rows that need them to take.
#[archean::data]
struct Channels {
    small: Vec<Duplex<[u8; 64]>>,
    large: Vec<Duplex<Bytes>>,
}

impl Channels {
    fn pair() -> (Channels, Channels) {
        let (small_there, small_here) = (0..4).map(|_| duplex(1 << 20)).unzip();
        let (large_there, large_here) = (0..6).map(|_| duplex(4 << 20)).unzip();
        (
            Channels { small: small_there, large: large_there },
            Channels { small: small_here, large: large_here },
        )
    }

    fn small(&mut self) -> Ends<64, Sender<[u8; 64]>, Receiver<[u8; 64]>> {
        let (outlet, inlet) = self.small.pop().expect("there is one for each row");
        Ends::new(outlet, inlet)
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
    pin_all(0);
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
    let mut rows = Vec::new();
    let mut row = |name, play, core, contenders| {
        rows.push(Row { name, play, core, contenders, has_floor: false });
    };
    if scene == Scene::Spinners {
        let contenders = vec![setup.process(ARCHEAN, ours.small()), setup.std_tcp::<64>()];
        row(TRIPS_SPINNING, Play::RoundTrips(0), 1, contenders);
        return rows;
    }
    for (place, core) in [(0, 1), (1, 0)] {
        if scene == Scene::Sealed {
            let contenders = vec![setup.process(ARCHEAN, ours.large::<65_536>()), setup.rustls::<65_536>()];
            row(SEALED_64K[place], Play::Stream, core, contenders);
            continue;
        }
        row(TRIPS[place], Play::RoundTrips(0), core, all_64(setup, &mut ours));
        row(STREAM_64[place], Play::Stream, core, all_64(setup, &mut ours));
        let contenders = all_large::<16_384>(setup, &mut ours);
        row(STREAM_16K[place], Play::Stream, core, contenders);
        let contenders = all_large::<65_536>(setup, &mut ours);
        row(STREAM_64K[place], Play::Stream, core, contenders);
        let contenders = all_large::<1_048_576>(setup, &mut ours);
        row(STREAM_MIB[place], Play::Stream, core, contenders);
    }
    rows
}

fn all_64(setup: &mut Setup, ours: &mut Channels) -> Vec<Contender> {
    let mut all = vec![setup.process(ARCHEAN, ours.small()), setup.std_tcp::<64>(), setup.tokio::<64>()];
    all.extend(setup.zeromq::<64>());
    all
}

fn all_large<const N: usize>(setup: &mut Setup, ours: &mut Channels) -> Vec<Contender> {
    vec![setup.process(ARCHEAN, ours.large::<N>()), setup.std_tcp::<N>(), setup.tokio::<N>()]
}
