//! The process that plays a strip.

use std::time::{Duration, Instant};

use archean::{Failure, Receiver, Sender};

use super::{hash::BoardHash, soup, strip::Strip, ticks::Ticks};

/// What a strip's process has to play.
#[archean::data]
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// Cells in a row.
    pub(crate) width: u32,
    /// The first row's place on the board.
    pub(crate) first_row: u32,
    pub(crate) rows: u32,
    pub(crate) generations: u32,
    /// Whether to tell now and then how far it is.
    pub(crate) tells: bool,
    /// Whether to send the rows of the last generation.
    pub(crate) sends_rows: bool,
}

/// The ways to the two strips next to one.
#[archean::data]
pub(crate) struct Neighbours {
    pub(crate) above: Link,
    pub(crate) below: Link,
}

/// The ways to another strip and back, on which rows of cells travel.
#[archean::data]
pub(crate) struct Link {
    pub(crate) to: Sender<Vec<u64>>,
    pub(crate) from: Receiver<Vec<u64>>,
}

/// What the root says to a strip before the game.
#[archean::data]
pub(crate) enum Order {
    /// These cells of the board, all in this strip, are alive.
    Live(Vec<(u32, u32)>),
    /// The board is the soup of this seed.
    Soup(u64),
    /// That was all: say when the strip is ready.
    GetReady,
    /// All are ready.
    Go,
}

/// What a strip says to the root.
#[archean::data]
pub(crate) enum Report {
    /// The first generation is complete.
    Ready,
    /// So many generations were played.
    Played(u32),
    /// Some rows of the last generation.
    Rows {
        /// The place of the first of them on the board.
        first_row: u32,
        words: Vec<u64>,
    },
}

/// What there is to say of a strip, or of several, after the last generation.
#[archean::data]
#[derive(Default)]
pub(crate) struct Tally {
    /// Live cells.
    pub(crate) population: u64,
    /// See [`BoardHash`].
    pub(crate) hash: u64,
    pub(crate) ticks: Ticks,
    /// From the order to go to the end of the last generation, of the slowest strip.
    pub(crate) elapsed_ns: u64,
}

impl Tally {
    /// Adds what there is to say of other strips of the same game.
    pub(crate) fn add(&mut self, other: &Tally) {
        self.population += other.population;
        self.hash = (BoardHash(self.hash) + BoardHash(other.hash)).0;
        self.ticks.merge(&other.ticks);
        self.elapsed_ns = self.elapsed_ns.max(other.elapsed_ns);
    }
}

/// How often the root hears how far the game is.
const TELL_PERIOD: Duration = Duration::from_millis(100);

/// Rows travel to the root in pieces of about this size, so that several have room in a channel.
const PIECE_BYTES: usize = 64 << 10;

/// Plays a strip. Without neighbours it is the whole board.
///
/// # Errors
/// A [`Failure`] when a neighbour or the root is gone.
pub(crate) fn run_strip(
    plan: Plan,
    mut neighbours: Option<Neighbours>,
    mut orders: Receiver<Order>,
    mut reports: Sender<Report>,
) -> Result<Tally, Failure> {
    let mut strip = Strip::new(plan.width, plan.rows);
    prepare(&mut strip, plan.first_row, &mut orders, &mut reports)?;
    let mut border = Vec::new();
    let mut ticks = Ticks::default();
    let start = Instant::now();
    let (mut tick_start, mut told) = (start, start);
    for generation in 1..=plan.generations {
        step(&mut strip, neighbours.as_mut(), &mut border)?;
        let now = Instant::now();
        ticks.add(now - tick_start);
        tick_start = now;
        if plan.tells && now - told >= TELL_PERIOD {
            told = now;
            // When there is no room, or nobody to hear it, the game still goes on.
            let _ = reports.try_send(Report::Played(generation));
        }
    }
    if plan.sends_rows {
        send_rows(&strip, plan.first_row, &mut reports)?;
    }
    Ok(Tally {
        population: strip.population(),
        hash: BoardHash::of_rows(plan.first_row, strip.rows()).0,
        ticks,
        elapsed_ns: (tick_start - start).as_nanos().try_into().unwrap_or(u64::MAX),
    })
}

/// Fills the strip as the root says, and returns when all strips are ready.
fn prepare(
    strip: &mut Strip,
    first_row: u32,
    orders: &mut Receiver<Order>,
    reports: &mut Sender<Report>,
) -> Result<(), Failure> {
    loop {
        match orders.recv_owned_blocking()? {
            Order::Live(cells) => cells.into_iter().for_each(|(x, y)| strip.set(x, y - first_row)),
            Order::Soup(seed) => strip.fill(|y| soup::row(seed, first_row + y)),
            Order::GetReady => reports.send_blocking(Report::Ready)?,
            Order::Go => return Ok(()),
        }
    }
}

/// One generation. The borders travel while the inner rows are at work.
fn step(
    strip: &mut Strip,
    neighbours: Option<&mut Neighbours>,
    border: &mut Vec<u64>,
) -> Result<(), Failure> {
    let Some(Neighbours { above, below }) = neighbours else {
        strip.wrap();
        strip.step_inner();
        strip.step_edges();
        return Ok(());
    };
    let mut send = |link: &mut Link, row: &[u64]| {
        border.clear();
        border.extend_from_slice(row);
        link.to.send_ref_blocking(border)
    };
    send(above, strip.first_row()).map_err(|error| lost("above", error))?;
    send(below, strip.last_row()).map_err(|error| lost("below", error))?;
    strip.step_inner();
    let row = above.from.recv_blocking().map_err(|error| lost("above", error))?;
    strip.set_above(row.iter().map(|word| word.to_native()))?;
    drop(row);
    let row = below.from.recv_blocking().map_err(|error| lost("below", error))?;
    strip.set_below(row.iter().map(|word| word.to_native()))?;
    strip.step_edges();
    Ok(())
}

fn lost(place: &str, error: impl std::error::Error) -> Failure {
    Failure::new(format!("the strip {place} can't be reached: {error}"))
}

fn send_rows(strip: &Strip, first_row: u32, reports: &mut Sender<Report>) -> Result<(), Failure> {
    let row_bytes = size_of_val(strip.first_row());
    let rows: Vec<&[u64]> = strip.rows().collect();
    let pieces = rows.chunks((PIECE_BYTES / row_bytes).max(1));
    let mut place = first_row;
    for piece in pieces {
        reports.send_blocking(Report::Rows { first_row: place, words: piece.concat() })?;
        place += piece.len() as u32;
    }
    Ok(())
}
