//! A row of bits on a circle, divided among processes. In each tick a bit becomes the exclusive or of its two neighbours,
//! which draws Sierpiński's triangle.
//!
//! The root holds a barrier: it says when a tick begins, and by dropping it that there are no more. All cells have then
//! made the same ticks.

use std::time::Duration;

use archean::{Barrier, BarrierError, Failure, Member, Reason, Receiver, RecvError, Sender};

const CELLS: usize = 4;
const WIDTH: usize = 16; // The bits of one cell.
const TICKS: usize = 31;

/// Who has not arrived after such a time hangs.
const PATIENCE: Duration = Duration::from_secs(30);

type Row = Vec<bool>;

/// Where a cell's outermost bit goes, and where that of the neighbour on the same side comes from.
#[archean::data]
struct Side {
    to: Sender<bool>,
    from: Receiver<bool>,
}

/// The right side of one cell, and the left side of the next.
fn border() -> (Side, Side) {
    let ((to_right, from_left), (to_left, from_right)) = (archean::channel(), archean::channel());
    (Side { to: to_right, from: from_right }, Side { to: to_left, from: from_left })
}

#[archean::main]
async fn main() -> Result<(), Failure> {
    let (rights, mut lefts): (Vec<_>, Vec<_>) = (0..CELLS).map(|_| border()).unzip();
    lefts.rotate_right(1);
    let mut barrier = Barrier::new();
    let mut cells = Vec::new();
    for (index, (left, right)) in lefts.into_iter().zip(rights).enumerate() {
        let name = format!("cell-{index}");
        let row: Row = (0..WIDTH).map(|bit| index * WIDTH + bit == CELLS * WIDTH / 2).collect();
        let member = barrier.join(&name);
        cells.push(archean::spawn(run_cell, (row, left, right, member)).name(name).await?);
    }
    for _ in 0..TICKS {
        // A cell that has failed is not waited for; its result says why it did.
        barrier.wait_timeout(PATIENCE).await?;
    }
    drop(barrier);

    let mut picture = vec![String::new(); TICKS + 1];
    for cell in cells {
        for (line, row) in picture.iter_mut().zip(cell.result().await?) {
            line.extend(row.into_iter().map(|bit| if bit { '#' } else { '.' }));
        }
    }
    for line in picture {
        println!("{line}");
    }
    Ok(())
}

/// Returns its row at the beginning, and after each tick.
async fn run_cell(
    row: Row,
    mut left: Side,
    mut right: Side,
    mut member: Member,
) -> Result<Vec<Row>, Failure> {
    let mut rows = vec![row];
    while goes_on(member.wait().await)? {
        let row = &rows[rows.len() - 1];
        // Both are sent before either is received, so that nobody waits in a circle.
        left.to.send(row[0]).await?;
        right.to.send(row[WIDTH - 1]).await?;
        let (before, after) = (left.from.recv_owned().await?, right.from.recv_owned().await?);
        let bit = |place: usize| if place == 0 { before } else { *row.get(place - 1).unwrap_or(&after) };
        rows.push((1..=WIDTH).map(|place| bit(place - 1) ^ bit(place + 1)).collect());
    }
    Ok(rows)
}

/// Whether there is one more tick. That the root has dropped the barrier is the end, and no error.
fn goes_on(tick: Result<u64, BarrierError>) -> Result<bool, BarrierError> {
    match tick {
        Ok(_) => Ok(true),
        Err(BarrierError::Gone(RecvError::Closed) | BarrierError::NotTold(Reason::Closed)) => Ok(false),
        Err(error) => Err(error),
    }
}
