//! Noise to start a game with.

use std::iter;

/// The words of a row of the soup, as many as are wanted. Three of eight cells are alive.
///
/// A row depends on the seed and its place on the board alone, so that whoever holds it can make it.
pub(crate) fn row(seed: u64, y: u32) -> impl Iterator<Item = u64> {
    let mut state = mix(seed.wrapping_add(mix(u64::from(y) + 1)));
    let mut next = move || {
        state = state.wrapping_add(STEP);
        mix(state)
    };
    iter::repeat_with(move || next() & (next() | next()))
}

/// SplitMix64: two to the 64th over the golden ratio, and the function that scatters its multiples. Guy Steele, Doug
/// Lea and Christine Flood, "Fast Splittable Pseudorandom Number Generators", 2014.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

const fn mix(mut word: u64) -> u64 {
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_of_eight_cells_are_alive() {
        let words = (0..100).flat_map(|y| row(7, y).take(100));
        let alive: u32 = words.map(u64::count_ones).sum();
        let expected = 640_000 * 3 / 8;
        assert!(alive.abs_diff(expected) < expected / 100, "{alive}");
    }

    #[test]
    fn seeds_and_rows_differ_and_stay() {
        let words = |seed, y| row(seed, y).take(4).collect::<Vec<_>>();
        assert_eq!(words(1, 2), words(1, 2));
        assert_ne!(words(1, 2), words(1, 3));
        assert_ne!(words(1, 2), words(2, 2));
        assert_ne!(words(0, 0), words(0, 1));
    }
}
