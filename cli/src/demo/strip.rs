//! A horizontal strip of a Life board that is a torus.

mod kernel;
mod words;

use self::{
    kernel::{Line, Run, Sums},
    words::Words,
};

/// Some consecutive rows of a board, one bit a cell, with the rows next to them that belong to its neighbours.
///
/// The rows wrap around at their ends; where the strip wraps from top to bottom, its neighbours do that. Cell `x`
/// of a row is bit `x % 64` of word `x / 64`, and bits beyond the width are zero.
///
/// A generation is two steps: [`step_inner`](Strip::step_inner) needs nothing from the neighbours and runs while
/// the borders travel, [`step_edges`](Strip::step_edges) does the first and the last row. Both work in place, so
/// that a generation reads and writes the strip once: between the two, the first and the last row still show the
/// old generation, and all others the new one.
pub(crate) struct Strip {
    width: usize,
    height: usize,
    /// Words of a row that hold cells.
    row_words: usize,
    /// Words from one row to the next: a whole number of cache lines, what is left over stays zero.
    stride: usize,
    cells: Words,
    above: Words,
    below: Words,
    /// Of the first two rows, as they were before the inner step overwrote the second.
    head: [Sums; 2],
    /// Of the last two rows, likewise.
    tail: [Sums; 2],
    line: Line,
    inner_done: bool,
}

/// A border row that cannot belong to this board.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a neighbour's border has {found} words, this strip's rows have {expected}: both must run the same board"
)]
pub(crate) struct BorderError {
    /// Words that came.
    pub(crate) found: usize,
    /// Words of a row of this strip.
    pub(crate) expected: usize,
}

impl Strip {
    /// A strip without live cells.
    ///
    /// # Panics
    /// Panics when `width` is less than three or `height` is zero.
    pub(crate) fn new(width: u32, height: u32) -> Self {
        assert!(width >= 3 && height >= 1, "a strip of {width} x {height} cells is too small");
        let (width, height) = (width as usize, height as usize);
        let row_words = width.div_ceil(64);
        let stride = row_words.next_multiple_of(words::LINE_WORDS);
        let sums = || Sums::new(stride);
        Strip {
            width,
            height,
            row_words,
            stride,
            cells: Words::zeroed(stride * height),
            above: Words::zeroed(stride),
            below: Words::zeroed(stride),
            head: [sums(), sums()],
            tail: [sums(), sums()],
            line: Line::new(stride),
            inner_done: false,
        }
    }

    /// Makes a cell live.
    ///
    /// # Panics
    /// Panics when the cell is outside the strip, and between the two steps of a generation.
    pub(crate) fn set(&mut self, x: u32, y: u32) {
        let (x, y) = (x as usize, y as usize);
        assert!(x < self.width && y < self.height, "cell ({x}, {y}) is outside of its strip");
        assert!(!self.inner_done, "a cell was set in the middle of a generation");
        self.cells[y * self.stride + x / 64] |= 1 << (x % 64);
    }

    /// Fills every row `y` with the cells in `words(y)`, one bit a cell.
    ///
    /// # Panics
    /// Panics when there are too few words for a row, and between the two steps of a generation.
    pub(crate) fn fill<W: Iterator<Item = u64>>(&mut self, words: impl Fn(u32) -> W) {
        assert!(!self.inner_done, "a strip was filled in the middle of a generation");
        for (y, row) in (0..).zip(self.cells.chunks_exact_mut(self.stride)) {
            let mut words = words(y);
            let row = &mut row[..self.row_words];
            row.fill_with(|| words.next().expect("as many words as a row has"));
            row[self.row_words - 1] &= kernel::last_word_mask(self.width);
        }
    }

    /// One row.
    ///
    /// # Panics
    /// Panics when there is no such row.
    pub(crate) fn row(&self, y: u32) -> &[u64] {
        &self.cells[y as usize * self.stride..][..self.row_words]
    }

    /// All rows, from the top.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[u64]> {
        self.cells.chunks_exact(self.stride).map(|row| &row[..self.row_words])
    }

    /// The row that the neighbour above needs.
    pub(crate) fn first_row(&self) -> &[u64] {
        self.row(0)
    }

    /// The row that the neighbour below needs.
    pub(crate) fn last_row(&self) -> &[u64] {
        self.row(self.height as u32 - 1)
    }

    /// Takes the last row of the neighbour above.
    ///
    /// # Errors
    /// [`BorderError`] when it is not as long as the strip's own rows.
    pub(crate) fn set_above(&mut self, row: impl ExactSizeIterator<Item = u64>) -> Result<(), BorderError> {
        copy_border(row, &mut self.above, self.width)
    }

    /// Takes the first row of the neighbour below.
    ///
    /// # Errors
    /// [`BorderError`] when it is not as long as the strip's own rows.
    pub(crate) fn set_below(&mut self, row: impl ExactSizeIterator<Item = u64>) -> Result<(), BorderError> {
        copy_border(row, &mut self.below, self.width)
    }

    /// Makes the strip its own neighbour above and below: it is the whole board.
    pub(crate) fn wrap(&mut self) {
        let last = (self.height - 1) * self.stride;
        self.above.copy_from_slice(&self.cells[last..]);
        self.below.copy_from_slice(&self.cells[..self.stride]);
    }

    /// The first half of a generation: all rows but the first and the last.
    ///
    /// # Panics
    /// Panics when it was called already in this generation.
    pub(crate) fn step_inner(&mut self) {
        assert!(!self.inner_done, "the inner rows were stepped twice in one generation");
        self.inner_done = true;
        let mut rows = self.cells.chunks_exact(self.stride);
        for ((head, tail), row) in self.head.iter_mut().zip(&mut self.tail).zip(&mut rows) {
            head.count(row, self.width, &mut self.line);
            tail.count(row, self.width, &mut self.line);
        }
        if self.height > 2 {
            let last = (self.height - 1) * self.stride;
            let (rows, below) = self.cells.split_at_mut(last);
            let rows = &mut rows[self.stride..];
            kernel::step(Run { width: self.width, rows, below, sums: &mut self.tail, line: &mut self.line });
        }
    }

    /// The second half of a generation: the first and the last row, next to the borders that the neighbours sent.
    ///
    /// # Panics
    /// Panics when [`step_inner`](Strip::step_inner) was not called before.
    pub(crate) fn step_edges(&mut self) {
        assert!(self.inner_done, "the edges were stepped before the inner rows");
        self.inner_done = false;
        let (width, line) = (self.width, &mut self.line);
        let last = (self.height - 1) * self.stride;
        if self.height == 1 {
            self.tail[0].count(&self.above, width, line);
            self.tail[1].count(&self.cells, width, line);
        } else {
            // Up and down are alike to the rule, so the first row may be stepped upside down.
            let rows = &mut self.cells[..self.stride];
            self.head.swap(0, 1);
            kernel::step(Run { width, rows, below: &self.above, sums: &mut self.head, line });
        }
        let rows = &mut self.cells[last..];
        kernel::step(Run { width, rows, below: &self.below, sums: &mut self.tail, line });
    }

    /// How many cells are alive.
    pub(crate) fn population(&self) -> u64 {
        self.cells.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// Bits beyond the width are cleared: a neighbour that sets them must not add cells to this strip.
fn copy_border(
    row: impl ExactSizeIterator<Item = u64>,
    border: &mut [u64],
    width: usize,
) -> Result<(), BorderError> {
    let expected = width.div_ceil(64);
    if row.len() != expected {
        return Err(BorderError { found: row.len(), expected });
    }
    border.iter_mut().zip(row).for_each(|(word, received)| *word = received);
    border[expected - 1] &= kernel::last_word_mask(width);
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
