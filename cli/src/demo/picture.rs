//! Pictures of a board: a PNG file, and dots for a terminal.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    ops::Range,
    path::{Path, PathBuf},
};

use super::size::BoardSize;

/// Pixels on the longer side of a picture; a larger board is scaled down.
const SIDE_PIXELS_MAX: u32 = 4096;

/// A picture that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the picture {}; name a file in a folder that exists and has room", path.display())]
pub(crate) struct PictureError {
    /// The file.
    pub(crate) path: PathBuf,
    /// What the system said.
    pub(crate) source: io::Error,
}

/// Finds out whether a picture can be written to `path`, and leaves what is there as it is.
///
/// # Errors
/// [`PictureError`] when it can't.
pub(crate) fn check_writable(path: &Path) -> Result<(), PictureError> {
    let opened = match File::create_new(path) {
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            File::options().write(true).open(path).map(drop)
        }
        Err(error) => Err(error),
    };
    opened.map_err(|source| PictureError { path: path.to_owned(), source })
}

/// Writes a board as a PNG file, live cells light on dark.
///
/// A pixel is a cell where that gives no more than 4096 pixels a side; else it is a square of cells, the lighter
/// the more of them are alive.
///
/// # Errors
/// [`PictureError`] when the file cannot be made or written.
///
/// # Panics
/// Panics when there are fewer rows than the board is high.
pub(crate) fn write_png<R: AsRef<[u64]>>(
    path: &Path,
    size: BoardSize,
    rows: impl IntoIterator<Item = R>,
) -> Result<(), PictureError> {
    let scale = size.width.max(size.height).div_ceil(SIDE_PIXELS_MAX);
    let file = File::create(path).map(BufWriter::new);
    let written = file.and_then(|file| match scale {
        1 => write_cells(file, size, rows.into_iter()),
        _ => write_greys(file, size, scale, rows.into_iter()),
    });
    written.map_err(|source| PictureError { path: path.to_owned(), source })
}

/// One bit a pixel.
fn write_cells<R: AsRef<[u64]>>(
    file: impl Write,
    size: BoardSize,
    mut rows: impl Iterator<Item = R>,
) -> io::Result<()> {
    let mut encoder = png::Encoder::new(file, size.width, size.height);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    let mut writer = encoder.write_header()?;
    let mut stream = writer.stream_writer()?;
    for _ in 0..size.height {
        let row = rows.next().expect("as many rows as the board is high");
        let bytes = row.as_ref().iter().flat_map(|word| word.to_le_bytes()).map(u8::reverse_bits);
        let bytes: Vec<u8> = bytes.take(size.width.div_ceil(8) as usize).collect();
        stream.write_all(&bytes)?;
    }
    stream.finish()?;
    Ok(writer.finish()?)
}

/// One byte a pixel, each for `scale` x `scale` cells, or what is left of them at the right and the lower edge.
fn write_greys<R: AsRef<[u64]>>(
    file: impl Write,
    size: BoardSize,
    scale: u32,
    mut rows: impl Iterator<Item = R>,
) -> io::Result<()> {
    let (columns, lines) = (size.width.div_ceil(scale), size.height.div_ceil(scale));
    let mut encoder = png::Encoder::new(file, columns, lines);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header()?;
    let mut stream = writer.stream_writer()?;
    let spans = |pixel: u32, side: u32| pixel * scale..((pixel + 1) * scale).min(side);
    for line in 0..lines {
        let mut alive = vec![0u32; columns as usize];
        let height = spans(line, size.height).len();
        for _ in 0..height {
            let row = rows.next().expect("as many rows as the board is high");
            for (column, alive) in (0..columns).zip(&mut alive) {
                *alive += alive_in(row.as_ref(), spans(column, size.width));
            }
        }
        let greys = (0..columns).zip(&alive).map(|(column, alive)| {
            let cells = spans(column, size.width).len() * height;
            // The root lifts the few live cells that most squares have out of the dark.
            (255.0 * (f64::from(*alive) / cells as f64).sqrt()).round() as u8
        });
        stream.write_all(&greys.collect::<Vec<_>>())?;
    }
    stream.finish()?;
    Ok(writer.finish()?)
}

/// How many cells of a range of columns are alive.
fn alive_in(row: &[u64], columns: Range<u32>) -> u32 {
    let (first, last) = (columns.start as usize / 64, (columns.end - 1) as usize / 64);
    let from = u64::MAX << (columns.start % 64);
    let to = u64::MAX >> (63 - (columns.end - 1) % 64);
    if first == last {
        return (row[first] & from & to).count_ones();
    }
    let inner: u32 = row[first + 1..last].iter().map(|word| word.count_ones()).sum();
    (row[first] & from).count_ones() + inner + (row[last] & to).count_ones()
}

/// Cells left free around the live ones in a terminal's picture.
const MARGIN_CELLS: u32 = 2;

/// Dots in a character of the Braille block, and the bit of each by its row and column.
const DOTS: [[u32; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];

/// The Braille character without a dot.
const BLANK: char = '\u{2800}';

/// The part of a board in which there are live cells, in Braille dots, on at most `columns` x `lines` characters.
///
/// A dot is a cell where there is room for that, else a square of cells of which at least one is alive.
///
/// # Panics
/// Panics when there are fewer rows than the board is high.
pub(crate) fn terminal(rows: &[impl AsRef<[u64]>], size: BoardSize, columns: u32, lines: u32) -> String {
    let Some((across, down)) = living(rows, size) else {
        return "no cell is alive\n".to_owned();
    };
    let scale_across = (across.len() as u32).div_ceil(columns.max(1) * 2);
    let scale_down = (down.len() as u32).div_ceil(lines.max(1) * 4);
    let scale = scale_across.max(scale_down);
    let characters = across.len().div_ceil(2 * scale as usize);
    let mut picture = vec![vec![0u32; characters]; down.len().div_ceil(4 * scale as usize)];
    for y in down.clone() {
        let (row, dot_y) = (rows[y as usize].as_ref(), ((y - down.start) / scale) as usize);
        for (dot_x, x) in across.clone().step_by(scale as usize).enumerate() {
            if alive_in(row, x..(x + scale).min(across.end)) > 0 {
                picture[dot_y / 4][dot_x / 2] |= DOTS[dot_y % 4][dot_x % 2];
            }
        }
    }
    let character = |dots: u32| char::from_u32(BLANK as u32 + dots).unwrap_or(BLANK);
    let text_line = |dots: Vec<u32>| dots.into_iter().map(character).chain(['\n']).collect::<String>();
    picture.into_iter().map(text_line).collect()
}

/// The columns and the rows that hold all live cells, and a margin where the board goes on.
fn living(rows: &[impl AsRef<[u64]>], size: BoardSize) -> Option<(Range<u32>, Range<u32>)> {
    let is_alive = |row: &[u64]| row.iter().any(|word| *word != 0);
    let first = rows.iter().position(|row| is_alive(row.as_ref()))? as u32;
    let last = rows.iter().rposition(|row| is_alive(row.as_ref()))? as u32;
    let mut columns = vec![0u64; size.width.div_ceil(64) as usize];
    for row in rows {
        columns.iter_mut().zip(row.as_ref()).for_each(|(column, word)| *column |= word);
    }
    let west = columns.iter().position(|word| *word != 0)?;
    let east = columns.iter().rposition(|word| *word != 0)?;
    let west = west as u32 * 64 + columns[west].trailing_zeros();
    let east = east as u32 * 64 + 63 - columns[east].leading_zeros();
    let with_margin = |first: u32, last: u32, side: u32| {
        first.saturating_sub(MARGIN_CELLS)..(last + 1 + MARGIN_CELLS).min(side)
    };
    Some((with_margin(west, east, size.width), with_margin(first, last, size.height)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::{patterns::tests::named, strip::Strip};

    fn board(name: &str, size: BoardSize, (x, y): (u32, u32)) -> Strip {
        let mut board = Strip::new(size.width, size.height);
        for (cell_x, cell_y) in named(name).cells {
            board.set(x + cell_x, y + cell_y);
        }
        board
    }

    /// Writes a board, and reads the picture back as one byte a pixel.
    fn pixels(board: &Strip, size: BoardSize) -> (u32, u32, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("board.png");
        write_png(&path, size, board.rows()).unwrap();
        let mut decoder = png::Decoder::new(std::io::BufReader::new(File::open(path).unwrap()));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut bytes).unwrap();
        (frame.width, frame.height, bytes)
    }

    #[test]
    fn a_small_board_is_a_pixel_a_cell() {
        let size = BoardSize { width: 70, height: 9 };
        let (width, height, bytes) = pixels(&board("glider", size, (63, 5)), size);
        assert_eq!((width, height), (70, 9));
        let light: Vec<_> =
            (0..bytes.len()).filter(|at| bytes[*at] == 255).map(|at| (at % 70, at / 70)).collect();
        assert_eq!(light, [(64, 5), (65, 6), (63, 7), (64, 7), (65, 7)]);
        assert_eq!(bytes.iter().filter(|byte| **byte == 0).count(), 70 * 9 - 5);
    }

    #[test]
    fn a_large_board_is_scaled_down() {
        let size = BoardSize { width: 8195, height: 7 };
        let (width, height, bytes) = pixels(&board("glider", size, (8192, 4)), size);
        assert_eq!((width, height), (2732, 3));
        // Of the last column's nine cells of rows 3 to 5 two are alive, and of the three of row 6 all are.
        let grey = |alive: f64| (255.0 * alive.sqrt()).round() as u8;
        assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), 3);
        assert_eq!(bytes[2 * 2732 - 2..2 * 2732], [0, grey(2.0 / 6.0)]);
    }

    #[test]
    fn a_file_that_cannot_be_made_is_named() {
        let size = BoardSize { width: 3, height: 3 };
        let error = write_png(Path::new("/proc/no/board.png"), size, Strip::new(3, 3).rows()).unwrap_err();
        assert!(error.to_string().contains("/proc/no/board.png"), "{error}");
        assert_eq!(error.source.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn to_check_leaves_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let (new, old) = (folder.path().join("new.png"), folder.path().join("old.png"));
        fs::write(&old, "old").unwrap();
        check_writable(&new).unwrap();
        check_writable(&old).unwrap();
        assert_eq!((new.exists(), &fs::read(old).unwrap()[..]), (false, &b"old"[..]));
        assert!(check_writable(folder.path()).is_err());
        assert!(check_writable(&folder.path().join("no/new.png")).is_err());
    }

    #[test]
    fn a_disk_that_is_full_is_told() {
        for side in [3, 4097] {
            let size = BoardSize { width: side, height: 3 };
            let rows = Strip::new(side, 3);
            let error = write_png(Path::new("/dev/full"), size, rows.rows()).unwrap_err();
            assert!(error.source.to_string().contains("No space left"), "{side}: {}", error.source);
        }
    }

    #[test]
    fn a_range_counts_its_cells() {
        let row = [u64::MAX, 1 << 63, u64::MAX];
        for (columns, alive) in
            [(0..1, 1), (60..70, 4), (127..128, 1), (0..192, 129), (126..130, 3), (64..127, 0)]
        {
            assert_eq!(alive_in(&row, columns.clone()), alive, "{columns:?}");
        }
    }

    #[test]
    fn the_terminal_shows_where_the_life_is() {
        let size = BoardSize { width: 1000, height: 1000 };
        let glider = board("glider", size, (700, 800));
        let rows: Vec<_> = glider.rows().collect();
        assert_eq!(terminal(&rows, size, 80, 24), "\u{2800}⠠⡀\u{2800}\n\u{2800}⠉⠁\u{2800}\n");
        assert_eq!(terminal(&rows, size, 1, 1), "⠛\n");
        let empty = Strip::new(1000, 1000);
        assert_eq!(terminal(&empty.rows().collect::<Vec<_>>(), size, 80, 24), "no cell is alive\n");
    }

    #[test]
    fn a_picture_fits_the_terminal() {
        let size = BoardSize { width: 999, height: 777 };
        let mut corners = board("glider", size, (0, 0));
        corners.set(998, 776);
        let rows: Vec<_> = corners.rows().collect();
        for (columns, lines) in [(80, 24), (24, 80), (1, 1), (0, 0), (1000, 3), (500, 500)] {
            let picture = terminal(&rows, size, columns, lines);
            let widest = picture.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= columns.max(1) as usize && picture.lines().count() <= lines.max(1) as usize);
            let dots: u32 =
                picture.chars().filter(|c| *c != '\n').map(|c| (c as u32 & 0xff).count_ones()).sum();
            assert!(dots >= 1, "{columns} x {lines}: {picture}");
        }
    }
}
