//! A fingerprint of a board, the same however the board was cut into strips.

use std::{fmt, iter::Sum, ops::Add};

/// A 64-bit fingerprint of some rows of a board.
///
/// The hashes of the rows are added up, and each row's hash depends on the row's place on the board. So whoever
/// holds some of the rows hashes these, and the sum of all parts is the hash of the board. It finds differences
/// that happen by accident, not ones that are made on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct BoardHash(pub(crate) u64);

impl BoardHash {
    /// The hash of consecutive rows, the first of which is row number `first_row` of the board.
    pub(crate) fn of_rows<R: AsRef<[u64]>>(first_row: u32, rows: impl IntoIterator<Item = R>) -> Self {
        let places = u64::from(first_row)..;
        places.zip(rows).map(|(place, row)| BoardHash(row_hash(place, row.as_ref()))).sum()
    }
}

impl Add for BoardHash {
    type Output = BoardHash;

    fn add(self, other: BoardHash) -> BoardHash {
        BoardHash(self.0.wrapping_add(other.0))
    }
}

impl Sum for BoardHash {
    fn sum<I: Iterator<Item = BoardHash>>(parts: I) -> BoardHash {
        parts.fold(BoardHash::default(), Add::add)
    }
}

impl fmt::Display for BoardHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Odd, so that multiplying loses nothing; two to the 64th over the golden ratio.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Multiplying carries differences up, rotating brings them down again.
fn row_hash(place: u64, row: &[u64]) -> u64 {
    let stir = |hash: u64, word: u64| (hash ^ word).wrapping_mul(FACTOR).rotate_left(29);
    let hash = row.iter().fold(stir(FACTOR, place), |hash, &word| stir(hash, word));
    stir(stir(hash, row.len() as u64), hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: [[u64; 2]; 5] = [[1, 2], [3, 4], [0, 0], [0, 0], [u64::MAX, 1]];

    #[test]
    fn the_parts_add_up_however_they_were_cut() {
        let whole = BoardHash::of_rows(0, ROWS);
        for cut in 0..=ROWS.len() {
            let (upper, lower) = ROWS.split_at(cut);
            assert_eq!(BoardHash::of_rows(0, upper) + BoardHash::of_rows(cut as u32, lower), whole, "{cut}");
        }
    }

    #[test]
    fn every_single_cell_and_every_order_counts() {
        let whole = BoardHash::of_rows(0, ROWS);
        for bit in 0..ROWS.len() * 128 {
            let mut rows = ROWS;
            rows[bit / 128][bit % 128 / 64] ^= 1 << (bit % 64);
            assert_ne!(BoardHash::of_rows(0, rows), whole, "{bit}");
        }
        let mut rows = ROWS;
        rows.swap(0, 1);
        assert_ne!(BoardHash::of_rows(0, rows), whole);
    }

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(BoardHash::of_rows(0, ROWS).to_string(), "3667644ca29ec05b");
    }
}
