//! The root of the demo's job: starts a process for each strip, and gathers what comes of it.

use std::time::Duration;

use archean::{Child, ExitError, Failure, Receiver, RecvError, Sender};

use super::{
    game::{Game, Start},
    hash::BoardHash,
    size::BoardSize,
    ticks::Ticks,
    worker::{ArchivedReport, Link, Neighbours, Order, Plan, Report, Tally, run_strip},
};

/// How a game went.
pub(crate) struct Played {
    pub(crate) population: u64,
    pub(crate) hash: BoardHash,
    /// Of every strip and generation.
    pub(crate) ticks: Ticks,
    /// From the first generation's begin to the last one's end.
    pub(crate) elapsed: Duration,
    words: Vec<u64>,
}

impl Played {
    /// The rows of the last generation; none when they were not wanted.
    pub(crate) fn rows(&self, size: BoardSize) -> impl Iterator<Item = &[u64]> {
        self.words.chunks_exact(row_words(size))
    }
}

/// Cells that are sent to a strip in one message.
const CELLS_PER_ORDER: usize = 16 << 10;

/// Borders that have room in a channel: a strip is ahead of its neighbour by one generation at most.
const BORDERS: usize = 4;

/// How long a process may wait for its core.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Plays a game. `on_generation` hears now and then how far it is.
///
/// # Errors
/// A [`Failure`] when a process was not started, or did not live to the end.
pub(crate) fn play(game: &Game, wants_rows: bool, on_generation: impl FnMut(u32)) -> Result<Played, Failure> {
    let (report, reports) = archean::channel();
    let (mut strips, mut orders) = (Vec::new(), Vec::new());
    for (index, (rows, neighbours)) in game.strips().zip(circle(game)).enumerate() {
        let plan = Plan {
            width: game.size.width,
            first_row: rows.start,
            rows: rows.len() as u32,
            generations: game.generations,
            tells: index == 0,
            sends_rows: wants_rows,
        };
        let (order, inbox) = archean::channel();
        let strip = archean::spawn(run_strip, (plan, neighbours, inbox, report.clone()))
            .name(format!("strip {index}"))
            .deadline(START_LIMIT);
        // With a core of its own it may spin for the borders.
        let strip = if game.has_cores() { strip.cores(1) } else { strip };
        strips.push(strip.start_blocking()?);
        orders.push(order);
    }
    drop(report);
    let mut words =
        if wants_rows { vec![0; row_words(game.size) * game.size.height as usize] } else { vec![] };
    let conducted = conduct(game, orders, reports, &mut words, on_generation);
    // A death comes first: all else follows from it. What a strip fails with mostly follows from what failed here.
    let tally = join(strips)?;
    conducted?;
    let Tally { population, hash, ticks, elapsed_ns } = tally?;
    Ok(Played { population, hash: BoardHash(hash), ticks, elapsed: Duration::from_nanos(elapsed_ns), words })
}

/// Connects each strip with the one below it, and the last with the first. A strip that is alone needs nobody.
fn circle(game: &Game) -> Vec<Option<Neighbours>> {
    if game.processes == 1 {
        return vec![None];
    }
    let bytes = BORDERS * (size_of::<u64>() * row_words(game.size) + 64);
    let pair = |_| {
        let (down, from_above) = archean::channel_with_capacity(bytes);
        let (up, from_below) = archean::channel_with_capacity(bytes);
        (Link { to: up, from: from_above }, Link { to: down, from: from_below })
    };
    let (mut above, below): (Vec<Link>, Vec<Link>) = (0..game.processes).map(pair).unzip();
    above.rotate_right(1);
    above.into_iter().zip(below).map(|(above, below)| Some(Neighbours { above, below })).collect()
}

/// Hands out the first generation, starts the game when all are ready, and takes in what is reported. When it
/// returns early, the strips find nobody to report to and end.
fn conduct(
    game: &Game,
    mut orders: Vec<Sender<Order>>,
    mut reports: Receiver<Report>,
    words: &mut [u64],
    mut on_generation: impl FnMut(u32),
) -> Result<(), Failure> {
    for (order, rows) in orders.iter_mut().zip(game.strips()) {
        if let Start::Soup { seed } = game.start {
            order.send_blocking(Order::Soup(seed))?;
        }
        for cells in game.start.cells_in(&rows).chunks(CELLS_PER_ORDER) {
            order.send_blocking(Order::Live(cells.to_vec()))?;
        }
        order.send_blocking(Order::GetReady)?;
    }
    let mut ready = 0;
    loop {
        let report = match reports.recv_blocking() {
            Err(RecvError::Closed) => return Ok(()),
            report => report?,
        };
        match &*report {
            ArchivedReport::Ready => {
                ready += 1;
                if ready == orders.len() {
                    orders.iter_mut().try_for_each(|order| order.send_blocking(Order::Go))?;
                }
            }
            ArchivedReport::Played(generations) => on_generation(generations.to_native()),
            ArchivedReport::Rows { first_row, words: sent } => {
                let start = first_row.to_native() as usize * row_words(game.size);
                let place = words.get_mut(start..start + sent.len());
                let place =
                    place.ok_or_else(|| Failure::new("a strip sent rows that are not on the board"))?;
                place.iter_mut().zip(sent.iter()).for_each(|(word, sent)| *word = sent.to_native());
            }
        }
    }
}

/// Waits for all strips, and adds up what they say; else gives the first failure.
///
/// # Errors
/// The first death.
fn join(strips: Vec<Child<Result<Tally, Failure>>>) -> Result<Result<Tally, Failure>, ExitError> {
    let mut total = Ok(Tally::default());
    for strip in strips {
        let name = strip.name().to_owned();
        let tally = strip.join_blocking()?;
        total = total.and_then(|mut total| {
            let tally = tally.map_err(|failure| Failure::new(format!("{name} failed: {failure}")))?;
            total.add(&tally);
            Ok(total)
        });
    }
    Ok(total)
}

const fn row_words(size: BoardSize) -> usize {
    size.width.div_ceil(64) as usize
}
