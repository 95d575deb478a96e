//! What is to be played, as the command line says.

use std::{
    fs::File,
    io::{self, Read},
    num::NonZero,
    ops::{Range, RangeInclusive},
    path::{Path, PathBuf},
    thread,
};

use super::{
    Args, patterns,
    rle::{Pattern, RleError},
    size::BoardSize,
};
use crate::USAGE_CODE;

/// How many processes may play.
pub(crate) const PROCESSES: RangeInclusive<i64> = 1..=512;

/// The name of the pattern that is noise.
const SOUP: &str = "soup";

/// Generations of what has no end that is known.
const GENERATIONS_DEFAULT: u32 = 1000;

/// The largest pattern file that is read.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// A game as it is to be played.
pub(crate) struct Game {
    pub(crate) size: BoardSize,
    pub(crate) start: Start,
    pub(crate) generations: u32,
    pub(crate) processes: u32,
    /// Cores that there are for them.
    cores: u32,
}

/// The first generation.
pub(crate) enum Start {
    /// Column and row of each live cell, row by row.
    Cells(Vec<(u32, u32)>),
    /// Noise, which each strip makes by itself.
    Soup { seed: u64 },
}

/// A game that can't be played.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GameError {
    #[error(
        "there is neither a pattern nor a file `{}`; the patterns are {}, {SOUP}",
        .0.display(),
        patterns::ALL.map(|pattern| pattern.name).join(", ")
    )]
    Unknown(PathBuf),
    #[error("the pattern file {} can't be read", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the pattern file {} is no plain file; save the pattern in one", .0.display())]
    NoFile(PathBuf),
    #[error("the pattern file {} has more than {FILE_BYTES_MAX} bytes; take a smaller one", .0.display())]
    FileTooLarge(PathBuf),
    #[error("{}: {reason}", path.display())]
    Malformed { path: PathBuf, reason: RleError },
    #[error(
        "the pattern has {width}x{height} cells, more than the board of {board}; give a larger board with `--size`"
    )]
    PatternTooLarge { width: u32, height: u32, board: BoardSize },
    #[error(
        "{processes} processes can't share a board of {rows} rows, because each needs a row; give fewer with \
         `--processes`, or a larger board with `--size`"
    )]
    TooManyProcesses { processes: u32, rows: u32 },
    #[error("`--seed` is for the pattern `{SOUP}`; leave it out, or add `--pattern {SOUP}`")]
    SeedWithoutSoup,
}

impl GameError {
    /// A bad file is one thing, a command line without sense another.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            GameError::Unreadable { .. }
            | GameError::NoFile(_)
            | GameError::FileTooLarge(_)
            | GameError::Malformed { .. } => 1,
            _ => USAGE_CODE,
        }
    }
}

impl Game {
    /// # Errors
    /// [`GameError`] when it can't be played.
    pub(crate) fn prepare(args: &Args) -> Result<Game, GameError> {
        let rows = args.size.height;
        // Each machine of a cluster that is made for it has a core at least.
        let cores = cores().max(args.machines.unwrap_or(1).into());
        let processes = args.processes.unwrap_or_else(|| cores.min(rows).min(*PROCESSES.end() as u32));
        if processes > rows {
            return Err(GameError::TooManyProcesses { processes, rows });
        }
        let is_soup = args.pattern.as_os_str() == SOUP;
        if args.seed.is_some() && !is_soup {
            return Err(GameError::SeedWithoutSoup);
        }
        let built_in = patterns::ALL.iter().find(|pattern| args.pattern.as_os_str() == pattern.name);
        let start = match built_in {
            _ if is_soup => Start::Soup { seed: args.seed.unwrap_or(0) },
            Some(built_in) => centred(built_in.pattern(), args.size)?,
            None => centred(read(&args.pattern)?, args.size)?,
        };
        let default = built_in.map_or(GENERATIONS_DEFAULT, |pattern| pattern.generations);
        Ok(Game {
            size: args.size,
            start,
            generations: args.generations.unwrap_or(default),
            processes,
            cores,
        })
    }

    /// The rows of each process, from the top.
    pub(crate) fn strips(&self) -> impl Iterator<Item = Range<u32>> + use<> {
        let (rows, processes) = (u64::from(self.size.height), u64::from(self.processes));
        let start = move |strip: u64| (rows * strip / processes) as u32;
        (0..processes).map(move |strip| start(strip)..start(strip + 1))
    }

    /// Whether there is a core for each process.
    pub(crate) fn has_cores(&self) -> bool {
        self.processes <= self.cores
    }
}

impl Start {
    /// The live cells in some rows of the board.
    pub(crate) fn cells_in(&self, rows: &Range<u32>) -> &[(u32, u32)] {
        match self {
            Start::Soup { .. } => &[],
            Start::Cells(cells) => {
                let before = |row| cells.partition_point(|(_, y)| *y < row);
                &cells[before(rows.start)..before(rows.end)]
            }
        }
    }
}

fn cores() -> u32 {
    thread::available_parallelism().map_or(1, NonZero::get).try_into().unwrap_or(u32::MAX)
}

fn centred(pattern: Pattern, board: BoardSize) -> Result<Start, GameError> {
    let Pattern { width, height, mut cells } = pattern;
    if width > board.width || height > board.height {
        return Err(GameError::PatternTooLarge { width, height, board });
    }
    let (left, top) = ((board.width - width) / 2, (board.height - height) / 2);
    cells.iter_mut().for_each(|(x, y)| (*x, *y) = (left + *x, top + *y));
    Ok(Start::Cells(cells))
}

fn read(path: &Path) -> Result<Pattern, GameError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => GameError::Unknown(path.to_owned()),
        _ => GameError::Unreadable { path: path.to_owned(), source },
    };
    // It is read twice, before the job and in it, and what comes out of a pipe is there only once.
    if !path.metadata().map_err(unreadable)?.is_file() {
        return Err(GameError::NoFile(path.to_owned()));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(GameError::FileTooLarge(path.to_owned()));
    }
    // Comments may be in any encoding; what matters is ASCII.
    let pattern = String::from_utf8_lossy(&bytes).parse();
    pattern.map_err(|reason| GameError::Malformed { path: path.to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn game(size: BoardSize, processes: u32) -> Game {
        Game {
            size,
            start: Start::Cells(vec![(0, 0), (9, 0), (5, 4), (1, 6)]),
            generations: 1,
            processes,
            cores: 1,
        }
    }

    #[test]
    fn the_strips_share_the_board() {
        for (height, processes) in [(3, 1), (3, 3), (100, 7), (65536, 512), (512, 511)] {
            let game = game(BoardSize { width: 3, height }, processes);
            let strips: Vec<_> = game.strips().collect();
            assert_eq!(strips.len(), processes as usize);
            assert_eq!((strips[0].start, strips[strips.len() - 1].end), (0, height));
            assert!(strips.windows(2).all(|pair| pair[0].end == pair[1].start));
            let least = height / processes;
            assert!(strips.iter().all(|rows| (least..=least + 1).contains(&(rows.len() as u32))));
        }
    }

    #[test]
    fn each_cell_is_in_one_strip() {
        for processes in 1..=7 {
            let game = game(BoardSize { width: 10, height: 7 }, processes);
            let Start::Cells(cells) = &game.start else { unreachable!() };
            let of_strips: Vec<_> =
                game.strips().flat_map(|rows| game.start.cells_in(&rows).to_vec()).collect();
            assert_eq!(&of_strips, cells);
            for rows in game.strips() {
                assert!(game.start.cells_in(&rows).iter().all(|(_, y)| rows.contains(y)));
            }
        }
    }

    #[test]
    fn a_pattern_lies_in_the_middle() {
        let pattern = |width, height| Pattern { width, height, cells: vec![(0, 0), (2, 1)] };
        let board = BoardSize { width: 11, height: 2 };
        let Ok(Start::Cells(cells)) = centred(pattern(3, 2), board) else { panic!("it fits") };
        assert_eq!(cells, [(4, 0), (6, 1)]);
        for (width, height) in [(12, 2), (3, 3)] {
            let error = centred(pattern(width, height), board).err().unwrap();
            assert!(error.to_string().contains(&format!("{width}x{height}")), "{error}");
        }
    }
}
