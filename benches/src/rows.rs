//! Rows of a table: contenders that have their turns at one play, and the figures that come of it.

use std::{fmt, time::Instant};

use crate::{
    contest::{Contender, Link, Play},
    effort::Effort,
    ping_pong, quantile,
};

/// A row: the same play by each contender.
pub struct Row {
    /// Its name in the table.
    pub name: &'static str,
    /// What is played.
    pub play: Play,
    /// The partner's core.
    pub core: u32,
    /// Who plays.
    pub contenders: Vec<Contender>,
    /// Whether the cores' own ping-pong is shown beside it.
    pub has_floor: bool,
}

/// How long a row takes.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Rounds that count, in each of which everybody has a turn.
    pub rounds: usize,
    /// About so long a turn takes.
    pub turn_ns: u64,
}

/// What a contender reached in a row.
#[archean::data]
#[derive(Debug, Clone)]
pub struct Figure {
    /// The row.
    pub row: String,
    /// The contender.
    pub contender: String,
    /// Whether it is one of a stream.
    pub is_stream: bool,
    /// Of a round trip the median, the 99th and the 99.9th percentile; of a stream all three are the time a frame.
    pub times_ns: [f64; 3],
    /// Processor time of both sides for a trip or a frame.
    pub cpu_ns: f64,
    /// Allocations of both sides, and frames or trips.
    pub allocations: (u64, u64),
}

/// The name of the floor among contenders.
pub const FLOOR: &str = "two-line ping-pong";

const FRAMES_MAX: u64 = 20_000_000;
const TRIPS_MAX: u64 = 20_000;

impl Row {
    /// Lets everybody have a turn, round by round.
    pub fn measure(&mut self, link: &mut Link, pace: Pace) -> Vec<Figure> {
        let Row { name, play, core, .. } = *self;
        let clock = quanta::Clock::new();
        let mut tallies: Vec<Tally> =
            self.contenders.iter().map(|contender| Tally::new(contender.name)).collect();
        let mut floor = Tally::new(FLOOR);
        let counts: Vec<u64> = self
            .contenders
            .iter_mut()
            .map(|contender| {
                let try_out = |contender: &mut Contender, link: &mut Link, count| {
                    let start = Instant::now();
                    contender.turn(link, play, count, core);
                    let fitting = pace.turn_ns * count / start.elapsed().as_nanos().max(1) as u64;
                    fitting.clamp(10, if play == Play::Stream { FRAMES_MAX } else { TRIPS_MAX })
                };
                let first = try_out(contender, link, 100);
                try_out(contender, link, first)
            })
            .collect();
        for round in 0..=pace.rounds {
            for ((contender, count), tally) in self.contenders.iter_mut().zip(&counts).zip(&mut tallies) {
                let turn = contender.turn(link, play, *count, core);
                // In the first round everything warms up.
                if round > 0 {
                    tally.add(play, turn.times_ns, *count, turn.effort);
                }
            }
            if self.has_floor && round > 0 {
                let times = ping_pong::round_trips(core as usize, TRIPS_MAX as usize, &clock);
                floor.add(play, times, TRIPS_MAX, Effort::default());
            }
        }
        tallies.extend(self.has_floor.then_some(floor));
        tallies.into_iter().map(|tally| tally.figure(name, play)).collect()
    }
}

/// What a contender's turns have given so far.
struct Tally {
    contender: &'static str,
    times_ns: [Vec<f64>; 3],
    cpu_ns: Vec<f64>,
    allocations: (u64, u64),
}

impl Tally {
    fn new(contender: &'static str) -> Self {
        Tally { contender, times_ns: Default::default(), cpu_ns: Vec::new(), allocations: (0, 0) }
    }

    fn add(&mut self, play: Play, mut times: Vec<f64>, count: u64, effort: Effort) {
        if play == Play::Stream {
            // The clock started when the first frame had come.
            times[0] /= (count - 1) as f64;
        }
        for (part, medians) in [0.5, 0.99, 0.999].into_iter().zip(&mut self.times_ns) {
            medians.push(quantile(&mut times, part));
        }
        self.cpu_ns.push(effort.cpu_ns as f64 / count as f64);
        self.allocations.0 += effort.allocations;
        self.allocations.1 += count;
    }

    fn figure(mut self, row: &str, play: Play) -> Figure {
        Figure {
            row: row.to_owned(),
            contender: self.contender.to_owned(),
            is_stream: play == Play::Stream,
            times_ns: self.times_ns.each_mut().map(|times| quantile(times, 0.5)),
            cpu_ns: quantile(&mut self.cpu_ns, 0.5),
            allocations: self.allocations,
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, p999] = self.times_ns;
        write!(f, "  {:24}", self.contender)?;
        if self.is_stream {
            write!(f, "{:9.3} M/s", 1e3 / p50)?;
        } else {
            write!(f, "p50 {p50:9.0} ns   p99 {p99:9.0} ns   p99.9 {p999:9.0} ns")?;
        }
        if self.cpu_ns > 0.0 {
            write!(f, "   CPU {:9.1} ns", self.cpu_ns)?;
        }
        if let (allocations @ 1.., messages) = self.allocations {
            write!(f, "   {allocations} allocations for {messages}")?;
        }
        Ok(())
    }
}

/// All figures of a bench.
#[derive(Debug, Default)]
pub struct Figures(Vec<Figure>);

impl Figures {
    /// Prints the figures of a row, and keeps them.
    pub fn show(&mut self, row: Vec<Figure>) {
        println!("{}", row.first().map_or("", |figure| &figure.row));
        row.iter().for_each(|figure| println!("{figure}"));
        self.0.extend(row);
    }

    /// Whether a contender played a row.
    pub fn has(&self, row: &str, contender: &str) -> bool {
        self.0.iter().any(|figure| figure.row == row && figure.contender == contender)
    }

    /// The figure of a contender in a row.
    ///
    /// # Panics
    /// When there is none.
    pub fn of(&self, row: &str, contender: &str) -> &Figure {
        let mut all = self.0.iter();
        let found = all.find(|figure| figure.row == row && figure.contender == contender);
        found.unwrap_or_else(|| panic!("`{contender}` did not play `{row}`"))
    }

    /// The median time of a contender in a row.
    pub fn time(&self, row: &str, contender: &str) -> f64 {
        self.of(row, contender).times_ns[0]
    }
}
