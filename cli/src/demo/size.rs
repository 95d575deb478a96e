//! The size of the board, as it is given on the command line.

use std::{fmt, num::IntErrorKind, ops::RangeInclusive, str::FromStr};

/// How many cells a side may have. With fewer than three, a torus would count one cell as two neighbours.
pub(crate) const SIDE_CELLS: RangeInclusive<u32> = 3..=65536;

/// The size of a board in cells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BoardSize {
    /// Cells in a row.
    pub(crate) width: u32,
    /// Rows.
    pub(crate) height: u32,
}

/// A text that is not the size of a board.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SizeError {
    /// A side is not a whole number.
    #[error("`{side}` in the board size `{text}` is not a whole number: write `4096`, or `4096x2048`")]
    NotANumber {
        /// The side as it was written.
        side: String,
        /// The whole size as it was written.
        text: String,
    },
    /// A side is a number that no board may have.
    #[error(
        "`{side}` in the board size `{text}` is out of range: a side has {} to {} cells",
        SIDE_CELLS.start(),
        SIDE_CELLS.end()
    )]
    OutOfRange {
        /// The side as it was written.
        side: String,
        /// The whole size as it was written.
        text: String,
    },
}

impl FromStr for BoardSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let (width, height) = text.split_once(['x', 'X']).unwrap_or((text, text));
        Ok(BoardSize { width: side(width, text)?, height: side(height, text)? })
    }
}

impl fmt::Display for BoardSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

fn side(side: &str, text: &str) -> Result<u32, SizeError> {
    let out_of_range = || SizeError::OutOfRange { side: side.to_owned(), text: text.to_owned() };
    match side.trim().parse::<i64>() {
        Ok(cells) => {
            u32::try_from(cells).ok().filter(|cells| SIDE_CELLS.contains(cells)).ok_or_else(out_of_range)
        }
        Err(error) => match error.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => Err(out_of_range()),
            _ => Err(SizeError::NotANumber { side: side.to_owned(), text: text.to_owned() }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_is_a_square() {
        assert_eq!("4096".parse(), Ok(BoardSize { width: 4096, height: 4096 }));
        assert_eq!("4096x2048".parse(), Ok(BoardSize { width: 4096, height: 2048 }));
        assert_eq!("65536 X 3".parse(), Ok(BoardSize { width: 65536, height: 3 }));
        assert_eq!("7x9".parse::<BoardSize>().unwrap().to_string(), "7x9");
    }

    #[test]
    fn a_side_that_is_no_number_is_named() {
        for (text, side) in
            [("", ""), ("axb", "a"), ("4x", ""), ("4x4x4", "4x4"), ("1e3", "1e3"), ("4.5", "4.5")]
        {
            let error = SizeError::NotANumber { side: side.to_owned(), text: text.to_owned() };
            assert_eq!(text.parse::<BoardSize>(), Err(error), "{text}");
        }
        assert_eq!(
            "axb".parse::<BoardSize>().unwrap_err().to_string(),
            "`a` in the board size `axb` is not a whole number: write `4096`, or `4096x2048`"
        );
    }

    #[test]
    fn a_side_out_of_range_is_named() {
        let huge = "9".repeat(40);
        for side in ["0", "2", "-5", "65537", "4294967299", &huge] {
            let text = format!("64x{side}");
            let error = SizeError::OutOfRange { side: side.to_owned(), text: text.clone() };
            assert_eq!(text.parse::<BoardSize>(), Err(error), "{text}");
        }
        assert_eq!(
            "0".parse::<BoardSize>().unwrap_err().to_string(),
            "`0` in the board size `0` is out of range: a side has 3 to 65536 cells"
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".{0,20}") {
            let _ = text.parse::<BoardSize>();
        }
    }
}
