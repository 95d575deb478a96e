//! A swarm crosses a world that is a quadtree of processes. A cell that is crowded spawns four cells, one for each
//! quarter of its square; when few entities are left there, the four end, and return what they hold.

use archean::{Child, Failure, Receiver, Sender};

const WORLD: i32 = 1024;
const CROWD: u32 = 64; // A cell with more entities splits; one with fewer than half as many merges.

#[archean::data]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entity {
    at: [i32; 2],
    speed: [i32; 2],
}

impl Entity {
    fn step(&mut self) {
        self.at = [0, 1].map(|axis| (self.at[axis] + self.speed[axis]).rem_euclid(WORLD));
    }

    /// Corners of cells are multiples of their size.
    fn is_in(&self, corner: [i32; 2], size: i32) -> bool {
        self.at.map(|at| at - at % size) == corner
    }
}

type Swarm = Vec<Entity>;
type Held = Result<Swarm, Failure>;

#[archean::data]
struct Report {
    left: Swarm,
    entities: u32,
    cells: u32,
}

/// A cell, as its parent sees it.
struct Cell {
    corner: [i32; 2],
    size: i32,
    arrivals: Sender<Swarm>,
    reports: Receiver<Report>,
    child: Child<Held>,
}

impl Cell {
    async fn start(corner: [i32; 2], size: i32) -> Result<Cell, Failure> {
        let ((arrivals, inbox), (outbox, reports)) = (archean::channel(), archean::channel());
        let child = archean::spawn(run_cell, (corner, size, inbox, outbox)).await?;
        Ok(Cell { corner, size, arrivals, reports, child })
    }
}

/// Takes arrivals and gives a report each tick; when no more ticks come, returns the entities.
async fn run_cell(at: [i32; 2], size: i32, mut ticks: Receiver<Swarm>, mut out: Sender<Report>) -> Held {
    // A cell with quarters holds only those that are on their way to one.
    let (mut entities, mut quarters) = (Vec::new(), Vec::<Cell>::new());
    while let Ok(arrivals) = ticks.recv_owned().await {
        entities.extend(arrivals);
        let mut report = Report { left: Vec::new(), entities: 0, cells: 1 };
        if quarters.is_empty() {
            entities.iter_mut().for_each(Entity::step);
        }
        // All get their work before the first is waited for.
        for Cell { corner, size, arrivals, .. } in &mut quarters {
            arrivals.send(entities.extract_if(.., |entity| entity.is_in(*corner, *size)).collect()).await?;
        }
        for quarter in &mut quarters {
            let theirs = quarter.reports.recv_owned().await?;
            entities.extend(theirs.left);
            report.entities += theirs.entities;
            report.cells += theirs.cells;
        }
        report.left = entities.extract_if(.., |entity| !entity.is_in(at, size)).collect();
        report.entities += entities.len() as u32;
        if quarters.is_empty() && report.entities > CROWD && size > 1 {
            for [right, down] in [[0, 0], [1, 0], [0, 1], [1, 1]] {
                let corner = [at[0] + right * size / 2, at[1] + down * size / 2];
                quarters.push(Cell::start(corner, size / 2).await?);
            }
        } else if report.entities < CROWD / 2 {
            for quarter in quarters.drain(..) {
                drop(quarter.arrivals);
                entities.extend(quarter.child.result().await?);
            }
        }
        out.send(report).await?;
    }
    for quarter in quarters {
        drop(quarter.arrivals);
        entities.extend(quarter.child.result().await?);
    }
    Ok(entities)
}

#[archean::main]
async fn main() -> Result<(), Failure> {
    let entity = |n| Entity { at: [n * 37 % 199, n * 91 % 197], speed: [8 + n % 3, 7 + n % 5] };
    let mut expected: Vec<_> = (0..400).map(entity).collect();
    let mut world = Cell::start([0, 0], WORLD).await?;
    let mut arrivals = expected.clone();
    for tick in 1..=100 {
        world.arrivals.send(std::mem::take(&mut arrivals)).await?;
        let report = world.reports.recv_owned().await?;
        expected.iter_mut().for_each(Entity::step);
        if tick % 10 == 0 {
            println!("tick {tick:>3}: {} entities in {:>2} cells", report.entities, report.cells);
        }
    }
    drop(world.arrivals);
    let mut found = world.child.result().await?;
    found.sort();
    expected.sort();
    if found != expected {
        return Err(Failure::new(format!("{} of {} entities, or others", found.len(), expected.len())));
    }
    println!("all {} entities are where a world without cells has them", found.len());
    Ok(())
}
