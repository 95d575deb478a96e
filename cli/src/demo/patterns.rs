//! The patterns that come with the program.

use super::rle::Pattern;

/// A pattern that comes with the program.
pub(crate) struct BuiltIn {
    pub(crate) name: &'static str,
    /// How many generations show what it is known for.
    pub(crate) generations: u32,
    rle: &'static str,
}

impl BuiltIn {
    pub(crate) fn pattern(&self) -> Pattern {
        self.rle.parse().expect("the built-in patterns are well-formed")
    }
}

/// All of them.
pub(crate) const ALL: [BuiltIn; 4] = [
    BuiltIn { name: "r-pentomino", generations: 1103, rle: R_PENTOMINO },
    BuiltIn { name: "acorn", generations: 5206, rle: ACORN },
    BuiltIn { name: "gosper-gun", generations: 300, rle: GOSPER_GUN },
    BuiltIn { name: "glider", generations: 400, rle: GLIDER },
];

/// Five cells that take 1103 generations to settle into 116.
const R_PENTOMINO: &str = "x = 3, y = 3, rule = B3/S23\nb2o$2o$bo!";

/// Seven cells that take 5206 generations to settle into 633.
const ACORN: &str = "x = 7, y = 3, rule = B3/S23\nbo$3bo$2o2b3o!";

/// Sends out a glider every thirty generations.
const GOSPER_GUN: &str = "x = 36, y = 9, rule = B3/S23\n\
    24bo$22bobo$12b2o6b2o12b2o$11bo3bo4b2o12b2o$2o8bo5bo3b2o$\n\
    2o8bo3bob2o4bobo$10bo5bo7bo$11bo3bo$12b2o!";

/// Moves by one cell to the right and one down in four generations.
const GLIDER: &str = "x = 3, y = 3, rule = B3/S23\nbo$2bo$3o!";

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::demo::strip::Strip;

    pub(crate) fn named(name: &str) -> Pattern {
        ALL.iter().find(|built_in| built_in.name == name).unwrap().pattern()
    }

    /// A square board with a pattern from (`x`, `y`) on.
    fn board(name: &str, side: u32, (x, y): (u32, u32)) -> Strip {
        let mut board = Strip::new(side, side);
        for (cell_x, cell_y) in named(name).cells {
            board.set(x + cell_x, y + cell_y);
        }
        board
    }

    fn picture(name: &str) -> Vec<String> {
        let pattern = named(name);
        let cell = |x, y| if pattern.cells.contains(&(x, y)) { 'O' } else { '.' };
        (0..pattern.height).map(|y| (0..pattern.width).map(|x| cell(x, y)).collect()).collect()
    }

    fn rows(board: &Strip) -> Vec<Vec<u64>> {
        board.rows().map(<[u64]>::to_vec).collect()
    }

    #[test]
    fn the_small_ones_look_as_they_should() {
        assert_eq!(picture("r-pentomino"), [".OO", "OO.", ".O."]);
        assert_eq!(picture("acorn"), [".O.....", "...O...", "OO..OOO"]);
        assert_eq!(picture("glider"), [".O.", "..O", "OOO"]);
    }

    #[test]
    fn a_glider_glides_around_the_torus() {
        let mut moving = board("glider", 70, (65, 60));
        for _ in 0..4 {
            moving.step_as_board();
        }
        assert_eq!(rows(&moving), rows(&board("glider", 70, (66, 61))));
        for _ in 4..4 * 70 {
            moving.step_as_board();
        }
        assert_eq!(rows(&moving), rows(&board("glider", 70, (65, 60))));
    }

    #[test]
    fn the_gun_fires_every_thirty_generations() {
        let mut gun = board("gosper-gun", 256, (10, 10));
        assert_eq!(gun.population(), 36);
        for gliders in 1..=5 {
            for _ in 0..30 {
                gun.step_as_board();
            }
            assert_eq!(gun.population(), 36 + 5 * gliders);
        }
    }

    #[test]
    fn the_r_pentomino_settles_into_116_cells() {
        let mut board = board("r-pentomino", 512, (256, 256));
        for _ in 0..1103 {
            board.step_as_board();
        }
        assert_eq!(board.population(), 116);
    }

    /// Twenty-two thousand million cells: a moment for optimised code, and too long without.
    #[cfg(not(debug_assertions))]
    #[test]
    fn the_acorn_settles_into_633_cells() {
        let mut board = board("acorn", 2048, (1024, 1024));
        for _ in 0..5206 {
            board.step_as_board();
        }
        assert_eq!(board.population(), 633);
    }
}
