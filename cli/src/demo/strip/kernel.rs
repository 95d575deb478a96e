//! The rule of Life on 64 cells at once, or 128, 256 or 512 where the processor's registers hold them.
//!
//! Numbers of live cells are kept as bit planes: bit `i` of one word is the ones digit of cell `i`'s number, bit `i`
//! of another its twos digit. Adding such numbers is a full adder made of word operations.
//! The sums along a row are computed once per row, and serve the row itself and the rows above and below it.
//! All loops run over slices of one length without a branch, which is what the compiler turns into vector code.
#![cfg_attr(
    target_arch = "x86_64",
    expect(
        unsafe_code,
        reason = "functions compiled for a processor feature are called after asking for it"
    )
)]

use std::mem;

use super::words::{LINE_WORDS, Words};

/// How many live cells there are around each cell of one row, counted along this row only.
pub(super) struct Sums {
    /// Of the cell and its two sides, zero to three.
    ones: Words,
    twos: Words,
    /// Of the two sides alone, zero to two.
    side_ones: Words,
    side_twos: Words,
}

/// Rows to bring to the next generation in place.
pub(super) struct Run<'a> {
    /// Cells in a row.
    pub(super) width: usize,
    /// One or more whole rows, with their padding.
    pub(super) rows: &'a mut [u64],
    /// The row behind the last of them.
    pub(super) below: &'a [u64],
    /// Of the row before the first of them and of the first; in the end, of the last as it was and of `below`.
    pub(super) sums: &'a mut [Sums; 2],
    /// Room for the row at work.
    pub(super) line: &'a mut Line,
}

/// One row with its wrapped ends: bit 63 of the word before it is the row's last cell, and the bit behind its last
/// cell is its first one. The row itself starts at a cache line.
pub(super) struct Line(Words);

/// Steps each row of a run.
pub(super) fn step(run: Run<'_>) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the function needs AVX-512F, which the line above found.
            return unsafe { step_avx512(run) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the function needs AVX2, which the line above found.
            return unsafe { step_avx2(run) };
        }
    }
    step_portable(run);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn step_avx512(run: Run<'_>) {
    step_portable(run);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn step_avx2(run: Run<'_>) {
    step_portable(run);
}

/// Inlined, so that each caller compiles it for the features that it has.
#[inline(always)]
fn step_portable(Run { width, rows, below, sums, line }: Run<'_>) {
    let (stride, words) = (below.len(), width.div_ceil(64));
    let count = rows.len() / stride;
    let [first, second] = &mut *sums;
    let (mut above, mut here) = (first.planes(), second.planes());
    for y in 0..count {
        let (row, behind) = rows[y * stride..].split_at_mut(stride);
        let line = line.lay_out(if y + 1 == count { below } else { &behind[..stride] }, width);
        let [ones, twos, side_ones, side_twos] = &mut above;
        let [_, _, here_ones, here_twos] = &here;
        step_row(&mut row[..words], line, [ones, twos, side_ones, side_twos], [here_ones, here_twos]);
        row[words - 1] &= last_word_mask(width);
        mem::swap(&mut above, &mut here);
    }
    if count % 2 == 1 {
        sums.swap(0, 1);
    }
}

/// Steps one row; the sums of the row above are replaced by those of the row below, which is in `line`.
#[inline(always)]
fn step_row(row: &mut [u64], line: &[u64], above: [&mut [u64]; 4], here: [&[u64]; 2]) {
    let n = row.len();
    let (west, middle, east) = (&line[..n], &line[1..n + 1], &line[2..n + 2]);
    let [ones, twos, side_ones, side_twos] = above.map(|plane| &mut plane[..n]);
    let [here_ones, here_twos] = here.map(|plane| &plane[..n]);
    for i in 0..n {
        let below = sum(west[i], middle[i], east[i]);
        // At most eight neighbours: three ones, whose carry is a fourth two.
        let (one, carry) = add(ones[i], below.ones, here_ones[i]);
        let (a, b, c) = (twos[i], below.twos, here_twos[i]);
        let odd_twos = a ^ b ^ c ^ carry;
        let three_twos = (a & b) | (c & carry);
        // Alive with three neighbours, or with two and alive before.
        row[i] = (one | row[i]) & odd_twos & !three_twos;
        (ones[i], twos[i]) = (below.ones, below.twos);
        (side_ones[i], side_twos[i]) = (below.side_ones, below.side_twos);
    }
}

/// The bits of the last word of a row that are cells.
pub(super) const fn last_word_mask(width: usize) -> u64 {
    u64::MAX >> (63 - (width - 1) % 64)
}

impl Sums {
    /// Zeros, for rows of that many words.
    pub(super) fn new(stride: usize) -> Self {
        let plane = || Words::zeroed(stride);
        Sums { ones: plane(), twos: plane(), side_ones: plane(), side_twos: plane() }
    }

    fn planes(&mut self) -> [&mut [u64]; 4] {
        [&mut self.ones, &mut self.twos, &mut self.side_ones, &mut self.side_twos]
    }

    /// Counts along a row.
    pub(super) fn count(&mut self, row: &[u64], width: usize, line: &mut Line) {
        let line = line.lay_out(row, width);
        for i in 0..row.len() {
            let sum = sum(line[i], line[i + 1], line[i + 2]);
            (self.ones[i], self.twos[i]) = (sum.ones, sum.twos);
            (self.side_ones[i], self.side_twos[i]) = (sum.side_ones, sum.side_twos);
        }
    }
}

impl Line {
    /// Room for a row of that many words.
    pub(super) fn new(stride: usize) -> Self {
        Line(Words::zeroed(stride + 2 * LINE_WORDS))
    }

    /// Copies a row, and returns it with one word before it and at least one behind.
    #[inline(always)]
    fn lay_out(&mut self, row: &[u64], width: usize) -> &[u64] {
        let line = &mut self.0[LINE_WORDS - 1..];
        line[0] = row[(width - 1) / 64] << (63 - (width - 1) % 64);
        line[1..=row.len()].copy_from_slice(row);
        line[row.len() + 1] = 0;
        line[1 + width / 64] |= (row[0] & 1) << (width % 64);
        line
    }
}

/// [`Sums`] of 64 cells.
struct Sum {
    ones: u64,
    twos: u64,
    side_ones: u64,
    side_twos: u64,
}

/// Sums of the 64 cells in `middle`, between the words next to it; the cell to the west is the bit below.
#[inline(always)]
const fn sum(west: u64, middle: u64, east: u64) -> Sum {
    let (west, east) = (middle << 1 | west >> 63, middle >> 1 | east << 63);
    let (side_ones, side_twos) = (west ^ east, west & east);
    Sum { ones: side_ones ^ middle, twos: side_twos | (side_ones & middle), side_ones, side_twos }
}

/// A full adder: the ones and the twos of three digits.
#[inline(always)]
const fn add(a: u64, b: u64, c: u64) -> (u64, u64) {
    let half = a ^ b;
    (half ^ c, (a & b) | (half & c))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps rows of noise and returns them.
    fn after(step: impl Fn(Run<'_>), width: usize) -> Vec<u64> {
        let stride = width.div_ceil(64).next_multiple_of(LINE_WORDS);
        let mut noise = 1u64;
        let mut rows: Vec<u64> = (0..9 * stride)
            .map(|i| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let cells = (noise ^ noise >> 31) & (noise >> 17);
                match (width - 1) / 64 {
                    last if i % stride < last => cells,
                    last if i % stride == last => cells & last_word_mask(width),
                    _ => 0,
                }
            })
            .collect();
        let mut sums = [Sums::new(stride), Sums::new(stride)];
        let mut line = Line::new(stride);
        sums[0].count(&rows[..stride], width, &mut line);
        sums[1].count(&rows[stride..2 * stride], width, &mut line);
        let (inner, below) = rows.split_at_mut(8 * stride);
        step(Run { width, rows: &mut inner[stride..], below, sums: &mut sums, line: &mut line });
        rows
    }

    #[test]
    fn all_vector_widths_agree() {
        for width in [3, 64, 65, 511, 512, 513, 1500] {
            let expected = after(step_portable, width);
            assert!(expected.iter().any(|word| *word != 0));
            assert_eq!(after(step, width), expected, "{width}");
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") {
                // SAFETY: the function needs AVX2, which the line above found.
                assert_eq!(after(|run| unsafe { step_avx2(run) }, width), expected, "{width}");
            }
        }
    }
}
