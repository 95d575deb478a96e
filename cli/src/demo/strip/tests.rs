use proptest::prelude::*;

use super::*;

impl Strip {
    /// One generation of a strip that is a whole board.
    pub(crate) fn step_as_board(&mut self) {
        self.wrap();
        self.step_inner();
        self.step_edges();
    }
}

/// Life as the rule is told: cell by cell.
fn naive_step(board: &[Vec<bool>]) -> Vec<Vec<bool>> {
    let (height, width) = (board.len(), board[0].len());
    let alive = |x: usize, y: usize| board[y % height][x % width];
    let neighbours = |x: usize, y: usize| {
        let around = (0..9).filter(|place| *place != 4);
        around.filter(|place| alive(x + width - 1 + place % 3, y + height - 1 + place / 3)).count()
    };
    let next = |x, y| matches!((alive(x, y), neighbours(x, y)), (true, 2 | 3) | (false, 3));
    (0..height).map(|y| (0..width).map(|x| next(x, y)).collect()).collect()
}

/// Cuts a board into strips whose heights differ by one at most.
fn cut(board: &[Vec<bool>], strips: usize) -> Vec<Strip> {
    let start = |strip: usize| board.len() * strip / strips;
    let strip = |i: usize| {
        let rows = &board[start(i)..start(i + 1)];
        let mut strip = Strip::new(rows[0].len() as u32, rows.len() as u32);
        for (y, row) in rows.iter().enumerate() {
            for (x, _) in row.iter().enumerate().filter(|(_, alive)| **alive) {
                strip.set(x as u32, y as u32);
            }
        }
        strip
    };
    (0..strips).map(strip).collect()
}

fn glue(strips: &[Strip], width: usize) -> Vec<Vec<bool>> {
    let cells = |row: &[u64]| (0..width).map(|x| row[x / 64] >> (x % 64) & 1 == 1).collect();
    strips.iter().flat_map(Strip::rows).map(cells).collect()
}

/// One generation, in the order of a strip that is a process: borders leave, the inside steps, borders arrive.
fn step(strips: &mut [Strip]) {
    let borders: Vec<_> =
        strips.iter().map(|strip| (strip.first_row().to_vec(), strip.last_row().to_vec())).collect();
    let count = strips.len();
    for (i, strip) in strips.iter_mut().enumerate() {
        strip.step_inner();
        strip.set_above(borders[(i + count - 1) % count].1.iter().copied()).unwrap();
        strip.set_below(borders[(i + 1) % count].0.iter().copied()).unwrap();
        strip.step_edges();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn strips_live_like_one_naive_board(
        width in prop::sample::select(vec![3usize, 4, 5, 62, 63, 64, 65, 66, 127, 128, 129, 130, 511, 512, 513]),
        height in 7usize..16,
        strips in 1usize..=7,
        noise in prop::collection::vec(any::<[bool; 64]>(), 1..40),
    ) {
        let mut noise = noise.into_iter().flatten().collect::<Vec<_>>().into_iter().cycle();
        let mut board: Vec<Vec<bool>> = (0..height).map(|_| noise.by_ref().take(width).collect()).collect();
        let mut strips = cut(&board, strips);
        for generation in 1..=6 {
            board = naive_step(&board);
            step(&mut strips);
            prop_assert_eq!(&glue(&strips, width), &board, "generation {}", generation);
            let alive = board.iter().flatten().filter(|alive| **alive).count() as u64;
            prop_assert_eq!(strips.iter().map(Strip::population).sum::<u64>(), alive);
        }
    }
}

#[test]
fn the_smallest_boards_wrap_on_both_axes() {
    for width in 3..6 {
        for cells in 0..1u32 << (3 * width) {
            let mut board: Vec<Vec<bool>> =
                (0..3).map(|y| (0..width).map(|x| cells >> (y * width + x) & 1 == 1).collect()).collect();
            let mut strips = cut(&board, 1 + cells as usize % 3);
            board = naive_step(&board);
            step(&mut strips);
            assert_eq!(glue(&strips, width), board, "{width}: {cells:b}");
        }
    }
}

#[test]
fn a_border_of_another_board_is_refused() {
    let mut strip = Strip::new(65, 2);
    assert_eq!(strip.set_above([1].into_iter()), Err(BorderError { found: 1, expected: 2 }));
    assert_eq!(strip.set_below([1, 1, 1].into_iter()), Err(BorderError { found: 3, expected: 2 }));
}

#[test]
fn bits_beyond_the_width_of_a_border_are_no_cells() {
    let mut strip = Strip::new(65, 1);
    strip.set_above([0, !1].into_iter()).unwrap();
    strip.set_below([0, !1].into_iter()).unwrap();
    strip.step_inner();
    strip.step_edges();
    assert_eq!(strip.population(), 0);
}

#[test]
fn a_row_takes_its_words_and_no_more() {
    let mut strip = Strip::new(65, 2);
    strip.fill(|y| [y.into(), !0, !0].into_iter());
    assert_eq!(strip.rows().collect::<Vec<_>>(), [&[0, 1], &[1, 1]]);
}

#[test]
#[should_panic(expected = "before the inner rows")]
fn edges_wait_for_the_inner_rows() {
    Strip::new(3, 3).step_edges();
}
